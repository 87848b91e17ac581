// SPDX-License-Identifier: Apache-2.0
//! What a client serves to a daemon while it builds.
//!
//! A session is a gRPC server whose connection runs inside a call that the client made
//! (`Control.Session`): the daemon calls back through it. It offers exactly what its [`Attachments`] hold,
//! and ends with the build.

mod attributes;
mod content;
mod directory;
mod file_send;
pub(crate) mod file_sync;
mod follow;
pub mod go_mode;
pub(crate) mod metadata;
pub(crate) mod pipe;
mod registries;
mod serve;
mod ssh;
pub(crate) mod whole_body;

use std::collections::BTreeMap;
use std::sync::Arc;

use polyarch_build::secrets::SecretSource;

pub use content::ContentStore;
pub use directory::{Selection, SharedDirectory, WalkError};
pub use file_send::{ArchiveTarget, TakeArchive};
pub use registries::SharedRegistries;

/// What a daemon may have of this machine during one build.
#[derive(Default)]
pub struct Attachments {
    /// The directories that it may read, by the names that it asks for: `context`, `dockerfile`…
    pub directories: BTreeMap<String, SharedDirectory>,
    /// Where its exports go, in the order of the build's exporters.
    pub archives: Vec<ArchiveTarget>,
    /// The blobs that it may read and give, by the names of their stores.
    pub contents: BTreeMap<String, Arc<ContentStore>>,
    /// Access to registries; none is given without.
    pub registries: Option<SharedRegistries>,
    /// Secrets and SSH agents; none are told without.
    pub secrets: Option<Arc<dyn SecretSource>>,
}

/// A session: a name that nobody can guess, and what it offers.
#[derive(Clone)]
pub struct Session {
    id: Arc<str>,
    shared_key: Arc<str>,
    attachments: Arc<Attachments>,
}

impl Session {
    /// Makes a session. Builds with the same `shared_key` send only what has changed in a directory since;
    /// empty means to send everything.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(attachments: Attachments, shared_key: &str) -> Result<Session, getrandom::Error> {
        Ok(Session {
            id: random_id()?.into(),
            shared_key: shared_key.into(),
            attachments: Arc::new(attachments),
        })
    }

    /// Returns the name by which builds refer to the session.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Returns a name that nobody can guess, of 32 letters and digits.
///
/// # Errors
/// When the system gives no random bytes.
pub(crate) fn random_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}
