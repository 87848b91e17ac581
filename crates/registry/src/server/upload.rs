// SPDX-License-Identifier: Apache-2.0
//! Uploads: blobs that come in several requests, or in one, hashed while they are written.
//!
//! An upload is `Started` by a request, written to by one request at a time, and ends as a blob, cancelled, or
//! expired. Its length on the disk is its state: what another process, or a restart, has not hashed is hashed
//! again from there.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use polyarch_oci::{Algorithm, Digest, Hasher};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::disk::{DiskError, names_in};
use super::names::RepositoryName;
use super::repository::Layout;
use super::storage::{Directory, Incoming, StorageError};

/// Pieces in which a file is read to be hashed.
const READ_BYTES: usize = 256 << 10;
/// Where there are too many, those go that nothing was written to for so long.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// The digits of an upload's name.
const ID_DIGITS: usize = 32;

/// Uploads of a registry.
#[derive(Debug)]
pub(super) struct Uploads {
    storage: Directory,
    boot: String,
    max_sessions: usize,
    /// How far this process has hashed which upload.
    hashed: Mutex<HashMap<String, Hashed>>,
}

/// Bytes that were hashed.
#[derive(Clone)]
pub(super) struct Hashed {
    hasher: Hasher,
    pub(super) algorithm: Algorithm,
    pub(super) bytes: u64,
}

impl std::fmt::Debug for Hashed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hashed").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// The file `session`.
#[derive(Debug, Serialize, Deserialize)]
struct Session {
    repository: String,
    algorithm: String,
    boot: String,
}

/// Says why an upload could not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("there is no such upload; it may have ended or expired")]
    Unknown,
    #[error("another request writes to this upload")]
    Busy,
    #[error("there are too many uploads")]
    TooMany,
    #[error("the piece begins at byte {start}, and the upload has {bytes} bytes")]
    OutOfOrder { start: u64, bytes: u64 },
    #[error("the content has digest {found}, not {expected}")]
    Mismatch { expected: Digest, found: Digest },
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the request's body broke off ({0})")]
    Body(String),
    #[error("the content is larger than {limit} bytes, the largest that this registry takes")]
    TooLarge { limit: u64 },
    #[error("the body has {found} bytes, and its headers say {expected}")]
    Length { expected: u64, found: u64 },
}

impl From<DiskError> for UploadError {
    fn from(error: DiskError) -> UploadError {
        UploadError::Storage(error.into())
    }
}

/// A blob on its way in.
pub(super) trait Receive: Send + 'static {
    /// Adds pieces.
    fn append(&mut self, pieces: &[Bytes]) -> Result<(), UploadError>;

    /// Keeps what was added for later requests, when the request ends before the blob does.
    fn keep(&mut self) -> Result<(), UploadError> {
        Ok(())
    }
}

/// Tells whether a text may be an upload's name.
pub(super) fn is_upload_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
}

/// An upload that this request, and no other, may write to.
///
/// What came before a connection broke stays, so that the client can go on from there; what came in this request before
/// the disk refused does not, because nobody can tell how much of it there is.
pub(super) struct OpenUpload {
    uploads: Arc<Uploads>,
    id: String,
    /// Holds the lock.
    file: File,
    path: PathBuf,
    state: Hashed,
    /// As it was when the request came.
    before: Hashed,
    keeps: bool,
}

/// A blob that comes whole in one request; nothing of it stays when that fails.
pub(super) struct WholeBlob {
    storage: Directory,
    incoming: Incoming,
    state: Hashed,
}

impl Uploads {
    pub(super) fn new(storage: Directory, max_sessions: usize) -> Uploads {
        // Without a boot id no session survives a restart of anything that matters: it is only compared.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Uploads { storage, boot: boot.trim().to_owned(), max_sessions, hashed: Mutex::default() }
    }

    /// Starts an upload; returns its name.
    pub(super) fn start(
        &self,
        repository: &RepositoryName,
        algorithm: Algorithm,
    ) -> Result<String, UploadError> {
        let uploads = self.storage.uploads_dir();
        if names_in(&uploads)?.len() >= self.max_sessions {
            self.storage.collect_uploads(IDLE)?;
            if names_in(&uploads)?.len() >= self.max_sessions {
                return Err(UploadError::TooMany);
            }
        }
        let mut random = [0; ID_DIGITS / 2];
        getrandom::fill(&mut random)
            .map_err(|error| DiskError::new("get random bytes for", &uploads)(io::Error::other(error)))?;
        let id = hex::encode(random);
        let dir = uploads.join(&id);
        fs::create_dir(&dir).map_err(DiskError::new("create", &dir))?;
        let made = (|| {
            let session = Session {
                repository: repository.to_string(),
                algorithm: algorithm.as_str().to_owned(),
                boot: self.boot.clone(),
            };
            let path = dir.join("session");
            let text = serde_json::to_vec(&session).expect("texts can all be written as JSON");
            fs::write(&path, text).map_err(DiskError::new("write", &path))?;
            let path = dir.join("data");
            File::create_new(&path).map_err(DiskError::new("create", &path))
        })();
        if let Err(error) = made {
            // What stays is removed by a collection.
            let _ = fs::remove_dir_all(&dir);
            return Err(error.into());
        }
        self.hashed().insert(id.clone(), Hashed::new(algorithm));
        Ok(id)
    }

    /// Returns how many bytes an upload has.
    pub(super) fn status(&self, repository: &RepositoryName, id: &str) -> Result<u64, UploadError> {
        let (dir, _) = self.find(repository, id)?;
        let path = dir.join("data");
        Ok(fs::metadata(&path).map_err(DiskError::new("read", &path))?.len())
    }

    /// Ends an upload without a blob.
    pub(super) fn cancel(self: &Arc<Self>, repository: &RepositoryName, id: &str) -> Result<(), UploadError> {
        self.open(repository, id)?.remove()
    }

    /// Opens an upload for the rest of a request.
    pub(super) fn open(
        self: &Arc<Self>,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<OpenUpload, UploadError> {
        let (dir, algorithm) = self.find(repository, id)?;
        let path = dir.join("data");
        let mut options = OpenOptions::new();
        let mut file = match options.read(true).append(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(UploadError::Unknown),
            other => other.map_err(DiskError::new("open", &path))?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(UploadError::Busy),
            other => other.map_err(|errno| DiskError::new("lock", &path)(errno.into()))?,
        }
        // Whoever had the lock before may have ended the upload.
        if !path.exists() {
            return Err(UploadError::Unknown);
        }
        let metadata = file.metadata().map_err(DiskError::new("read", &path))?;
        if metadata.nlink() > 1 {
            // It has become a blob, and a crash kept its end from being written down: another byte would damage that.
            let _ = fs::remove_dir_all(&dir);
            return Err(UploadError::Unknown);
        }
        let bytes = metadata.len();
        let known = self.hashed().remove(id).filter(|known| known.bytes <= bytes);
        let mut state = known.unwrap_or_else(|| Hashed::new(algorithm));
        state.catch_up(&mut file, &path, bytes)?;
        let before = state.clone();
        Ok(OpenUpload { uploads: self.clone(), id: id.to_owned(), file, path, state, before, keeps: true })
    }

    fn find(&self, repository: &RepositoryName, id: &str) -> Result<(PathBuf, Algorithm), UploadError> {
        if !is_upload_id(id) {
            return Err(UploadError::Unknown);
        }
        let dir = self.storage.uploads_dir().join(id);
        let path = dir.join("session");
        let mut text = Vec::new();
        match File::open(&path).and_then(|file| file.take(4096).read_to_end(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(UploadError::Unknown),
            other => other.map_err(DiskError::new("read", &path))?,
        };
        let session: Session = serde_json::from_slice(&text).map_err(|_| UploadError::Unknown)?;
        if session.repository != repository.as_str() || session.boot != self.boot {
            return Err(UploadError::Unknown);
        }
        let algorithm = if session.algorithm == "sha512" { Algorithm::Sha512 } else { Algorithm::Sha256 };
        Ok((dir, algorithm))
    }

    fn hashed(&self) -> std::sync::MutexGuard<'_, HashMap<String, Hashed>> {
        self.hashed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets how far uploads were hashed that are gone.
    pub(super) fn forget_gone(&self) {
        let uploads = self.storage.uploads_dir();
        self.hashed().retain(|id, _| uploads.join(id).exists());
    }
}

impl Receive for OpenUpload {
    fn append(&mut self, pieces: &[Bytes]) -> Result<(), UploadError> {
        for piece in pieces {
            if let Err(error) = self.file.write_all(piece) {
                self.state = self.before.clone();
                self.keeps = self.file.set_len(self.state.bytes).is_ok();
                return Err(DiskError::new("write", &self.path)(error).into());
            }
            self.state.add(piece);
        }
        Ok(())
    }
}

impl OpenUpload {
    /// Returns how many bytes there are.
    pub(super) fn bytes(&self) -> u64 {
        self.state.bytes
    }

    /// Makes the upload a blob of the repository and ends it.
    pub(super) fn finish(mut self, repository: &Layout, expected: &Digest) -> Result<u64, UploadError> {
        if self.state.algorithm != expected.algorithm() {
            let bytes = self.state.bytes;
            self.state = Hashed::new(expected.algorithm());
            self.state.catch_up(&mut self.file, &self.path, bytes)?;
        }
        let bytes = match self.state.check(expected) {
            Ok(bytes) => bytes,
            Err(error) => {
                // No further piece can make this right.
                self.remove()?;
                return Err(error);
            }
        };
        let mode: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o444);
        self.file.set_permissions(mode).map_err(DiskError::new("write", &self.path))?;
        let placed = self.uploads.storage.place_blob(repository, &self.path, &self.file, expected);
        // Also when that failed: what a sync could not write, a second one may take for written.
        if let Err(error) = self.remove() {
            tracing::debug!(%error, "an upload that has ended stays until it is collected");
        }
        placed?;
        Ok(bytes)
    }

    fn remove(mut self) -> Result<(), UploadError> {
        self.keeps = false;
        let dir = self.path.parent().unwrap_or(&self.path);
        for name in ["session", "data"] {
            self.uploads.storage.disk().remove(&dir.join(name))?;
        }
        // A collection may be faster.
        let _ = fs::remove_dir(dir);
        Ok(())
    }
}

impl Drop for OpenUpload {
    fn drop(&mut self) {
        if self.keeps {
            let empty = Hashed::new(self.state.algorithm);
            let state = std::mem::replace(&mut self.state, empty);
            self.uploads.hashed().insert(std::mem::take(&mut self.id), state);
        }
    }
}

impl Hashed {
    pub(super) fn new(algorithm: Algorithm) -> Hashed {
        Hashed { hasher: Hasher::new(algorithm), algorithm, bytes: 0 }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Compares with what the client says; returns the number of bytes.
    pub(super) fn check(&self, expected: &Digest) -> Result<u64, UploadError> {
        let found = self.hasher.clone().finish();
        if found == *expected {
            return Ok(self.bytes);
        }
        Err(UploadError::Mismatch { expected: expected.clone(), found })
    }

    /// Hashes what the file has and nobody here has hashed.
    fn catch_up(&mut self, file: &mut File, path: &Path, bytes: u64) -> Result<(), DiskError> {
        if self.bytes == bytes {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.bytes)).map_err(DiskError::new("read", path))?;
        let mut buffer = vec![0; READ_BYTES];
        while self.bytes < bytes {
            let wanted = usize::try_from(bytes - self.bytes).unwrap_or(READ_BYTES).min(READ_BYTES);
            let got = file.read(&mut buffer[..wanted]).map_err(DiskError::new("read", path))?;
            if got == 0 {
                return Err(DiskError::new("read", path)(io::ErrorKind::UnexpectedEof.into()));
            }
            self.add(&buffer[..got]);
        }
        Ok(())
    }
}

impl Receive for WholeBlob {
    fn append(&mut self, pieces: &[Bytes]) -> Result<(), UploadError> {
        for piece in pieces {
            self.incoming.file.write_all(piece).map_err(DiskError::new("write", &self.incoming.path))?;
            self.state.add(piece);
        }
        Ok(())
    }
}

impl WholeBlob {
    /// Begins a blob.
    pub(super) fn start(storage: &Directory, algorithm: Algorithm) -> Result<WholeBlob, UploadError> {
        let incoming = storage.incoming()?;
        Ok(WholeBlob { storage: storage.clone(), incoming, state: Hashed::new(algorithm) })
    }

    /// Makes it a blob of the repository.
    pub(super) fn finish(self, repository: &Layout, expected: &Digest) -> Result<u64, UploadError> {
        let bytes = self.state.check(expected)?;
        self.storage.place_blob(repository, &self.incoming.path, &self.incoming.file, expected)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_whose_end_a_crash_interrupted_can_damage_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::open(dir.path()).unwrap();
        let uploads = Arc::new(Uploads::new(storage.clone(), 10));
        let name = RepositoryName::new("a").unwrap();
        let id = uploads.start(&name, Algorithm::Sha256).unwrap();
        let mut upload = uploads.open(&name, &id).unwrap();
        upload.append(&[Bytes::from_static(b"content")]).unwrap();
        let (repository, digest) = (storage.repository(&name), Digest::of("content"));
        // All of what `finish` does but its last step.
        storage.place_blob(&repository, &upload.path, &upload.file, &digest).unwrap();
        drop(upload);
        assert!(matches!(uploads.open(&name, &id), Err(UploadError::Unknown)));
        assert_eq!(names_in(&storage.uploads_dir()).unwrap(), Vec::<String>::new());
        assert_eq!(fs::read(repository.blob_path(&digest)).unwrap(), b"content");
    }

    #[test]
    fn uploads_that_were_left_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = Arc::new(Uploads::new(Directory::open(dir.path()).unwrap(), 2));
        let name = RepositoryName::new("a").unwrap();
        let left = uploads.start(&name, Algorithm::Sha256).unwrap();
        let used = uploads.start(&name, Algorithm::Sha256).unwrap();
        assert!(matches!(uploads.start(&name, Algorithm::Sha256), Err(UploadError::TooMany)));
        // The inode's own time can't be set back, so all are old, and one is in use.
        let open = uploads.open(&name, &used).unwrap();
        uploads.storage.collect_uploads(Duration::ZERO).unwrap();
        assert_eq!(names_in(&uploads.storage.uploads_dir()).unwrap(), [used]);
        assert!(matches!(uploads.status(&name, &left), Err(UploadError::Unknown)));
        drop(open);
        uploads.start(&name, Algorithm::Sha256).unwrap();
    }

    #[test]
    fn an_upload_that_the_disk_could_not_keep_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::open(dir.path()).unwrap();
        let uploads = Arc::new(Uploads::new(storage.clone(), 10));
        let name = RepositoryName::new("a").unwrap();
        storage.ensure_repository(&storage.repository(&name)).unwrap();
        let id = uploads.start(&name, Algorithm::Sha256).unwrap();
        let mut upload = uploads.open(&name, &id).unwrap();
        upload.append(&[Bytes::from_static(b"content")]).unwrap();
        storage.disk().power.fail_once();
        assert!(upload.finish(&storage.repository(&name), &Digest::of("content")).is_err());
        assert!(matches!(uploads.open(&name, &id), Err(UploadError::Unknown)));
    }
}
