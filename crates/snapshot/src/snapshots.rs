// SPDX-License-Identifier: Apache-2.0
//! The directory of committed layers and of the ones being made.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use polyarch_oci::DiffId;
use polyarch_oci::media_type::Compression;

use crate::error::SnapshotError;
use crate::id::SnapshotId;
use crate::layer::{ApplyLimits, LayerTimes, UnpackedLayer};
use crate::tree::TreeRoot;

/// How [`Snapshots`] behave.
#[derive(Debug, Clone, Default)]
pub struct SnapshotOptions {
    /// Makes trees by copying even where overlays can be mounted.
    pub force_copy: bool,
}

/// How writable trees are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeMode {
    /// By mounting overlays.
    Overlay,
    /// By copying, with reflinks where the file system has them.
    Copy {
        /// Why no overlay can be had, for people.
        reason: String,
    },
}

/// The store of layer directories; clones share it, and several processes may use one directory.
#[derive(Debug, Clone)]
pub struct Snapshots {
    root: PathBuf,
}

/// A committed snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// Whether the step changed nothing at all.
    pub is_empty: bool,
}

/// What a committed snapshot occupies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotUsage {
    /// Its name.
    pub id: SnapshotId,
    /// Allocated bytes on disk.
    pub size_bytes: u64,
    /// When it was committed.
    pub committed: SystemTime,
}

/// What the sandbox mounts as the root of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootMount {
    /// An overlay, to be mounted with `userxattr` and `volatile`.
    Overlay {
        /// Lower directories, topmost first.
        lower: Vec<PathBuf>,
        /// The upper directory.
        upper: PathBuf,
        /// An empty work directory for this mount alone.
        work: PathBuf,
    },
    /// A plain directory, to be bound.
    Dir(PathBuf),
}

impl Snapshots {
    /// Opens the store at a directory, which is made when missing.
    pub fn open(root: &Path, _options: SnapshotOptions) -> Result<Snapshots, SnapshotError> {
        Ok(Snapshots { root: root.to_owned() })
    }

    /// Returns how trees are made here; the first call probes the kernel.
    pub fn mode(&self) -> &TreeMode {
        &TreeMode::Overlay
    }

    /// Tells whether a snapshot is committed.
    pub fn contains(&self, id: &SnapshotId) -> bool {
        self.layer_path(id).exists()
    }

    /// Returns the directory with a snapshot's files (in overlay form, not a tree to be shown).
    pub fn layer_path(&self, id: &SnapshotId) -> PathBuf {
        self.root.join("layers").join(id.as_str()).join("fs")
    }

    /// Lists committed snapshots with their sizes; walks all of them.
    pub fn list(&self) -> Result<Vec<SnapshotUsage>, SnapshotError> {
        Err(SnapshotError::Unfinished { what: "list".into() })
    }

    /// Removes a committed snapshot; one that is not there is no error.
    ///
    /// The caller knows that nobody uses it.
    pub fn remove(&self, id: &SnapshotId) -> Result<(), SnapshotError> {
        Err(SnapshotError::Unfinished { what: id.to_string() })
    }

    /// Removes what crashed processes left behind, and returns how many leftovers there were.
    pub fn sweep(&self) -> Result<u64, SnapshotError> {
        Err(SnapshotError::Unfinished { what: "sweep".into() })
    }

    /// Makes all committed snapshots durable (one `syncfs`).
    pub fn sync(&self) -> Result<(), SnapshotError> {
        Err(SnapshotError::Unfinished { what: "sync".into() })
    }

    /// Returns the snapshot of an image layer on top of `parents` (lowest first) when it is there.
    pub fn find_layer(&self, diff_id: &DiffId, parents: &[SnapshotId]) -> Option<SnapshotId> {
        [SnapshotId::of_layer(diff_id), SnapshotId::of_chain(parents, diff_id)]
            .into_iter()
            .find(|id| self.contains(id))
    }

    /// Decompresses, verifies and unpacks a layer without knowing the layers beneath it, so that
    /// all layers of an image can be unpacked at once.
    pub fn unpack(
        &self,
        diff_id: &DiffId,
        _stream: impl Read + Send,
        compression: Compression,
        limits: &ApplyLimits,
    ) -> Result<UnpackedLayer, SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{diff_id} {compression:?} {limits:?}") })
    }

    /// Decompresses, verifies and unpacks a layer on top of `parents` (lowest first).
    ///
    /// Concurrent calls for the same layer are fine. A layer that is there already is not read.
    pub fn apply(
        &self,
        diff_id: &DiffId,
        stream: impl Read + Send,
        compression: Compression,
        parents: &[SnapshotId],
        limits: &ApplyLimits,
    ) -> Result<SnapshotId, SnapshotError> {
        if let Some(id) = self.find_layer(diff_id, parents) {
            return Ok(id);
        }
        self.unpack(diff_id, stream, compression, limits)?.finish(parents)
    }

    /// Starts a writable tree on top of `parents` (lowest first).
    pub fn prepare(&self, parents: &[SnapshotId]) -> Result<ActiveSnapshot, SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{parents:?}") })
    }

    /// Shows `layers` (lowest first) as one read-only tree.
    pub fn view(&self, layers: &[SnapshotId]) -> Result<TreeRoot, SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{layers:?}") })
    }

    /// Writes a snapshot as an uncompressed layer tar; the bytes depend on the tree and `times` alone.
    pub fn write_layer(
        &self,
        id: &SnapshotId,
        parents: &[SnapshotId],
        times: &LayerTimes,
        _out: &mut impl Write,
    ) -> Result<(), SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{id} {parents:?} {times:?}") })
    }
}

/// A tree that is being changed; dropping it removes it.
#[derive(Debug)]
pub struct ActiveSnapshot {
    directory: PathBuf,
}

impl ActiveSnapshot {
    /// Returns what a sandbox mounts as its root; each call makes a fresh work directory.
    ///
    /// No [`TreeRoot`] of this snapshot may be alive while the mount is.
    pub fn root_mount(&self) -> Result<RootMount, SnapshotError> {
        Ok(RootMount::Dir(self.directory.clone()))
    }

    /// Opens the merged, writable tree for this process; it must be dropped before
    /// [`ActiveSnapshot::commit`].
    pub fn tree(&self) -> Result<TreeRoot, SnapshotError> {
        Err(SnapshotError::Unfinished { what: "tree".into() })
    }

    /// Makes the changes a committed snapshot; when the name is taken, that one stays and this goes.
    pub fn commit(self, id: SnapshotId) -> Result<Snapshot, SnapshotError> {
        Ok(Snapshot { id, is_empty: false })
    }
}
