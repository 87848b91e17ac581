// SPDX-License-Identifier: Apache-2.0
//! A tree that is being changed.
//!
//! With overlays its upper directory becomes the layer by a rename. Without, the tree is a copy, and
//! what changed in it since it was made is moved into a directory of the same form.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::attributes::{Attributes, clear_opaque, kept_xattrs};
use crate::error::{At, SnapshotError};
use crate::id::SnapshotId;
use crate::merge::{Baseline, HardLinks, check_depth, merge, take_changes};
use crate::meta::{Meta, names, open_directory, open_host_directory};
use crate::overlay::{self, Writable};
use crate::records::Records;
use crate::snapshots::{Snapshots, TreeMode, remove_own};
use crate::stack::Stack;
use crate::tree::{Backing, Notes, TreeRoot};
use crate::workspace::Workspace;

const FILES: &str = "fs";
const WORK: &str = "work";
const TREE: &str = "tree";

/// A committed snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// Whether the step changed nothing at all.
    pub is_empty: bool,
}

/// What the sandbox mounts as the root of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootMount {
    /// An overlay, to be mounted with `userxattr`, `volatile` and `index=off`.
    Overlay {
        /// Lower directories, topmost first; at least one.
        lower: Vec<PathBuf>,
        /// The upper directory.
        upper: PathBuf,
        /// An empty work directory for this mount alone.
        work: PathBuf,
    },
    /// A plain directory, to be bound.
    Dir(PathBuf),
}

/// A tree that is being changed; dropping it removes it.
#[derive(Debug)]
pub struct ActiveSnapshot {
    snapshots: Snapshots,
    workspace: Workspace,
    parents: Vec<SnapshotId>,
    records: Arc<Mutex<Records>>,
    mounts: AtomicU32,
    /// What the tree was like in the beginning, when it is a copy.
    baseline: Option<Baseline>,
}

impl ActiveSnapshot {
    pub(crate) fn new(snapshots: &Snapshots, parents: &[SnapshotId]) -> Result<Self, SnapshotError> {
        let stack = snapshots.stack(parents)?;
        let workspace = snapshots.workspace()?;
        let path = workspace.path();
        let make = |name: &str| {
            let path = path.join(name);
            std::fs::create_dir(&path).at("create directory", &path)?;
            Ok(path)
        };
        let files = make(FILES)?;
        let baseline = match snapshots.mode() {
            TreeMode::Overlay => {
                make(WORK)?;
                copy_root_attributes(&stack, &files)?;
                None
            }
            TreeMode::Copy { .. } => {
                let tree = make(TREE)?;
                let directory = open_host_directory(&tree).at("open", &tree)?;
                set_plain_root(&directory).at("set attributes of", &tree)?;
                merge(&stack, HardLinks::Break, &directory)?;
                Some(Baseline::of(&directory, &path.join("clock"))?)
            }
        };
        Ok(ActiveSnapshot {
            snapshots: snapshots.clone(),
            workspace,
            parents: parents.to_owned(),
            records: Arc::default(),
            mounts: AtomicU32::new(0),
            baseline,
        })
    }

    /// Returns the layers that this tree stands on, lowest first.
    pub fn parents(&self) -> &[SnapshotId] {
        &self.parents
    }

    /// Returns what a sandbox mounts as its root; each call makes a fresh work directory.
    ///
    /// No [`TreeRoot`] of this snapshot may be alive while the mount is.
    pub fn root_mount(&self) -> Result<RootMount, SnapshotError> {
        let path = self.workspace.path();
        if self.baseline.is_some() {
            return Ok(RootMount::Dir(path.join(TREE)));
        }
        let stack = self.snapshots.stack(&self.parents)?;
        let mut lower: Vec<PathBuf> = stack.layers.iter().map(|layer| layer.path.clone()).collect();
        if lower.is_empty() {
            lower.push(self.snapshots.empty_path());
        }
        Ok(RootMount::Overlay { lower, upper: path.join(FILES), work: self.fresh_work()? })
    }

    /// Opens the merged, writable tree for this process; it must be dropped before
    /// [`ActiveSnapshot::commit`].
    pub fn tree(&self) -> Result<TreeRoot, SnapshotError> {
        let stack = self.snapshots.stack(&self.parents)?;
        let path = self.workspace.path();
        if self.baseline.is_some() {
            let tree = path.join(TREE);
            let directory = open_host_directory(&tree).at("open", &tree)?;
            let notes = Notes { layers: stack, own: Some(Arc::clone(&self.records)) };
            return Ok(TreeRoot::new(directory, Backing::None, notes));
        }
        let empty_path = self.snapshots.empty_path();
        let empty = open_host_directory(&empty_path).at("open", &empty_path)?;
        let mut lower: Vec<BorrowedFd<'_>> =
            stack.layers.iter().map(|layer| layer.directory.as_fd()).collect();
        if lower.is_empty() {
            lower.push(empty.as_fd());
        }
        let (upper, work) = (path.join(FILES), self.fresh_work()?);
        let scratch = self.snapshots.workspace()?;
        let writable = Writable { upper: &upper, work: &work };
        let overlay = overlay::mount(&lower, Some(writable), &scratch.path())?;
        let notes = Notes { layers: stack, own: Some(Arc::clone(&self.records)) };
        Ok(TreeRoot::new(overlay.directory, Backing::Mount { _mount: overlay.mount }, notes))
    }

    /// Makes the changes a committed snapshot; when the name is taken, that one stays and this goes.
    ///
    /// Nothing may have the tree mounted or open any more. It is not durable before
    /// [`Snapshots::sync`].
    pub fn commit(self, id: SnapshotId) -> Result<Snapshot, SnapshotError> {
        let path = self.workspace.path();
        let files = path.join(FILES);
        let directory = open_host_directory(&files).at("open", &files)?;
        match &self.baseline {
            None => remove_own(&path, WORK)?,
            Some(baseline) => {
                let tree = path.join(TREE);
                let source = open_host_directory(&tree).at("open", &tree)?;
                take_changes(&source, baseline, &directory)?;
                remove_own(&path, TREE)?;
            }
        }
        if self.parents.is_empty() {
            // The kernel marks new directories also where there is nothing to hide; a layer that was made on
            // nothing may be put on top of any other.
            clear_marks(&directory, Path::new(""), 0)?;
        }
        let is_empty = names(&directory).at("list", &files)?.is_empty();
        let records = std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner));
        // From here on the snapshot exists, or another one of its name does.
        self.snapshots.put(self.workspace, &records, &id)?;
        Ok(Snapshot { id, is_empty })
    }

    /// A work directory cannot be used by two mounts, and not again after a volatile one.
    fn fresh_work(&self) -> Result<PathBuf, SnapshotError> {
        let number = self.mounts.fetch_add(1, Ordering::Relaxed);
        let work = self.workspace.path().join(WORK).join(number.to_string());
        std::fs::create_dir(&work).at("create directory", &work)?;
        Ok(work)
    }
}

/// Takes the marks of overlayfs from all directories beneath one, and from itself.
fn clear_marks(directory: &OwnedFd, path: &Path, depth: usize) -> Result<(), SnapshotError> {
    check_depth(path, depth)?;
    clear_opaque(directory).at("clear the mark of", path)?;
    for name in names(directory).at("list", path)? {
        let below = path.join(&name);
        if Meta::find(directory, &name).at("look at", &below)?.is_some_and(|meta| meta.is_directory()) {
            let inner = open_directory(directory, &name).at("open", &below)?;
            clear_marks(&inner, &below, depth + 1)?;
        }
    }
    Ok(())
}

/// Gives the upper directory's root what the merged root had: it is what the tree's root will show.
fn copy_root_attributes(stack: &Stack, files: &Path) -> Result<(), SnapshotError> {
    let directory = open_host_directory(files).at("open", files)?;
    let Some(top) = stack.layers.first() else {
        return set_plain_root(&directory).at("set attributes of", files);
    };
    let meta = Meta::of(&top.directory).at("look at", &top.path)?;
    let xattrs = kept_xattrs(&top.directory).at("read xattrs of", &top.path)?;
    let attributes =
        Attributes { owner: (meta.uid, meta.gid), mode: meta.mode, mtime: Some(meta.mtime), xattrs: &xattrs };
    attributes.set_on(&directory).at("set attributes of", files).map(drop)
}

/// Without a layer that says otherwise, a tree's root belongs to root and is open to all.
fn set_plain_root(directory: &OwnedFd) -> std::io::Result<()> {
    let attributes = Attributes { owner: (0, 0), mode: 0o755, mtime: Some(Default::default()), xattrs: &[] };
    attributes.set_on(directory).map(drop)
}
