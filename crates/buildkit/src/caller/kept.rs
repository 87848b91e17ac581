// SPDX-License-Identifier: Apache-2.0
//! Directories in which what clients send is kept for their next build.
//!
//! `PARENT/KEY.N/files`, where KEY is the SHA-256 of the client's key and of what the directory is for, and N
//! counts from 0, for builds that need the same one at a time. Whoever uses one holds a lock (flock) on
//! `PARENT/KEY.N`; a build that finds all of them in use gets one of its own that is not kept. What stands in
//! a kept directory is compared with what the client has before it is used, by all that a file's metadata
//! tells, so one that a crash left half written does no harm.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use polyarch_oci::Digest;

use crate::caller::{CallerError, ClientSession};

/// How many builds at a time keep a directory of the same key.
const PER_KEY: usize = 4;
/// The shortest key that is taken for one that nobody guesses.
const MIN_KEY_BYTES: usize = 16;

/// The place of kept directories.
#[derive(Debug, Clone)]
pub struct KeptDirectories {
    parent: PathBuf,
}

/// A directory that belongs to one build as long as any clone of this lives.
#[derive(Debug, Clone)]
pub struct KeptDirectory(Arc<Lease>);

#[derive(Debug)]
struct Lease {
    files: PathBuf,
    // Fields are dropped in this order: what is not kept is removed while it is locked.
    _temporary: Option<tempfile::TempDir>,
    _lock: Option<File>,
}

impl KeptDirectory {
    /// Returns the directory of the client's files.
    pub fn path(&self) -> &Path {
        &self.0.files
    }
}

impl KeptDirectories {
    /// Keeps directories within a directory, which is made when it is needed.
    pub fn new(parent: &Path) -> KeptDirectories {
        KeptDirectories { parent: parent.to_owned() }
    }

    /// Returns the place within a store.
    pub fn of_store(root: &Path) -> KeptDirectories {
        KeptDirectories::new(&root.join("contexts"))
    }

    /// Returns a directory for what `session` sends for a purpose (`context`, `dockerfile`…): the one of the
    /// client's last build when it has a key and no other build uses it, else an empty one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn lease(&self, session: &ClientSession, purpose: &str) -> Result<KeptDirectory, CallerError> {
        self.lease_by(session.shared_key(), purpose)
            .map_err(|source| CallerError::Write { path: self.parent.clone(), source })
    }

    fn lease_by(&self, key: &str, purpose: &str) -> io::Result<KeptDirectory> {
        std::fs::create_dir_all(&self.parent)?;
        if key.len() >= MIN_KEY_BYTES {
            let name = Digest::of(format!("{key}\0{purpose}"));
            for number in 0..PER_KEY {
                if let Some(lease) = lock(&self.parent.join(format!("{}.{number}", name.hex())))? {
                    return Ok(lease);
                }
            }
        }
        let temporary = tempfile::Builder::new()
            .prefix("tmp-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&self.parent)?;
        let lock = File::open(temporary.path())?;
        lock.lock()?;
        let files = temporary.path().join("files");
        std::fs::create_dir(&files)?;
        Ok(KeptDirectory(Arc::new(Lease { files, _temporary: Some(temporary), _lock: Some(lock) })))
    }

    /// Removes what nobody uses and nobody has used for so long; returns how many directories went.
    ///
    /// # Errors
    /// When a directory can't be listed or removed.
    pub fn remove_unused(&self, unused_for: Duration) -> io::Result<usize> {
        let entries = match std::fs::read_dir(&self.parent) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let mut count = 0;
        for entry in entries {
            let path = entry?.path();
            let Some(lock) = lock_existing(&path)? else { continue };
            let used = lock.metadata()?.modified()?;
            let is_old = SystemTime::now().duration_since(used).is_ok_and(|age| age >= unused_for);
            if is_old {
                std::fs::remove_dir_all(&path)?;
                count += 1;
            }
        }
        Ok(count)
    }
}

fn lock(path: &Path) -> io::Result<Option<KeptDirectory>> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let Some(lock) = lock_existing(path)? else { return Ok(None) };
    let files = path.join("files");
    match std::fs::create_dir(&files) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // When it was used last.
    lock.set_modified(SystemTime::now())?;
    Ok(Some(KeptDirectory(Arc::new(Lease { files, _temporary: None, _lock: Some(lock) }))))
}

/// Locks a directory; `None` when somebody else has it or has just removed it.
fn lock_existing(path: &Path) -> io::Result<Option<File>> {
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(None),
        _ => Err(error),
    };
    let lock = match File::open(path) {
        Ok(lock) => lock,
        Err(error) => return gone(error),
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
        Err(std::fs::TryLockError::Error(error)) => return Err(error),
    }
    let (held, there) = match path.symlink_metadata() {
        Ok(there) => (lock.metadata()?, there),
        Err(error) => return gone(error),
    };
    Ok((held.ino() == there.ino() && held.dev() == there.dev()).then_some(lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "a key that nobody guesses";

    #[test]
    fn one_build_at_a_time_has_a_directory_and_the_next_finds_it() {
        let parent = tempfile::tempdir().unwrap();
        let kept = KeptDirectories::new(&parent.path().join("contexts"));
        let first = kept.lease_by(KEY, "context").unwrap();
        std::fs::write(first.path().join("file"), "1").unwrap();
        let second = kept.lease_by(KEY, "context").unwrap();
        assert!(!second.path().join("file").exists());
        drop(first);
        let third = kept.lease_by(KEY, "context").unwrap();
        assert!(third.path().join("file").exists());
    }

    #[test]
    fn purposes_keys_and_strangers_are_apart() {
        let parent = tempfile::tempdir().unwrap();
        let kept = KeptDirectories::new(parent.path());
        std::fs::write(kept.lease_by(KEY, "context").unwrap().path().join("file"), "1").unwrap();
        assert!(!kept.lease_by(KEY, "dockerfile").unwrap().path().join("file").exists());
        assert!(!kept.lease_by("another key of a client", "context").unwrap().path().join("file").exists());
        for key in ["", "short"] {
            let path = {
                let lease = kept.lease_by(key, "context").unwrap();
                std::fs::write(lease.path().join("file"), "1").unwrap();
                lease.path().to_owned()
            };
            assert!(!path.exists());
        }
    }

    #[test]
    fn what_is_in_use_is_not_removed() {
        let parent = tempfile::tempdir().unwrap();
        let kept = KeptDirectories::new(parent.path());
        let used = kept.lease_by(KEY, "context").unwrap();
        drop(kept.lease_by(KEY, "dockerfile").unwrap());
        assert_eq!(kept.remove_unused(Duration::from_secs(3600)).unwrap(), 0);
        assert_eq!(kept.remove_unused(Duration::ZERO).unwrap(), 1);
        assert!(used.path().is_dir());
    }
}
