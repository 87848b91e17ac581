// SPDX-License-Identifier: Apache-2.0
//! The bytes of blobs: written in pieces while they come, read in ranges.
//!
//! Content of one piece is one object; of several, a list of them. It is there, durably and whole, before anything leads
//! to it, and nothing of it is written a second time.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use polyarch_oci::{Algorithm, Digest};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::super::body::Body;
use super::super::body::read_part;
use super::super::disk::DiskError;
use super::super::storage::{Incoming, StorageError};
use super::super::upload::{Hashed, Receive, UploadError};
use super::repository::Held;
use super::{Bucket, MAX_KNOWN_LISTS, Repository, contents_key, new_name, now};

/// What is gathered before it is written: a piece of a blob.
const PIECE_BYTES: usize = if cfg!(test) { 16 << 10 } else { 8 << 20 };
/// What is read of a file at a time.
const READ_BYTES: u64 = 1 << 20;
/// The largest list of pieces, in bytes: a terabyte's.
const MAX_LIST_BYTES: u64 = 16 << 20;
/// The end of the names of contents that have several pieces.
pub(super) const LIST_SUFFIX: &str = ".pieces";
/// What is smaller is not looked for in other repositories: writing it again takes no longer.
const SHARED_BYTES: u64 = if cfg!(test) { 1 << 10 } else { 64 << 10 };

/// A part of a blob that is an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    /// The object beneath `pieces/`.
    pub(super) name: String,
    /// Its size, in bytes.
    pub(super) size: u64,
}

impl Piece {
    pub(super) fn key(&self) -> String {
        format!("pieces/{}", self.name)
    }
}

/// Writes content in pieces.
pub(super) struct Writer {
    bucket: Bucket,
    /// The name of the content; also what its pieces' names begin with.
    pub(super) name: String,
    /// What was written.
    pub(super) pieces: Vec<Piece>,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
}

impl Writer {
    pub(super) fn new(bucket: Bucket, name: String, pieces: Vec<Piece>) -> Writer {
        Writer { bucket, name, pieces, gathered: Vec::new(), gathered_bytes: 0 }
    }

    pub(super) fn append(&mut self, bytes: &Bytes) -> Result<(), StorageError> {
        self.gathered_bytes += bytes.len();
        self.gathered.push(bytes.clone());
        if self.gathered_bytes >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    pub(super) fn has_gathered(&self) -> bool {
        self.gathered_bytes > 0
    }

    /// Writes what was gathered.
    pub(super) fn flush(&mut self) -> Result<(), StorageError> {
        if self.gathered_bytes == 0 {
            return Ok(());
        }
        // The end keeps what one request has written from what another one writes at the same place.
        let name = format!("{}/{:05}-{}", self.name, self.pieces.len(), &new_name()?[..8]);
        let piece = Piece { name, size: self.gathered_bytes as u64 };
        self.bucket.objects().put(&piece.key(), std::mem::take(&mut self.gathered))?;
        self.gathered_bytes = 0;
        self.pieces.push(piece);
        Ok(())
    }

    /// Makes what was written content of a digest; returns its name there.
    pub(super) fn seal(&mut self, digest: &Digest) -> Result<String, StorageError> {
        if self.pieces.is_empty() {
            let key = format!("{}/{}", contents_key(digest), self.name);
            self.bucket.objects().put(&key, std::mem::take(&mut self.gathered))?;
            return Ok(self.name.clone());
        }
        self.flush()?;
        let name = format!("{}{LIST_SUFFIX}", self.name);
        let list = serde_json::to_vec(&self.pieces).expect("texts and numbers can be written as JSON");
        self.bucket.objects().put(&format!("{}/{name}", contents_key(digest)), [list.into()])?;
        Ok(name)
    }
}

/// A blob that comes whole in one request; nothing of it stays when that fails.
pub(in crate::server) struct WholeBlob {
    repository: Arc<Repository>,
    writer: Writer,
    state: Hashed,
    is_sealed: bool,
}

impl WholeBlob {
    /// Begins a blob.
    pub(in crate::server) fn start(
        bucket: &Bucket,
        repository: &Arc<Repository>,
        algorithm: Algorithm,
    ) -> Result<WholeBlob, StorageError> {
        let writer = Writer::new(bucket.clone(), new_name()?, Vec::new());
        Ok(WholeBlob {
            repository: repository.clone(),
            writer,
            state: Hashed::new(algorithm),
            is_sealed: false,
        })
    }

    /// Makes it a blob of the repository.
    pub(in crate::server) fn finish(mut self, expected: &Digest) -> Result<u64, UploadError> {
        let size = self.state.check(expected)?;
        let bucket = self.writer.bucket.clone();
        // One that is there is used, so that repositories share it.
        let content = match bucket.find_content(expected, size)? {
            Some(content) => content,
            None => {
                // Something may lead to its pieces from here on, whatever fails.
                self.is_sealed = true;
                self.writer.seal(expected)?
            }
        };
        self.repository.hold(&bucket, expected, Held { size, content, since: now() })?;
        Ok(size)
    }
}

impl Receive for WholeBlob {
    fn append(&mut self, pieces: &[Bytes]) -> Result<(), UploadError> {
        for piece in pieces {
            self.writer.append(piece)?;
            self.state.add(piece);
        }
        Ok(())
    }
}

impl Drop for WholeBlob {
    fn drop(&mut self) {
        if !self.is_sealed {
            let pieces = std::mem::take(&mut self.writer.pieces);
            self.writer.bucket.objects().delete_later(pieces.iter().map(Piece::key));
        }
    }
}

/// The bytes of a blob, to be read.
pub(in crate::server) struct Content {
    bucket: Bucket,
    pub(in crate::server) size: u64,
    /// Names and sizes.
    pub(super) objects: Vec<(String, u64)>,
}

impl Content {
    pub(super) fn of(bucket: &Bucket, size: u64, objects: Vec<(String, u64)>) -> Content {
        Content { bucket: bucket.clone(), size, objects }
    }

    /// Makes a body of a part of it.
    pub(in crate::server) fn into_body(self, first: u64, length: u64) -> Body {
        let (sender, receiver) = mpsc::channel(4);
        let store = self.bucket.objects().store();
        let ranges: Vec<_> = self
            .ranges(first, length)
            .map(|(name, range)| (self.bucket.objects().key(name), range))
            .collect();
        self.bucket.objects().spawn(async move {
            for (key, range) in ranges {
                let options = object_store::GetOptions { range: Some(range.into()), ..Default::default() };
                let mut pieces = match store.get_opts(&key, options).await {
                    Ok(found) => found.into_stream(),
                    Err(error) => {
                        // Nobody reads any more, when it can't be sent.
                        let _ = sender.send(Err(std::io::Error::other(error))).await;
                        return;
                    }
                };
                while let Some(piece) = pieces.next().await {
                    let is_broken = piece.is_err();
                    if sender.send(piece.map_err(std::io::Error::other)).await.is_err() || is_broken {
                        return;
                    }
                }
            }
        });
        Body::Pieces { receiver, remaining: length }
    }

    /// Reads all of it; not more than `max` bytes.
    pub(in crate::server) fn read(&self, max: u64) -> Result<Bytes, StorageError> {
        let mut whole = Vec::new();
        self.read_pieces(max, |piece| whole.extend_from_slice(&piece))?;
        Ok(whole.into())
    }

    /// Reads it piece by piece; not more than `max` bytes.
    pub(super) fn read_pieces(&self, max: u64, mut take: impl FnMut(Bytes)) -> Result<(), StorageError> {
        for (name, range) in self.ranges(0, self.size.min(max)) {
            let mut at = range.start;
            while at < range.end {
                let end = range.end.min(at + PIECE_BYTES as u64);
                take(self.bucket.objects().get_range(name, at..end)?);
                at = end;
            }
        }
        Ok(())
    }

    /// Finds the parts of objects that make up a part of the whole.
    fn ranges(&self, first: u64, length: u64) -> impl Iterator<Item = (&str, Range<u64>)> {
        let end = first.saturating_add(length);
        let mut begin = 0;
        self.objects.iter().filter_map(move |(name, size)| {
            let (from, to) = (begin, begin + size);
            begin = to;
            let (start, stop) = (first.max(from), end.min(to));
            (start < stop).then(|| (&**name, start - from..stop - from))
        })
    }
}

impl Bucket {
    /// Makes a file whose content has the digest a blob of a repository.
    pub(in crate::server) fn place_file(
        &self,
        repository: &Repository,
        incoming: &Incoming,
        digest: &Digest,
    ) -> Result<(), StorageError> {
        let failed = |error| DiskError::new("read", &incoming.path)(error);
        let size = incoming.file.metadata().map_err(failed)?.len();
        let content = match self.find_content(digest, size)? {
            Some(content) => content,
            None => {
                let mut writer = Writer::new(self.clone(), new_name()?, Vec::new());
                let mut at = 0;
                while at < size {
                    let length = (size - at).min(READ_BYTES);
                    writer.append(&read_part(&incoming.file, at, length).map_err(failed)?)?;
                    at += length;
                }
                writer.seal(digest)?
            }
        };
        repository.hold(self, digest, Held { size, content, since: now() })
    }

    /// Opens the content that a repository holds.
    pub(super) fn content(&self, digest: &Digest, held: &Held) -> Result<Content, StorageError> {
        let key = format!("{}/{}", contents_key(digest), held.content);
        let objects = match held.content.strip_suffix(LIST_SUFFIX) {
            None => vec![(key, held.size)],
            Some(_) => self.pieces_of(&key)?.iter().map(|piece| (piece.key(), piece.size)).collect(),
        };
        Ok(Content::of(self, held.size, objects))
    }

    /// Reads a list of pieces, which never changes.
    pub(super) fn pieces_of(&self, key: &str) -> Result<Arc<Vec<Piece>>, StorageError> {
        if let Some(list) = self.lists().get(key) {
            return Ok(list.clone());
        }
        let bytes = self.objects().get(key, MAX_LIST_BYTES)?;
        let bytes = bytes.ok_or_else(|| self.objects().damaged(key, "it is not there"))?;
        let list: Vec<Piece> =
            serde_json::from_slice(&bytes).map_err(|error| self.objects().damaged(key, error))?;
        let list = Arc::new(list);
        let mut known = self.lists();
        if known.len() >= MAX_KNOWN_LISTS {
            known.clear();
        }
        known.insert(key.to_owned(), list.clone());
        Ok(list)
    }

    /// Finds content of a digest that is not about to go.
    pub(super) fn find_content(&self, digest: &Digest, size: u64) -> Result<Option<String>, StorageError> {
        if size < SHARED_BYTES {
            return Ok(None);
        }
        Ok(self.any_content(digest)?.filter(|(_, found)| *found == size).map(|(name, _)| name))
    }

    /// Finds content of a digest that is not about to go, and its size.
    pub(super) fn any_content(&self, digest: &Digest) -> Result<Option<(String, u64)>, StorageError> {
        let key = contents_key(digest);
        let listed = self.objects().list_some(&key, 100)?;
        let is_going = |name: &str| {
            listed.iter().any(|other| other.name.strip_suffix(super::collect::GOING_SUFFIX) == Some(name))
        };
        for found in &listed {
            if found.name.ends_with(super::collect::GOING_SUFFIX) || is_going(&found.name) {
                continue;
            }
            let size = match found.name.ends_with(LIST_SUFFIX) {
                true => {
                    self.pieces_of(&format!("{key}/{}", found.name))?.iter().map(|piece| piece.size).sum()
                }
                false => found.size,
            };
            return Ok(Some((found.name.clone(), size)));
        }
        Ok(None)
    }
}
