// SPDX-License-Identifier: Apache-2.0
//! Tags: which names a repository has (distribution-spec 1.1, "Listing Tags").

use http::Method;
use polyarch_oci::Reference;
use serde::Deserialize;

use super::Client;
use super::call::Subject;
use super::challenge::Scopes;
use super::host::Permission;
use super::pages::Pages;
use crate::api;
use crate::error::RegistryError;

/// The largest list that is read, in bytes of all its pages.
const MAX_LIST_BYTES: u64 = 4 << 20;

impl Client {
    /// Lists the tags of a repository, in the registry's order; of a list of more than a hundred pages, the
    /// first hundred.
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
        let call = origin.host.call(Method::GET, &path, text, Subject::Other).await?;
        let permission =
            Permission { repository: origin.repository.clone(), scopes: Scopes::pull(&origin.repository) };
        let mut pages = Pages::new(&origin, permission, call.clone(), MAX_LIST_BYTES);
        let mut tags = Vec::new();
        while !pages.are_exhausted()
            && let Some(bytes) = pages.read().await?
        {
            let list: Tags = serde_json::from_slice(&bytes)
                .map_err(|_| call.protocol_error("the answer is no list of tags"))?;
            tags.extend(list.tags.unwrap_or_default());
        }
        Ok(tags)
    }
}
