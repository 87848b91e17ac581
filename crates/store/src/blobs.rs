// SPDX-License-Identifier: Apache-2.0
//! Reading blobs.

use std::fs::{self, File};
use std::io::{self, Read as _};

use polyarch_oci::{Descriptor, Digest};

use crate::{Store, StoreError, VerifiedReader};

impl Store {
    /// Tells whether a blob is here, whole.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// Returns the size of a blob; `None` when it is not here.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.find(digest, |path| fs::metadata(path)).ok().filter(fs::Metadata::is_file).map(|file| file.len())
    }

    /// Opens a blob. Its bytes were verified when they were written; to verify them again, for
    /// instance against a disk that rots, use [`Store::reader`].
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        self.find(digest, |path| File::open(path)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::MissingBlob { digest: digest.clone() },
            _ => StoreError::io("open", self.inner.blob(digest))(error),
        })
    }

    /// Opens a blob for reading with verification of its size and digest.
    pub fn reader(&self, descriptor: &Descriptor) -> Result<VerifiedReader<File>, StoreError> {
        Ok(VerifiedReader::new(self.open_blob(&descriptor.digest)?, descriptor))
    }

    /// Reads a blob of at most `cap` bytes, verified.
    pub fn read(&self, descriptor: &Descriptor, cap: u64) -> Result<Vec<u8>, StoreError> {
        if descriptor.size > cap {
            return Err(StoreError::TooLarge {
                digest: descriptor.digest.clone(),
                size: descriptor.size,
                cap,
            });
        }
        let mut bytes = Vec::new();
        let mut reader = self.reader(descriptor)?;
        reader.read_to_end(&mut bytes).map_err(|error| {
            // A verification error carries its own story; others lack the path.
            error
                .downcast::<StoreError>()
                .unwrap_or_else(|source| StoreError::io("read", self.inner.blob(&descriptor.digest))(source))
        })?;
        Ok(bytes)
    }

    /// Looks where a blob may lie. It moves once, from staged to durable, hence the third look.
    fn find<T>(&self, digest: &Digest, look: impl Fn(&std::path::Path) -> io::Result<T>) -> io::Result<T> {
        let durable = self.inner.blob(digest);
        let missing =
            |result: &io::Result<T>| matches!(result, Err(error) if error.kind() == io::ErrorKind::NotFound);
        let mut result = look(&durable);
        if let (true, Some(staged)) = (missing(&result), self.inner.staged_blob(digest)) {
            result = look(&staged);
            if missing(&result) {
                result = look(&durable);
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_verifies_and_caps() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put(b"hello").unwrap();
        let descriptor = Descriptor::new("text/plain", digest.clone(), 5);
        assert_eq!(store.read(&descriptor, 5).unwrap(), b"hello");
        assert!(matches!(store.read(&descriptor, 4), Err(StoreError::TooLarge { .. })));
        let short = Descriptor::new("text/plain", digest, 4);
        assert!(matches!(store.read(&short, 10), Err(StoreError::Size { .. })));
        let absent = Descriptor::new("text/plain", Digest::of("absent"), 1);
        assert!(matches!(store.read(&absent, 10), Err(StoreError::MissingBlob { .. })));
    }

    #[test]
    fn rotten_bytes_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = store.put(b"hello").unwrap();
        let path = store.inner.staged_blob(&digest).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "hellp").unwrap();
        let descriptor = Descriptor::new("text/plain", digest, 5);
        assert!(matches!(store.read(&descriptor, 10), Err(StoreError::Mismatch { .. })));
    }
}
