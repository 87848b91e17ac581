// SPDX-License-Identifier: Apache-2.0
//! Tags: which names a repository has (distribution-spec 1.1, "Listing Tags").

use http::Method;
use polyarch_oci::Reference;
use serde::Deserialize;

use super::Client;
use super::call::{self, Subject};
use super::challenge::Scopes;
use super::host::{Attempts, Permission};
use crate::api;
use crate::error::RegistryError;

/// The largest list that is read, in bytes.
const MAX_LIST_BYTES: u64 = 4 << 20;

impl Client {
    /// Lists the tags of a repository, in the registry's order; of a registry that gives pages, the first.
    ///
    /// Asks the origin, not the mirrors.
    ///
    /// # Errors
    /// Whatever keeps the registry from answering; an answer that is no list.
    pub async fn list_tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Tags {
            // Registries whose last tag was removed answer null.
            tags: Option<Vec<String>>,
        }
        let origin = self.origin(repository);
        let text = format!("list tags of {}", repository.name());
        let path = api::tags_path(&origin.repository);
        let call = origin.host.call(Method::GET, &path, text.clone(), Subject::Other).await?;
        let permission =
            Permission { repository: origin.repository.clone(), scopes: Scopes::pull(&origin.repository) };
        let answer = origin.host.send(&call, &permission, Attempts::ByPolicy).await?;
        let bytes = call::read_all(answer, &call, &text, MAX_LIST_BYTES).await?;
        let list: Tags = serde_json::from_slice(&bytes)
            .map_err(|_| call.protocol_error("the answer is no list of tags"))?;
        Ok(list.tags.unwrap_or_default())
    }
}
