// SPDX-License-Identifier: Apache-2.0
//! Trees as files: a directory, or one tar archive.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polyarch_snapshot::{CopySource, CopySpec, KeepAll, LayerTimes, SnapshotId, TreeRoot, copy};
use polyarch_solver::progress::Progress;

use super::PlatformTree;
use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking};
use crate::ops::file::commit;
use crate::output_file::write_file;
use crate::request::{BuildRequest, Destination, Output};
use crate::services::Services;

/// Serves the `local` and `tar` outputs.
pub(super) async fn export(
    services: &Arc<Services>,
    request: &BuildRequest,
    platforms: &[PlatformTree],
    progress: &Progress,
) -> Result<(), BuildError> {
    for (number, output) in request.outputs.iter().enumerate() {
        let (name, split) = match output {
            Output::Local { platform_split, .. } => ("exporting to client directory", *platform_split),
            Output::Tar { platform_split, .. } => ("exporting to client tarball", *platform_split),
            Output::Image { .. } | Output::Oci { .. } | Output::Docker { .. } | Output::CacheOnly => continue,
        };
        let split = split.unwrap_or(platforms.len() > 1);
        if !split && platforms.len() > 1 {
            let message =
                "files of several platforms can't share one directory: they would replace each other";
            return Err(
                BuildError::new(ErrorKind::Usage, message).with_hint("leave out platform-split=false")
            );
        }
        let vertex = progress.begin(&format!("exporting files {number}"), name);
        let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
        let mut trees = Vec::new();
        for platform in platforms {
            let prefix =
                if split { format!("/{}", platform.draft.platform.directory_name()) } else { "/".to_owned() };
            trees.push((prefix, services.directories(&platform.tree, &shown).await?));
        }
        let (worker, output, epoch) = (services.clone(), output.clone(), request.source_date_epoch);
        let result = blocking(move || match &output {
            Output::Local { destination, .. } => write_directory(&worker, &trees, destination),
            Output::Tar { destination, .. } => write_tar(&worker, &trees, destination, epoch),
            _ => Ok(()),
        })
        .await;
        match result {
            Ok(()) => vertex.done(),
            Err(error) => {
                vertex.failed(&error);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Copies trees below a directory. Files belong to who exports, as with any copy.
fn write_directory(
    services: &Services,
    trees: &[(String, Vec<SnapshotId>)],
    destination: &Path,
) -> Result<(), BuildError> {
    std::fs::create_dir_all(destination)
        .map_err(|error| BuildError::io("can't make the output directory", destination, &error))?;
    let failed = |error| services.snapshot_error("can't export the files", &error);
    let into = TreeRoot::open(destination).map_err(failed)?;
    copy_trees(services, trees, &into, Some((0, 0)))
}

fn copy_trees(
    services: &Services,
    trees: &[(String, Vec<SnapshotId>)],
    into: &TreeRoot,
    owner: Option<(u32, u32)>,
) -> Result<(), BuildError> {
    let failed = |error| services.snapshot_error("can't export the files", &error);
    let sources = [CopySource { pattern: ".".to_owned(), allow_wildcard: false }];
    for (prefix, ids) in trees {
        let source = services.snapshots.view(ids).map_err(failed)?;
        let destination = if prefix == "/" { "/".to_owned() } else { format!("{prefix}/") };
        let spec = CopySpec {
            source: &source,
            sources: &sources,
            filter: &KeepAll,
            matcher: &|pattern, name| pattern == name,
            destination: &destination,
            owner,
            mode: None,
            unpack: false,
            unpack_owner: None,
            modified: None,
        };
        copy(&spec, into).map_err(failed)?;
    }
    Ok(())
}

/// Writes trees as one archive: they are laid side by side in a fresh layer, whose tar is what is wanted.
fn write_tar(
    services: &Services,
    trees: &[(String, Vec<SnapshotId>)],
    destination: &Destination,
    epoch: Option<i64>,
) -> Result<(), BuildError> {
    let failed = |error| services.snapshot_error("can't export the files", &error);
    let active = services.snapshots.prepare(&[]).map_err(failed)?;
    {
        let into = active.tree().map_err(failed)?;
        copy_trees(services, trees, &into, None)?;
    }
    let layer = commit(services, active)?;
    let times = LayerTimes { clamp: epoch, ..LayerTimes::default() };
    let write = |out: &mut dyn Write| match &layer {
        Some(id) => services.snapshots.write_layer(id, &[], &times, &mut &mut *out).map_err(failed),
        // The end of an archive without entries: two blocks of zeros.
        None => out.write_all(&[0; 1024]).map_err(|error| {
            BuildError::new(ErrorKind::Storage, format!("can't write the archive: {error}"))
        }),
    };
    let result = match destination {
        Destination::Stdout => write(&mut io::stdout().lock()),
        Destination::Stream(stream) => match stream.take() {
            Ok(mut out) => write(&mut out),
            Err(error) => {
                Err(BuildError::of_output(ErrorKind::Registry, format!("can't send the archive: {error}")))
            }
        },
        Destination::Path(path) => write_file(&PathBuf::from(path), |out| write(out)),
    };
    if let Some(id) = &layer {
        // A leftover is swept by the next prune.
        let _ = services.snapshots.remove(id);
    }
    result
}
