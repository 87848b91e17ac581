// SPDX-License-Identifier: Apache-2.0
//! The few operations whose order decides what a crash leaves.
//!
//! Every sync, link, rename and removal of the server goes through [`Disk`], so that tests can cut the power
//! before any of them and look at what is left.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

/// A file or directory that could not be used.
#[derive(Debug, thiserror::Error)]
#[error("can't {action} {}", path.display())]
pub struct DiskError {
    /// What could not be done.
    pub action: &'static str,
    /// With what.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    pub(super) fn new<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DiskError + 'a {
        move |source| DiskError { action, path: path.to_owned(), source }
    }

    /// Tells whether there is no room: the disk is full, a quota is used up, or a file may be no larger.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
    }
}

/// Access to the operations; in tests it counts them and fails from a chosen one on.
#[derive(Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) power: super::power::Power,
}

impl Disk {
    /// Makes the bytes of a file durable.
    pub(super) fn sync_file(&self, file: &File, path: &Path) -> Result<(), DiskError> {
        #[cfg(test)]
        if self
            .power
            .step(super::power::Step::SyncFile(path.to_owned()))
            .map_err(DiskError::new("sync", path))?
        {
            return Ok(());
        }
        file.sync_all().map_err(DiskError::new("sync", path))
    }

    /// Makes the entries of a directory durable.
    pub(super) fn sync_dir(&self, path: &Path) -> Result<(), DiskError> {
        #[cfg(test)]
        if self
            .power
            .step(super::power::Step::SyncDir(path.to_owned()))
            .map_err(DiskError::new("sync", path))?
        {
            return Ok(());
        }
        File::open(path).and_then(|dir| dir.sync_all()).map_err(DiskError::new("sync", path))
    }

    /// Renames a file over whatever is there.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        #[cfg(test)]
        self.power
            .step(super::power::Step::Rename(from.to_owned(), to.to_owned()))
            .map_err(DiskError::new("rename a new file to", to))?;
        fs::rename(from, to).map_err(DiskError::new("rename a new file to", to))
    }

    /// Renames a directory to a name that is free; tells whether it was.
    pub(super) fn rename_new(&self, from: &Path, to: &Path) -> Result<bool, DiskError> {
        #[cfg(test)]
        self.power
            .step(super::power::Step::Rename(from.to_owned(), to.to_owned()))
            .map_err(DiskError::new("create", to))?;
        match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => Ok(false),
            // Some file systems (NFS) lack the flag; a directory that has files is never replaced either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => match fs::rename(from, to) {
                Ok(()) => Ok(true),
                Err(_) if to.is_dir() => Ok(false),
                Err(error) => Err(DiskError::new("create", to)(error)),
            },
            Err(errno) => Err(DiskError::new("create", to)(errno.into())),
        }
    }

    /// Gives a file one more name; the error is the file system's own.
    pub(super) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.power.step(super::power::Step::Link(from.to_owned(), to.to_owned()))?;
        let linked = fs::hard_link(from, to);
        #[cfg(test)]
        if linked.is_err() {
            self.power.forget_last();
        }
        linked
    }

    /// Removes a file; tells whether it was there.
    pub(super) fn remove(&self, path: &Path) -> Result<bool, DiskError> {
        #[cfg(test)]
        self.power
            .step(super::power::Step::Remove(path.to_owned()))
            .map_err(DiskError::new("remove", path))?;
        match fs::remove_file(path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(DiskError::new("remove", path)(error)),
        }
    }

    /// Makes a directory and its missing parents, durably; one that exists is fine.
    pub(super) fn ensure_dir(&self, path: &Path) -> Result<(), DiskError> {
        match fs::create_dir(path) {
            Ok(()) => path.parent().map_or(Ok(()), |parent| self.sync_dir(parent)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
                Some(parent) => {
                    self.ensure_dir(parent)?;
                    self.ensure_dir(path)
                }
                None => Err(DiskError::new("create", path)(error)),
            },
            Err(error) => Err(DiskError::new("create", path)(error)),
        }
    }
}

/// Lists a directory that may be missing: names that are text, sorted. Other names are not ours and are left alone.
pub(super) fn names_in(dir: &Path) -> Result<Vec<String>, DiskError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(DiskError::new("list", dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(DiskError::new("list", dir))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}
