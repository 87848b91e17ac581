// SPDX-License-Identifier: Apache-2.0
//! The server of a session, on a connection that runs inside a call.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tonic::body::Body;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::api::health::{HealthCheckResponse, ServingStatus};
use crate::api::methods::{client, daemon};
use crate::api::secrets::{GetSecretRequest, GetSecretResponse};
use crate::error::NodeError;
use crate::session::whole_body::WholeBody;
use crate::session::{Attachments, Session, content, file_send, file_sync, pipe, registries, ssh};

/// How much of a context may be under way before the daemon says that it has taken it, in bytes.
const WINDOW_BYTES: u32 = 8 << 20;

impl Session {
    /// Opens the session at a daemon and serves it until either side ends it.
    ///
    /// # Errors
    /// When the daemon refuses it, or the connection breaks.
    pub(crate) async fn run(&self, channel: &Channel) -> Result<(), NodeError> {
        let (outgoing, messages) = pipe::outgoing();
        let mut request = Request::new(messages);
        self.describe(request.metadata_mut());
        let incoming = daemon::SESSION.open(channel, request).await;
        let incoming = incoming.map_err(|status| NodeError::of_status("can't open a session", &status))?;
        serve(self.attachments.clone(), outgoing.join(incoming)).await;
        Ok(())
    }

    /// Opens the session at a daemon of this process, without a call between them.
    #[cfg(test)]
    pub(crate) async fn join(
        &self,
        sessions: &crate::caller::Sessions,
    ) -> Result<crate::caller::ClientSession, Status> {
        let (outgoing, messages) = pipe::outgoing();
        let mut headers = MetadataMap::new();
        self.describe(&mut headers);
        let messages = futures_util::StreamExt::map(messages, Ok);
        let (session, answer) = sessions.accept_stream(&headers, messages).await?;
        tokio::spawn(serve(self.attachments.clone(), outgoing.join(answer)));
        Ok(session)
    }

    /// Says who we are and what the daemon may call.
    pub(crate) fn describe(&self, headers: &mut MetadataMap) {
        let mut add = |key: &'static str, value: &str| {
            // A value that can't be a header can't be told; no path or name of ours is such.
            if let Ok(value) = AsciiMetadataValue::try_from(value) {
                headers.append(AsciiMetadataKey::from_static(key), value);
            }
        };
        add("x-docker-expose-session-uuid", &self.id);
        add("x-docker-expose-session-name", "polyarch");
        add("x-docker-expose-session-sharedkey", &self.shared_key);
        for method in self.attachments.methods() {
            add("x-docker-expose-session-grpc-method", method);
        }
    }
}

/// Serves what is attached on a connection until it ends.
async fn serve<C>(attachments: Arc<Attachments>, connection: C)
where
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let attachments = attachments.clone();
        async move {
            Ok::<_, Infallible>(answer(attachments, request.map(|body| Body::new(WholeBody(body)))).await)
        }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .serve_connection(TokioIo::new(connection), service)
        .await;
    // Daemons end a session by ending the stream, in whatever state the connection within it is.
    if let Err(error) = served {
        tracing::debug!("the session ended: {error}");
    }
}

impl Attachments {
    /// Returns the methods that are offered.
    fn methods(&self) -> Vec<&'static str> {
        let offered = [
            (true, client::HEALTH_CHECK.path()),
            (!self.directories.is_empty(), client::FILE_SYNC.path()),
            (!self.archives.is_empty(), client::FILE_SEND.path()),
            (!self.contents.is_empty(), client::CONTENT_INFO.path()),
            (!self.contents.is_empty(), client::CONTENT_READ.path()),
            (!self.contents.is_empty(), client::CONTENT_WRITE.path()),
            (self.registries.is_some(), client::CREDENTIALS.path()),
            (self.registries.is_some(), client::TOKEN_AUTHORITY.path()),
            (self.registries.is_some(), client::FETCH_TOKEN.path()),
            (self.secrets.is_some(), client::GET_SECRET.path()),
            (self.secrets.is_some(), client::CHECK_AGENT.path()),
            (self.secrets.is_some(), client::FORWARD_AGENT.path()),
        ];
        offered.into_iter().filter_map(|(is_offered, path)| is_offered.then_some(path)).collect()
    }
}

/// Answers one call of the daemon.
async fn answer(attachments: Arc<Attachments>, request: http::Request<Body>) -> http::Response<Body> {
    let path = request.uri().path().to_owned();
    if !attachments.methods().contains(&path.as_str()) {
        return Status::unimplemented(format!("this session has no method {path}")).into_http();
    }
    if path == client::HEALTH_CHECK.path() {
        let status = HealthCheckResponse { status: ServingStatus::Serving.into() };
        client::HEALTH_CHECK.serve(request, |_| ready(Ok(status))).await
    } else if path == client::FILE_SYNC.path() {
        client::FILE_SYNC.exchange(request, |request| file_sync::diff_copy(attachments, request)).await
    } else if path == client::FILE_SEND.path() {
        client::FILE_SEND.exchange(request, |request| file_send::diff_copy(attachments, request)).await
    } else if path == client::CONTENT_INFO.path() {
        client::CONTENT_INFO.serve(request, |request| content::info(attachments, request)).await
    } else if path == client::CONTENT_READ.path() {
        client::CONTENT_READ.serve_stream(request, |request| content::read(attachments, request)).await
    } else if path == client::CONTENT_WRITE.path() {
        client::CONTENT_WRITE.exchange(request, |request| content::write(attachments, request)).await
    } else if path == client::CREDENTIALS.path() {
        client::CREDENTIALS.serve(request, |request| registries::credentials(attachments, request)).await
    } else if path == client::TOKEN_AUTHORITY.path() {
        let answer = |request| registries::token_authority(attachments, request);
        client::TOKEN_AUTHORITY.serve(request, answer).await
    } else if path == client::FETCH_TOKEN.path() {
        client::FETCH_TOKEN.serve(request, |request| registries::fetch_token(attachments, request)).await
    } else if path == client::GET_SECRET.path() {
        client::GET_SECRET.serve(request, |request| secret(attachments, request)).await
    } else if path == client::CHECK_AGENT.path() {
        client::CHECK_AGENT.serve(request, |request| ssh::check_agent(attachments, request)).await
    } else {
        client::FORWARD_AGENT.exchange(request, |request| ssh::forward_agent(attachments, request)).await
    }
}

async fn secret(
    attachments: Arc<Attachments>,
    request: Request<GetSecretRequest>,
) -> Result<GetSecretResponse, Status> {
    let id = &request.get_ref().id;
    let found = match &attachments.secrets {
        Some(secrets) => {
            secrets.secret(id).await.map_err(|error| Status::failed_precondition(error.message))?
        }
        None => None,
    };
    match found {
        Some(data) => Ok(GetSecretResponse { data }),
        None => Err(Status::not_found(format!("secret {id}: not found"))),
    }
}
