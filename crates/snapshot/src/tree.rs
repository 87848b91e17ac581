// SPDX-License-Identifier: Apache-2.0
//! A directory tree seen through one file descriptor: no path given to it ever leaves it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::SnapshotError;

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
}

/// What is known about a directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// The permission bits with setuid, setgid and sticky: octal 0 to 7777.
    pub mode: u32,
    /// The user that owns it.
    pub uid: u32,
    /// The group that owns it.
    pub gid: u32,
    /// Size of the content, or of the link target.
    pub size_bytes: u64,
    /// When its content last changed.
    pub modified: SystemTime,
}

/// A directory tree; every path is resolved as if this directory were `/`.
///
/// Clones share the descriptor; what backs the tree (a mount, a temporary copy) goes with the last one.
#[derive(Debug, Clone)]
pub struct TreeRoot {
    directory: Arc<OwnedFd>,
}

impl TreeRoot {
    /// Opens a directory of the host, for instance a build context.
    pub fn open(path: &Path) -> Result<TreeRoot, SnapshotError> {
        Err(SnapshotError::Unfinished { what: path.display().to_string() })
    }

    /// Reads a whole file, following symlinks inside the tree; more than `cap` bytes is an error.
    pub fn read(&self, path: impl AsRef<Path>, cap: u64) -> Result<Vec<u8>, SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{:?} {cap}", path.as_ref()) })
    }

    /// Opens a regular file for reading, following symlinks inside the tree.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File, SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{:?}", path.as_ref()) })
    }

    /// Returns what a path leads to, following symlinks inside the tree; `None` when nothing is there.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{:?}", path.as_ref()) })
    }

    /// Returns what stands at a path itself, a symlink included; `None` when nothing is there.
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{:?}", path.as_ref()) })
    }

    /// Tells whether a path leads to anything, following symlinks inside the tree.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        matches!(self.metadata(path), Ok(Some(_)))
    }

    /// Returns the target of a symlink.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf, SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{:?}", path.as_ref()) })
    }

    /// Lists the names in a directory, sorted.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<(PathBuf, Kind)>, SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{:?}", path.as_ref()) })
    }

    /// Makes a directory and those above it that are missing; existing ones stay as they are.
    pub fn mkdir_all(
        &self,
        path: impl AsRef<Path>,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<(), SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{:?} {mode} {owner:?}", path.as_ref()) })
    }

    /// Writes a file anew (an existing file or symlink at the path is replaced), with missing
    /// directories above it made with mode 0755 and the same owner.
    pub fn write_file(
        &self,
        path: impl AsRef<Path>,
        bytes: &[u8],
        mode: u32,
        owner: (u32, u32),
    ) -> Result<(), SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{:?} {bytes:?} {mode} {owner:?}", path.as_ref()) })
    }

    /// Makes a symlink; an existing file or symlink at the path is replaced.
    pub fn symlink(
        &self,
        target: impl AsRef<Path>,
        path: impl AsRef<Path>,
        owner: (u32, u32),
    ) -> Result<(), SnapshotError> {
        Err(SnapshotError::Unfinished {
            what: format!("{:?} {:?} {owner:?}", path.as_ref(), target.as_ref()),
        })
    }

    /// Removes whatever stands at a path, a directory with all in it; nothing there is no error.
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<(), SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{:?}", path.as_ref()) })
    }

    /// Sets the modification time of what stands at a path itself.
    pub fn set_modified(&self, path: impl AsRef<Path>, time: SystemTime) -> Result<(), SnapshotError> {
        Err(SnapshotError::Unfinished { what: format!("{:?} {time:?}", path.as_ref()) })
    }
}

impl AsFd for TreeRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}
