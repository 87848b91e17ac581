// SPDX-License-Identifier: Apache-2.0
//! Bodies of requests, on their way to the disk or into memory: capped, and not waited for without end.
//!
//! No thread waits for a client: pieces are gathered, and a thread is taken only to hash and write them, while the next
//! ones come.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::task::JoinHandle;

use super::upload::{Receive, UploadError};

/// Bytes that are written at a time.
const BATCH_BYTES: usize = 1 << 20;
/// Smaller pieces are put together: each by itself would cost more than its bytes.
const SMALL_BYTES: usize = 4 << 10;

/// What a body may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    /// The most bytes.
    pub(super) max_bytes: u64,
    /// The longest wait for the next piece.
    pub(super) stall: Duration,
    /// The number of bytes that a header promises.
    pub(super) expected: Option<u64>,
}

/// Reads a small body whole.
pub(super) async fn read_all(mut body: Incoming, limits: BodyLimits) -> Result<Bytes, UploadError> {
    check_expected(limits)?;
    let mut whole = BytesMut::new();
    let mut first = None;
    while let Some(piece) = next(&mut body, limits.stall).await? {
        let total = whole.len() + first.as_ref().map_or(0, Bytes::len) + piece.len();
        if total as u64 > limits.max_bytes {
            return Err(UploadError::TooLarge { limit: limits.max_bytes });
        }
        match (&first, whole.is_empty()) {
            (None, true) => first = Some(piece),
            _ => {
                if let Some(first) = first.take() {
                    whole.extend_from_slice(&first);
                }
                whole.extend_from_slice(&piece);
            }
        }
    }
    let whole = first.unwrap_or_else(|| whole.freeze());
    check_length(limits, whole.len() as u64)?;
    Ok(whole)
}

/// Writes a body to where it belongs; returns that.
pub(super) async fn receive<R: Receive>(
    mut body: Incoming,
    sink: R,
    limits: BodyLimits,
) -> Result<R, UploadError> {
    check_expected(limits)?;
    let mut writer = Writer::Idle(sink);
    let mut total = 0;
    loop {
        let mut batch = Batch::default();
        let ended = loop {
            match next(&mut body, limits.stall).await {
                Ok(Some(piece)) => {
                    batch.add(piece);
                    if batch.bytes >= BATCH_BYTES {
                        break None;
                    }
                }
                Ok(None) => break Some(Ok(())),
                Err(error) => break Some(Err(error)),
            }
        };
        total += batch.bytes as u64;
        if total > limits.max_bytes {
            return Err(UploadError::TooLarge { limit: limits.max_bytes });
        }
        let sink = writer.idle().await?;
        writer = if batch.bytes == 0 { Writer::Idle(sink) } else { Writer::start(sink, batch.finish()) };
        if let Some(ended) = ended {
            // What came before the end is kept also when the end is a failure.
            let sink = writer.idle().await?;
            if let Err(error) = ended.and_then(|()| check_length(limits, total)) {
                Writer::keep(sink).idle().await?;
                return Err(error);
            }
            return Ok(sink);
        }
    }
}

/// Pieces that are written together.
#[derive(Default)]
struct Batch {
    bytes: usize,
    pieces: Vec<Bytes>,
    small: BytesMut,
}

impl Batch {
    fn add(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        if piece.len() < SMALL_BYTES {
            self.small.extend_from_slice(&piece);
            return;
        }
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
        self.pieces.push(piece);
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.small.is_empty() {
            self.pieces.push(self.small.freeze());
        }
        self.pieces
    }
}

enum Writer<R> {
    Idle(R),
    Writing(JoinHandle<Result<R, UploadError>>),
}

impl<R: Receive> Writer<R> {
    fn start(mut sink: R, batch: Vec<Bytes>) -> Writer<R> {
        Writer::Writing(tokio::task::spawn_blocking(move || sink.append(&batch).map(|()| sink)))
    }

    fn keep(mut sink: R) -> Writer<R> {
        Writer::Writing(tokio::task::spawn_blocking(move || sink.keep().map(|()| sink)))
    }

    async fn idle(self) -> Result<R, UploadError> {
        match self {
            Writer::Idle(sink) => Ok(sink),
            Writer::Writing(task) => {
                task.await.map_err(|error| UploadError::Body(format!("the server ends: {error}")))?
            }
        }
    }
}

/// Waits for the next piece; `None` at the end.
async fn next(body: &mut Incoming, stall: Duration) -> Result<Option<Bytes>, UploadError> {
    loop {
        let frame = tokio::time::timeout(stall, body.frame())
            .await
            .map_err(|_| UploadError::Body(format!("nothing came for {} seconds", stall.as_secs())))?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(UploadError::Body(super::api_error::chain_of(&error))),
            // Trailers are nobody's business.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Ok(Some(piece)),
                Err(_) => {}
            },
        }
    }
}

fn check_expected(limits: BodyLimits) -> Result<(), UploadError> {
    match limits.expected {
        Some(expected) if expected > limits.max_bytes => {
            Err(UploadError::TooLarge { limit: limits.max_bytes })
        }
        _ => Ok(()),
    }
}

fn check_length(limits: BodyLimits, found: u64) -> Result<(), UploadError> {
    match limits.expected {
        Some(expected) if expected != found => Err(UploadError::Length { expected, found }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_are_put_together_in_their_order() {
        let mut batch = Batch::default();
        for size in [1, 2, 5000, 6000, 3, 4, 5] {
            batch.add(vec![size as u8; size].into());
        }
        assert_eq!(batch.bytes, 11_015);
        let sizes: Vec<usize> = batch.finish().iter().map(Bytes::len).collect();
        assert_eq!(sizes, [3, 5000, 6000, 12]);
    }
}
