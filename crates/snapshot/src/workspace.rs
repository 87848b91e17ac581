// SPDX-License-Identifier: Apache-2.0
//! Directories for work in progress: gone when dropped, and recognised as leftovers after a crash.
//!
//! A workspace `active/<name>` is held by a lock on `active/<name>.lock`, taken before the directory is
//! made and let go after it is gone. The lock ends with the process, so a directory whose lock is free
//! belongs to nobody.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::error::{At, SnapshotError};
use crate::meta::{names, open_host_directory};
use crate::remove::remove_tree;

const LOCK_SUFFIX: &str = ".lock";

/// A directory of one's own; removed when dropped, unless it was moved away.
#[derive(Debug)]
pub(crate) struct Workspace {
    parent: PathBuf,
    name: String,
    lock: Option<File>,
}

impl Workspace {
    /// Makes a directory with an unused name in `parent`.
    pub(crate) fn create(parent: &Path) -> Result<Workspace, SnapshotError> {
        loop {
            let mut random = [0; 12];
            getrandom::fill(&mut random)
                .map_err(|error| io::Error::other(error.to_string()))
                .at("name a directory in", parent)?;
            let name = hex::encode(random);
            let Some(lock) = take_lock(parent, &name)? else { continue };
            let workspace = Workspace { parent: parent.to_owned(), name, lock: Some(lock) };
            let path = workspace.path();
            std::fs::create_dir(&path).at("create directory", &path)?;
            return Ok(workspace);
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// Moves the directory to its final name; `false` when that name is taken, and this one goes.
    pub(crate) fn rename_to(self, target: &Path) -> Result<bool, SnapshotError> {
        let path = self.path();
        match std::fs::rename(&path, target) {
            Ok(()) => Ok(true),
            Err(error) if is_taken(&error) => Ok(false),
            Err(error) => Err(error).at("move into place", target),
        }
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty)
}

/// Makes and locks the lock file of a name; `None` when somebody took it away meanwhile.
fn take_lock(parent: &Path, name: &str) -> Result<Option<File>, SnapshotError> {
    let path = parent.join(format!("{name}{LOCK_SUFFIX}"));
    let lock =
        OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).at("create lock", &path)?;
    // A sweep may hold the lock of the just made file, about to remove it.
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let is_same = std::fs::metadata(&path)
        .ok()
        .zip(lock.metadata().ok())
        .is_some_and(|(named, held)| named.ino() == held.ino());
    Ok(is_same.then_some(lock))
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // Failure leaves a leftover that the next sweep finds; there is nobody to tell here.
        if let Ok(parent) = open_host_directory(&self.parent) {
            let gone = remove_tree(parent.as_fd(), OsStr::new(&self.name));
            if gone.is_ok() {
                let _ = std::fs::remove_file(self.parent.join(format!("{}{LOCK_SUFFIX}", self.name)));
            }
        }
        self.lock = None;
    }
}

/// Removes the workspaces in `parent` that belong to no living process; returns how many there were.
pub(crate) fn sweep(parent: &Path) -> Result<u64, SnapshotError> {
    let directory = open_host_directory(parent).at("open", parent)?;
    let listed = names(&directory).at("list", parent)?;
    let mut count = 0;
    for name in &listed {
        let text = name.to_string_lossy();
        if let Some(stem) = text.strip_suffix(LOCK_SUFFIX) {
            let path = parent.join(name);
            let Ok(lock) = File::open(&path) else { continue };
            if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            let target = parent.join(stem);
            let exists = std::fs::symlink_metadata(&target).is_ok();
            remove_tree(directory.as_fd(), OsStr::new(stem)).at("remove leftover", target)?;
            let _ = std::fs::remove_file(&path);
            count += u64::from(exists);
        } else {
            // The lock was there before the directory was; without one nobody holds it. It is looked
            // for anew because it may have been made after the listing.
            let mut lock_name = OsString::from(name);
            lock_name.push(LOCK_SUFFIX);
            if std::fs::symlink_metadata(parent.join(lock_name)).is_err() {
                remove_tree(directory.as_fd(), name).at("remove leftover", parent.join(name))?;
                count += 1;
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_goes_with_its_owner_and_a_leftover_with_the_sweep() {
        let base = tempfile::tempdir().unwrap();
        let alive = Workspace::create(base.path()).unwrap();
        let path = alive.path();
        std::fs::create_dir(path.join("closed")).unwrap();
        std::fs::create_dir(base.path().join("crashed")).unwrap();
        std::fs::write(base.path().join("crashed.lock"), "").unwrap();
        std::fs::create_dir(base.path().join("old")).unwrap();
        assert_eq!(sweep(base.path()).unwrap(), 2);
        assert!(path.exists());
        drop(alive);
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_taken_name_keeps_what_it_has() {
        let base = tempfile::tempdir().unwrap();
        let active = base.path().join("active");
        std::fs::create_dir(&active).unwrap();
        for (content, first) in [("one", true), ("two", false)] {
            let workspace = Workspace::create(&active).unwrap();
            std::fs::write(workspace.path().join("file"), content).unwrap();
            assert_eq!(workspace.rename_to(&base.path().join("layer")).unwrap(), first);
        }
        assert_eq!(std::fs::read_to_string(base.path().join("layer/file")).unwrap(), "one");
        assert_eq!(std::fs::read_dir(&active).unwrap().count(), 0);
    }
}
