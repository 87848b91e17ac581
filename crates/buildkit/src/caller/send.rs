// SPDX-License-Identifier: Apache-2.0
//! Sends results to a client (`FileSend.DiffCopy`): archives as bytes, trees as file transfers.
//!
//! The client has an archive only when it has seen its end and ended its own half. An archive that is given
//! up is cancelled, never ended, lest the client take a part for the whole.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use crate::api::control::BytesMessage;
use crate::api::fsutil::Packet;
use crate::api::methods::client;
use crate::caller::{CallerError, ClientSession};
use crate::session::{Selection, SharedDirectory, file_sync, metadata};

/// The size of a message, in bytes; some clients take only 4 MiB at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// How many messages wait to be sent.
const QUEUE: usize = 8;
/// How long a client may take nothing of an archive.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

const WHAT_ARCHIVE: &str = "send the result to the client";
const WHAT_TREE: &str = "send the result's files to the client";

impl ClientSession {
    /// Begins to send an archive to the client's exporter of an index (`0` is the first), with what the
    /// client is told about it beforehand.
    ///
    /// # Errors
    /// When the client takes no results.
    pub fn send_archive(
        &self,
        exporter: usize,
        about: &BTreeMap<String, String>,
    ) -> Result<ArchiveWriter, CallerError> {
        self.need(WHAT_ARCHIVE, client::FILE_SEND.path())?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut request = Request::new(whole(receiver));
        let headers = request.metadata_mut();
        metadata::insert(headers, "buildkit-attachable-exporter-id", &[exporter.to_string()]);
        for (key, value) in about {
            metadata::insert(headers, &format!("exporter-md-{key}"), std::slice::from_ref(value));
        }
        let session = self.clone();
        let sent = tokio::spawn(async move {
            let call = async {
                let answer = client::FILE_SEND.open(&session.0.channel, request).await?;
                answer.try_for_each(|_| std::future::ready(Ok(()))).await
            };
            session.within(WHAT_ARCHIVE, call).await
        });
        let runtime = tokio::runtime::Handle::current();
        Ok(ArchiveWriter { sender, chunk: Vec::new(), sent: Some(sent), runtime })
    }

    /// Sends what a directory holds to the client's exporter of an index. `is_all_platforms` says that it
    /// holds the results of all platforms, one directory each or one for all: the client may then remove
    /// what is there beside them.
    ///
    /// # Errors
    /// When the client takes no results, fails to write them, or goes away.
    pub async fn send_directory(
        &self,
        exporter: usize,
        directory: &Path,
        is_all_platforms: bool,
    ) -> Result<(), CallerError> {
        self.need(WHAT_TREE, client::FILE_SEND_PACKETS.path())?;
        let write = |source| CallerError::Write { path: directory.to_owned(), source };
        let directory = SharedDirectory::open(directory).map_err(|error| write(io::Error::other(error)))?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        // A failure ends our packets with the one that tells it.
        let packets = ReceiverStream::new(receiver)
            .take_while(|packet: &Result<Packet, Status>| std::future::ready(packet.is_ok()))
            .filter_map(|packet| std::future::ready(packet.ok()));
        let mut request = Request::new(packets);
        let headers = request.metadata_mut();
        metadata::insert(headers, "buildkit-attachable-exporter-id", &[exporter.to_string()]);
        if is_all_platforms {
            metadata::insert(headers, "buildkit-exporter-multi-platform", &["1".to_owned()]);
        }
        // The client may answer nothing before it has packets, so both go at the same time.
        let channel = self.0.channel.clone();
        let incoming = async move { client::FILE_SEND_PACKETS.open(&channel, request).await };
        let incoming = Box::pin(incoming.try_flatten_stream());
        self.within(WHAT_TREE, file_sync::transfer(directory, Selection::default(), incoming, sender)).await
    }
}

/// Returns the messages of an archive, which end only when the archive does.
fn whole(mut receiver: mpsc::Receiver<Option<Bytes>>) -> impl Stream<Item = BytesMessage> + Send + 'static {
    futures_util::stream::poll_fn(move |cx| match receiver.poll_recv(cx) {
        Poll::Ready(Some(data)) => Poll::Ready(data.map(|data| BytesMessage { data })),
        // Given up: whoever dropped the writer cancels the call.
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    })
    .fuse()
}

/// The bytes of an archive on their way to a client, written where it may block.
///
/// Dropped before [`ArchiveWriter::finish`], the client sees a failure.
pub struct ArchiveWriter {
    sender: mpsc::Sender<Option<Bytes>>,
    chunk: Vec<u8>,
    sent: Option<JoinHandle<Result<(), CallerError>>>,
    runtime: tokio::runtime::Handle,
}

impl ArchiveWriter {
    /// Ends the archive and waits until the client has taken all of it.
    ///
    /// # Errors
    /// When the client failed to, or is gone.
    pub async fn finish(mut self) -> Result<(), CallerError> {
        let rest = std::mem::take(&mut self.chunk);
        if !rest.is_empty() {
            // When it can't be sent, the call tells why.
            let _ = self.sender.send(Some(rest.into())).await;
        }
        let _ = self.sender.send(None).await;
        self.outcome().await
    }

    /// Tells why the client takes no more, after a write has failed.
    pub async fn failure(mut self) -> CallerError {
        match self.outcome().await {
            Err(error) => error,
            Ok(()) => CallerError::Hostile {
                what: WHAT_ARCHIVE,
                problem: "the end of its half before it had the whole".to_owned(),
            },
        }
    }

    async fn outcome(&mut self) -> Result<(), CallerError> {
        match self.sent.as_mut() {
            Some(sent) => match sent.await {
                Ok(outcome) => outcome,
                Err(error) => Err(CallerError::of_status(WHAT_ARCHIVE, &Status::internal(error.to_string()))),
            },
            None => Ok(()),
        }
    }

    fn send_chunk(&mut self) -> io::Result<()> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES));
        // A client that takes nothing shall not hold this thread for ever.
        let sent = self.runtime.block_on(self.sender.send_timeout(Some(chunk.into()), IDLE_TIMEOUT));
        sent.map_err(|error| match error {
            SendTimeoutError::Closed(_) => {
                io::Error::new(io::ErrorKind::BrokenPipe, "the client takes no more of the result")
            }
            SendTimeoutError::Timeout(_) => {
                if let Some(call) = &self.sent {
                    call.abort();
                }
                let problem = "the client has taken nothing of the result for 10 minutes";
                io::Error::new(io::ErrorKind::TimedOut, problem)
            }
        })
    }
}

impl Write for ArchiveWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        if self.chunk.len() == CHUNK_BYTES {
            self.send_chunk()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.chunk.is_empty() {
            true => Ok(()),
            false => self.send_chunk(),
        }
    }
}

impl Drop for ArchiveWriter {
    fn drop(&mut self) {
        if let Some(sent) = self.sent.take() {
            sent.abort();
        }
    }
}
