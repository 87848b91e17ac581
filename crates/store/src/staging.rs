// SPDX-License-Identifier: Apache-2.0
//! Making everything staged durable with one sync; `docs/store-format.md` tells the order and why.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::disk::names_in;
use crate::store::Inner;
use crate::{Store, StoreError};

/// A staged file as it was when listed.
struct Staged {
    path: PathBuf,
    target: PathBuf,
    identity: Identity,
}

/// Tells a file from one that replaced it.
#[derive(PartialEq, Eq)]
struct Identity {
    inode: u64,
    ctime: (i64, i64),
}

impl Store {
    /// Makes all blobs and records that were written before this call durable, also those of other
    /// processes.
    ///
    /// Costs one sync of the file system when anything is staged. Call it once at the end of a build
    /// that sets no name; [`Store::set_ref`] calls it by itself.
    pub fn sync(&self) -> Result<(), StoreError> {
        let inner = &self.inner;
        if let Some(staged) = &inner.staged {
            // Records first: the blobs that a listed record names were staged before it.
            let (records, record_dirs) = list(&staged.join("records"), &inner.root.join("records"))?;
            let (blobs, _) = list(&staged.join("blobs"), &inner.blobs())?;
            if !records.is_empty() || !blobs.is_empty() {
                inner.disk.sync_file_system(&inner.root_dir, &inner.root)?;
            }
            for blob in blobs {
                inner.promote_blob(&blob)?;
            }
            inner.sync_blob_dirs()?;
            for record in &records {
                inner.promote_record(record)?;
            }
            for dir in record_dirs {
                inner.disk.sync_dir(&dir)?;
            }
            return Ok(());
        }
        inner.sync_blob_dirs()
    }
}

impl Inner {
    /// Syncs the directories of blobs: what another process moved there may not have been synced yet.
    fn sync_blob_dirs(&self) -> Result<(), StoreError> {
        for algorithm in ["sha256", "sha512"] {
            self.disk.sync_dir(&self.blobs().join(algorithm))?;
        }
        Ok(())
    }

    /// Moves a blob that was listed before the sync.
    ///
    /// If it was promoted and staged anew since, the new file may not be synced; then the durable name
    /// is taken, and nothing is replaced.
    fn promote_blob(&self, blob: &Staged) -> Result<(), StoreError> {
        match self.disk.rename_new(&blob.path, &blob.target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.remove(&blob.path),
            // Another process promoted it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(StoreError::io("keep", &blob.target)),
        }
    }

    /// Moves a record that was listed before the sync, unless a newer one is staged by now.
    fn promote_record(&self, record: &Staged) -> Result<(), StoreError> {
        match identity(&record.path) {
            Ok(now) if now == record.identity => {}
            _ => return Ok(()),
        }
        if let Some(dir) = record.target.parent() {
            self.disk.ensure_dir(dir)?;
        }
        match self.disk.rename(&record.path, &record.target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(StoreError::io("keep", &record.target)),
        }
    }
}

/// Lists the files two levels below `from`, with where they go beneath `to`, and the directories there.
fn list(from: &Path, to: &Path) -> Result<(Vec<Staged>, Vec<PathBuf>), StoreError> {
    let mut files = Vec::new();
    let mut dirs = Vec::new();
    for dir in names_in(from)? {
        let names = names_in(&from.join(&dir))?;
        if !names.is_empty() {
            dirs.push(to.join(&dir));
        }
        for name in names {
            let path = from.join(&dir).join(&name);
            // One that is gone was promoted or removed by another process.
            if let Ok(identity) = identity(&path) {
                files.push(Staged { target: to.join(&dir).join(&name), path, identity });
            }
        }
    }
    Ok((files, dirs))
}

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(Identity { inode: metadata.ino(), ctime: (metadata.ctime(), metadata.ctime_nsec()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staged_things_are_promoted_once_and_by_anyone() {
        let dir = tempfile::tempdir().unwrap();
        let writer = Store::open(dir.path()).unwrap();
        let other = Store::open(dir.path()).unwrap();
        let digest = writer.put(b"blob").unwrap();
        writer.put_record("steps", "abc", b"record").unwrap();
        assert!(!writer.inner.blob(&digest).exists() && other.contains(&digest));
        assert_eq!(other.get_record("steps", "abc").unwrap().unwrap(), b"record");
        other.sync().unwrap();
        assert!(writer.inner.blob(&digest).exists());
        assert!(!writer.inner.staged_blob(&digest).unwrap().exists());
        assert!(dir.path().join("records/steps/abc").exists());
        assert!(writer.contains(&digest));
        writer.sync().unwrap();
    }

    #[test]
    fn a_blob_staged_again_after_promotion_never_replaces_the_durable_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put(b"blob").unwrap();
        store.sync().unwrap();
        let durable = identity(&store.inner.blob(&digest)).unwrap();
        let staged = store.inner.staged_blob(&digest).unwrap();
        fs::write(&staged, "blob").unwrap();
        store.sync().unwrap();
        assert!(identity(&store.inner.blob(&digest)).unwrap() == durable && !staged.exists());
    }

    #[test]
    fn a_record_replaced_after_the_sync_waits_for_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.put_record("steps", "abc", b"old").unwrap();
        let staged = store.inner.staged.clone().unwrap().join("records");
        let (listed, _) = list(&staged, &dir.path().join("records")).unwrap();
        store.put_record("steps", "abc", b"new, not synced").unwrap();
        store.inner.promote_record(&listed[0]).unwrap();
        assert!(!dir.path().join("records/steps/abc").exists());
        store.sync().unwrap();
        assert!(dir.path().join("records/steps/abc").exists());
        assert_eq!(store.get_record("steps", "abc").unwrap().unwrap(), b"new, not synced");
    }
}
