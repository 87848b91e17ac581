// SPDX-License-Identifier: Apache-2.0
//! What a source of a definition is at present, before anything is built on it.

use std::sync::Arc;

use polyarch_oci::Digest;
use polyarch_solver::CancelFlag;

use super::VertexKind;
use super::lower::{git_reference, web_source};
use crate::error::BuildError;
use crate::remote::GitSource;
use crate::secrets::SecretSource;
use crate::services::Services;

/// What a source is at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceFacts {
    /// It is none that anybody could be asked about.
    Nothing,
    /// A repository.
    Git(GitFacts),
    /// A download.
    Http(WebFacts),
}

/// What a reference of a repository stands for at present.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitFacts {
    /// Its full name, `refs/heads/main`, or the commit itself.
    pub name: String,
    /// The object that it names: a commit, or an annotated tag.
    pub object: String,
    /// The commit, where the object is a tag.
    pub commit: Option<String>,
    /// The commit as git stores it; empty unless it was asked for.
    pub commit_object: Vec<u8>,
    /// The tag as git stores it; empty unless it was asked for and there is one.
    pub tag_object: Vec<u8>,
}

/// What a web server gives at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebFacts {
    /// The digest of it.
    pub digest: Digest,
    /// The name that the file gets.
    pub file_name: String,
    /// When it changed, in seconds since 1970, where the server tells.
    pub modified: Option<i64>,
}

impl Services {
    /// Asks where a source is from what it is; a download comes here for that.
    ///
    /// # Errors
    /// When it can't be asked, or gives what it should not.
    pub async fn look_up(
        self: &Arc<Self>,
        kind: &VertexKind,
        wants_objects: bool,
        secrets: &Arc<dyn SecretSource>,
        cancel: &CancelFlag,
    ) -> Result<SourceFacts, BuildError> {
        match kind {
            VertexKind::Git { url, checksum, .. } => {
                let mut reference = git_reference(url)?;
                if checksum.is_some() {
                    reference.checksum.clone_from(checksum);
                }
                let source = GitSource { reference, keep_git_dir: false };
                let facts = source.facts(self, secrets.as_ref(), wants_objects, cancel).await?;
                Ok(SourceFacts::Git(facts))
            }
            VertexKind::Http { url, file_name, checksum, .. } => {
                let source = web_source(url, file_name.as_deref(), checksum.clone())?;
                let facts = tokio::select! {
                    facts = source.facts(self) => facts?,
                    () = cancel.cancelled() => return Err(BuildError::cancelled()),
                };
                Ok(SourceFacts::Http(facts))
            }
            _ => Ok(SourceFacts::Nothing),
        }
    }
}
