// SPDX-License-Identifier: Apache-2.0
//! The lock: shared by everyone who has the store open, exclusive for who deletes.
//!
//! It is an `flock`, so it ends with its process. Changing between shared and exclusive is not atomic
//! (flock(2)): in between, another process may get it. Nothing here relies on what was seen before.

use std::fs::{File, TryLockError};
use std::ops::Deref;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Store, StoreError};

/// How long opening a store waits for a collection to end.
const OPEN_PATIENCE: Duration = Duration::from_secs(120);

/// A store that no other process and no other handle has open.
///
/// It reads and writes like a [`Store`], and it may delete: see [`ExclusiveStore::gc`].
pub struct ExclusiveStore {
    pub(crate) store: Store,
}

impl Store {
    /// Waits until nobody else has the store open, then keeps everybody out.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when this process has other handles or writers; [`StoreError::Busy`], with
    /// the process ids of the others where they are known, when they do not end within `timeout`.
    pub fn lock_exclusive(self, timeout: Duration) -> Result<ExclusiveStore, StoreError> {
        if Arc::strong_count(&self.inner) > 1 {
            return Err(StoreError::InUse { root: self.inner.root.clone() });
        }
        acquire(|| self.inner.lock.try_lock(), &self.inner.lock, &self.inner.root, timeout)?;
        Ok(ExclusiveStore { store: self })
    }
}

impl Store {
    /// Tells whether another process is known to have the store open: a hint, true or not a moment later, and
    /// false where the kernel does not tell.
    pub fn is_used_by_others(&self) -> bool {
        !holders(&self.inner.lock).is_empty()
    }
}

impl ExclusiveStore {
    /// Lets others in again.
    pub fn release(self) -> Result<Store, StoreError> {
        shared(&self.store.inner.lock, &self.store.inner.root)?;
        Ok(self.store)
    }
}

impl Deref for ExclusiveStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

/// Takes the shared lock, waiting for a collection to end.
pub(crate) fn shared(lock: &File, root: &Path) -> Result<(), StoreError> {
    acquire(|| lock.try_lock_shared(), lock, root, OPEN_PATIENCE)
}

/// Takes the exclusive lock, waiting as [`shared`] does.
pub(crate) fn exclusive(lock: &File, root: &Path) -> Result<(), StoreError> {
    acquire(|| lock.try_lock(), lock, root, OPEN_PATIENCE)
}

/// Takes the exclusive lock if that is possible at once; takes the shared lock again if not.
pub(crate) fn try_exclusive(lock: &File, root: &Path) -> Result<bool, StoreError> {
    match lock.try_lock() {
        Ok(()) => Ok(true),
        // The failed attempt may have lost the shared lock.
        Err(TryLockError::WouldBlock) => shared(lock, root).map(|()| false),
        Err(TryLockError::Error(source)) => Err(StoreError::io("lock", root)(source)),
    }
}

/// Takes a lock by trying, with growing pauses.
pub(crate) fn acquire(
    attempt: impl Fn() -> Result<(), TryLockError>,
    lock: &File,
    root: &Path,
    timeout: Duration,
) -> Result<(), StoreError> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(source)) => return Err(StoreError::io("lock", root)(source)),
            Err(TryLockError::WouldBlock) => {}
        }
        let waited = start.elapsed();
        if waited >= timeout {
            let holders = holders(lock);
            return Err(StoreError::Busy { root: root.to_owned(), holders, waited });
        }
        std::thread::sleep(pause.min(timeout - waited));
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Names the processes that hold the lock, as ` (pid 1, 2)`; empty where the kernel does not tell.
///
/// proc_locks(5): `1: FLOCK ADVISORY READ PID MAJOR:MINOR:INODE 0 EOF`, numbers of the device in hexadecimal.
fn holders(lock: &File) -> String {
    let (Ok(metadata), Ok(table)) = (lock.metadata(), std::fs::read_to_string("/proc/locks")) else {
        return String::new();
    };
    let own = std::process::id().to_string();
    let inode = format!(":{}", metadata.ino());
    let pids: Vec<&str> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.get(1) == Some(&"FLOCK") && words.get(5).is_some_and(|at| at.ends_with(&inode)))
        .filter_map(|words| words.get(4).copied())
        .filter(|pid| *pid != own && pid.parse::<u32>().is_ok_and(|pid| pid > 0))
        .collect();
    if pids.is_empty() { String::new() } else { format!(" (pid {})", pids.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_handle_of_this_process_is_named_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let other = store.clone();
        assert!(matches!(store.lock_exclusive(Duration::ZERO), Err(StoreError::InUse { .. })));
        assert!(other.lock_exclusive(Duration::from_secs(10)).is_ok());
    }

    #[test]
    fn an_open_store_elsewhere_keeps_the_collector_out() {
        let dir = tempfile::tempdir().unwrap();
        let builder = Store::open(dir.path()).unwrap();
        let collector = Store::open(dir.path()).unwrap();
        let error = collector.lock_exclusive(Duration::from_millis(5)).err().unwrap();
        assert!(matches!(error, StoreError::Busy { .. }), "{error}");
        drop(builder);
        let collector = Store::open(dir.path()).unwrap().lock_exclusive(Duration::from_secs(10)).unwrap();
        let shared = collector.release().unwrap();
        assert!(Store::open(dir.path()).is_ok());
        drop(shared);
    }

    #[test]
    fn opening_waits_for_the_collector() {
        let dir = tempfile::tempdir().unwrap();
        let collector = Store::open(dir.path()).unwrap().lock_exclusive(Duration::from_secs(10)).unwrap();
        let root = dir.path().to_owned();
        let opener = std::thread::spawn(move || Store::open(&root).map(|_| ()));
        drop(collector);
        opener.join().unwrap().unwrap();
    }
}
