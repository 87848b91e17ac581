// SPDX-License-Identifier: Apache-2.0
//! The directory of committed layers and of the ones being made (`docs/snapshot-format.md`).
//!
//! A layer appears under its final name by one rename and never changes afterwards, so readers need no
//! lock. Whoever removes layers has to know that nobody uses them.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use polyarch_oci::DiffId;
use polyarch_oci::media_type::Compression;

use crate::active::ActiveSnapshot;
use crate::attributes::is_opaque;
use crate::disk_usage::DiskUsage;
use crate::error::{At, SnapshotError};
use crate::id::SnapshotId;
use crate::layer::UnpackedLayer;
use crate::layer_stream::ApplyLimits;
use crate::layer_write::{LayerTimes, write_layer};
use crate::merge::{HardLinks, merge};
use crate::meta::{Meta, Time, names, open_directory, open_host_directory};
use crate::overlay;
use crate::records::Records;
use crate::remove::remove_tree;
use crate::stack::{Stack, StackLayer};
use crate::tree::{Backing, Notes, TreeRoot};
use crate::workspace::{Workspace, sweep};

const FILES: &str = "fs";
const OWNERS: &str = "owners";

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
pub struct Snapshots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    options: SnapshotOptions,
    mode: OnceLock<TreeMode>,
}

/// What a committed snapshot occupies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotUsage {
    /// Its name.
    pub id: SnapshotId,
    /// Allocated bytes on disk.
    pub size_bytes: u64,
    /// When it was committed; where the file system doesn't tell, when it was last used.
    pub committed: SystemTime,
    /// When it was last used ([`Snapshots::mark_used`]), or committed.
    pub used: SystemTime,
}

impl Snapshots {
    /// Opens the store at a directory, which is made when missing.
    pub fn open(root: &Path, options: SnapshotOptions) -> Result<Snapshots, SnapshotError> {
        for name in ["layers", "active", "empty"] {
            let path = root.join(name);
            std::fs::create_dir_all(&path).at("create directory", &path)?;
        }
        // Paths are handed to mounts, which may happen in another working directory.
        let root = std::fs::canonicalize(root).at("resolve", root)?;
        Ok(Snapshots(Arc::new(Shared { root, options, mode: OnceLock::new() })))
    }

    /// Returns how trees are made here; the first call probes the kernel.
    pub fn mode(&self) -> &TreeMode {
        self.0.mode.get_or_init(|| {
            if self.0.options.force_copy {
                return TreeMode::Copy { reason: "asked for".to_owned() };
            }
            let probed = self.workspace().and_then(|workspace| {
                let path = workspace.path();
                overlay::probe(&path).at("use an overlay in", path)
            });
            match probed {
                Ok(()) => TreeMode::Overlay,
                Err(error) => TreeMode::Copy { reason: error.to_string() },
            }
        })
    }

    /// Tells whether a snapshot is committed.
    pub fn contains(&self, id: &SnapshotId) -> bool {
        std::fs::symlink_metadata(self.layer_path(id)).is_ok_and(|found| found.is_dir())
    }

    /// Returns the directory with a snapshot's files (in overlay form, not a tree to be shown).
    pub fn layer_path(&self, id: &SnapshotId) -> PathBuf {
        self.directory_of(id).join(FILES)
    }

    /// Lists committed snapshots with their sizes, in the order of their names; walks all of them.
    pub fn list(&self) -> Result<Vec<SnapshotUsage>, SnapshotError> {
        let layers = self.0.root.join("layers");
        let directory = open_host_directory(&layers).at("open", &layers)?;
        let mut usages = Vec::new();
        for name in names(&directory).at("list", &layers)? {
            // Anything else in there is not ours.
            let Some(id) = name.to_str().and_then(|name| name.parse::<SnapshotId>().ok()) else { continue };
            // Another process may be removing it.
            let Ok(layer) = open_directory(&directory, &name) else { continue };
            let meta = Meta::of(&layer).at("look at", layers.join(&name))?;
            let size_bytes = DiskUsage::default().add(&layers.join(&name))?;
            let used = meta.mtime.system_time();
            let committed = if meta.btime == Time::default() { used } else { meta.btime.system_time() };
            usages.push(SnapshotUsage { id, size_bytes, committed: committed.min(used), used });
        }
        Ok(usages)
    }

    /// Notes that a snapshot is of use now: its directory (not its files) gets the present time. Nobody minds
    /// when that fails, or when it isn't there.
    pub fn mark_used(&self, id: &SnapshotId) {
        if let Ok(directory) = std::fs::File::open(self.directory_of(id)) {
            let _ = directory.set_times(std::fs::FileTimes::new().set_modified(SystemTime::now()));
        }
    }

    /// Returns the directory of a committed snapshot with everything that belongs to it.
    pub fn directory(&self, id: &SnapshotId) -> PathBuf {
        self.directory_of(id)
    }

    /// Removes a committed snapshot; one that is not there is no error.
    ///
    /// The caller knows that nobody uses it. It is gone by one rename before its files are removed, so
    /// a crash leaves no half of it.
    pub fn remove(&self, id: &SnapshotId) -> Result<(), SnapshotError> {
        let workspace = self.workspace()?;
        let source = self.directory_of(id);
        match std::fs::rename(&source, workspace.path().join("removed")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", source),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes what crashed processes left behind, and returns how many leftovers there were.
    pub fn sweep(&self) -> Result<u64, SnapshotError> {
        sweep(&self.active_path())
    }

    /// Makes all committed snapshots durable (one `syncfs`).
    ///
    /// Until then a loss of power, unlike a crash of the process, may damage them; so it comes before
    /// anything durable is written that trusts them.
    pub fn sync(&self) -> Result<(), SnapshotError> {
        let directory = open_host_directory(&self.0.root).at("open", &self.0.root)?;
        rustix::fs::syncfs(&directory).at("sync", &self.0.root)
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
        stream: impl Read + Send,
        compression: Compression,
        limits: &ApplyLimits,
    ) -> Result<UnpackedLayer, SnapshotError> {
        UnpackedLayer::read(self, diff_id, stream, compression, limits)
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
        ActiveSnapshot::new(self, parents)
    }

    /// Shows `layers` (lowest first) as one read-only tree, of which changes must not be tried.
    pub fn view(&self, layers: &[SnapshotId]) -> Result<TreeRoot, SnapshotError> {
        let stack = self.stack(layers)?;
        if stack.layers.is_empty() {
            return TreeRoot::open(&self.empty_path());
        }
        match self.mode() {
            TreeMode::Overlay => {
                let empty = open_host_directory(&self.empty_path()).at("open", self.empty_path())?;
                let mut lower: Vec<BorrowedFd<'_>> =
                    stack.layers.iter().map(|layer| layer.directory.as_fd()).collect();
                // The kernel wants two at least, and hides whiteouts only in merged directories.
                if lower.len() == 1 {
                    lower.push(empty.as_fd());
                }
                let scratch = self.workspace()?;
                let overlay = overlay::mount(&lower, None, &scratch.path())?;
                let notes = Notes { layers: stack, own: None };
                Ok(TreeRoot::new(overlay.directory, Backing::Mount { _mount: overlay.mount }, notes))
            }
            TreeMode::Copy { .. } => {
                let workspace = self.workspace()?;
                let directory = open_host_directory(&workspace.path()).at("open", workspace.path())?;
                merge(&stack, HardLinks::Keep, &directory)?;
                let notes = Notes { layers: stack, own: None };
                Ok(TreeRoot::new(directory, Backing::Temporary { _directory: workspace }, notes))
            }
        }
    }

    /// Writes a snapshot as an uncompressed layer tar; the bytes depend on the tree and `times` alone.
    ///
    /// `parents` (lowest first) are the layers beneath it: they decide where an opaque directory hides
    /// anything, and what owners the disk could not express.
    pub fn write_layer(
        &self,
        id: &SnapshotId,
        parents: &[SnapshotId],
        times: &LayerTimes,
        out: &mut impl Write,
    ) -> Result<(), SnapshotError> {
        let layer = self.open_layer(id)?;
        let stack = self.stack(parents)?;
        write_layer(&layer, &stack, times, out)
    }

    pub(crate) fn active_path(&self) -> PathBuf {
        self.0.root.join("active")
    }

    /// Returns a directory that is always empty.
    pub(crate) fn empty_path(&self) -> PathBuf {
        self.0.root.join("empty")
    }

    pub(crate) fn workspace(&self) -> Result<Workspace, SnapshotError> {
        Workspace::create(&self.active_path())
    }

    /// Opens layers given lowest first, topmost first; what an opaque root hides is left out.
    pub(crate) fn stack(&self, ids: &[SnapshotId]) -> Result<Stack, SnapshotError> {
        let mut stack = Stack::default();
        for id in ids.iter().rev() {
            let layer = self.open_layer(id)?;
            let hides_all = is_opaque(&layer.directory).at("read xattrs of", &layer.path)?;
            stack.layers.push(layer);
            if hides_all {
                break;
            }
        }
        Ok(stack)
    }

    /// Commits a workspace whose files are in `fs`; `false` when the name is taken, and it goes.
    pub(crate) fn put(
        &self,
        workspace: Workspace,
        records: &Records,
        id: &SnapshotId,
    ) -> Result<bool, SnapshotError> {
        records.save(&workspace.path().join(OWNERS))?;
        workspace.rename_to(&self.directory_of(id))
    }

    fn directory_of(&self, id: &SnapshotId) -> PathBuf {
        self.0.root.join("layers").join(id.as_str())
    }

    fn open_layer(&self, id: &SnapshotId) -> Result<StackLayer, SnapshotError> {
        if !self.contains(id) {
            return Err(SnapshotError::NotFound { id: id.clone() });
        }
        StackLayer::open(&self.layer_path(id), &self.directory_of(id).join(OWNERS))
    }
}

/// Removes the directory `name` in the store's own directory `parent`.
pub(crate) fn remove_own(parent: &Path, name: &str) -> Result<(), SnapshotError> {
    let directory = open_host_directory(parent).at("open", parent)?;
    remove_tree(directory.as_fd(), name.as_ref()).at("remove", parent.join(name))
}
