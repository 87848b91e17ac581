// SPDX-License-Identifier: Apache-2.0
//! A blob of an image that was found, as the source of an upload.
//!
//! What the store has is read from there. A registry's blob streams through; when the upload breaks and
//! has to go on in the middle, the blob is brought into the store first.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::unfold;
use polyarch_build::fetch::registry_error;
use polyarch_build::{BuildError, Services};
use polyarch_oci::{Descriptor, Reference};
use polyarch_registry::{BlobReader, BlobSink, BlobSource, Progress};
use tokio::io::AsyncSeekExt;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use crate::found::{FoundImage, Origin};

/// Pieces of a blob that may wait between the two registries.
const PIECES_AHEAD: usize = 16;

/// A blob of an image that was found.
pub(crate) struct FoundBlob<'a> {
    source: &'a FoundImage,
    blob: &'a Descriptor,
    failure: Arc<Mutex<Option<BuildError>>>,
}

impl<'a> FoundBlob<'a> {
    pub(crate) fn new(source: &'a FoundImage, blob: &'a Descriptor) -> FoundBlob<'a> {
        FoundBlob { source, blob, failure: Arc::default() }
    }

    /// Returns why the source could not be read, when it could not.
    pub(crate) fn failure(&self) -> Option<BuildError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn note(&self, error: BuildError) -> io::Error {
        let text = error.message.clone();
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        io::Error::other(text)
    }

    /// Starts the download; returns the reading end.
    fn stream(&self, from: &Reference) -> BlobReader {
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES_AHEAD);
        let services: Arc<Services> = self.source.services.clone();
        let (from, blob, failure) = (from.clone(), self.blob.clone(), self.failure.clone());
        tokio::spawn(async move {
            let mut sink = Pieces(sender);
            let result = services.registry().get_blob(&from, &blob, &mut sink, &Progress::none()).await;
            if let Err(error) = result {
                let error = registry_error(format!("can't fetch {} of {from}", blob.digest), &error);
                let text = error.message.clone();
                // Nobody listens when the upload gave up first; then its failure is the one to tell.
                if sink.0.send(Err(io::Error::other(text))).await.is_ok() {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            }
        });
        let pieces =
            unfold(
                receiver,
                |mut receiver| async move { receiver.recv().await.map(|piece| (piece, receiver)) },
            );
        Box::pin(StreamReader::new(Box::pin(pieces)))
    }
}

impl BlobSource for FoundBlob<'_> {
    async fn open(&self, offset: u64) -> io::Result<BlobReader> {
        let store = self.source.services.store();
        if let (Origin::Registry(from), 0) = (&self.source.origin, offset)
            && !store.contains(&self.blob.digest)
        {
            return Ok(self.stream(from));
        }
        self.source.ensure_blob(self.blob).await.map_err(|error| self.note(error))?;
        let mut file =
            tokio::fs::File::from_std(store.open_blob(&self.blob.digest).map_err(io::Error::other)?);
        file.seek(io::SeekFrom::Start(offset)).await?;
        Ok(Box::pin(file))
    }
}

/// Passes pieces on; waits while the other end is slower.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl BlobSink for Pieces {
    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.0.send(Ok(chunk)).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    async fn restart(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
