// SPDX-License-Identifier: Apache-2.0
//! Writing blobs: temp file, hash while writing, sync, rename, sync the directory.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use polyarch_oci::{Algorithm, Digest, Hasher};

use crate::store::Inner;
use crate::{Durability, Store, StoreError};

/// Bytes gathered before they are hashed and written, so that small writes cost no system call each.
const BUFFER_BYTES: usize = 128 << 10;

/// A blob that is being written: invisible until [`BlobWriter::commit`], gone when dropped before.
pub struct BlobWriter {
    store: Arc<Inner>,
    path: PathBuf,
    file: File,
    algorithm: Algorithm,
    hasher: Hasher,
    buffer: Vec<u8>,
    size: u64,
    /// A write failed, so the file is not what was hashed.
    is_broken: bool,
}

/// Copies everything, in pieces large enough that hashing and not system calls takes the time.
pub(crate) fn copy(mut reader: impl Read, mut writer: impl Write) -> io::Result<u64> {
    // Small contents, of which there are many, need no large buffer.
    let mut buffer = vec![0; 8 << 10];
    let mut total = 0;
    loop {
        let got = match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        writer.write_all(&buffer[..got])?;
        total += got as u64;
        if got == buffer.len() && got < BUFFER_BYTES {
            buffer = vec![0; BUFFER_BYTES];
        }
    }
}

impl Store {
    /// Starts a blob that is named by its SHA-256 digest.
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        self.writer_of(Algorithm::Sha256)
    }

    /// Starts a blob that is named by its digest of the given algorithm.
    pub fn writer_of(&self, algorithm: Algorithm) -> Result<BlobWriter, StoreError> {
        let (path, file) = self.inner.create_ingest(0o444)?;
        Ok(BlobWriter {
            store: Arc::clone(&self.inner),
            path,
            file,
            algorithm,
            hasher: Hasher::new(algorithm),
            buffer: Vec::new(),
            size: 0,
            is_broken: false,
        })
    }

    /// Keeps a small blob and returns its digest; one that is there already is not written again.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        self.put_as(&digest, bytes)?;
        Ok(digest)
    }

    /// Keeps a small blob under the digest that it was asked for by, of whichever algorithm; one that is
    /// there already is not written again.
    ///
    /// # Errors
    /// When the bytes do not have the digest; nothing is kept then.
    pub fn put_as(&self, digest: &Digest, bytes: &[u8]) -> Result<(), StoreError> {
        if self.inner.durability == Durability::Batched && self.contains(digest) {
            return Ok(());
        }
        let mut writer = self.writer_of(digest.algorithm())?;
        writer.write_all(bytes).map_err(StoreError::stream("write"))?;
        writer.commit(Some((digest, bytes.len() as u64)))?;
        Ok(())
    }

    /// Keeps what a reader gives and returns its digest and size.
    ///
    /// Reads at most one byte more than the expected size. Nothing is kept on an error.
    pub fn ingest(
        &self,
        reader: impl Read,
        expected: Option<(&Digest, u64)>,
    ) -> Result<(Digest, u64), StoreError> {
        let algorithm = expected.map_or(Algorithm::Sha256, |(digest, _)| digest.algorithm());
        let mut writer = self.writer_of(algorithm)?;
        let limit = expected.map_or(u64::MAX, |(_, size)| size.saturating_add(1));
        copy(reader.take(limit), &mut writer).map_err(StoreError::stream("read"))?;
        writer.commit(expected)
    }

    /// Keeps the content of a file, sharing its blocks where the file system can, and returns its
    /// digest and size.
    ///
    /// The digest is computed over the copy, so a file that changes meanwhile cannot make a wrong blob.
    pub fn import_file(
        &self,
        source: &mut File,
        expected: Option<(&Digest, u64)>,
    ) -> Result<(Digest, u64), StoreError> {
        let algorithm = expected.map_or(Algorithm::Sha256, |(digest, _)| digest.algorithm());
        let mut writer = self.writer_of(algorithm)?;
        // Cloning is only cheaper; where it is refused, for any reason, the bytes are copied.
        if rustix::fs::ioctl_ficlone(&writer.file, &*source).is_err() {
            return self.ingest(source, expected);
        }
        writer.adopt_file()?;
        writer.commit(expected)
    }
}

impl BlobWriter {
    /// Returns how many bytes were written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Ends the blob and makes it visible; returns its digest and size.
    ///
    /// A blob that is there already is fine. With [`Durability::Each`] the blob is durable on return.
    ///
    /// # Errors
    /// When the digest or the size is not the expected one. On any error nothing is kept.
    pub fn commit(mut self, expected: Option<(&Digest, u64)>) -> Result<(Digest, u64), StoreError> {
        self.write_out().map_err(StoreError::stream("write"))?;
        let digest = std::mem::replace(&mut self.hasher, Hasher::new(self.algorithm)).finish();
        if let Some((wanted, size)) = expected {
            if size != self.size {
                return Err(StoreError::Size { digest: wanted.clone(), expected: size, found: self.size });
            }
            if *wanted != digest {
                return Err(StoreError::Mismatch { expected: wanted.clone(), found: digest });
            }
        }
        self.remove_damaged(&digest)?;
        match (self.store.durability, self.store.staged_blob(&digest)) {
            (Durability::Batched, Some(staged)) => {
                // Staging is not durable yet, so a durable one, or one staged before, is better.
                if !self.store.blob(&digest).exists() {
                    self.place(&staged)?;
                }
            }
            _ => {
                let target = self.store.blob(&digest);
                if !target.exists() {
                    self.store.disk.sync_file(&self.file, &self.path)?;
                    self.place(&target)?;
                }
                // Also for a blob that was there: another process may not have come this far yet.
                self.store.disk.sync_dir(target.parent().unwrap_or(&self.store.root))?;
            }
        }
        Ok((digest, self.size))
    }

    /// Removes a file that has the blob's name but not its bytes: the right ones are at hand.
    fn remove_damaged(&self, digest: &Digest) -> Result<(), StoreError> {
        for path in [Some(self.store.blob(digest)), self.store.staged_blob(digest)].into_iter().flatten() {
            let Ok(file) = File::open(&path) else { continue };
            let mut hasher = Hasher::new(digest.algorithm());
            if copy(&file, &mut hasher).is_err() || hasher.finish() != *digest {
                self.store.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    /// Renames the file to its name, unless that is taken: then the same bytes are there already.
    fn place(&self, target: &std::path::Path) -> Result<(), StoreError> {
        let rename = || match self.store.disk.rename_new(&self.path, target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        self.store.rename_making_dirs(rename, target)
    }

    fn write_out(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let written = self.write_through(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        written
    }

    fn write_through(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("an earlier write to this blob failed"));
        }
        self.hasher.update(bytes);
        self.file
            .write_all(bytes)
            .inspect_err(|_| self.is_broken = true)
            .map_err(|source| StoreError::Io { action: "write", path: self.path.clone(), source }.into())
    }

    /// Hashes what the file already has.
    fn adopt_file(&mut self) -> Result<(), StoreError> {
        self.size = copy(&self.file, &mut self.hasher).map_err(StoreError::io("read", &self.path))?;
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.write_out()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            self.write_through(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// Does nothing: bytes count only once committed.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    /// Removes the temp file; after a commit it has its final name and nothing is left to remove.
    fn drop(&mut self) {
        // A left-over is removed by a later open.
        let _ = self.store.disk.remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::disk::names_in;

    fn stores() -> Vec<(tempfile::TempDir, Store)> {
        [Durability::Each, Durability::Batched]
            .map(|durability| {
                let dir = tempfile::tempdir().unwrap();
                let store = Store::open_with(dir.path(), durability).unwrap();
                (dir, store)
            })
            .into()
    }

    #[test]
    fn a_committed_blob_is_there_and_read_only() {
        for (_dir, store) in stores() {
            let mut writer = store.writer().unwrap();
            writer.write_all(b"hel").unwrap();
            writer.write_all(b"lo").unwrap();
            let (digest, size) = writer.commit(None).unwrap();
            assert_eq!((&digest, size), (&Digest::of("hello"), 5));
            let mut file = store.open_blob(&digest).unwrap();
            assert_eq!(io::read_to_string(&mut file).unwrap(), "hello");
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o444);
            assert_eq!(names_in(&store.inner.ingest()).unwrap(), Vec::<String>::new());
        }
    }

    #[test]
    fn large_and_small_writes_mix() {
        let (_dir, store) = stores().remove(1);
        let large = vec![7; 3 * BUFFER_BYTES + 1];
        let mut writer = store.writer().unwrap();
        let mut all = Vec::new();
        for piece in [&b"a"[..], &large, b"b", &large[..BUFFER_BYTES - 1], b"c"] {
            writer.write_all(piece).unwrap();
            all.extend_from_slice(piece);
        }
        let digest = Digest::of(&all);
        assert_eq!(writer.commit(None).unwrap(), (digest.clone(), all.len() as u64));
        assert_eq!(fs::read(store.inner.staged_blob(&digest).unwrap()).unwrap(), all);
    }

    #[test]
    fn a_mismatch_leaves_nothing() {
        for (_dir, store) in stores() {
            let wrong = Digest::of("other");
            let mut writer = store.writer().unwrap();
            writer.write_all(b"hello").unwrap();
            assert!(matches!(writer.commit(Some((&wrong, 5))), Err(StoreError::Mismatch { .. })));
            let error = store.ingest(&b"hello"[..], Some((&Digest::of("hello"), 4))).unwrap_err();
            assert!(matches!(error, StoreError::Size { expected: 4, found: 5, .. }));
            drop(store.writer().unwrap());
            assert!(!store.contains(&Digest::of("hello")) && !store.contains(&wrong));
            assert_eq!(names_in(&store.inner.ingest()).unwrap(), Vec::<String>::new());
        }
    }

    #[test]
    fn files_are_imported_with_their_content() {
        let (dir, store) = stores().remove(0);
        let path = dir.path().join("source");
        fs::write(&path, "content").unwrap();
        let (digest, size) = store.import_file(&mut File::open(&path).unwrap(), None).unwrap();
        assert_eq!((digest.clone(), size), (Digest::of("content"), 7));
        assert!(store.contains(&digest));
    }

    #[test]
    fn sha512_names_work() {
        let (_dir, store) = stores().remove(1);
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"x");
        let digest = hasher.finish();
        store.ingest(&b"x"[..], Some((&digest, 1))).unwrap();
        assert_eq!(store.size(&digest), Some(1));
        let (_dir, store) = stores().remove(0);
        store.put_as(&digest, b"x").unwrap();
        assert_eq!((store.size(&digest), store.contains(&Digest::of("x"))), (Some(1), false));
        assert!(matches!(store.put_as(&digest, b"y"), Err(StoreError::Mismatch { .. })));
    }
}
