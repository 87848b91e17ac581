// SPDX-License-Identifier: Apache-2.0
//! A client's SSH agent as a socket of this machine.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::TryFutureExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tonic::Request;

use crate::api::methods::client;
use crate::api::ssh::CheckAgentRequest;
use crate::caller::{CallerError, ClientSession};
use crate::session::{metadata, pipe};

const WHAT: &str = "reach the client's SSH agent";

/// The most connections to one agent at a time.
const MAX_CONNECTIONS: usize = 64;

/// A socket whose connections go to a client's agent; it is gone when this is dropped.
#[derive(Debug)]
pub struct AgentSocket {
    path: PathBuf,
    serving: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl AgentSocket {
    /// Returns where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl ClientSession {
    /// Makes a socket for the client's agent of a name (`default` when empty), in a new directory within
    /// `parent` that only this user can enter.
    ///
    /// # Errors
    /// When the client has no such agent, or no socket can be made there.
    pub async fn agent(&self, id: &str, parent: &Path) -> Result<AgentSocket, CallerError> {
        self.need(WHAT, client::FORWARD_AGENT.path())?;
        let check = CheckAgentRequest { id: id.to_owned() };
        self.ask(WHAT, &client::CHECK_AGENT, check).await?;
        let write = |source| CallerError::Write { path: parent.to_owned(), source };
        let directory = tempfile::Builder::new()
            .prefix("agent-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(write)?;
        let path = directory.path().join("socket");
        let listener =
            UnixListener::bind(&path).map_err(|source| CallerError::Write { path: path.clone(), source })?;
        let serving = tokio::spawn(self.clone().serve_agent(listener, id.to_owned()));
        Ok(AgentSocket { path, serving, _directory: directory })
    }

    async fn serve_agent(self, listener: UnixListener, id: String) {
        // Connections end with the socket: this set goes with the task.
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                () = self.ended() => return,
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(self.clone().forward(stream, id.clone()));
                    }
                    Err(error) => {
                        tracing::debug!("no connection to an SSH agent: {error}");
                        // Out of descriptors: it would be so again at once.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn forward(self, mut stream: UnixStream, id: String) {
        let (outgoing, messages) = pipe::outgoing();
        let mut request = Request::new(messages);
        metadata::insert(request.metadata_mut(), "buildkit.ssh.id", &[id]);
        // An agent answers nothing before it is asked something, and its call neither.
        let channel = self.0.channel.clone();
        let incoming = async move { client::FORWARD_AGENT.open(&channel, request).await };
        let mut agent = outgoing.join(Box::pin(incoming.try_flatten_stream()));
        if let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut agent).await {
            tracing::debug!("a connection to an SSH agent ended: {error}");
        }
    }
}
