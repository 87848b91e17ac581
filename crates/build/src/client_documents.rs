// SPDX-License-Identifier: Apache-2.0
//! Which documents of the store the build of somebody else may use.
//!
//! Who builds here owns what is in the store. A client of a node does not: to know the digest of an image is
//! not to be allowed to read it, and a registry of the client's own may claim to have any digest. So for a
//! client a manifest, index or config counts as present when this client has sent it, or when the repository
//! that the client named has once given its bytes to this store; whether the client may ask that repository is
//! then found out with its own credentials. Layers are reached through such documents only.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use polyarch_oci::{Digest, Reference};

use crate::error::BuildError;
use crate::services::{ServiceOptions, Services};

/// The namespace of records that tell which repository has given a document.
pub(crate) const SERVED: &str = "served";

/// What a client has sent in this build.
#[derive(Default)]
pub(crate) struct Sent(Mutex<HashSet<Digest>>);

impl Services {
    /// Opens the rooms for the build of a client, who may have of the store only what it shows that it may.
    ///
    /// # Errors
    /// When the store can't be opened.
    pub fn open_for_client(options: ServiceOptions) -> Result<Arc<Services>, BuildError> {
        Services::open_with(options, Some(Sent::default()))
    }

    /// Notes a blob that the client has sent: from now on it may use it.
    pub fn note_sent(&self, digest: &Digest) {
        if let Some(sent) = &self.sent {
            sent.0.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone());
        }
    }

    /// Tells whether the client has sent a blob in this build.
    pub fn has_sent(&self, digest: &Digest) -> bool {
        let sent = self.sent.as_ref();
        sent.is_some_and(|sent| sent.0.lock().unwrap_or_else(PoisonError::into_inner).contains(digest))
    }

    /// Tells whether a blob that no repository is named for is here and may be used.
    pub(crate) fn may_use(&self, digest: &Digest) -> bool {
        self.has_document(digest, None)
    }

    /// Tells whether the rooms are open for somebody who does not own the store.
    pub(crate) fn is_for_client(&self) -> bool {
        self.sent.is_some()
    }

    /// Tells whether a document of a repository is here and may be used.
    pub(crate) fn has_document(&self, digest: &Digest, from: Option<&Reference>) -> bool {
        self.store.contains(digest)
            && (!self.is_for_client()
                || self.has_sent(digest)
                || from.is_some_and(|from| self.was_served(digest, from)))
    }

    /// Notes that a repository has given a document.
    pub(crate) fn note_served(&self, digest: &Digest, from: &Reference) {
        if self.is_for_client() {
            // Without the record it is asked for again.
            let _ = self.store.put_record(SERVED, &served_key(digest, from), digest.to_string().as_bytes());
        }
    }

    fn was_served(&self, digest: &Digest, from: &Reference) -> bool {
        matches!(self.store.get_record(SERVED, &served_key(digest, from)), Ok(Some(_)))
    }
}

fn served_key(digest: &Digest, from: &Reference) -> String {
    Digest::of(format!("{} {digest}", from.name())).hex().to_owned()
}
