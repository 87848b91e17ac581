// SPDX-License-Identifier: Apache-2.0
//! Where a repository can be had: at its own host, and before that at the mirrors configured for it.

use std::sync::Arc;

use http::Method;

use super::call::{Answer, Call, Subject};
use super::host::{Attempts, Host, Permission};
use crate::error::RegistryError;

/// A repository at one host.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) host: Arc<Host>,
    /// The repository's name at that host.
    pub(super) repository: String,
    pub(super) is_mirror: bool,
    /// The host that a mirror stands for.
    pub(super) origin: String,
}

impl Endpoint {
    /// Makes a request; a mirror is told whose content is asked for, and has less time.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        text: String,
        subject: Subject,
    ) -> Result<Call, RegistryError> {
        let options = &self.host.transport.options;
        if !self.is_mirror {
            return self.host.call(method, path, text, subject).await;
        }
        // Finding out a loopback mirror's scheme counts as well.
        let call =
            tokio::time::timeout(options.mirror_timeout, self.host.call(method, path, text.clone(), subject));
        let mut call = call.await.map_err(|_| RegistryError::Timeout {
            host: self.host.name.clone(),
            request: text,
            limit: options.mirror_timeout,
        })??;
        call.url.query_pairs_mut().append_pair("ns", &self.origin);
        call.limit = options.mirror_timeout;
        Ok(call)
    }

    /// Sends a request: once to a mirror, since others are there to be asked.
    pub(super) async fn send(&self, call: &Call, permission: &Permission) -> Result<Answer, RegistryError> {
        let attempts = if self.is_mirror { Attempts::Once } else { Attempts::ByPolicy };
        self.host.send(call, permission, attempts).await
    }

    /// Takes note of a failure before the next endpoint is asked.
    pub(super) fn give_up(&self, error: RegistryError) -> RegistryError {
        if self.is_mirror {
            tracing::warn!(mirror = %self.host.name, %error, "mirror passed over");
            self.host.rest_after(&error);
        }
        error
    }
}
