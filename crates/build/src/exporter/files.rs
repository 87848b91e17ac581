// SPDX-License-Identifier: Apache-2.0
//! Trees as files: a directory, or one tar archive.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use polyarch_oci::{Hasher, Platform};
use polyarch_snapshot::{CopySource, CopySpec, KeepAll, Kind, LayerTimes, SnapshotId, TreeRoot, copy};
use polyarch_solver::progress::Progress;

use super::PlatformTree;
use super::attestations::{self, Attestation, Subject, attest};
use super::bills::bills;
use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking};
use crate::ops::file::commit;
use crate::output_file::write_file;
use crate::request::{BuildRequest, Destination, Output};
use crate::services::Services;

/// Mode of the files of attestations.
const ATTESTATION_MODE: u32 = 0o600;

/// Directories within directories deeper than this are no work of a build.
const MAX_DEPTH: usize = 1024;

/// One platform's files.
struct FileTree {
    platform: Platform,
    /// Where they go, `/` or `/linux_arm64`.
    prefix: String,
    layers: Vec<SnapshotId>,
    /// What is said about them.
    attested: Vec<Attestation>,
}

/// What is written of trees.
struct FileWriter {
    services: Arc<Services>,
    trees: Vec<FileTree>,
    /// Whether several platforms share one directory.
    is_shared: bool,
    epoch: Option<i64>,
    attestation_prefix: String,
}

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
        let vertex = progress.begin(&format!("exporting files {number}"), name);
        let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
        let mut trees = Vec::new();
        for platform in platforms {
            let prefix =
                if split { format!("/{}", platform.draft.platform.directory_name()) } else { "/".to_owned() };
            let layers = services.directories(&platform.tree, &shown).await?;
            let wanted = attestations::of_files(request);
            let bills = bills(services, request, &wanted, platform, &shown).await?;
            let attested = attest(&wanted, platform, &[], bills);
            let name = platform.draft.platform.clone();
            trees.push(FileTree { platform: name, prefix, layers, attested });
        }
        let writer = FileWriter {
            services: services.clone(),
            is_shared: !split && trees.len() > 1,
            trees,
            epoch: request.source_date_epoch,
            attestation_prefix: request.image.attestation_prefix.clone(),
        };
        let output = output.clone();
        let result = blocking(move || match &output {
            Output::Local { destination, .. } => writer.write_directory(destination),
            Output::Tar { destination, .. } => writer.write_tar(destination),
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

impl FileWriter {
    /// Copies trees below a directory. Files belong to who exports, as with any copy.
    fn write_directory(&self, destination: &Path) -> Result<(), BuildError> {
        std::fs::create_dir_all(destination)
            .map_err(|error| BuildError::io("can't make the output directory", destination, &error))?;
        let failed = |error| self.services.snapshot_error("can't export the files", &error);
        let into = TreeRoot::open(destination).map_err(failed)?;
        self.copy_trees(&into, Some((0, 0)))
    }

    fn copy_trees(&self, into: &TreeRoot, owner: Option<(u32, u32)>) -> Result<(), BuildError> {
        let failed = |error| self.services.snapshot_error("can't export the files", &error);
        let sources = [CopySource { pattern: ".".to_owned(), allow_wildcard: false }];
        let mut taken: HashMap<PathBuf, &Platform> = HashMap::new();
        let mut views = Vec::new();
        for tree in &self.trees {
            let source = self.services.snapshots.view(&tree.layers).map_err(failed)?;
            if self.is_shared {
                self.claim(&source, &tree.platform, &mut taken)?;
            }
            views.push(source);
        }
        for (tree, source) in self.trees.iter().zip(&views) {
            let prefix = &tree.prefix;
            let destination = if prefix == "/" { "/".to_owned() } else { format!("{prefix}/") };
            let spec = CopySpec {
                source,
                sources: &sources,
                filter: &KeepAll,
                matcher: &|pattern, name| pattern == name,
                destination: &destination,
                owner,
                mode: None,
                unpack: false,
                unpack_owner: None,
                modified: None,
                within: None,
                created_mode: 0o755,
                keeps_directories: false,
                follows_links: true,
                needs_match: false,
            };
            copy(&spec, into).map_err(failed)?;
            self.write_attestations(tree, source, &destination, into)?;
        }
        Ok(())
    }

    /// Notes which platform has which files; two can't have the same one.
    fn claim<'a>(
        &self,
        source: &TreeRoot,
        platform: &'a Platform,
        taken: &mut HashMap<PathBuf, &'a Platform>,
    ) -> Result<(), BuildError> {
        self.walk(source, Path::new(""), 0, &mut |path, _| match taken.insert(path.to_owned(), platform) {
            None => Ok(()),
            Some(other) => {
                let path = path.display();
                let message = format!(
                    "cannot overwrite {path} from {other} with {platform} when split option is disabled"
                );
                Err(BuildError::new(ErrorKind::Usage, message).with_hint("leave out platform-split=false"))
            }
        })
    }

    /// Writes what is said about a tree beside its files, about every file by its digest.
    fn write_attestations(
        &self,
        tree: &FileTree,
        source: &TreeRoot,
        directory: &str,
        into: &TreeRoot,
    ) -> Result<(), BuildError> {
        if tree.attested.is_empty() {
            return Ok(());
        }
        let failed = |error| self.services.snapshot_error("can't write an attestation", &error);
        let mut subjects = Vec::new();
        self.walk(source, Path::new(""), 0, &mut |path, kind| {
            if kind == Kind::File {
                subjects.push(self.subject(source, path)?);
            }
            Ok(())
        })?;
        let mut names = HashSet::new();
        for attestation in &tree.attested {
            let name = self.file_name(&attestation.file_name, &tree.platform);
            if !names.insert(name.clone()) {
                let message = format!("duplicate attestation path name {name}");
                return Err(BuildError::new(ErrorKind::Usage, message));
            }
            let bytes = attestation.indented(&subjects);
            let path = format!("{directory}{name}");
            into.write_file(&path, &bytes, ATTESTATION_MODE, (0, 0)).map_err(failed)?;
        }
        Ok(())
    }

    /// Returns the name of an attestation's file, with its platform where several share a directory.
    fn file_name(&self, name: &str, platform: &Platform) -> String {
        let name = format!("{}{name}", self.attestation_prefix);
        if !self.is_shared {
            return name;
        }
        let platform = platform.directory_name();
        match name.rsplit_once('.') {
            Some((stem, extension)) => format!("{stem}.{platform}.{extension}"),
            None => format!("{name}.{platform}"),
        }
    }

    fn subject(&self, source: &TreeRoot, path: &Path) -> Result<Subject, BuildError> {
        let failed = |error| self.services.snapshot_error("can't read a file of the result", &error);
        let mut file = source.open_file(path).map_err(failed)?;
        let mut hasher = Hasher::sha256();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = file.read(&mut buffer).map_err(|error| {
                BuildError::new(ErrorKind::Storage, format!("can't read {}: {error}", path.display()))
            })?;
            if count == 0 {
                return Ok(Subject::new(path.to_string_lossy().into_owned(), &hasher.finish()));
            }
            hasher.update(&buffer[..count]);
        }
    }

    /// Visits all but directories, by name.
    fn walk(
        &self,
        source: &TreeRoot,
        directory: &Path,
        depth: usize,
        visit: &mut dyn FnMut(&Path, Kind) -> Result<(), BuildError>,
    ) -> Result<(), BuildError> {
        let failed = |error| self.services.snapshot_error("can't read the files of the result", &error);
        if depth > MAX_DEPTH {
            let message = format!("the result has more than {MAX_DEPTH} directories within each other");
            return Err(BuildError::new(ErrorKind::Usage, message));
        }
        for (name, kind) in source.read_dir(directory).map_err(failed)? {
            let path = directory.join(name);
            match kind {
                Kind::Directory => self.walk(source, &path, depth + 1, visit)?,
                kind => visit(&path, kind)?,
            }
        }
        Ok(())
    }

    /// Writes trees as one archive: they are laid side by side in a fresh layer, whose tar is what is wanted.
    fn write_tar(&self, destination: &Destination) -> Result<(), BuildError> {
        let services = &self.services;
        let failed = |error| services.snapshot_error("can't export the files", &error);
        let active = services.snapshots.prepare(&[]).map_err(failed)?;
        {
            let into = active.tree().map_err(failed)?;
            self.copy_trees(&into, None)?;
        }
        let layer = commit(services, active)?;
        let times = LayerTimes { clamp: self.epoch, ..LayerTimes::default() };
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
                Err(error) => Err(BuildError::of_output(
                    ErrorKind::Registry,
                    format!("can't send the archive: {error}"),
                )),
            },
            Destination::Path(path) => write_file(&PathBuf::from(path), |out| write(out)),
        };
        if let Some(id) = &layer {
            // A leftover is swept by the next prune.
            let _ = services.snapshots.remove(id);
        }
        result
    }
}
