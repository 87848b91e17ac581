// SPDX-License-Identifier: Apache-2.0
//! What lies in the store, file by file: for those who account for it and who decide what may go.

use std::collections::HashSet;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use polyarch_oci::{Descriptor, Digest, Reference};

use crate::disk::names_in;
use crate::{Missing, Store, StoreError};

/// A file of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Where it is.
    pub path: PathBuf,
    /// The space it takes on the disk, in bytes, as `du` counts it.
    pub disk_bytes: u64,
    /// When it was written, or last used ([`Store::mark_used`]).
    pub used: SystemTime,
}

impl Store {
    /// Lists the files of all blobs, staged ones included.
    pub fn blob_files(&self) -> Result<Vec<(Digest, StoredFile)>, StoreError> {
        let mut found = Vec::new();
        for dir in self.roots() {
            let blobs = dir.join("blobs");
            for algorithm in names_in(&blobs)? {
                let dir = blobs.join(&algorithm);
                for name in names_in(&dir)? {
                    let Ok(digest) = format!("{algorithm}:{name}").parse::<Digest>() else { continue };
                    found.extend(file(dir.join(name))?.map(|file| (digest, file)));
                }
            }
        }
        Ok(found)
    }

    /// Lists the files of all records, staged ones included, by namespace and key.
    pub fn record_files(&self) -> Result<Vec<(String, String, StoredFile)>, StoreError> {
        let mut found = Vec::new();
        for dir in self.roots() {
            let records = dir.join("records");
            for namespace in names_in(&records)? {
                let dir = records.join(&namespace);
                for key in names_in(&dir)? {
                    found.extend(file(dir.join(&key))?.map(|file| (namespace.clone(), key, file)));
                }
            }
        }
        Ok(found)
    }

    /// Returns the digests that names and working lists reach, which no collection removes.
    ///
    /// # Errors
    /// When a name, a list or a document that one reaches cannot be read: then with the name, and with the
    /// command that takes it away.
    pub fn reached(&self) -> Result<HashSet<Digest>, StoreError> {
        let mut reached = HashSet::new();
        let mut add = |root: &Descriptor, name: &Reference, removal: &str| {
            // What is absent cannot be removed; a sparse image stays as it is.
            let closure = self.closure(root, Missing::Skip).map_err(|source| StoreError::Reached {
                name: name.familiar(),
                removal: format!("polyarch {removal} {}", name.familiar()),
                source: Box::new(source),
            })?;
            reached.extend(closure.into_iter().map(|descriptor| descriptor.digest));
            Ok::<(), StoreError>(())
        };
        for (name, entry) in self.refs()? {
            add(&entry.descriptor, &name, "rmi")?;
        }
        for (name, list) in self.lists()? {
            for entry in &list.entries {
                add(&entry.descriptor, &name, "manifest rm")?;
            }
        }
        Ok(reached)
    }

    /// Notes that a blob is of use now: its file gets the present time. Nobody minds when that fails.
    pub fn mark_used(&self, digest: &Digest) {
        for path in self.inner.staged_blob(digest).into_iter().chain([self.inner.blob(digest)]) {
            if let Ok(file) = File::open(path) {
                let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
            }
        }
    }

    fn roots(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.inner.root.as_path()).chain(self.inner.staged.as_deref())
    }
}

fn file(path: PathBuf) -> Result<Option<StoredFile>, StoreError> {
    match fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() => Ok(Some(StoredFile {
            disk_bytes: found.blocks() * 512,
            used: found.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            path,
        })),
        Ok(_) => Ok(None),
        // It was removed, or moved from staged to durable, since it was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("look at", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn files_are_listed_with_the_time_of_their_last_use() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let durable = store.put(b"durable").unwrap();
        store.sync().unwrap();
        let staged = store.put(b"staged").unwrap();
        store.put_record("steps", "a", b"1").unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        for (_, file) in store.blob_files().unwrap() {
            File::open(file.path).unwrap().set_times(FileTimes::new().set_modified(long_ago)).unwrap();
        }
        store.mark_used(&durable);
        let files = store.blob_files().unwrap();
        let used = |digest: &Digest| files.iter().find(|(it, _)| it == digest).unwrap().1.used;
        assert_eq!(files.len(), 2);
        assert!(used(&durable) > long_ago && used(&staged) == long_ago);
        let records = store.record_files().unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].0.as_str(), records[0].1.as_str()), ("steps", "a"));
        store.mark_used(&Digest::of("absent"));
        assert!(store.reached().unwrap().is_empty());
    }
}
