// SPDX-License-Identifier: Apache-2.0
//! Records of steps that travel: to a registry or a directory after a build, and from there before one.
//!
//! What travels has BuildKit's form (see `docs/cache.md`): a manifest whose config lists records, each a
//! cache key with the layers of its result; or the same records within the config of an image. The keys are
//! ours, so what we export we import; BuildKit finds layers of its own kind in it and no key that it asks for.
//! What is imported serves the build that names it and is not written into the records of this store.

mod document;
mod entry;
mod export;
mod import;
mod inline;
mod merged;

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use polyarch_oci::media_type::{Compression, Flavour};
use polyarch_oci::{Descriptor, Digest, Reference};
use polyarch_store::Store;

use crate::error::BuildError;
use crate::services::Services;

pub use entry::CacheEntry;
pub(crate) use export::CachedStep;
pub(crate) use import::ImportedRecords;
pub(crate) use inline::{INLINE_KEY, inline_records};
pub use merged::CacheCollector;

/// Where a build's records come from and go to, besides the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoteCache {
    /// Places whose records serve the build; the first one's win.
    pub from: Vec<CacheSource>,
    /// Places that get the build's records.
    pub to: Vec<CacheExport>,
}

impl RemoteCache {
    /// Tells whether records go into the image itself.
    pub fn is_inline(&self) -> bool {
        self.to.iter().any(|export| export.target == CacheTarget::Inline)
    }

    /// Returns the same, with all exports as one to `collector`, the widest of them; images keep theirs.
    pub fn collected_by(&self, collector: ClientCache) -> RemoteCache {
        let (mut to, others): (Vec<CacheExport>, Vec<CacheExport>) =
            self.to.iter().cloned().partition(|export| export.target == CacheTarget::Inline);
        let widest = others.iter().find(|export| export.mode == CacheMode::Max).or(others.first());
        to.extend(widest.map(|export| CacheExport {
            target: CacheTarget::Client(collector),
            ignores_errors: others.iter().all(|export| export.ignores_errors),
            ..export.clone()
        }));
        RemoteCache { from: self.from.clone(), to }
    }
}

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheSource {
    /// What an exporter of `type=registry` wrote, or an image with records within.
    Registry(Reference),
    /// A directory of this machine, which an exporter of `type=local` wrote.
    Directory {
        /// The directory.
        path: PathBuf,
        /// The name of the cache in it; `latest` when absent.
        tag: Option<String>,
        /// Its digest, which counts more than the name.
        digest: Option<Digest>,
    },
    /// A directory of somebody else's.
    Client(ClientCache),
}

/// One place that gets a build's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheExport {
    /// The place.
    pub target: CacheTarget,
    /// Which records.
    pub mode: CacheMode,
    /// Whether the build succeeds when the place can't be written.
    pub ignores_errors: bool,
    /// How layers of steps are compressed; as in the image when absent.
    pub compression: Option<Compression>,
    /// How hard.
    pub compression_level: Option<i32>,
    /// Whose media types the manifest has.
    pub flavour: Flavour,
}

/// Where records go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheTarget {
    /// A name in a registry.
    Registry(Reference),
    /// A directory of this machine.
    Directory {
        /// The directory.
        path: PathBuf,
        /// The name of the cache in it.
        tag: String,
    },
    /// The image itself, if the build makes one.
    Inline,
    /// A directory of somebody else's.
    Client(ClientCache),
}

impl CacheTarget {
    /// Returns what is shown while a cache goes there, and where that is; `None` for what no cache is sent to.
    pub(crate) fn name_and_place(&self) -> Option<(&'static str, String)> {
        match self {
            CacheTarget::Inline => None,
            CacheTarget::Registry(name) => Some(("exporting cache to registry", name.to_string())),
            CacheTarget::Directory { path, .. } => {
                Some(("exporting cache to client directory", path.display().to_string()))
            }
            CacheTarget::Client(client) => Some(("exporting cache to client directory", client.0.name())),
        }
    }
}

/// Which records are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheMode {
    /// Those of the steps whose layers are in the result.
    Min,
    /// All.
    Max,
}

/// A directory of caches that is not this machine's, reached through whoever has it.
pub trait CacheDirectory: std::fmt::Debug + Send + Sync {
    /// Returns what people call it.
    fn name(&self) -> String;

    /// Brings a cache into the store, each blob under its digest and noted as sent, and returns the descriptor of
    /// its manifest.
    fn fetch<'a>(&'a self, services: &'a Services) -> BoxFuture<'a, Result<Descriptor, BuildError>>;

    /// Takes blobs of the store, the manifest last.
    fn keep<'a>(&'a self, blobs: &'a [Descriptor], store: &'a Store)
    -> BoxFuture<'a, Result<(), BuildError>>;
}

/// A shared [`CacheDirectory`]; equal to its clones only.
#[derive(Debug, Clone)]
pub struct ClientCache(pub Arc<dyn CacheDirectory>);

impl PartialEq for ClientCache {
    fn eq(&self, other: &ClientCache) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ClientCache {}
