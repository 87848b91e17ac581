// SPDX-License-Identifier: Apache-2.0
//! What nobody needs any more, removed.

use std::collections::HashSet;
use std::time::Duration;

use polyarch_oci::Digest;
use polyarch_snapshot::SnapshotId;

use crate::check::GOOD_PROGRAMS;
use crate::error::{BuildError, ErrorKind, chain_of};
use crate::image_source::{RESOLUTIONS, storage_error};
use crate::layer_contents::LAYER_CONTENTS;
use crate::layers::LAYER_BLOBS;
use crate::ops::file::CONTENT_KEYS;
use crate::services::ServiceOptions;
use crate::tree::{Layer, Tree};

/// How long a prune waits for builds to end.
const WAIT: Duration = Duration::from_secs(5);

/// What a prune removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PruneReport {
    /// Layer directories and their bytes.
    pub layers: (u64, u64),
    /// Blobs and their bytes.
    pub blobs: (u64, u64),
    /// Records.
    pub records: u64,
}

/// Removes the build cache: with `all` every record and layer directory, without it only what no
/// record names. Images under names stay in either case.
///
/// # Errors
/// When a build is using the store, or the disk fails.
pub fn prune(options: &ServiceOptions, all: bool) -> Result<PruneReport, BuildError> {
    let store = polyarch_store::Store::open(&options.root).map_err(|error| storage_error(&error))?;
    let mut store = store.lock_exclusive(WAIT).map_err(|error| {
        storage_error(&error).with_hint("wait until the running builds have ended, or stop them")
    })?;
    let failed =
        |error: polyarch_snapshot::SnapshotError| BuildError::new(ErrorKind::Storage, chain_of(&error));
    let snapshots = polyarch_snapshot::Snapshots::open(
        &options.snapshot_directory(),
        polyarch_snapshot::SnapshotOptions { force_copy: options.force_copy },
    )
    .map_err(failed)?;
    let mut report = PruneReport::default();
    if all {
        let steps = options.step_namespace();
        for namespace in [steps, LAYER_BLOBS, CONTENT_KEYS, RESOLUTIONS, LAYER_CONTENTS, GOOD_PROGRAMS] {
            let records = store.records(namespace).map_err(|error| storage_error(&error))?;
            let keys: Vec<String> = records.filter_map(|record| Some(record.ok()?.0)).collect();
            for key in keys {
                report.records +=
                    u64::from(store.remove_record(namespace, &key).map_err(|error| storage_error(&error))?);
            }
        }
    }
    let mut used: HashSet<SnapshotId> = HashSet::new();
    let mut kept_blobs: Vec<Digest> = Vec::new();
    for record in store.records(options.step_namespace()).map_err(|error| storage_error(&error))? {
        let Ok((_, bytes)) = record else { continue };
        let Ok(tree) = serde_json::from_slice::<Tree>(&bytes) else { continue };
        for layer in tree.layers {
            match layer {
                Layer::Step { id } => drop(used.insert(id)),
                Layer::Image(layer) => {
                    used.insert(SnapshotId::of_layer(&layer.diff_id));
                    kept_blobs.push(layer.descriptor.digest);
                }
            }
        }
    }
    for snapshot in snapshots.list().map_err(failed)? {
        // Layers whose meaning depends on those below have names of chains; they are cheap to make again.
        if !used.contains(&snapshot.id) {
            snapshots.remove(&snapshot.id).map_err(failed)?;
            report.layers.0 += 1;
            report.layers.1 += snapshot.size_bytes;
        }
    }
    snapshots.sweep().map_err(failed)?;
    let collected = store.gc(kept_blobs).map_err(|error| storage_error(&error))?;
    report.blobs = (collected.blobs.files, collected.blobs.bytes);
    // What is left of killed builds.
    let _ = std::fs::remove_dir_all(options.root.join("scratch"));
    Ok(report)
}
