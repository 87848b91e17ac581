// SPDX-License-Identifier: Apache-2.0
//! Referrers: what a registry keeps beside a document (distribution-spec 1.1, "Listing Referrers").

use http::Method;
use http::header::ACCEPT;
use polyarch_oci::media_type::OCI_INDEX;
use polyarch_oci::{Descriptor, ImageIndex, Reference};

use super::Client;
use super::call::Subject;
use super::challenge::Scopes;
use super::endpoint::Endpoint;
use super::host::Permission;
use super::pages::{MAX_PAGES, Pages};
use crate::api;
use crate::error::RegistryError;

/// The largest list that is read, in bytes of all its pages.
const MAX_LIST_BYTES: u64 = 8 << 20;

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
                Err(error) if is_unknown_path(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }
}

/// Tells whether a registry answers as those do that do not know a path.
fn is_unknown_path(error: &RegistryError) -> bool {
    error.is_not_found() || matches!(error.status(), Some(400 | 405 | 501))
}

/// Fetches a list of referrers, all its pages; `None` when the answer is not one.
async fn list(
    origin: &Endpoint,
    path: &str,
    subject: &Reference,
) -> Result<Option<Vec<Descriptor>>, RegistryError> {
    let text = format!("list referrers of {subject}");
    let call = origin.host.call(Method::GET, path, text, Subject::Other).await?;
    let call = call.header(ACCEPT, OCI_INDEX);
    let permission =
        Permission { repository: origin.repository.clone(), scopes: Scopes::pull(&origin.repository) };
    let mut pages = Pages::new(origin, permission, call.clone(), MAX_LIST_BYTES);
    let mut found = Vec::new();
    let mut is_first = true;
    // That the path is unknown is told by the first answer; then a page that is lost is a failure.
    let lost = |problem: String| call.protocol_error(problem);
    loop {
        let bytes = match pages.read().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Some(found)),
            Err(error) if !is_first && is_unknown_path(&error) => {
                return Err(lost("the registry does not have the next page that it named".to_owned()));
            }
            Err(error) => return Err(error),
        };
        match serde_json::from_slice::<ImageIndex>(&bytes) {
            Ok(index) => found.extend(index.manifests),
            Err(_) if is_first => return Ok(None),
            Err(_) => return Err(lost("a page of the list is no index".to_owned())),
        }
        // Half a list could hide the signature or attestation that is looked for.
        if pages.has_more() && pages.are_exhausted() {
            return Err(lost(format!("the list has more than {MAX_PAGES} pages")));
        }
        is_first = false;
    }
}
