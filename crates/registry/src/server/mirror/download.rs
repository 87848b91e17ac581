// SPDX-License-Identifier: Apache-2.0
//! A blob on its way from upstream: written to the disk once, and read from there by all who want it, while it comes.
//!
//! Its last byte is given to nobody before the digest was verified, so that nothing wrong ever looks whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use polyarch_oci::{Descriptor, Hasher, Reference};
use tokio::sync::{mpsc, watch};

use super::Upstream;
use crate::server::api_error::{ApiError, chain_of};
use crate::server::backend::Repository;
use crate::server::body::{Body, read_part};
use crate::server::state::State;
use crate::server::storage::Incoming;
use crate::{BlobSink, Client, Progress};

/// Pieces in which readers get it.
const PIECE_BYTES: u64 = 256 << 10;

/// A download.
pub(super) struct Download {
    file: Arc<File>,
    progress: watch::Receiver<Status>,
}

/// How far it is.
#[derive(Debug, Clone, Default)]
struct Status {
    /// What may be read.
    ready: u64,
    served_by: Option<String>,
    /// It has ended; with what went wrong.
    ended: Option<Result<(), String>>,
}

impl Download {
    /// Begins a download, which goes on also when nobody waits for it any more.
    pub(super) fn start(
        state: &Arc<State>,
        repository: &Arc<Repository>,
        blob: Descriptor,
        client: Client,
        sources: Vec<(Arc<Upstream>, Reference)>,
    ) -> Result<Arc<Download>, ApiError> {
        let incoming = state.storage.incoming()?;
        let file = incoming.file.try_clone().map_err(ApiError::internal)?;
        let (sender, progress) = watch::channel(Status::default());
        let repository = repository.clone();
        tokio::spawn(async move {
            let result = run(&client, &sources, &blob, incoming, &sender, repository).await;
            sender.send_modify(|status| {
                status.ready = if result.is_ok() { blob.size } else { status.ready };
                status.ended = Some(result);
            });
        });
        Ok(Arc::new(Download { file: Arc::new(file), progress }))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.progress.borrow().ended.is_some()
    }

    /// Waits for the first bytes, and returns who sends them; the error is a sentence.
    pub(super) async fn begun(&self) -> Result<String, String> {
        let mut progress = self.progress.clone();
        let begun = progress.wait_for(|status| status.ready > 0 || status.ended.is_some()).await;
        let status = begun.map_err(|_| "the server ends".to_owned())?;
        match &status.ended {
            Some(Err(reason)) => Err(reason.clone()),
            _ => Ok(status.served_by.clone().unwrap_or_default()),
        }
    }

    /// Makes a body of a part of it.
    pub(super) fn read(&self, first: u64, length: u64) -> Body {
        let (sender, receiver) = mpsc::channel(2);
        let (file, mut progress) = (self.file.clone(), self.progress.clone());
        tokio::spawn(async move {
            let (mut at, end) = (first, first + length);
            while at < end {
                let waited = progress.wait_for(|status| status.ready > at || status.ended.is_some()).await;
                // Copied, because what is borrowed keeps the download from going on.
                let status = waited.map(|status| status.clone()).unwrap_or_default();
                let ready = status.ready;
                if ready <= at {
                    // It ended too early, which the client has to see and the log to say.
                    let reason = match status.ended {
                        Some(Err(reason)) => reason,
                        _ => "the server ends".to_owned(),
                    };
                    let _ = sender.send(Err(io::Error::other(reason))).await;
                    return;
                }
                let piece = (ready.min(end) - at).min(PIECE_BYTES);
                let (file, offset) = (file.clone(), at);
                let read = tokio::task::spawn_blocking(move || read_part(&file, offset, piece));
                let read = read.await.map_err(io::Error::other).and_then(|read| read);
                let is_broken = read.is_err();
                if sender.send(read).await.is_err() || is_broken {
                    return;
                }
                at += piece;
            }
        });
        Body::Pieces { receiver, remaining: length }
    }
}

/// Fetches from one source after the other; the error is a sentence.
async fn run(
    client: &Client,
    sources: &[(Arc<Upstream>, Reference)],
    blob: &Descriptor,
    incoming: Incoming,
    sender: &watch::Sender<Status>,
    repository: Arc<Repository>,
) -> Result<(), String> {
    let file = incoming.file.try_clone().map_err(|error| error.to_string())?;
    let mut sink = Sink {
        file: Arc::new(file),
        hasher: Some(Hasher::new(blob.digest.algorithm())),
        written: 0,
        skip: 0,
        size: blob.size,
        sender,
    };
    let mut failure = "there is no upstream".to_owned();
    for (upstream, source) in sources {
        // What an earlier source sent is here already.
        sink.skip = sink.written;
        sender.send_modify(|status| status.served_by = Some(source.host().to_owned()));
        match client.get_blob(source, blob, &mut sink, &Progress::none()).await {
            Ok(_) => {
                let found = sink.hasher.take().map(Hasher::finish);
                // Pieces of several sources need not fit together.
                if found.as_ref() != Some(&blob.digest) {
                    return Err(format!("the sources of {} differ", blob.digest));
                }
                let digest = blob.digest.clone();
                let placed = tokio::task::spawn_blocking(move || repository.place_file(incoming, &digest));
                return placed.await.map_err(|error| error.to_string())?.map_err(|error| chain_of(&error));
            }
            Err(error) => {
                upstream.failed(&error);
                failure = chain_of(&error);
                if error.is_about_content() {
                    // Readers have had wrong bytes, which nothing can follow; those who ask again get others.
                    break;
                }
            }
        }
    }
    Err(failure)
}

/// Writes what comes, and tells readers.
struct Sink<'a> {
    file: Arc<File>,
    /// Taken at the end.
    hasher: Option<Hasher>,
    written: u64,
    /// What a further source sends once more.
    skip: u64,
    size: u64,
    sender: &'a watch::Sender<Status>,
}

impl BlobSink for Sink<'_> {
    async fn write(&mut self, mut chunk: Bytes) -> io::Result<()> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
        self.skip -= skipped as u64;
        let chunk = chunk.split_off(skipped);
        if chunk.is_empty() {
            return Ok(());
        }
        let (file, offset, length) = (self.file.clone(), self.written, chunk.len() as u64);
        let mut hasher = self.hasher.take().ok_or(io::ErrorKind::Other)?;
        let hasher = tokio::task::spawn_blocking(move || {
            hasher.update(&chunk);
            file.write_all_at(&chunk, offset).map(|()| hasher)
        });
        self.hasher = Some(hasher.await.map_err(io::Error::other)??);
        self.written += length;
        let ready = self.written.min(self.size.saturating_sub(1));
        self.sender.send_modify(|status| status.ready = ready);
        Ok(())
    }

    async fn restart(&mut self) -> io::Result<()> {
        // Readers have seen it.
        Err(io::ErrorKind::Unsupported.into())
    }
}
