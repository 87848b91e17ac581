// SPDX-License-Identifier: Apache-2.0
//! Where a client's build takes records of steps from, and where it sends its own.
//!
//! Registries are asked with the client's credentials. A directory (`type=local`) is one of the client's, reached
//! through its session, and never one of this machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use polyarch_build::{
    BuildError, CacheDirectory, CacheEntry, CacheExport, CacheSource, CacheTarget, ClientCache, ErrorKind,
    RemoteCache, Services,
};
use polyarch_oci::{Descriptor, Digest};
use polyarch_store::Store;
use serde::Deserialize;

use crate::api::control::CacheOptionsEntry;
use crate::api::gateway::CacheOptionsEntry as FrontendEntry;
use crate::caller::ClientSession;
use crate::server::attributes::wrong;
use crate::server::builds::Build;
use crate::server::layouts::copy_image;

/// The most places that a build may name.
const MAX_PLACES: usize = 64;

/// An entry as frontends get it (`cache-imports`).
#[derive(Deserialize)]
struct Import {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Attrs", default)]
    attributes: BTreeMap<String, String>,
}

/// Returns the places of a build's records; one that can't be read from is told and passed over.
pub(super) fn remote_cache(
    build: &Build,
    attributes: &BTreeMap<String, String>,
    told: &[FrontendEntry],
) -> Result<RemoteCache, BuildError> {
    let imports = build.request.cache.iter().flat_map(|options| &options.imports);
    let mut imports: Vec<CacheEntry> = imports.map(entry).collect();
    imports
        .extend(told.iter().map(|it| CacheEntry { kind: it.r#type.clone(), attributes: it.attrs.clone() }));
    if let Some(text) = attributes.get("cache-imports").filter(|text| !text.is_empty()) {
        // Go writes an absent list as null.
        let told: Option<Vec<Import>> = serde_json::from_str(text).map_err(|error| {
            BuildError::new(ErrorKind::Usage, format!("failed to unmarshal cache-imports ({text}): {error}"))
        })?;
        let told = told.into_iter().flatten();
        imports.extend(told.map(|it| CacheEntry { kind: it.kind, attributes: it.attributes }));
    }
    let names = attributes.get("cache-from").into_iter().flat_map(|list| list.split(','));
    imports.extend(names.map(str::trim).filter(|name| !name.is_empty()).map(CacheEntry::of_image));
    let mut seen: Vec<CacheEntry> = Vec::new();
    let mut from = Vec::new();
    for import in imports {
        // Clients tell their imports twice, to the daemon and to the frontend.
        if seen.contains(&import) {
            continue;
        }
        match source(build, &import) {
            Ok(source) => from.push(source),
            Err(error) => build.progress().warn(format!("{error}; it is not used")),
        }
        seen.push(import);
    }
    let cache = RemoteCache { from, to: exports(build)? };
    if cache.from.len() + cache.to.len() > MAX_PLACES {
        return Err(wrong(format!(
            "a build takes and sends its cache from and to at most {MAX_PLACES} places"
        )));
    }
    Ok(cache)
}

/// Returns the places that get a build's records.
pub(super) fn exports(build: &Build) -> Result<Vec<CacheExport>, BuildError> {
    let wanted = build.request.cache.iter().flat_map(|options| &options.exports).map(entry);
    let exports = wanted.map(|entry| {
        let mut export = entry.export()?;
        if let CacheTarget::Directory { path, .. } = &export.target {
            let directory = Directory::of(build, &path.to_string_lossy(), None)?;
            export.target = CacheTarget::Client(ClientCache(Arc::new(directory)));
        }
        Ok(export)
    });
    exports.collect()
}

fn source(build: &Build, import: &CacheEntry) -> Result<CacheSource, BuildError> {
    Ok(match import.source()? {
        // The client has looked its tag up.
        CacheSource::Directory { path, digest, .. } => {
            let directory = Directory::of(build, &path.to_string_lossy(), digest)?;
            CacheSource::Client(ClientCache(Arc::new(directory)))
        }
        other => other,
    })
}

fn entry(entry: &CacheOptionsEntry) -> CacheEntry {
    CacheEntry { kind: entry.r#type.clone(), attributes: entry.attrs.clone() }
}

/// A directory of the client's.
#[derive(Debug)]
struct Directory {
    session: ClientSession,
    /// The client's name for it.
    store: String,
    digest: Option<Digest>,
}

impl Directory {
    fn of(build: &Build, path: &str, digest: Option<Digest>) -> Result<Directory, BuildError> {
        let session = build.session.clone();
        let session =
            session.ok_or_else(|| wrong("local cache exporter/importer requires session".to_owned()))?;
        Ok(Directory { session, store: format!("local:{path}"), digest })
    }
}

impl CacheDirectory for Directory {
    fn name(&self) -> String {
        match &self.digest {
            Some(digest) => format!("local:{digest}"),
            None => self.store.clone(),
        }
    }

    fn fetch<'a>(&'a self, services: &'a Services) -> BoxFuture<'a, Result<Descriptor, BuildError>> {
        Box::pin(async move {
            let missing = || wrong("local cache importer requires explicit digest".to_owned());
            let digest = self.digest.as_ref().ok_or_else(missing)?;
            copy_image(&self.session, &self.store, digest, services).await
        })
    }

    fn keep<'a>(
        &'a self,
        blobs: &'a [Descriptor],
        store: &'a Store,
    ) -> BoxFuture<'a, Result<(), BuildError>> {
        Box::pin(async move {
            let content = self.session.content(&self.store)?;
            for blob in blobs {
                let file = store.open_blob(&blob.digest).map_err(|error| {
                    BuildError::from_source(ErrorKind::Storage, "can't read the cache", &error)
                })?;
                content.write(&blob.digest, blob.size, file).await?;
            }
            Ok(())
        })
    }
}
