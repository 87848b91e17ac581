// SPDX-License-Identifier: Apache-2.0
//! Bodies of answers: nothing, some bytes, a part of a file, or what comes in bit by bit.

use std::fs::File;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use rustix::buffer::spare_capacity;
use tokio::task::JoinHandle;

/// Pieces in which a file is read: large enough that system calls cost nothing, small enough for many at a time.
const PIECE_BYTES: u64 = 512 << 10;

/// The body of an answer.
pub(super) enum Body {
    /// Nothing.
    Empty,
    /// These bytes.
    Full(Option<Bytes>),
    /// A part of a file.
    File(FilePart),
    /// Pieces from elsewhere, of a known size in all.
    Pieces { receiver: tokio::sync::mpsc::Receiver<io::Result<Bytes>>, remaining: u64 },
}

/// A part of a file that is read while it is sent, always one piece ahead.
pub(super) struct FilePart {
    file: Arc<File>,
    offset: u64,
    /// What has not been asked for.
    unread: u64,
    /// What has not been sent.
    unsent: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl Body {
    pub(super) fn full(bytes: Bytes) -> Body {
        Body::Full(Some(bytes))
    }

    pub(super) fn file(file: File, offset: u64, length: u64) -> Body {
        Body::File(FilePart { file: Arc::new(file), offset, unread: length, unsent: length, reading: None })
    }
}

impl FilePart {
    fn read_ahead(&mut self) {
        if self.reading.is_some() || self.unread == 0 {
            return;
        }
        let (file, offset) = (self.file.clone(), self.offset);
        let length = self.unread.min(PIECE_BYTES);
        self.offset += length;
        self.unread -= length;
        self.reading = Some(tokio::task::spawn_blocking(move || read_part(&file, offset, length)));
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.read_ahead();
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let piece = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        let piece = piece.map_err(io::Error::other).and_then(|piece| piece);
        if let Ok(piece) = &piece {
            self.unsent = self.unsent.saturating_sub(piece.len() as u64);
            self.read_ahead();
        }
        Poll::Ready(Some(piece))
    }
}

/// Reads a part of a file, at most a piece of one.
pub(super) fn read_part(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    // A few hundred kilobytes, which fit.
    let length = length as usize;
    let mut piece = Vec::with_capacity(length);
    while piece.len() < length {
        let at = offset + piece.len() as u64;
        // Straight into memory that nobody has cleared before.
        match rustix::io::pread(file, spare_capacity(&mut piece), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    // The allocator may have given more room than was asked for.
    piece.truncate(length);
    Ok(piece.into())
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let piece = match self.get_mut() {
            Body::Empty => None,
            Body::Full(bytes) => bytes.take().map(Ok),
            Body::File(part) => ready!(part.poll(context)),
            Body::Pieces { receiver, remaining } => match ready!(receiver.poll_recv(context)) {
                Some(Ok(piece)) => {
                    *remaining = remaining.saturating_sub(piece.len() as u64);
                    Some(Ok(piece))
                }
                // The answer's length was promised: its end has to be seen as a failure.
                None if *remaining > 0 => Some(Err(io::ErrorKind::UnexpectedEof.into())),
                other => other,
            },
        };
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(bytes) => bytes.is_none(),
            Body::File(part) => part.unsent == 0,
            Body::Pieces { remaining, .. } => *remaining == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Body::Empty => 0,
            Body::Full(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Body::File(part) => part.unsent,
            Body::Pieces { remaining, .. } => *remaining,
        })
    }
}
