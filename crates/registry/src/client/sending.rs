// SPDX-License-Identifier: Apache-2.0
//! Requests whose body is a stream: sent once, watched for progress, the source's failure kept apart.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::call::{Answer, Call};
use super::transport::failure;
use super::upload::UploadSession;
use super::{BlobReader, Progress};
use crate::error::RegistryError;

/// How much is read from a source at once, in bytes.
const READ_BYTES: usize = 128 << 10;
/// A registry may think this many times longer after the last byte: it verifies and moves the blob.
pub(super) const CLOSING_FACTOR: u32 = 5;

/// A part of a blob to be sent.
pub(super) struct Outgoing {
    pub(super) reader: BlobReader,
    /// Where the part begins in the blob.
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) progress: Progress,
}

/// Whose fault it was.
pub(super) enum SendError {
    /// The source could not be read.
    Source(io::Error),
    /// The registry, or the way to it.
    Registry(RegistryError),
}

/// What the body tells us while it is being sent.
#[derive(Default)]
struct Watch {
    sent: AtomicU64,
    failure: Mutex<Option<io::Error>>,
}

/// Sends a request with a part of a blob as its body; redirects are not followed.
pub(super) async fn send_stream(
    session: &UploadSession,
    call: &Call,
    outgoing: Outgoing,
) -> Result<Answer, SendError> {
    let authorization = session.authorization(call).await.map_err(SendError::Registry)?;
    let transport = session.transport();
    let pool = transport.pool_for(&call.url).map_err(SendError::Registry)?;
    let watch = Arc::new(Watch::default());
    let length = outgoing.length;
    let mut request = pool
        .request(call.method.clone(), call.url.clone())
        .headers(call.headers.clone())
        .header(CONTENT_LENGTH, length);
    if let Some(value) = authorization.header_value() {
        request = request.header(AUTHORIZATION, value.clone());
    }
    request = if length == 0 {
        request.body(Bytes::new())
    } else {
        request.body(reqwest::Body::wrap_stream(body(outgoing, watch.clone())))
    };
    let stall = transport.options.stall_timeout;
    let mut sending = pin!(request.send());
    let mut last_sent = 0;
    loop {
        let sent = watch.sent.load(Ordering::Relaxed);
        let limit = if sent == length { stall * CLOSING_FACTOR } else { stall };
        match tokio::time::timeout(limit, sending.as_mut()).await {
            Ok(Ok(response)) => {
                let url = call.url.clone();
                return Ok(Answer { response, url });
            }
            Ok(Err(error)) => {
                let source = watch.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
                let registry = || failure(&error, &call.url, &call.text, limit);
                return Err(source.map_or_else(|| SendError::Registry(registry()), SendError::Source));
            }
            Err(_) if watch.sent.load(Ordering::Relaxed) > last_sent => {
                last_sent = watch.sent.load(Ordering::Relaxed);
            }
            Err(_) => {
                return Err(SendError::Registry(RegistryError::Timeout {
                    host: call.host.clone(),
                    request: call.text.clone(),
                    limit,
                }));
            }
        }
    }
}

/// Makes the body: exactly `length` bytes, or a failure that `watch` keeps.
fn body(
    outgoing: Outgoing,
    watch: Arc<Watch>,
) -> impl Stream<Item = Result<Bytes, io::Error>> + Send + 'static {
    let Outgoing { reader, offset, length, progress } = outgoing;
    let chunks = ReaderStream::with_capacity(reader.take(length), READ_BYTES);
    let end = futures_util::stream::once(std::future::ready(Ok(Bytes::new())));
    chunks.chain(end).map(move |chunk| {
        let failure = match chunk {
            Ok(chunk) if !chunk.is_empty() => {
                let sent = watch.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
                progress.report(offset + sent);
                return Ok(chunk);
            }
            // The empty chunk is the end that was appended above.
            Ok(_) if watch.sent.load(Ordering::Relaxed) == length => return Ok(Bytes::new()),
            Ok(_) => io::Error::new(io::ErrorKind::UnexpectedEof, "the blob is shorter than its size"),
            Err(error) => error,
        };
        let text = failure.to_string();
        *watch.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        Err(io::Error::other(text))
    })
}
