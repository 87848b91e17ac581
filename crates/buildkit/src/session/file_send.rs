// SPDX-License-Identifier: Apache-2.0
//! Takes the archives that a daemon exports (`FileSend.DiffCopy`).
//!
//! The daemon sends the bytes and waits for the end of our half; that comes only when whoever takes
//! the archive has taken all of it, so that a build can't succeed before its result is home.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, Bytes};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::api::control::BytesMessage;
use crate::session::{Attachments, metadata};

/// How many messages wait to be taken.
const QUEUE: usize = 16;

/// How much may come after the end of an archive, in bytes: tar fills up what it writes.
const MAX_REST_BYTES: u64 = 4 << 20;

/// Takes an export as a stream of bytes; it runs where it may block, at most once.
pub type TakeArchive = Box<dyn FnOnce(&mut dyn Read) -> Result<(), String> + Send>;

/// Where one export goes.
pub struct ArchiveTarget(Mutex<Option<TakeArchive>>);

impl ArchiveTarget {
    /// Makes a target of a function that reads the archive to its end.
    pub fn new(take: impl FnOnce(&mut dyn Read) -> Result<(), String> + Send + 'static) -> ArchiveTarget {
        ArchiveTarget(Mutex::new(Some(Box::new(take))))
    }

    fn take(&self) -> Option<TakeArchive> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Serves an export.
pub(crate) async fn diff_copy(
    attachments: Arc<Attachments>,
    request: Request<Streaming<BytesMessage>>,
) -> Result<Response<impl Stream<Item = Result<BytesMessage, Status>> + Send + 'static>, Status> {
    let id = metadata::first(request.metadata(), "buildkit-attachable-exporter-id");
    let id = id.map_or(Ok(0), |id| id.parse::<usize>());
    let target = id.ok().and_then(|id| attachments.archives.get(id));
    let Some(target) = target else {
        return Err(Status::not_found("there is no such exporter in this session"));
    };
    let Some(take) = target.take() else {
        return Err(Status::already_exists("this exporter has sent its result already"));
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    let taking = tokio::task::spawn_blocking(move || {
        let mut archive = Archive { receiver, chunk: Bytes::new(), is_ended: false };
        take(&mut archive)?;
        pass_rest(&mut archive)
    });
    let mut incoming = request.into_inner();
    loop {
        let message = match incoming.next().await {
            Some(Ok(message)) if message.data.is_empty() => continue,
            Some(message) => message.map(|message| message.data).map_err(io::Error::other),
            // Told, because a call that is given up is dropped right here.
            None => Ok(END),
        };
        let is_end = !matches!(&message, Ok(data) if !data.is_empty());
        // A target that takes no more has failed, and says why below.
        if sender.send(message).await.is_err() || is_end {
            break;
        }
    }
    drop(sender);
    match taking.await {
        Ok(Ok(())) => Ok(Response::new(futures_util::stream::empty())),
        Ok(Err(problem)) => Err(Status::aborted(problem)),
        Err(panic) => Err(Status::internal(panic.to_string())),
    }
}

/// Lets pass what comes after the end of an archive, or else the daemon would wait forever; but not for ever.
fn pass_rest(archive: &mut dyn Read) -> Result<(), String> {
    let passed = io::copy(&mut archive.take(MAX_REST_BYTES + 1), &mut io::sink());
    match passed.map_err(|error| error.to_string())? > MAX_REST_BYTES {
        true => Err(format!("more than {} MiB came after the end of the archive", MAX_REST_BYTES >> 20)),
        false => Ok(()),
    }
}

/// The end of an export, among its bytes.
const END: Bytes = Bytes::new();

/// The bytes of an export, for a reader that blocks.
struct Archive {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    chunk: Bytes,
    is_ended: bool,
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() && !self.is_ended {
            let given_up = || io::Error::new(io::ErrorKind::UnexpectedEof, "the daemon gave up its result");
            self.chunk = self.receiver.blocking_recv().ok_or_else(given_up)??;
            self.is_ended = self.chunk.is_empty();
        }
        let count = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_an_archive_has_an_end() {
        assert_eq!(pass_rest(&mut io::repeat(0).take(MAX_REST_BYTES)), Ok(()));
        assert!(pass_rest(&mut io::repeat(0)).unwrap_err().contains("more than 4 MiB"));
    }
}
