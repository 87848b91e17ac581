// SPDX-License-Identifier: Apache-2.0
//! A connection whose other end has to take what it is sent: one that takes nothing for too long is closed. When it
//! ends, what the other end still sends is taken for a moment.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long nothing may come, and how many bytes may, when the answer was all sent and the other end goes on sending.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 64 << 20;

/// A connection with a limit on how long a write may wait.
pub(super) struct Paced<T> {
    inner: T,
    limit: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    /// The other end sends no more.
    has_ended: bool,
    /// Runs, with the bytes that may still come, when nothing more is sent.
    lingering: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<T> Paced<T> {
    pub(super) fn new(inner: T, limit: Duration) -> Paced<T> {
        Paced { inner, limit, waiting: None, has_ended: false, lingering: None }
    }

    fn watch<R>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let limit = self.limit;
        let sleep =
            self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        match sleep.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Paced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        self.has_ended = self.has_ended || (buffer.filled().len() == before && buffer.remaining() > 0);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> Paced<T> {
    /// Takes what still comes, and forgets it: to close before would reset the connection, and the client, which may
    /// be sending a long body that was refused, would lose the answer (RFC 9112, 9.6).
    fn linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some((end, left)) = &mut self.lingering else { return Poll::Ready(()) };
        let mut bytes = [MaybeUninit::uninit(); 16 << 10];
        while !self.has_ended && *left > 0 && end.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::uninit(&mut bytes);
            match ready!(Pin::new(&mut self.inner).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    *left = left.saturating_sub(buffer.filled().len());
                    end.as_mut().reset(Instant::now() + LINGER);
                }
                _ => self.has_ended = true,
            }
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.watch(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let ended = Pin::new(&mut self.inner).poll_shutdown(context);
            ready!(self.watch(context, ended))?;
            self.lingering = Some((Box::pin(tokio::time::sleep(LINGER)), LINGER_BYTES));
        }
        self.linger(context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_left() {
        let (ours, mut theirs) = tokio::io::duplex(10);
        let mut paced = Paced::new(ours, Duration::from_secs(5));
        paced.write_all(b"0123456789").await.unwrap();
        let error = paced.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        theirs.read_exact(&mut [0; 10]).await.unwrap();
    }
    #[tokio::test(start_paused = true)]
    async fn who_still_sends_gets_the_answer() {
        let (ours, mut theirs) = tokio::io::duplex(10);
        let mut paced = Paced::new(ours, Duration::from_secs(5));
        let client = async {
            tokio::time::timeout(Duration::from_secs(1), theirs.write_all(&[0; 1000]))
                .await
                .unwrap()
                .unwrap();
            theirs.shutdown().await.unwrap();
        };
        let (ended, ()) = tokio::join!(paced.shutdown(), client);
        ended.unwrap();
        // Who never ends is not waited for.
        let (ours, _theirs) = tokio::io::duplex(10);
        Paced::new(ours, Duration::from_secs(5)).shutdown().await.unwrap();
    }
}
