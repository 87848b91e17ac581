// SPDX-License-Identifier: Apache-2.0
//! A client's session as a daemon has it: what may be asked of the client while it builds.
//!
//! The counterpart of [`crate::session`]. A client opens `Control.Session`, and within that call's two
//! streams of bytes *it* is the server: [`Sessions::accept`] turns them into a connection of ours.
//! Builds name their session by its id, which the client has chosen such that nobody can guess it;
//! [`Sessions::find`] waits for it, because it may come after the build that needs it. Everything else
//! is asked of the [`ClientSession`]: directories, secrets, agents, credentials, blobs, and the place where
//! results go.
//!
//! Each session has its own connection, so one client can neither reach what another one offers nor hold
//! it up. A call ends when its session does: when the client ends it, goes away, or answers none of its
//! health checks. What a client sends is hostile until it is checked.

mod accept;
mod agent;
mod calls;
mod content;
mod error;
mod kept;
mod listing;
mod receive;
mod send;
mod sessions;
#[cfg(test)]
mod tests;
mod tree_writer;
mod upload;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

pub use agent::AgentSocket;
pub use calls::RegistryLogin;
pub use content::ClientContent;
pub use error::CallerError;
pub use kept::{KeptDirectories, KeptDirectory};
pub use receive::{ReceiveRequest, Received};
pub use send::ArchiveWriter;
pub use sessions::{SessionAnswer, Sessions};

/// The most transfers of files of a session at a time.
const MAX_TRANSFERS: usize = 16;

/// A client's session; clones are the same session.
#[derive(Clone)]
pub struct ClientSession(Arc<Inner>);

struct Inner {
    id: String,
    name: String,
    shared_key: String,
    /// The paths of the methods that it offers, in lower case.
    methods: HashSet<String>,
    channel: Channel,
    ended: CancellationToken,
    /// How many more transfers of files there may be at a time.
    transfers: Semaphore,
}

impl ClientSession {
    /// Returns the name by which builds refer to the session.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Returns what the client calls itself; not unique, and nothing to rely on.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the key under which this client's directories may be kept for its next build; empty when none
    /// may be. Whoever has the key can build with what is kept, so it is a secret.
    pub fn shared_key(&self) -> &str {
        &self.0.shared_key
    }

    /// Tells whether the client offers a method, `/package.Service/Method`.
    pub fn offers(&self, path: &str) -> bool {
        self.0.methods.contains(&path.to_ascii_lowercase())
    }

    /// Waits until the session has ended, whoever ended it.
    pub async fn ended(&self) {
        self.0.ended.cancelled().await;
    }

    /// Tells whether the session has ended.
    pub fn has_ended(&self) -> bool {
        self.0.ended.is_cancelled()
    }

    /// Ends the session: its calls fail, and the client sees the end.
    pub fn end(&self) {
        self.0.ended.cancel();
    }

    /// Does something that needs the client; it fails as soon as the session has ended.
    async fn within<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, CallerError> {
        tokio::select! {
            result = work => result.map_err(|status| match self.has_ended() {
                true => CallerError::Ended { what },
                false => CallerError::of_status(what, &status),
            }),
            () = self.ended() => Err(CallerError::Ended { what }),
        }
    }

    fn need(&self, what: &'static str, path: &'static str) -> Result<(), CallerError> {
        match self.offers(path) {
            true => Ok(()),
            false => Err(CallerError::NotOffered { what, method: path }),
        }
    }
}

impl fmt::Debug for ClientSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The id and the key give access; they are told to nobody.
        formatter.debug_struct("ClientSession").field("name", &self.0.name).finish_non_exhaustive()
    }
}
