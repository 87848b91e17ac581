// SPDX-License-Identifier: Apache-2.0
//! Makes a connection to a client within its call, and watches over it.

use std::collections::HashSet;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tower_service::Service;

use crate::api::control::BytesMessage;
use crate::api::health::HealthCheckRequest;
use crate::api::methods::client;
use crate::caller::{ClientSession, Inner, MAX_TRANSFERS, SessionAnswer};
use crate::session::{metadata, pipe};

/// How much a client may send before we have taken it, in bytes.
const WINDOW_BYTES: u32 = 8 << 20;
/// The longest id, name or key.
const MAX_HEADER_BYTES: usize = 1024;
/// The most methods that a client may offer.
const MAX_METHODS: usize = 256;
/// How often a client is asked whether it is alive.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// How long it may take to answer that.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(15);
/// How many times in a row it may fail to.
const HEALTH_FAILURES: u32 = 2;

impl ClientSession {
    /// Connects to the client whose session the two streams are; returns the second.
    pub(super) async fn connect<S>(
        headers: &MetadataMap,
        incoming: S,
    ) -> Result<(ClientSession, SessionAnswer), Status>
    where
        S: Stream<Item = Result<BytesMessage, Status>> + Send + Unpin + 'static,
    {
        let id = text(headers, "x-docker-expose-session-uuid")?;
        if id.is_empty() {
            return Err(Status::invalid_argument("the header x-docker-expose-session-uuid is missing"));
        }
        let methods = methods(headers)?;
        let ended = CancellationToken::new();
        let (outgoing, answer) = pipe::outgoing();
        // The session has ended when either stream has: the client's when it is done, ours when the call
        // is gone. The client's can't be polled again then.
        let incoming = Watched { stream: incoming, _guard: ended.clone().drop_guard() };
        let connection = outgoing.join(Box::pin(incoming.take_until(ended.clone().cancelled_owned())));
        let channel = channel(connection).await?;
        let session = ClientSession(Arc::new(Inner {
            id,
            name: text(headers, "x-docker-expose-session-name")?,
            shared_key: text(headers, "x-docker-expose-session-sharedkey")?,
            methods,
            channel,
            ended: ended.clone(),
            transfers: tokio::sync::Semaphore::new(MAX_TRANSFERS),
        }));
        if session.offers(client::HEALTH_CHECK.path()) {
            tokio::spawn(session.clone().watch());
        }
        let answer = answer.map(Ok).take_until(ended.clone().cancelled_owned());
        Ok((session, Watched { stream: Box::pin(answer), _guard: ended.drop_guard() }.boxed()))
    }

    /// Ends the session when the client does not answer any more.
    async fn watch(self) {
        let mut failures = 0;
        while failures < HEALTH_FAILURES {
            tokio::select! {
                () = tokio::time::sleep(HEALTH_INTERVAL) => {}
                () = self.ended() => return,
            }
            let check =
                client::HEALTH_CHECK.call(&self.0.channel, Request::new(HealthCheckRequest::default()));
            let checked = tokio::select! {
                checked = tokio::time::timeout(HEALTH_TIMEOUT, check) => checked,
                () = self.ended() => return,
            };
            failures = match checked {
                Ok(Ok(_)) => 0,
                // Alive, though it knows no such method.
                Ok(Err(status)) if status.code() == Code::Unimplemented => return,
                Ok(Err(_)) | Err(_) => failures + 1,
            };
        }
        self.end();
    }
}

/// Returns the text of a header; empty when there is none.
fn text(headers: &MetadataMap, key: &str) -> Result<String, Status> {
    let text = metadata::first(headers, key).unwrap_or_default();
    match text.len() <= MAX_HEADER_BYTES {
        true => Ok(text),
        false => Err(Status::invalid_argument(format!("the header {key} is over {MAX_HEADER_BYTES} bytes"))),
    }
}

fn methods(headers: &MetadataMap) -> Result<HashSet<String>, Status> {
    let methods = metadata::values(headers, "x-docker-expose-session-grpc-method");
    match methods.len() <= MAX_METHODS {
        true => Ok(methods.iter().map(|method| method.to_ascii_lowercase()).collect()),
        false => Err(Status::invalid_argument(format!("a session offers at most {MAX_METHODS} methods"))),
    }
}

/// Opens a channel on a connection that is there already.
async fn channel<C>(connection: C) -> Result<Channel, Status>
where
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let connector = OneConnection(Arc::new(Mutex::new(Some(connection))));
    Endpoint::from_static("http://localhost")
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .http2_max_header_list_size(1 << 20)
        .connect_with_connector(connector)
        .await
        .map_err(|error| Status::unavailable(crate::error::chain_of(&error)))
}

/// Gives a connection once: one that is lost is lost with its session.
struct OneConnection<C>(Arc<Mutex<Option<C>>>);

impl<C> Service<Uri> for OneConnection<C>
where
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    type Response = TokioIo<C>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<TokioIo<C>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the client's session has ended");
        std::future::ready(connection.map(TokioIo::new).ok_or_else(gone))
    }
}

/// A stream whose end is told.
struct Watched<S> {
    stream: S,
    _guard: DropGuard,
}

impl<S: Stream + Unpin> Stream for Watched<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        Pin::new(&mut self.stream).poll_next(cx)
    }
}
