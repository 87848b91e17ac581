// SPDX-License-Identifier: Apache-2.0
//! Garbage collection and the account of what is kept.
//!
//! Deleting needs the store to itself ([`ExclusiveStore`]), so nobody can be about to use what goes.
//! Everything is marked before anything is removed, and an unreadable name or document stops the
//! collection.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use polyarch_oci::Digest;

use crate::disk::names_in;
use crate::store::Inner;
use crate::{ExclusiveStore, Store, StoreError};

/// What a collection removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Blobs removed.
    pub blobs: Tally,
    /// Left-overs of killed processes and of earlier boots removed.
    pub leftovers: Tally,
}

/// A number of files and their sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many files.
    pub files: u64,
    /// Their lengths, in bytes.
    pub bytes: u64,
    /// The space they take on the disk, in bytes, as `du` counts it.
    pub disk_bytes: u64,
}

/// What the store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Blobs, staged ones included.
    pub blobs: Tally,
    /// Records, staged ones included.
    pub records: Tally,
    /// Names and working lists.
    pub refs: Tally,
    /// Files that are being written, or were left by killed processes.
    pub ingest: Tally,
}

impl Usage {
    /// Adds everything up.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for part in [self.blobs, self.records, self.refs, self.ingest] {
            total.merge(part);
        }
        total
    }
}

impl Tally {
    fn add(&mut self, file: &fs::Metadata) {
        self.merge(Tally { files: 1, bytes: file.len(), disk_bytes: file.blocks() * 512 });
    }

    fn merge(&mut self, other: Tally) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.disk_bytes += other.disk_bytes;
    }
}

impl ExclusiveStore {
    /// Removes every blob that no name and no working list reaches and that `keep` does not have, and all left-overs.
    ///
    /// Names reach through indexes and manifests. A digest of `keep` keeps only that blob: whoever keeps
    /// a manifest passes what it names as well. Records are their owner's to remove, before.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when this process has a writer or another handle; and when a name or a
    /// document that a name reaches cannot be read. Then nothing is removed.
    pub fn gc(&mut self, keep: impl IntoIterator<Item = Digest>) -> Result<Collected, StoreError> {
        let inner = &self.store.inner;
        if Arc::strong_count(inner) > 1 {
            return Err(StoreError::InUse { root: inner.root.clone() });
        }
        let mut marked: HashSet<Digest> = keep.into_iter().collect();
        marked.extend(self.store.reached()?);
        let mut collected = Collected { leftovers: inner.remove_leftovers()?, ..Collected::default() };
        for dir in std::iter::once(&inner.root).chain(&inner.staged) {
            collected.blobs.merge(inner.remove_unmarked(&dir.join("blobs"), &marked)?);
        }
        Ok(collected)
    }
}

impl Store {
    /// Adds up what the store keeps. Reads the metadata of every file.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let root = &self.inner.root;
        let mut usage = Usage {
            refs: tally(&root.join("refs"))?,
            ingest: tally(&root.join("ingest"))?,
            ..Usage::default()
        };
        usage.refs.merge(tally(&root.join("lists"))?);
        for dir in std::iter::once(root).chain(&self.inner.staged) {
            usage.blobs.merge(tally(&dir.join("blobs"))?);
            usage.records.merge(tally(&dir.join("records"))?);
        }
        Ok(usage)
    }
}

impl Inner {
    /// Removes what killed processes and earlier boots left; the caller holds the exclusive lock.
    pub(crate) fn remove_leftovers(&self) -> Result<Tally, StoreError> {
        let mut removed = Tally::default();
        let ingest = self.ingest();
        for name in names_in(&ingest)? {
            self.remove_counted(&ingest.join(name), &mut removed)?;
        }
        let staged = self.root.join("staged");
        for boot in names_in(&staged)? {
            let dir = staged.join(boot);
            if self.staged.as_deref() != Some(&dir) {
                removed.merge(tally(&dir)?);
                fs::remove_dir_all(&dir).map_err(StoreError::io("remove", &dir))?;
            }
        }
        Ok(removed)
    }

    fn remove_unmarked(&self, blobs: &Path, marked: &HashSet<Digest>) -> Result<Tally, StoreError> {
        let mut removed = Tally::default();
        for algorithm in names_in(blobs)? {
            let dir = blobs.join(&algorithm);
            for name in names_in(&dir)? {
                let digest: Result<Digest, _> = format!("{algorithm}:{name}").parse();
                // A file with another name is not ours to judge.
                if digest.is_ok_and(|digest| !marked.contains(&digest)) {
                    self.remove_counted(&dir.join(&name), &mut removed)?;
                }
            }
        }
        Ok(removed)
    }

    fn remove_counted(&self, path: &Path, removed: &mut Tally) -> Result<(), StoreError> {
        if let Ok(metadata) = fs::symlink_metadata(path) {
            self.disk.remove(path)?;
            removed.add(&metadata);
        }
        Ok(())
    }
}

/// Adds up the files beneath a directory of ours; files that vanish meanwhile do not count.
fn tally(dir: &Path) -> Result<Tally, StoreError> {
    let mut total = Tally::default();
    for name in names_in(dir)? {
        let path = dir.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => total.merge(tally(&path)?),
            Ok(metadata) => total.add(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("look at", &path)(error)),
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use polyarch_oci::Descriptor;

    use super::*;
    use crate::Missing;
    use crate::documents::tests::{put_image, put_index};

    fn exclusive(root: &Path) -> ExclusiveStore {
        // A child that another test has forked may hold the lock until it executes its program.
        Store::open(root).unwrap().lock_exclusive(Duration::from_secs(10)).unwrap()
    }

    #[test]
    fn everything_reachable_and_kept_stays_and_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let images = ["linux/amd64", "linux/arm64"].map(|p| put_image(&store, p, &[b"shared", p.as_bytes()]));
        let index = put_index(&store, images.to_vec());
        store.set_ref(&"app".parse().unwrap(), &index).unwrap();
        let single = put_image(&store, "linux/s390x", &[b"single"]);
        store.set_ref(&"single".parse().unwrap(), &single).unwrap();
        let kept = store.put(b"kept").unwrap();
        let durable_garbage = store.put(b"garbage").unwrap();
        store.sync().unwrap();
        let staged_garbage = store.put(b"more garbage").unwrap();
        let old_boot = dir.path().join("staged/00000000-old/blobs/sha256");
        fs::create_dir_all(&old_boot).unwrap();
        fs::write(old_boot.join(kept.hex()), "torn").unwrap();
        drop(store);

        let mut store = exclusive(dir.path());
        let collected = store.gc([kept.clone()]).unwrap();
        assert_eq!((collected.blobs.files, collected.blobs.bytes), (2, 7 + 12));
        assert_eq!(collected.leftovers.files, 1);
        assert!(!store.contains(&durable_garbage) && !store.contains(&staged_garbage));
        assert!(store.contains(&kept) && !old_boot.exists());
        assert_eq!(store.closure(&index, Missing::Refuse).unwrap().len(), 8);
        assert_eq!(store.closure(&single, Missing::Refuse).unwrap().len(), 3);
        assert_eq!(store.gc([kept]).unwrap(), Collected::default());
    }

    #[test]
    fn an_unreadable_name_or_document_stops_the_collection() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let garbage = store.put(b"garbage").unwrap();
        let image = put_image(&store, "linux/amd64", &[b"layer"]);
        let index = put_index(&store, vec![image.clone()]);
        store.set_ref(&"app".parse().unwrap(), &index).unwrap();
        let path = store.inner.blob(&image.digest);
        drop(store);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "rotten").unwrap();
        let mut store = exclusive(dir.path());
        let error = store.gc([]).unwrap_err();
        assert!(error.to_string().ends_with("take the name away: polyarch rmi app:latest"), "{error}");
        assert!(store.contains(&garbage));
    }

    #[test]
    fn a_wrong_size_in_an_index_stops_no_collection() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let image = put_image(&store, "linux/amd64", &[b"layer"]);
        let lying = put_index(&store, vec![Descriptor { size: image.size + 1, ..image.clone() }]);
        store.set_ref(&"lying".parse().unwrap(), &lying).unwrap();
        let garbage = store.put(b"garbage").unwrap();
        drop(store);
        let mut store = exclusive(dir.path());
        store.gc([]).unwrap();
        assert!(!store.contains(&garbage));
        assert_eq!(store.closure(&image, Missing::Refuse).unwrap().len(), 3);
        assert!(store.closure(&lying, Missing::Refuse).is_err());
    }

    #[test]
    fn a_writer_of_this_process_keeps_the_collector_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = exclusive(dir.path());
        let writer = store.writer().unwrap();
        assert!(matches!(store.gc([]), Err(StoreError::InUse { .. })));
        drop(writer);
        assert!(store.gc([]).is_ok());
    }

    #[test]
    fn usage_adds_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.put(b"12345").unwrap();
        store.put_record("steps", "a", b"record").unwrap();
        let writer = store.writer().unwrap();
        let usage = store.usage().unwrap();
        assert_eq!((usage.blobs.files, usage.blobs.bytes), (1, 5));
        assert_eq!((usage.records.files, usage.refs.files, usage.ingest.files), (1, 0, 1));
        assert_eq!(usage.total().files, 3);
        assert!(usage.total().disk_bytes >= usage.total().files);
        drop(writer);
    }
}
