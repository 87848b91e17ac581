// SPDX-License-Identifier: Apache-2.0
//! Caches of several builders, put together as one and published once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, ready};
use polyarch_oci::{Descriptor, Document, Manifest, ManifestOrIndex};
use polyarch_solver::progress::Progress;
use polyarch_store::Store;

use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking};
use crate::image_source::storage_error;
use crate::remote_cache::document::{CACHE_CONFIG, MAX_CONFIG_BYTES, merge_configs};
use crate::remote_cache::export::MadeCache;
use crate::remote_cache::{CacheDirectory, CacheExport, CacheSource};
use crate::services::Services;

impl Services {
    /// Sends the records of several builders, whose caches are in the store, to every place, as one cache. What one
    /// builder knows is never in the way of what another knows.
    ///
    /// # Errors
    /// When one of them is no cache, and the first place that can't be written, unless its errors are to be ignored.
    pub async fn export_merged_cache(
        self: &Arc<Self>,
        exports: &[CacheExport],
        parts: &[Descriptor],
        progress: &Progress,
    ) -> Result<(), BuildError> {
        for export in exports.iter().filter(|_| !parts.is_empty()) {
            let Some((name, place)) = export.target.name_and_place() else { continue };
            let vertex = progress.begin(&format!("{name} {place}"), name);
            let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
            let sent = async {
                let cache = self.merge_caches(export, parts)?;
                self.send_cache(export, &cache, &shown).await
            };
            match sent.await {
                Ok(()) => vertex.done(),
                Err(error) => {
                    vertex.failed(&error);
                    if !export.ignores_errors {
                        return Err(error);
                    }
                    progress.warn(format!("{name} failed, which is ignored: {error}"));
                }
            }
        }
        Ok(())
    }

    fn merge_caches(&self, export: &CacheExport, parts: &[Descriptor]) -> Result<MadeCache, BuildError> {
        let (mut configs, mut layers, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        let wrong = |part: &Descriptor, problem: String| {
            BuildError::new(ErrorKind::Registry, format!("the cache {} {problem}", part.digest))
        };
        // In one order, whichever builder was ready first.
        let mut parts: Vec<&Descriptor> = parts.iter().collect();
        parts.sort_by_key(|part| part.digest.to_string());
        parts.dedup_by(|one, other| one.digest == other.digest);
        for part in parts {
            let document = self.store.image(part).map_err(|error| storage_error(&error))?;
            let ManifestOrIndex::Manifest(manifest) = document else {
                return Err(wrong(part, "is not a manifest".to_owned()));
            };
            let manifest = manifest.value;
            if manifest.config.media_type != CACHE_CONFIG {
                return Err(wrong(part, format!("has a config of type {:?}", manifest.config.media_type)));
            }
            let config = self.store.read(&manifest.config, MAX_CONFIG_BYTES);
            configs.push(config.map_err(|error| storage_error(&error))?);
            layers.extend(manifest.layers.into_iter().filter(|layer| seen.insert(layer.digest.clone())));
        }
        let config = match configs.as_slice() {
            // One alone stays what it is, byte for byte.
            [config] => config.clone(),
            configs => merge_configs(configs).map_err(|problem| {
                BuildError::new(ErrorKind::Registry, format!("caches can't be put together: {problem}"))
            })?,
        };
        let digest = self.store.put(&config).map_err(|error| storage_error(&error))?;
        let config = Descriptor::new(CACHE_CONFIG, digest, config.len() as u64);
        let manifest = Document::indented(Manifest::new(export.flavour, config.clone(), layers.clone()));
        self.store.put(&manifest.bytes).map_err(|error| storage_error(&error))?;
        let root = Descriptor::new(export.flavour.manifest(), manifest.digest.clone(), manifest.size());
        Ok(MadeCache { root, config, layers })
    }

    /// Brings a directory's cache into the store, for a builder elsewhere. Returns its manifest, and the blobs that
    /// it consists of.
    ///
    /// # Errors
    /// When there is no cache.
    pub async fn bring_cache(
        self: &Arc<Self>,
        source: &CacheSource,
    ) -> Result<Option<(Descriptor, Vec<Descriptor>)>, BuildError> {
        let CacheSource::Directory { path, tag, digest } = source else { return Ok(None) };
        let (services, path, tag, digest) = (self.clone(), path.clone(), tag.clone(), digest.clone());
        let root = blocking(move || services.layout_root(&path, tag.as_deref(), digest.as_ref())).await?;
        let mut blobs = vec![root.descriptor.clone()];
        match root.document {
            ManifestOrIndex::Manifest(manifest) => {
                blobs.extend(manifest.value.layers.into_iter().chain([manifest.value.config]));
            }
            ManifestOrIndex::Index(index) => blobs.extend(index.value.manifests),
        }
        Ok(Some((root.descriptor, blobs)))
    }
}

/// Notes the manifest of a cache that stays in the store.
#[derive(Debug, Default)]
pub struct CacheCollector(Mutex<Option<Descriptor>>);

impl CacheCollector {
    /// Returns the manifest, once.
    pub fn take(&self) -> Option<Descriptor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl CacheDirectory for CacheCollector {
    fn name(&self) -> String {
        "the store".to_owned()
    }

    fn fetch<'a>(&'a self, _: &'a Services) -> BoxFuture<'a, Result<Descriptor, BuildError>> {
        Box::pin(ready(Err(BuildError::new(ErrorKind::Usage, "there is no cache yet"))))
    }

    fn keep<'a>(&'a self, blobs: &'a [Descriptor], _: &'a Store) -> BoxFuture<'a, Result<(), BuildError>> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = blobs.last().cloned();
        Box::pin(ready(Ok(())))
    }
}
