// SPDX-License-Identifier: Apache-2.0
//! Secrets and SSH agents of a client, asked for through its session when a step needs them.

use std::collections::HashMap;
use std::path::PathBuf;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use polyarch_build::BuildError;
use polyarch_build::secrets::SecretSource;
use tokio::sync::Mutex;

use crate::caller::{AgentSocket, CallerError, ClientSession};

/// The secrets and agents of a client, asked for through its session.
pub(super) struct ClientSecrets {
    session: ClientSession,
    /// Where sockets are made.
    directory: PathBuf,
    agents: Mutex<HashMap<String, AgentSocket>>,
}

impl ClientSecrets {
    pub(super) fn new(session: ClientSession, directory: PathBuf) -> ClientSecrets {
        ClientSecrets { session, directory, agents: Mutex::default() }
    }
}

impl std::fmt::Debug for ClientSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientSecrets")
    }
}

impl SecretSource for ClientSecrets {
    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BuildError>> {
        async move { Ok(self.session.secret(id).await?) }.boxed()
    }

    fn agent<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<PathBuf>, BuildError>> {
        async move {
            let mut agents = self.agents.lock().await;
            if let Some(socket) = agents.get(id) {
                return Ok(Some(socket.path().to_owned()));
            }
            match self.session.agent(id, &self.directory).await {
                Ok(socket) => {
                    let path = socket.path().to_owned();
                    agents.insert(id.to_owned(), socket);
                    Ok(Some(path))
                }
                // The client has none, or none of that name.
                Err(CallerError::NotOffered { .. } | CallerError::Refused { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
        .boxed()
    }
}
