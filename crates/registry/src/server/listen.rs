// SPDX-License-Identifier: Apache-2.0
//! Connections: accepted, with TLS where there is a certificate, and ended when the server ends.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::paced::Paced;
use super::tls::ServerTls;
use super::{Server, Shared, gc};

/// How long a client may take for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);
/// The largest head of a request, in bytes.
const MAX_BUFFER_BYTES: usize = 512 << 10;
/// How long requests may take to end when the server ends.
const GRACE: Duration = Duration::from_secs(10);

impl Server {
    /// Serves until `stop`; then running requests may end.
    pub async fn serve(&self, listener: TcpListener, tls: Option<ServerTls>, stop: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(self.shared.limits.max_connections.max(1)));
        let (ending, ended) = watch::channel(false);
        let collecting = tokio::spawn(gc::collect_regularly(self.shared.clone(), ended.clone()));
        tokio::pin!(stop);
        loop {
            let accepted = async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                accepted = accepted => accepted,
                () = &mut stop => break,
            };
            // It is never closed.
            let Ok(place) = place else { break };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, or a client that went away before it was accepted.
                    tracing::debug!("a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Small answers shall not wait for more to come; without it they are only slower.
            let _ = stream.set_nodelay(true);
            let (shared, tls, ended) = (self.shared.clone(), tls.clone(), ended.clone());
            tokio::spawn(async move {
                let _counted = Counted::new(&shared);
                let stream = Paced::new(stream, shared.limits.stall);
                match tls {
                    None => connection(shared.clone(), stream, peer.ip(), ended).await,
                    Some(tls) => {
                        let accepting = tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(stream));
                        match accepting.await {
                            Ok(Ok(stream)) => connection(shared.clone(), stream, peer.ip(), ended).await,
                            Ok(Err(error)) => tracing::debug!("a TLS handshake failed: {error}"),
                            Err(_) => tracing::debug!("a TLS handshake took too long"),
                        }
                    }
                }
                drop(place);
            });
        }
        drop(listener);
        // Whoever listened has gone when there is nobody to tell.
        let _ = ending.send(true);
        let all = u32::try_from(self.shared.limits.max_connections.max(1)).unwrap_or(u32::MAX);
        if tokio::time::timeout(GRACE, places.acquire_many(all)).await.is_err() {
            tracing::debug!("some requests did not end in time");
        }
        collecting.abort();
    }
}

async fn connection<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    shared: Arc<Shared>,
    stream: T,
    remote: IpAddr,
    mut ended: watch::Receiver<bool>,
) {
    let stall = shared.limits.stall;
    let service = service_fn(move |request| {
        let answer = shared.clone().answer(request, remote);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Also the longest time between two requests.
        .header_read_timeout(stall)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let is_ending = async {
        // The server waits for its connections, so it is there until one tells it otherwise.
        let _ = ended.wait_for(|is_ending| *is_ending).await;
    };
    let result = tokio::select! {
        result = &mut connection => result,
        () = is_ending => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!("a connection ended: {error}");
    }
}

/// A connection that is counted while it is there.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Counted {
        shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
        shared.metrics.connections_total.fetch_add(1, Ordering::Relaxed);
        Counted(shared.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
