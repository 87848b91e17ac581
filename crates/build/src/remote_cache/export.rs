// SPDX-License-Identifier: Apache-2.0
//! Records of a build, sent where later builds find them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use polyarch_oci::{Descriptor, Document, Manifest};
use polyarch_solver::CacheKey;
use polyarch_solver::progress::Progress;
use polyarch_store::{LayoutOptions, NamedImage};

use crate::error::BuildError;
use crate::evaluated::Evaluated;
use crate::fetch::{Shown, blocking};
use crate::image::{LayerBlob, layer_descriptor};
use crate::image_source::storage_error;
use crate::layers::LayerOptions;
use crate::push::PushPlan;
use crate::remote_cache::document::{CACHE_CONFIG, CacheConfig};
use crate::remote_cache::{CacheExport, CacheMode, CacheTarget};
use crate::request::BuildRequest;
use crate::services::Services;
use crate::tree::Tree;

/// A step that a build has done or found done: the keys that are known of it, and its tree.
#[derive(Debug, Clone)]
pub(crate) struct CachedStep {
    pub(crate) keys: Vec<CacheKey>,
    pub(crate) tree: Tree,
}

/// A cache in the store.
pub(super) struct MadeCache {
    pub(super) root: Descriptor,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

impl Services {
    /// Sends a build's records to every place that its request names, all platforms together. Returns the
    /// manifest of the last cache. Images hold theirs already.
    ///
    /// # Errors
    /// The first place that can't be written, unless its errors are to be ignored.
    pub async fn export_cache(
        self: &Arc<Self>,
        request: &BuildRequest,
        evaluated: &Evaluated,
        progress: &Progress,
    ) -> Result<Option<Descriptor>, BuildError> {
        let mut last = None;
        for export in &request.cache.to {
            let Some((name, place)) = export.target.name_and_place() else { continue };
            let vertex = progress.begin(&format!("{name} {place}"), name);
            let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
            let exported = async {
                let Some(cache) = self.make_cache(export, request, evaluated, &shown).await? else {
                    drop(vertex.status("skipping cache export for empty result", 0));
                    return Ok(None);
                };
                self.send_cache(export, &cache, &shown).await?;
                Ok(Some(cache.root))
            };
            match exported.await {
                Ok(exported) => {
                    last = exported.or(last);
                    vertex.done();
                }
                Err(error) => {
                    let error: BuildError = error;
                    vertex.failed(&error);
                    if !export.ignores_errors {
                        return Err(error);
                    }
                    progress.warn(format!("{name} failed, which is ignored: {error}"));
                }
            }
        }
        Ok(last)
    }

    /// Writes the documents of a build's records into the store; layers that registries have may stay there.
    async fn make_cache(
        self: &Arc<Self>,
        export: &CacheExport,
        request: &BuildRequest,
        evaluated: &Evaluated,
        shown: &Shown,
    ) -> Result<Option<MadeCache>, BuildError> {
        // As in the image, whose blobs these are too.
        let source_date_epoch = request.source_date_epoch.or(evaluated.source_date_epoch());
        let mut options = LayerOptions::of(&BuildRequest { source_date_epoch, ..request.clone() });
        if let Some(compression) = export.compression {
            options.image.compression = compression;
            options.image.compression_level = export.compression_level;
        }
        let trees = &evaluated.trees;
        let is_in_result =
            |tree: &Tree| trees.iter().any(|result| result.tree.layers.starts_with(&tree.layers));
        let steps = trees.iter().flat_map(|tree| &tree.steps);
        let steps: Vec<&CachedStep> =
            steps.filter(|it| export.mode == CacheMode::Max || is_in_result(&it.tree)).collect();
        let blobs = try_join_all(steps.iter().map(|it| self.layer_blobs(&it.tree, &options, shown))).await?;
        let mut records = Vec::new();
        for (step, layers) in steps.iter().zip(blobs) {
            layers.iter().for_each(|layer| self.remember_origin(layer));
            let layers = layers
                .into_iter()
                .map(|layer| LayerBlob { descriptor: layer_descriptor(&layer, export.flavour), ..layer });
            let layers: Vec<LayerBlob> = layers.collect();
            records.extend(step.keys.iter().map(|key| (*key, layers.clone(), step.tree.steps.clone())));
        }
        let (config, layers) = CacheConfig::new(records);
        if layers.is_empty() {
            return Ok(None);
        }
        let config = Document::compact(config);
        self.store.put(&config.bytes).map_err(|error| storage_error(&error))?;
        let config = Descriptor::new(CACHE_CONFIG, config.digest.clone(), config.size());
        let manifest = Document::indented(Manifest::new(export.flavour, config.clone(), layers.clone()));
        self.store.put(&manifest.bytes).map_err(|error| storage_error(&error))?;
        let root = Descriptor::new(export.flavour.manifest(), manifest.digest.clone(), manifest.size());
        Ok(Some(MadeCache { root, config, layers }))
    }

    /// Sends a cache of the store to a place.
    pub(super) async fn send_cache(
        self: &Arc<Self>,
        export: &CacheExport,
        cache: &MadeCache,
        shown: &Shown,
    ) -> Result<(), BuildError> {
        let bring_home =
            || try_join_all(cache.layers.iter().map(|layer| self.ensure_blob(layer, None, shown)));
        match &export.target {
            CacheTarget::Inline => Ok(()),
            CacheTarget::Registry(name) => {
                let plan = PushPlan {
                    root: cache.root.clone(),
                    names: vec![name.clone()],
                    by_digest: false,
                    mount_from: BTreeMap::new(),
                };
                self.push_plan(&plan, shown).await
            }
            CacheTarget::Directory { path, tag } => {
                bring_home().await?;
                let image =
                    NamedImage { ref_name: Some(tag.clone()), ..NamedImage::new(cache.root.clone(), None) };
                let (store, path) = (self.store.clone(), path.clone());
                let written = blocking(move || store.write_layout(&[image], LayoutOptions::default(), &path));
                written.await.map_err(|error| storage_error(&error))
            }
            CacheTarget::Client(client) => {
                bring_home().await?;
                let blobs: Vec<Descriptor> =
                    cache.layers.iter().chain([&cache.config, &cache.root]).cloned().collect();
                client.0.keep(&blobs, &self.store).await
            }
        }
    }
}
