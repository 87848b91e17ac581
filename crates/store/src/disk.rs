// SPDX-License-Identifier: Apache-2.0
//! The few operations whose order decides what a crash leaves.
//!
//! Every sync, rename and removal of the room goes through [`Disk`], so that tests can cut the power
//! before any of them and look at what is left.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};

use crate::StoreError;

/// Access to the operations; in tests it counts them and fails from a chosen one on.
#[derive(Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) power: power::Power,
}

impl Disk {
    /// Makes the bytes of a file durable.
    pub(crate) fn sync_file(&self, file: &File, path: &Path) -> Result<(), StoreError> {
        #[cfg(test)]
        if self.power.step(power::Step::SyncFile(path.to_owned()))? == power::Mode::Simulated {
            return Ok(());
        }
        file.sync_all().map_err(StoreError::io("sync", path))
    }

    /// Makes the entries of a directory durable.
    pub(crate) fn sync_dir(&self, path: &Path) -> Result<(), StoreError> {
        #[cfg(test)]
        if self.power.step(power::Step::SyncDir(path.to_owned()))? == power::Mode::Simulated {
            return Ok(());
        }
        File::open(path).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", path))
    }

    /// Makes everything on the file system of `dir` durable.
    pub(crate) fn sync_file_system(&self, dir: &File, path: &Path) -> Result<(), StoreError> {
        #[cfg(test)]
        if self.power.step(power::Step::SyncFileSystem)? == power::Mode::Simulated {
            return Ok(());
        }
        rustix::fs::syncfs(dir).map_err(|errno| StoreError::io("sync the file system of", path)(errno.into()))
    }

    /// Renames a file over whatever is there.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.power.step(power::Step::Rename(from.to_owned(), to.to_owned()))?;
        let renamed = fs::rename(from, to);
        #[cfg(test)]
        self.power.forget_failed(&renamed);
        renamed
    }

    /// Renames a file to a name that is free; fails with `AlreadyExists` when it is taken.
    pub(crate) fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.power.step(power::Step::Rename(from.to_owned(), to.to_owned()))?;
        let renamed = match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Some file systems (NFS) lack the flag; a hard link never replaces either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                fs::hard_link(from, to).and_then(|()| fs::remove_file(from))
            }
            other => other.map_err(io::Error::from),
        };
        #[cfg(test)]
        self.power.forget_failed(&renamed);
        renamed
    }

    /// Removes a file; one that is gone already is fine.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        #[cfg(test)]
        self.power.step(power::Step::Remove(path.to_owned()))?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes a directory and its missing parents, durably; one that exists is fine.
    pub(crate) fn ensure_dir(&self, path: &Path) -> Result<(), StoreError> {
        match fs::create_dir(path) {
            Ok(()) => path.parent().map_or(Ok(()), |parent| self.sync_dir(parent)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
                Some(parent) => {
                    self.ensure_dir(parent)?;
                    self.ensure_dir(path)
                }
                None => Err(StoreError::io("create", path)(error)),
            },
            Err(error) => Err(StoreError::io("create", path)(error)),
        }
    }
}

/// Lists a directory that may be missing: names that are text, sorted.
///
/// Everything below the root has a name of ours; other names are not ours and are left alone.
pub(crate) fn names_in(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(StoreError::io("list", dir))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list", dir))?;
        names.extend(entry.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
pub(crate) mod power {
    //! A power switch: from a chosen operation on, nothing happens any more.

    use std::io;
    use std::path::PathBuf;
    use std::sync::Mutex;

    use crate::StoreError;

    /// One operation, in the order in which they happened.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum Step {
        SyncFile(PathBuf),
        SyncDir(PathBuf),
        SyncFileSystem,
        Rename(PathBuf, PathBuf),
        Remove(PathBuf),
    }

    #[derive(Default)]
    pub(crate) struct Power {
        state: Mutex<State>,
    }

    #[derive(Default)]
    struct State {
        done: Vec<Step>,
        left: Option<usize>,
    }

    /// Whether syncs reach the kernel.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub(crate) enum Mode {
        Real,
        /// They are only written down, because the test decides what reaches the disk.
        Simulated,
    }

    impl Power {
        /// Lets `steps` more operations happen, syncs only in the log, and then none.
        pub(crate) fn cut_after(&self, steps: usize) {
            self.state.lock().unwrap().left = Some(steps);
        }

        /// Returns the operations so far.
        pub(crate) fn done(&self) -> Vec<Step> {
            self.state.lock().unwrap().done.clone()
        }

        pub(crate) fn step(&self, step: Step) -> Result<Mode, PowerCut> {
            let mut state = self.state.lock().unwrap();
            state.done.push(step);
            match &mut state.left {
                Some(0) => {
                    state.done.pop();
                    Err(PowerCut)
                }
                Some(left) => {
                    *left -= 1;
                    Ok(Mode::Simulated)
                }
                None => Ok(Mode::Real),
            }
        }

        /// Takes the last operation back if it failed: then it changed nothing.
        pub(crate) fn forget_failed(&self, result: &io::Result<()>) {
            if result.is_err() {
                self.state.lock().unwrap().done.pop();
            }
        }
    }

    /// The operation did not happen because the power is off.
    #[derive(Debug)]
    pub(crate) struct PowerCut;

    impl From<PowerCut> for io::Error {
        fn from(_: PowerCut) -> io::Error {
            io::Error::other("the test cut the power")
        }
    }

    impl From<PowerCut> for StoreError {
        fn from(cut: PowerCut) -> StoreError {
            StoreError::io("use", "the disk")(cut.into())
        }
    }
}
