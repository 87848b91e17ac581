// SPDX-License-Identifier: Apache-2.0
//! Connections of clients: sockets, TLS with certificates of both sides, HTTP/2.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use polyarch_solver::CancelFlag;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;

use crate::client::Transport;
use crate::client::tls::{certificates, read, wrong};
use crate::error::NodeError;
use crate::server::Server;
use crate::server::admission::Admission;
use crate::server::errors::internal_error;

/// The most calls of one connection at a time.
const MAX_CALLS: u32 = 1024;
/// How much of a context or a result may be under way, in bytes.
const WINDOW_BYTES: u32 = 8 << 20;
/// How often a silent client is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(30));
/// How long running calls may take to end when the server ends.
const GRACE: Duration = Duration::from_secs(10);

/// Where clients connect.
pub enum Listener {
    /// A socket of the file system; who may open it may build.
    Unix(UnixListener),
    /// A port; without TLS whoever reaches it may build.
    Tcp(TcpListener, Option<ServerTls>),
    /// One connection that is there already, such as standard input and output; the server ends with it.
    One(Box<dyn Transport>),
}

/// Where connections come from.
enum Bound {
    Unix(UnixListener),
    Tcp(TcpListener, Option<ServerTls>),
}

/// The certificates of a server.
#[derive(Clone)]
pub struct ServerTls(TlsAcceptor);

impl ServerTls {
    /// Reads the server's certificate and its key, and the CA that certificates of clients must come from.
    /// Without a CA every client is let in.
    ///
    /// # Errors
    /// When a file can't be read or used.
    pub fn load(certificate: &Path, key: &Path, client_ca: Option<&PathBuf>) -> Result<ServerTls, NodeError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(certificate, error))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| wrong(path, error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| wrong(path, error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let secret = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| wrong(key, error))?;
        let mut config = builder
            .with_single_cert(certificates(certificate)?, secret)
            .map_err(|error| wrong(certificate, error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(ServerTls(TlsAcceptor::from(Arc::new(config))))
    }
}

impl ServerTls {
    /// Asks who a client is, if it needs to say so, and lets it in.
    pub(super) async fn accept(&self, transport: Box<dyn Transport>) -> std::io::Result<impl Transport> {
        self.0.accept(transport).await
    }
}

impl Server {
    /// Answers clients until asked to stop; then builds are stopped, and their clients told.
    pub async fn serve(&self, listeners: Vec<Listener>, stop: CancelFlag) {
        // Each listener has places of its own: strangers at a port keep nobody from a socket.
        let accepting = listeners.into_iter().map(|listener| self.accept(listener, &stop));
        let places = futures_util::future::join_all(accepting).await;
        self.0.builds.cancel_all();
        // Every connection gives its place back when its calls have ended.
        let all = futures_util::future::join_all(places.iter().map(Admission::all_gone));
        if tokio::time::timeout(GRACE, all).await.is_err() {
            tracing::debug!("some calls did not end in time");
        }
        self.stop();
    }

    async fn accept(&self, listener: Listener, stop: &CancelFlag) -> Admission {
        let admission = Admission::new();
        let listener = match listener {
            Listener::One(transport) => {
                self.clone().connection(transport, stop.clone()).await;
                return admission;
            }
            Listener::Unix(listener) => Bound::Unix(listener),
            Listener::Tcp(listener, tls) => Bound::Tcp(listener, tls),
        };
        loop {
            let accepted = async {
                Ok::<(Box<dyn Transport>, Option<ServerTls>, _), std::io::Error>(match &listener {
                    Bound::Unix(listener) => (Box::new(listener.accept().await?.0), None, None),
                    Bound::Tcp(listener, tls) => {
                        let (stream, peer) = listener.accept().await?;
                        // Small answers shall not wait for more to come; without it they are only slower.
                        let _ = stream.set_nodelay(true);
                        (Box::new(stream), tls.clone(), Some(peer.ip()))
                    }
                })
            };
            let accepted = tokio::select! {
                accepted = accepted => accepted,
                () = stop.cancelled() => return admission,
            };
            match accepted {
                Ok((transport, tls, address)) => {
                    let Some(arrival) = admission.arrive(address) else {
                        tracing::debug!("a connection was closed: there are too many");
                        continue;
                    };
                    let (server, stop) = (self.clone(), stop.clone());
                    tokio::spawn(async move {
                        let admitted = tokio::select! {
                            admitted = arrival.admit(transport, tls) => admitted,
                            () = stop.cancelled() => return,
                        };
                        match admitted {
                            Ok((transport, _place)) => server.connection(transport, stop).await,
                            Err(reason) => tracing::debug!("a client was not let in: {reason}"),
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, or a client that went away before it was accepted.
                    tracing::debug!("a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(self, transport: Box<dyn Transport>, stop: CancelFlag) {
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let server = self.clone();
            // Boxed, because the types of all methods together are too deep for the compiler elsewhere.
            let answer = contained(server.answer(request.map(Body::new))).boxed();
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_connection_window_size(WINDOW_BYTES)
            .initial_stream_window_size(WINDOW_BYTES)
            .max_concurrent_streams(MAX_CALLS)
            .max_header_list_size(1 << 20)
            .keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .serve_connection(TokioIo::new(transport), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!("a connection ended: {error}");
        }
    }
}

/// Keeps a mistake of ours in one call from ending the connection, or more than that.
async fn contained(answer: impl Future<Output = http::Response<Body>>) -> http::Response<Body> {
    // What a panicking call leaves is its build's alone, or behind a lock that nothing half-made is put under.
    let answered = AssertUnwindSafe(answer).catch_unwind().await;
    answered.unwrap_or_else(|_| internal_error().into_http())
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};

    use super::*;
    use crate::server::errors::status_of_lost_task;

    #[tokio::test]
    async fn a_call_that_panics_gives_its_client_a_status() {
        let answer = contained(async { panic!("on purpose") }).await;
        let status = Status::from_header_map(answer.headers()).expect("a status");
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().starts_with("internal error"), "{status}");
        let answer = contained(async { http::Response::default() }).await;
        assert!(Status::from_header_map(answer.headers()).is_none());
    }

    #[tokio::test]
    async fn a_build_that_panics_ends_alone() {
        let lost = tokio::spawn(async { panic!("on purpose") }).await.expect_err("it panics");
        assert_eq!(status_of_lost_task(&lost).code(), Code::Internal);
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        let lost = task.await.expect_err("it was ended");
        assert_eq!(status_of_lost_task(&lost).code(), Code::Unavailable);
    }
}
