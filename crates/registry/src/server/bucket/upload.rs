// SPDX-License-Identifier: Apache-2.0
//! Uploads in several requests: any server may go on with what another one has begun.
//!
//! An upload is one object that lists the pieces that were written. It is replaced only on the condition that it is the one
//! that the request began with: of two requests that write at the same time, one gets an error.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::UpdateVersion;
use polyarch_oci::{Algorithm, Digest};
use serde::{Deserialize, Serialize};

use super::super::names::RepositoryName;
use super::super::storage::StorageError;
use super::super::upload::{Hashed, Receive, UploadError, is_upload_id};
use super::content::{Content, Piece, Writer};
use super::objects::{BucketError, Reading, Versioned};
use super::repository::Held;
use super::{Bucket, Repository, age, new_name, now};

/// The largest object of an upload, in bytes.
const MAX_SESSION_BYTES: u64 = 16 << 20;
/// Where there are too many uploads, one makes room that nothing was written to for so long.
const IDLE: Duration = Duration::from_secs(60 * 60);
/// A last piece that is smaller is written again with what follows, so that pieces don't stay small.
const MIN_PIECE_BYTES: u64 = if cfg!(test) { 8 << 10 } else { 4 << 20 };

/// The object of an upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Session {
    pub(super) repository: String,
    algorithm: String,
    /// Names the write that made it.
    written: String,
    pub(super) pieces: Vec<Piece>,
    /// Nobody may go on with it: it becomes a blob, or goes.
    has_ended: bool,
}

/// An upload that this request writes to.
pub(in crate::server) struct OpenUpload {
    bucket: Bucket,
    repository: Arc<Repository>,
    id: String,
    session: Session,
    version: UpdateVersion,
    writer: Writer,
    state: Hashed,
    /// What the session lists.
    kept: Vec<Piece>,
    is_done: bool,
}

fn key(id: &str) -> String {
    format!("uploads/{id}")
}

impl Bucket {
    /// Starts an upload; returns its name.
    pub(in crate::server) fn start_upload(
        &self,
        repository: &RepositoryName,
        algorithm: Algorithm,
        max_uploads: usize,
    ) -> Result<String, UploadError> {
        let uploads = self.objects().list_some("uploads", max_uploads)?;
        if uploads.len() >= max_uploads {
            // Those make room that nobody has written to for a while.
            let mut left = uploads.iter().filter(|upload| age(now(), upload.written) >= IDLE);
            if !left.any(|upload| self.expire_upload(&upload.name).unwrap_or(false)) {
                return Err(UploadError::TooMany);
            }
        }
        let id = new_name()?;
        let session = Session {
            repository: repository.to_string(),
            algorithm: algorithm.as_str().to_owned(),
            written: new_name()?,
            pieces: Vec::new(),
            has_ended: false,
        };
        if self.objects().replace(&key(&id), None, session.to_bytes())?.is_none() {
            return Err(UploadError::Busy);
        }
        self.hashed().insert(id.clone(), Hashed::new(algorithm));
        Ok(id)
    }

    /// Returns how many bytes an upload has.
    pub(in crate::server) fn upload_bytes(
        &self,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<u64, UploadError> {
        let (session, _) = self.find_upload(repository, id)?;
        Ok(session.pieces.iter().map(|piece| piece.size).sum())
    }

    /// Opens an upload for the rest of a request.
    pub(in crate::server) fn open_upload(
        &self,
        repository: &Arc<Repository>,
        id: &str,
    ) -> Result<OpenUpload, UploadError> {
        let (session, version) = self.find_upload(repository.name(), id)?;
        let kept = session.pieces.clone();
        let bytes = kept.iter().map(|piece| piece.size).sum();
        let known = self.hashed().remove(id).filter(|known| known.bytes <= bytes);
        let mut state = known.unwrap_or_else(|| Hashed::new(session.algorithm()));
        self.catch_up(&mut state, &kept)?;
        let mut pieces = kept.clone();
        let small = pieces.pop_if(|piece| piece.size < MIN_PIECE_BYTES);
        let mut writer = Writer::new(self.clone(), id.to_owned(), pieces);
        if let Some(piece) = small {
            writer.append(&self.objects().get_range(&piece.key(), 0..piece.size)?)?;
        }
        Ok(OpenUpload {
            bucket: self.clone(),
            repository: repository.clone(),
            id: id.to_owned(),
            session,
            version,
            writer,
            state,
            kept,
            is_done: false,
        })
    }

    /// Hashes what the pieces have and nobody here has hashed.
    fn catch_up(&self, state: &mut Hashed, pieces: &[Piece]) -> Result<(), StorageError> {
        let mut begin = 0;
        for piece in pieces {
            let end = begin + piece.size;
            if state.bytes < end {
                let from = state.bytes - begin;
                state.add(&self.objects().get_range(&piece.key(), from..piece.size)?);
            }
            begin = end;
        }
        Ok(())
    }

    fn find_upload(
        &self,
        repository: &RepositoryName,
        id: &str,
    ) -> Result<(Session, UpdateVersion), UploadError> {
        if !is_upload_id(id) {
            return Err(UploadError::Unknown);
        }
        let Some((session, version)) = self.read_session(id)? else { return Err(UploadError::Unknown) };
        if session.repository != repository.as_str() || session.has_ended {
            return Err(UploadError::Unknown);
        }
        Ok((session, version))
    }

    fn read_session(&self, id: &str) -> Result<Option<(Session, UpdateVersion)>, StorageError> {
        let key = key(id);
        let Reading::New(Versioned { bytes, version }) =
            self.objects().read(&key, None, MAX_SESSION_BYTES)?
        else {
            return Ok(None);
        };
        let session = serde_json::from_slice(&bytes).map_err(|error| self.objects().damaged(&key, error))?;
        Ok(Some((session, version)))
    }

    /// Ends an upload that nobody goes on with; tells whether this request was the one that did. Its pieces stay.
    pub(super) fn expire_upload(&self, id: &str) -> Result<bool, StorageError> {
        let found = match self.read_session(id) {
            // Nobody can go on with what makes no sense.
            Err(StorageError::Bucket(BucketError::Damaged { .. })) => None,
            found => match found? {
                Some(found) => Some(found),
                None => return Ok(false),
            },
        };
        if let Some((session, version)) = found
            && !session.has_ended
        {
            let ended = Session { has_ended: true, written: new_name()?, ..session };
            if self.objects().replace(&key(id), Some(&version), ended.to_bytes())?.is_none() {
                // Somebody goes on with it.
                return Ok(false);
            }
        }
        self.objects().delete([key(id)])?;
        self.hashed().remove(id);
        Ok(true)
    }
}

impl Session {
    fn algorithm(&self) -> Algorithm {
        if self.algorithm == "sha512" { Algorithm::Sha512 } else { Algorithm::Sha256 }
    }

    fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts and numbers can be written as JSON").into()
    }
}

impl OpenUpload {
    /// Returns how many bytes there are.
    pub(in crate::server) fn bytes(&self) -> u64 {
        self.state.bytes
    }

    /// Keeps what came for the requests that follow, here or at another server.
    pub(in crate::server) fn keep(&mut self) -> Result<(), UploadError> {
        let is_changed = self.writer.has_gathered() || self.writer.pieces != self.kept;
        let is_as_before = self.state.bytes == self.kept.iter().map(|piece| piece.size).sum::<u64>();
        if !is_changed || is_as_before {
            self.is_done = true;
        } else {
            self.writer.flush()?;
            // When nobody knows what became of the write, the pieces may be listed.
            self.is_done = true;
            if let Err(error) = self.record(false) {
                self.is_done = !matches!(error, UploadError::Busy | UploadError::Unknown);
                return Err(error);
            }
            let old = std::mem::replace(&mut self.kept, self.writer.pieces.clone());
            let gone = old.iter().filter(|piece| !self.kept.contains(piece)).map(Piece::key);
            self.bucket.objects().delete_later(gone);
        }
        let state = std::mem::replace(&mut self.state, Hashed::new(self.session.algorithm()));
        self.bucket.hashed().insert(self.id.clone(), state);
        Ok(())
    }

    /// Writes what the upload is now, if it still is what it was when the request began.
    fn record(&mut self, has_ended: bool) -> Result<(), UploadError> {
        let session = Session {
            pieces: self.writer.pieces.clone(),
            written: new_name()?,
            has_ended,
            ..self.session.clone()
        };
        let replaced =
            self.bucket.objects().replace(&key(&self.id), Some(&self.version), session.to_bytes())?;
        if let Some(version) = replaced {
            self.version = version;
            return Ok(());
        }
        match self.bucket.read_session(&self.id)? {
            // It was this very write that came first: its answer was lost.
            Some((found, version)) if found.written == session.written => self.version = version,
            Some(_) => return Err(UploadError::Busy),
            None => return Err(UploadError::Unknown),
        }
        Ok(())
    }

    /// Makes the upload a blob of its repository and ends it.
    pub(in crate::server) fn finish(mut self, expected: &Digest) -> Result<u64, UploadError> {
        if self.state.algorithm != expected.algorithm() {
            self.writer.flush()?;
            let size = self.state.bytes;
            let mut state = Hashed::new(expected.algorithm());
            let objects = self.writer.pieces.iter().map(|piece| (piece.key(), piece.size)).collect();
            Content::of(&self.bucket, size, objects).read_pieces(size, |bytes| state.add(&bytes))?;
            self.state = state;
        }
        let size = match self.state.check(expected) {
            Ok(size) => size,
            Err(error) => {
                // No further piece can make this right.
                self.cancel()?;
                return Err(error);
            }
        };
        let (content, is_own) = match self.bucket.find_content(expected, size)? {
            Some(content) => (content, false),
            None => {
                if !self.writer.pieces.is_empty() {
                    // From here on no other request and no collection takes its pieces.
                    self.writer.flush()?;
                    self.record(true)?;
                }
                // Something may lead to its pieces from here on, whatever fails.
                self.is_done = true;
                (self.writer.seal(expected)?, true)
            }
        };
        self.repository.hold(&self.bucket, expected, Held { size, content, since: now() })?;
        self.is_done = true;
        self.bucket.objects().delete([key(&self.id)])?;
        let used: &[Piece] = if is_own { &self.writer.pieces } else { &[] };
        let gone = self.kept.iter().chain(&self.writer.pieces).filter(|piece| !used.contains(piece));
        self.bucket.objects().delete(gone.map(Piece::key))?;
        Ok(size)
    }

    /// Ends the upload without a blob.
    pub(in crate::server) fn cancel(mut self) -> Result<(), UploadError> {
        self.record(true)?;
        self.is_done = true;
        self.bucket.objects().delete([key(&self.id)])?;
        let pieces = self.kept.iter().chain(&self.writer.pieces).map(Piece::key);
        self.bucket.objects().delete(pieces)?;
        Ok(())
    }
}

impl Receive for OpenUpload {
    fn append(&mut self, pieces: &[Bytes]) -> Result<(), UploadError> {
        for piece in pieces {
            self.writer.append(piece)?;
            self.state.add(piece);
        }
        Ok(())
    }

    fn keep(&mut self) -> Result<(), UploadError> {
        OpenUpload::keep(self)
    }
}

impl Drop for OpenUpload {
    fn drop(&mut self) {
        if !self.is_done {
            // What this request has written and nothing lists.
            let gone = self.writer.pieces.iter().filter(|piece| !self.kept.contains(piece)).map(Piece::key);
            self.bucket.objects().delete_later(gone);
        }
    }
}
