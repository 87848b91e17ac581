// SPDX-License-Identifier: Apache-2.0
//! Referrers: what a registry keeps beside a document (distribution-spec 1.1, "Listing Referrers").

use http::Method;
use http::header::ACCEPT;
use polyarch_oci::manifest::MAX_MANIFEST_BYTES;
use polyarch_oci::media_type::OCI_INDEX;
use polyarch_oci::{Descriptor, ImageIndex, Reference};

use super::Client;
use super::call::{self, Subject};
use super::challenge::Scopes;
use super::endpoint::Endpoint;
use super::host::{Attempts, Permission};
use crate::api;
use crate::error::RegistryError;

impl Client {
    /// Lists what refers to a document, which the reference names by digest.
    ///
    /// Asks the API, and where a registry has none, the tag that stands for it
    /// (distribution-spec 1.1, "Referrers Tag Schema"). Asks the origin, not the mirrors.
    ///
    /// # Errors
    /// Whatever keeps the registry from answering. That nothing refers to it is no error.
    pub async fn get_referrers(&self, subject: &Reference) -> Result<Vec<Descriptor>, RegistryError> {
        let Some(digest) = subject.digest() else {
            return Err(RegistryError::IncompleteReference { reference: subject.to_string() });
        };
        let origin = self.origin(subject);
        let path = api::referrers_path(&origin.repository, digest);
        let tag = format!("{}-{}", digest.algorithm().as_str(), digest.hex());
        for path in [path, api::manifest_path(&origin.repository, &tag)] {
            match list(&origin, &path, subject).await {
                Ok(Some(entries)) => return Ok(entries),
                Ok(None) => {}
                // Registries that do not know the path answer with one of these.
                Err(error) if error.is_not_found() || matches!(error.status(), Some(400 | 405 | 501)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }
}

/// Fetches a list of referrers; `None` when the answer is not one.
async fn list(
    origin: &Endpoint,
    path: &str,
    subject: &Reference,
) -> Result<Option<Vec<Descriptor>>, RegistryError> {
    let text = format!("list referrers of {subject}");
    let call = origin.host.call(Method::GET, path, text.clone(), Subject::Other).await?;
    let call = call.header(ACCEPT, OCI_INDEX);
    let permission =
        Permission { repository: origin.repository.clone(), scopes: Scopes::pull(&origin.repository) };
    let answer = origin.host.send(&call, &permission, Attempts::ByPolicy).await?;
    let bytes = call::read_all(answer, &call, &text, MAX_MANIFEST_BYTES).await?;
    Ok(serde_json::from_slice::<ImageIndex>(&bytes).ok().map(|index| index.manifests))
}
