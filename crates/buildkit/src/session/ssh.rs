// SPDX-License-Identifier: Apache-2.0
//! Forwards SSH agents: a daemon gets a connection to those sockets that the session was given.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use tokio::net::UnixStream;
use tonic::{Request, Response, Status, Streaming};

use crate::api::control::BytesMessage;
use crate::api::ssh::{CheckAgentRequest, CheckAgentResponse};
use crate::session::pipe::outgoing;
use crate::session::{Attachments, metadata};

/// What an agent is called when nothing is said.
const DEFAULT: &str = "default";

pub(crate) async fn check_agent(
    attachments: Arc<Attachments>,
    request: Request<CheckAgentRequest>,
) -> Result<CheckAgentResponse, Status> {
    socket_of(&attachments, &request.get_ref().id).await.map(|_| CheckAgentResponse {})
}

/// Serves a connection to an agent.
pub(crate) async fn forward_agent(
    attachments: Arc<Attachments>,
    request: Request<Streaming<BytesMessage>>,
) -> Result<Response<impl Stream<Item = Result<BytesMessage, Status>> + Send + 'static>, Status> {
    let id = metadata::first(request.metadata(), "buildkit.ssh.id").unwrap_or_default();
    let socket = socket_of(&attachments, &id).await?;
    let mut agent = UnixStream::connect(&socket)
        .await
        .map_err(|error| Status::unavailable(format!("can't connect to the SSH agent {id:?}: {error}")))?;
    let (outgoing, messages) = outgoing();
    let mut daemon = outgoing.join(request.into_inner());
    tokio::spawn(async move {
        if let Err(error) = tokio::io::copy_bidirectional(&mut daemon, &mut agent).await {
            tracing::debug!("a connection to an SSH agent ended: {error}");
        }
    });
    Ok(Response::new(messages.map(Ok)))
}

async fn socket_of(attachments: &Attachments, id: &str) -> Result<PathBuf, Status> {
    let id = if id.is_empty() { DEFAULT } else { id };
    let socket = match &attachments.secrets {
        Some(secrets) => {
            secrets.agent(id).await.map_err(|error| Status::failed_precondition(error.message))?
        }
        None => None,
    };
    socket.ok_or_else(|| Status::not_found(format!("unset ssh forward key {id}")))
}
