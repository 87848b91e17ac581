// SPDX-License-Identifier: Apache-2.0
//! Two streams of byte messages as one connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tokio_util::sync::PollSender;

use crate::api::MAX_CHUNK_BYTES;
use crate::api::control::BytesMessage;

/// How many messages wait to be sent.
const QUEUE: usize = 16;

/// A connection over messages: what is written to it comes out of the stream beside it.
pub(crate) struct Outgoing {
    sender: mpsc::Sender<Bytes>,
}

/// Makes the sending half of a connection, and the messages that it sends.
pub(crate) fn outgoing() -> (Outgoing, impl Stream<Item = BytesMessage> + Send + 'static) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let messages = ReceiverStream::new(receiver).map(|data: Bytes| BytesMessage { data });
    (Outgoing { sender }, messages)
}

impl Outgoing {
    /// Joins the messages that come to a connection.
    pub(crate) fn join<S>(self, incoming: S) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static
    where
        S: Stream<Item = Result<BytesMessage, tonic::Status>> + Send + Unpin + 'static,
    {
        let incoming = incoming.map(|message| match message {
            Ok(message) => Ok(message.data),
            Err(status) => Err(io::Error::new(io::ErrorKind::ConnectionReset, status)),
        });
        tokio::io::join(StreamReader::new(incoming), Writer(PollSender::new(self.sender)))
    }
}

/// What is written becomes messages, none of which is too large.
struct Writer(PollSender<Bytes>);

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.0.poll_reserve(cx)).map_err(gone)?;
        let count = bytes.len().min(MAX_CHUNK_BYTES);
        self.0.send_item(Bytes::copy_from_slice(&bytes[..count])).map_err(gone)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.close();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_both_ways_and_both_ends_are_seen() {
        let (there, mut messages) = outgoing();
        let incoming = ["", "from ", "there"].map(|text| Ok(BytesMessage { data: text.into() }));
        let mut connection = there.join(futures_util::stream::iter(incoming));
        let mut text = String::new();
        connection.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "from there");
        let large = vec![7; MAX_CHUNK_BYTES + 1];
        connection.write_all(&large).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut sizes = Vec::new();
        while let Some(message) = messages.next().await {
            sizes.push(message.data.len());
        }
        assert_eq!(sizes, [MAX_CHUNK_BYTES, 1]);
    }
}
