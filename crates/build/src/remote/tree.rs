// SPDX-License-Identifier: Apache-2.0
//! Trees of remote files: made once, found again by what decides about their content.

use std::path::Path;
use std::sync::Arc;

use polyarch_snapshot::{CopySource, CopySpec, KeepAll, TreeRoot, copy};
use polyarch_solver::{CacheKey, CancelFlag};

use super::git::GitSource;
use super::redaction::redacted;
use super::web::WebSource;
use crate::cache::{StepRecord, is_whole};
use crate::error::BuildError;
use crate::fetch::blocking;
use crate::ops::file::commit;
use crate::provenance::Material;
use crate::secrets::SecretSource;
use crate::services::Services;
use crate::tree::{Layer, Tree};

/// Files from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RemoteSource {
    /// A file of a web server.
    Web(WebSource),
    /// A part of a git repository.
    Git(GitSource),
}

impl RemoteSource {
    /// Returns what the source is, as texts that can't be mistaken for others.
    pub(crate) fn key_parts(&self) -> Vec<String> {
        match self {
            RemoteSource::Web(source) => source.key_parts(),
            RemoteSource::Git(source) => source.key_parts(),
        }
    }

    /// Returns where the files are, without credentials.
    pub(crate) fn shown(&self) -> String {
        match self {
            RemoteSource::Web(source) => redacted(&source.url),
            RemoteSource::Git(source) => format!("git://{}", source.reference.shown()),
        }
    }

    /// Returns when the files changed, in seconds since 1970, if where they come from tells; the flag stops it.
    pub(crate) async fn time(
        &self,
        services: &Arc<Services>,
        secrets: &Arc<dyn SecretSource>,
        cancel: &CancelFlag,
    ) -> Result<Option<i64>, BuildError> {
        match self {
            RemoteSource::Web(source) => tokio::select! {
                time = source.time(services) => time,
                () = cancel.cancelled() => Err(BuildError::cancelled()),
            },
            RemoteSource::Git(source) => source.time(services, secrets.as_ref(), cancel).await.map(Some),
        }
    }

    /// Brings the files here, unless they are here and have not changed where they come from; says also what
    /// they are. The flag stops it.
    pub(crate) async fn tree(
        &self,
        services: &Arc<Services>,
        secrets: &Arc<dyn SecretSource>,
        cancel: &CancelFlag,
    ) -> Result<(Tree, Material), BuildError> {
        match self {
            RemoteSource::Web(source) => {
                let (tree, digest) = tokio::select! {
                    found = source.tree(services) => found?,
                    () = cancel.cancelled() => return Err(BuildError::cancelled()),
                };
                Ok((tree, source.material(digest)))
            }
            RemoteSource::Git(source) => {
                let (tree, commit) = source.tree(services, secrets.as_ref(), cancel).await?;
                Ok((tree, source.material(commit)))
            }
        }
    }
}

impl Services {
    /// Returns the tree that was made for a key, when all of it is still here.
    pub(super) fn recorded_tree(&self, key: &CacheKey) -> Option<Tree> {
        let bytes = self.store.get_record(self.options.step_namespace(), &key.hex()).ok()??;
        let tree: Tree = serde_json::from_slice(&bytes).ok()?;
        if !is_whole(&tree, &self.snapshots, &self.store) {
            return None;
        }
        self.mark_used(&tree);
        Some(tree)
    }

    /// Remembers a tree for a key.
    pub(super) fn record_tree(&self, key: &CacheKey, tree: &Tree, description: &str) {
        let record =
            StepRecord { tree: tree.clone(), description: description.to_owned(), further: Vec::new() };
        if let Ok(bytes) = serde_json::to_vec(&record) {
            // A record that can't be written costs the next build time, not truth.
            let _ = self.store.put_record(self.options.step_namespace(), &key.hex(), &bytes);
        }
    }

    /// Makes a tree of what is in a directory; everything belongs to root.
    pub(super) async fn tree_of_directory(self: &Arc<Self>, directory: &Path) -> Result<Tree, BuildError> {
        let (services, directory) = (self.clone(), directory.to_owned());
        let layer = blocking(move || {
            let failed = |error| services.snapshot_error("can't keep remote files", &error);
            let active = services.snapshots.prepare(&[]).map_err(failed)?;
            let sources = [CopySource { pattern: ".".to_owned(), allow_wildcard: false }];
            let spec = CopySpec {
                source: &TreeRoot::open(&directory).map_err(failed)?,
                sources: &sources,
                filter: &KeepAll,
                matcher: &|pattern, name| pattern == name,
                destination: "/",
                owner: Some((0, 0)),
                mode: None,
                unpack: false,
                unpack_owner: None,
                modified: None,
                within: None,
                created_mode: 0o755,
                keeps_directories: false,
                follows_links: true,
                needs_match: false,
            };
            {
                let tree = active.tree().map_err(failed)?;
                copy(&spec, &tree).map_err(failed)?;
            }
            commit(&services, active)
        })
        .await?;
        let layers = layer.into_iter().map(|id| Layer::Step { id }).collect();
        Ok(Tree::new(layers, Vec::new()))
    }
}
