// SPDX-License-Identifier: Apache-2.0
//! Blobs that a daemon may read and give during a build: the caches of `type=local`.
//!
//! They lie in the store, each under its digest, which is checked before it is there. A daemon reads those that it
//! was told of and those that it gave to the last byte, and no others: a digest alone opens nothing.

use std::collections::HashSet;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{Stream, StreamExt as _};
use polyarch_build::error::chain_of;
use polyarch_oci::Digest;
use polyarch_store::{BlobWriter, Store};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::api::content::{
    Info, InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse, WriteAction,
    WriteContentRequest, WriteContentResponse,
};
use crate::session::{Attachments, metadata};

/// The size of the pieces of a blob.
const PIECE_BYTES: u64 = 1 << 20;
/// How many messages wait to be sent.
const QUEUE: usize = 4;
/// The largest blob, in bytes.
const MAX_BLOB_BYTES: u64 = 64 << 30;
/// The most blobs of a build.
const MAX_BLOBS: usize = 100_000;

/// Blobs for one build.
pub struct ContentStore {
    store: Store,
    blobs: Mutex<Blobs>,
}

#[derive(Default)]
struct Blobs {
    readable: HashSet<Digest>,
    /// Those that the daemon wanted to give and that the store had.
    named: HashSet<Digest>,
}

impl ContentStore {
    /// Makes one of a store, with the blobs that may be read.
    pub fn new(store: Store, readable: impl IntoIterator<Item = Digest>) -> ContentStore {
        let blobs = Blobs { readable: readable.into_iter().collect(), named: HashSet::new() };
        ContentStore { store, blobs: Mutex::new(blobs) }
    }

    /// Tells whether the daemon gave a blob, or would have if the store had not had it.
    pub fn was_given(&self, digest: &Digest) -> bool {
        let blobs = self.blobs();
        blobs.named.contains(digest) || blobs.readable.contains(digest)
    }

    fn blobs(&self) -> std::sync::MutexGuard<'_, Blobs> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, digest: &Digest, is_readable: bool) -> Result<(), Status> {
        let mut blobs = self.blobs();
        if blobs.readable.len() + blobs.named.len() >= MAX_BLOBS {
            return Err(Status::resource_exhausted(format!("a build has at most {MAX_BLOBS} blobs")));
        }
        match is_readable {
            true => blobs.readable.insert(digest.clone()),
            false => blobs.named.insert(digest.clone()),
        };
        Ok(())
    }

    fn size(&self, digest: &Digest) -> Result<u64, Status> {
        let is_readable = self.blobs().readable.contains(digest);
        let size = Some(digest).filter(|_| is_readable).and_then(|digest| self.store.size(digest));
        size.ok_or_else(|| Status::not_found(format!("content {digest}: not found")))
    }
}

fn chosen(attachments: &Attachments, headers: &MetadataMap) -> Result<Arc<ContentStore>, Status> {
    let name = metadata::first(headers, "buildkit-attachable-store-id").unwrap_or_default();
    let found = attachments.contents.get(&name).cloned();
    found.ok_or_else(|| Status::not_found(format!("there is no content store {name:?} in this session")))
}

fn internal(error: &(dyn std::error::Error + 'static)) -> Status {
    Status::internal(chain_of(error))
}

fn digest_of(text: &str) -> Result<Digest, Status> {
    text.parse().map_err(|error: polyarch_oci::DigestError| Status::invalid_argument(error.to_string()))
}

/// Tells the size of a blob.
pub(crate) async fn info(
    attachments: Arc<Attachments>,
    request: Request<InfoRequest>,
) -> Result<InfoResponse, Status> {
    let content = chosen(&attachments, request.metadata())?;
    let digest = digest_of(&request.get_ref().digest)?;
    let size = i64::try_from(content.size(&digest)?).unwrap_or(i64::MAX);
    let info = Info { digest: digest.to_string(), size, ..Info::default() };
    Ok(InfoResponse { info: Some(info) })
}

/// Sends a blob, or a part of it.
pub(crate) async fn read(
    attachments: Arc<Attachments>,
    request: Request<ReadContentRequest>,
) -> Result<Response<impl Stream<Item = Result<ReadContentResponse, Status>> + Send + 'static>, Status> {
    let content = chosen(&attachments, request.metadata())?;
    let request = request.into_inner();
    let digest = digest_of(&request.digest)?;
    let size = content.size(&digest)?;
    let outside = |_| Status::out_of_range("a read begins and ends within the blob");
    let offset = u64::try_from(request.offset).map_err(outside)?;
    let wanted = u64::try_from(request.size).map_err(outside)?;
    let rest = size
        .checked_sub(offset)
        .ok_or_else(|| Status::out_of_range(format!("read past object length {size} bytes")))?;
    let wanted = if wanted == 0 { rest } else { wanted.min(rest) };
    let mut file = content.store.open_blob(&digest).map_err(|error| internal(&error))?;
    file.seek(SeekFrom::Start(offset)).map_err(|error| internal(&error))?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        let (mut file, mut offset) = (file.take(wanted), request.offset);
        loop {
            let mut data = Vec::new();
            let read = file.by_ref().take(PIECE_BYTES).read_to_end(&mut data);
            let message = match read {
                Ok(0) => return,
                Ok(count) => {
                    let message = ReadContentResponse { offset, data };
                    offset = offset.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
                    Ok(message)
                }
                Err(error) => Err(Status::internal(error.to_string())),
            };
            let is_end = message.is_err();
            // A daemon that does not wait for the rest has enough.
            if sender.blocking_send(message).is_err() || is_end {
                return;
            }
        }
    });
    Ok(Response::new(ReceiverStream::new(receiver)))
}

/// Takes a blob.
pub(crate) async fn write(
    attachments: Arc<Attachments>,
    request: Request<Streaming<WriteContentRequest>>,
) -> Result<Response<impl Stream<Item = Result<WriteContentResponse, Status>> + Send + 'static>, Status> {
    let content = chosen(&attachments, request.metadata())?;
    let mut incoming = request.into_inner();
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut writing: Option<Writing> = None;
        while let Some(message) = incoming.next().await {
            let answer = message.and_then(|message| step(&content, &mut writing, message));
            let is_end = match &answer {
                Ok(answer) => answer.action == i32::from(WriteAction::Commit),
                Err(_) => true,
            };
            if sender.send(answer).await.is_err() || is_end {
                return;
            }
        }
    });
    Ok(Response::new(ReceiverStream::new(receiver)))
}

/// A blob on its way; without a commit nothing of it stays.
struct Writing {
    digest: Digest,
    writer: Option<BlobWriter>,
    offset: u64,
}

/// Does what one message of a write asks.
fn step(
    content: &ContentStore,
    writing: &mut Option<Writing>,
    message: WriteContentRequest,
) -> Result<WriteContentResponse, Status> {
    let writing = match writing {
        Some(writing) => writing,
        None => {
            let digest = digest_of(&message.expected)?;
            if content.store.contains(&digest) {
                content.learn(&digest, false)?;
                return Err(Status::already_exists(format!("content {digest}: already exists")));
            }
            let writer = content.store.writer_of(digest.algorithm()).map_err(|error| internal(&error))?;
            writing.insert(Writing { digest, writer: Some(writer), offset: 0 })
        }
    };
    let Some(writer) = &mut writing.writer else {
        return Err(Status::failed_precondition("the blob has been committed"));
    };
    let action = message.action();
    if action != WriteAction::Stat {
        let at = u64::try_from(message.offset).unwrap_or(u64::MAX);
        // A commit may leave the offset out.
        if at != writing.offset && !(at == 0 && message.data.is_empty()) {
            return Err(Status::out_of_range(format!("a write must go on at {}", writing.offset)));
        }
        writing.offset = writing.offset.saturating_add(message.data.len() as u64);
        if writing.offset > MAX_BLOB_BYTES {
            return Err(Status::resource_exhausted(format!("a blob has at most {MAX_BLOB_BYTES} bytes")));
        }
        content
            .store
            .require_room(message.data.len() as u64)
            .map_err(|error| Status::resource_exhausted(chain_of(&error)))?;
        writer.write_all(&message.data).map_err(|error| internal(&error))?;
    }
    if action == WriteAction::Commit {
        if let Some(writer) = writing.writer.take() {
            let committed = writer.commit(Some((&writing.digest, writing.offset)));
            committed.map_err(|error| Status::failed_precondition(chain_of(&error)))?;
        }
        content.learn(&writing.digest, true)?;
    }
    Ok(WriteContentResponse {
        action: action.into(),
        offset: i64::try_from(writing.offset).unwrap_or(i64::MAX),
        total: message.total,
        digest: writing.digest.to_string(),
        ..WriteContentResponse::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(action: WriteAction, digest: &Digest, offset: i64, data: &[u8]) -> WriteContentRequest {
        WriteContentRequest {
            action: action.into(),
            expected: digest.to_string(),
            offset,
            data: data.to_vec(),
            ..WriteContentRequest::default()
        }
    }

    #[test]
    fn a_blob_is_there_when_all_of_it_is() {
        let place = tempfile::tempdir().unwrap();
        let content = ContentStore::new(Store::open(place.path()).unwrap(), []);
        let digest = Digest::of("a blob");
        let mut writing = None;
        let stat = step(&content, &mut writing, message(WriteAction::Stat, &digest, 0, b"")).unwrap();
        assert_eq!(stat.offset, 0);
        let first = step(&content, &mut writing, message(WriteAction::Write, &digest, 0, b"a ")).unwrap();
        assert_eq!(first.offset, 2);
        let wrong = step(&content, &mut writing, message(WriteAction::Write, &digest, 7, b"x")).unwrap_err();
        assert_eq!(wrong.code(), tonic::Code::OutOfRange);
        assert!(content.size(&digest).is_err());
        step(&content, &mut writing, message(WriteAction::Commit, &digest, 2, b"blob")).unwrap();
        assert_eq!(content.size(&digest).unwrap(), 6);
        let again = step(&content, &mut None, message(WriteAction::Write, &digest, 0, b"a blob"));
        assert_eq!(again.unwrap_err().code(), tonic::Code::AlreadyExists);
    }

    #[test]
    fn other_bytes_than_the_digest_says_are_nothing_and_other_blobs_are_not_read() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        let secret = store.put(b"somebody else's").unwrap();
        let content = ContentStore::new(store.clone(), []);
        assert_eq!(content.size(&secret).unwrap_err().code(), tonic::Code::NotFound);
        assert!(ContentStore::new(store.clone(), [secret.clone()]).size(&secret).is_ok());
        // Nor is one read that the daemon can only name.
        step(&content, &mut None, message(WriteAction::Write, &secret, 0, b"")).unwrap_err();
        assert!(content.was_given(&secret) && content.size(&secret).is_err());
        let digest = Digest::of("a blob");
        let mut writing = None;
        step(&content, &mut writing, message(WriteAction::Commit, &digest, 0, b"no blob")).unwrap_err();
        assert!(!store.contains(&digest) && !content.was_given(&digest));
    }
}
