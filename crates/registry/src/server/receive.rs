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
        let mut batch = Vec::new();
        let mut batched = 0;
        let ended = loop {
            match next(&mut body, limits.stall).await {
                Ok(Some(piece)) => {
                    batched += piece.len();
                    batch.push(piece);
                    if batched >= BATCH_BYTES {
                        break None;
                    }
                }
                Ok(None) => break Some(Ok(())),
                Err(error) => break Some(Err(error)),
            }
        };
        total += batched as u64;
        if total > limits.max_bytes {
            return Err(UploadError::TooLarge { limit: limits.max_bytes });
        }
        let sink = writer.idle().await?;
        writer = if batch.is_empty() { Writer::Idle(sink) } else { Writer::start(sink, batch) };
        if let Some(ended) = ended {
            // What came before the end is kept also when the end is a failure.
            let sink = writer.idle().await?;
            ended?;
            check_length(limits, total)?;
            return Ok(sink);
        }
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
