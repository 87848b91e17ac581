// SPDX-License-Identifier: Apache-2.0
//! Where blobs go to and come from.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncSeekExt};

/// A place that a blob is fetched into.
pub trait BlobSink: Send {
    /// Takes the next bytes.
    fn write(&mut self, chunk: Bytes) -> impl Future<Output = io::Result<()>> + Send;

    /// Forgets all bytes taken so far; the blob begins anew, from another host.
    ///
    /// A sink that cannot do so returns an error; the transfer then ends with its original failure.
    fn restart(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

impl BlobSink for Vec<u8> {
    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.extend_from_slice(&chunk);
        Ok(())
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

/// A sink that passes bytes on to a function and cannot restart.
pub struct FnSink<F>(pub F);

impl<F: FnMut(&[u8]) -> io::Result<()> + Send> BlobSink for FnSink<F> {
    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        (self.0)(&chunk)
    }

    async fn restart(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// The bytes of a source, from some offset to the end.
pub type BlobReader = Pin<Box<dyn AsyncRead + Send>>;

/// A blob to push: it can be read again from any offset, because uploads break.
pub trait BlobSource: Send + Sync {
    /// Opens the blob for reading from `offset`.
    fn open(&self, offset: u64) -> impl Future<Output = io::Result<BlobReader>> + Send;
}

impl BlobSource for Bytes {
    async fn open(&self, offset: u64) -> io::Result<BlobReader> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::pin(io::Cursor::new(self.slice(offset..))))
    }
}

impl BlobSource for Path {
    async fn open(&self, offset: u64) -> io::Result<BlobReader> {
        let mut file = tokio::fs::File::open(self).await?;
        file.seek(io::SeekFrom::Start(offset)).await?;
        Ok(Box::pin(file))
    }
}

impl BlobSource for PathBuf {
    async fn open(&self, offset: u64) -> io::Result<BlobReader> {
        BlobSource::open(self.as_path(), offset).await
    }
}

/// Tells a caller how many bytes of a blob have been transferred; the number can go back after a failure.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<dyn Fn(u64) + Send + Sync>>);

impl Progress {
    /// Tells nobody.
    pub fn none() -> Progress {
        Progress(None)
    }

    /// Calls a function with the number of bytes transferred so far.
    pub fn new(function: impl Fn(u64) + Send + Sync + 'static) -> Progress {
        Progress(Some(Arc::new(function)))
    }

    pub(crate) fn report(&self, bytes: u64) {
        if let Some(function) = &self.0 {
            function(bytes);
        }
    }
}
