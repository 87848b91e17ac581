// SPDX-License-Identifier: Apache-2.0
//! A build's caches on a node: what it may take records from, and its own records brought home.
//!
//! Caches in registries and images a node reads by itself. Directories of this machine are read through the
//! session, and what a node knows comes home the same way, so that the caches of all nodes are published together.

use std::collections::BTreeMap;
use std::sync::Arc;

use polyarch_build::{BuildError, CacheMode, CacheSource, CacheTarget, ErrorKind, RemoteCache, Services};
use polyarch_oci::Descriptor;
use polyarch_solver::progress::Progress;

use crate::api::control::CacheOptionsEntry;
use crate::client::SolveResult;
use crate::session::ContentStore;

/// What the directories of this machine are called towards nodes; their paths are nobody's business.
const HOME: &str = "polyarch-cache";

/// The caches of one build on one node.
pub(super) struct NodeCache {
    /// Where the node takes records from.
    pub(super) from: Vec<CacheOptionsEntry>,
    /// Where it sends its own to.
    pub(super) to: Vec<CacheOptionsEntry>,
    content: Arc<ContentStore>,
    comes_home: bool,
}

impl NodeCache {
    /// Prepares what a node gets; a directory that has no cache is told and passed over.
    pub(super) async fn new(
        services: &Arc<Services>,
        cache: &RemoteCache,
        progress: &Progress,
    ) -> Result<NodeCache, BuildError> {
        let mut from = Vec::new();
        let mut readable = Vec::new();
        for source in &cache.from {
            match source {
                CacheSource::Registry(name) => from.push(entry("registry", [("ref", name.to_string())])),
                CacheSource::Directory { path, .. } => match services.bring_cache(source).await {
                    Ok(Some((root, blobs))) => {
                        let digest = root.digest.to_string();
                        from.push(entry("local", [("src", HOME.to_owned()), ("digest", digest)]));
                        readable.extend(blobs.into_iter().map(|blob| blob.digest));
                    }
                    Ok(None) => {}
                    Err(error) => progress.warn(format!(
                        "importing cache manifest from {} failed, so it is not used: {error}",
                        path.display()
                    )),
                },
                // Of a client's client; builds that come from one are not passed on.
                CacheSource::Client(_) => {}
            }
        }
        let mut to = Vec::new();
        let homebound: Vec<_> =
            cache.to.iter().filter(|export| export.target != CacheTarget::Inline).collect();
        if let Some(first) = homebound.first() {
            let is_max = homebound.iter().any(|export| export.mode == CacheMode::Max);
            let mut told = entry("local", [("dest", HOME.to_owned())]);
            let mut set = |key: &str, value: &str| told.attrs.insert(key.to_owned(), value.to_owned());
            set("mode", if is_max { "max" } else { "min" });
            set("image-manifest", "true");
            set("oci-mediatypes", "true");
            if let Some(compression) = first.compression {
                set("compression", compression.as_str());
            }
            if let Some(level) = first.compression_level {
                set("compression-level", &level.to_string());
            }
            to.push(told);
        }
        if cache.is_inline() {
            to.push(entry("inline", []));
        }
        let content = Arc::new(ContentStore::new(services.store().clone(), readable));
        Ok(NodeCache { from, to, content, comes_home: !homebound.is_empty() })
    }

    /// Returns what the session offers of it.
    pub(super) fn contents(&self) -> BTreeMap<String, Arc<ContentStore>> {
        let is_needed = self.comes_home || self.from.iter().any(|entry| entry.r#type == "local");
        is_needed.then(|| (format!("local:{HOME}"), self.content.clone())).into_iter().collect()
    }

    /// Returns the manifest of the node's cache, which is in the store; `None` when there is nothing to keep.
    pub(super) fn made(&self, solved: &SolveResult) -> Result<Option<Descriptor>, BuildError> {
        let told = solved.response.get("cache.manifest").filter(|_| self.comes_home);
        let Some(told) = told else { return Ok(None) };
        let wrong = |problem: &str| {
            BuildError::new(
                ErrorKind::Registry,
                format!("the node says of its cache what can't be: {problem}"),
            )
        };
        let told: Descriptor = serde_json::from_str(told).map_err(|error| wrong(&error.to_string()))?;
        match self.content.was_given(&told.digest) {
            true => Ok(Some(Descriptor::new(&told.media_type, told.digest, told.size))),
            false => Err(wrong("it has not sent it")),
        }
    }
}

fn entry<const N: usize>(kind: &str, attributes: [(&str, String); N]) -> CacheOptionsEntry {
    let attributes = attributes.into_iter().map(|(key, value)| (key.to_owned(), value));
    CacheOptionsEntry { r#type: kind.to_owned(), attrs: attributes.collect() }
}
