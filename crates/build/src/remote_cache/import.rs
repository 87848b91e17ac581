// SPDX-License-Identifier: Apache-2.0
//! Records from elsewhere, for one build.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use polyarch_oci::{Descriptor, Digest, Document, Manifest, ManifestOrIndex, Reference};
use polyarch_solver::progress::Progress;
use polyarch_solver::{CacheKey, KeyHasher};

use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking};
use crate::image_source::{RootDocument, storage_error};
use crate::remote_cache::CacheSource;
use crate::remote_cache::document::{CACHE_CONFIG, CacheConfig, MAX_CONFIG_BYTES};
use crate::remote_cache::inline::inline_trees;
use crate::request::PullPolicy;
use crate::services::Services;
use crate::tree::Tree;

/// The most platforms of an image whose records are read.
const MAX_IMAGES: usize = 64;

/// Records from elsewhere by their keys. They are believed, as whoever names their place says; their blobs are
/// not, and are checked like those of any image.
#[derive(Debug, Default)]
pub(crate) struct ImportedRecords {
    trees: HashMap<CacheKey, Tree>,
    blobs: HashSet<Digest>,
    /// The names of the places that they are from.
    places: Vec<String>,
}

impl ImportedRecords {
    pub(crate) fn get(&self, key: &CacheKey) -> Option<&Tree> {
        self.trees.get(key)
    }

    /// Tells whether a tree came from elsewhere and was not made here.
    pub(crate) fn has(&self, tree: &Tree) -> bool {
        // Most trees are told apart by one look at their upmost layer.
        let is_strange =
            tree.image_layers().last().is_some_and(|layer| !self.blobs.contains(&layer.descriptor.digest));
        !is_strange && self.trees.values().any(|it| it == tree)
    }

    /// Returns the key under which the record of a step stands that was made of what is from these places; `None`
    /// when there is nothing from elsewhere. Builds that don't name the places never come upon it.
    pub(crate) fn key_above(&self, key: &CacheKey) -> Option<CacheKey> {
        if self.trees.is_empty() {
            return None;
        }
        let mut hasher = KeyHasher::new("above records from elsewhere");
        hasher.parts(&self.places).part(key.as_bytes());
        Some(hasher.finish())
    }

    fn add(&mut self, place: String, found: HashMap<CacheKey, Tree>) {
        self.places.push(place);
        for (key, tree) in found {
            self.blobs.extend(tree.image_layers().map(|layer| layer.descriptor.digest.clone()));
            self.trees.entry(key).or_insert(Tree { is_foreign: true, ..tree });
        }
    }
}

impl Services {
    /// Fetches the records of places, the first one's winning. A place that has none, or can't be reached, is
    /// told and passed over: it costs time, not truth.
    pub(crate) async fn import_records(
        self: &Arc<Self>,
        sources: &[CacheSource],
        progress: &Progress,
    ) -> ImportedRecords {
        let mut records = ImportedRecords::default();
        for source in sources {
            let name = match source {
                CacheSource::Registry(reference) => format!("importing cache manifest from {reference}"),
                CacheSource::Directory { path, .. } => {
                    format!("importing cache manifest from {}", path.display())
                }
                CacheSource::Client(client) => format!("importing cache manifest from {}", client.0.name()),
            };
            let vertex = progress.begin(&name, name.clone());
            let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
            match self.import_source(source, &shown).await {
                Ok(found) => {
                    drop(vertex.status(format!("{} records", found.len()), 0));
                    records.add(place_of(source), found);
                    vertex.done();
                }
                Err(error) => {
                    vertex.failed(&error);
                    progress.warn(format!("{name} failed, so it is not used: {error}"));
                }
            }
        }
        records
    }

    async fn import_source(
        self: &Arc<Self>,
        source: &CacheSource,
        shown: &Shown,
    ) -> Result<HashMap<CacheKey, Tree>, BuildError> {
        let RootDocument { document, from, .. } = match source {
            CacheSource::Registry(reference) => {
                self.resolve_root(reference, None, PullPolicy::Always, &shown.progress).await?
            }
            CacheSource::Directory { path, tag, digest } => {
                let (services, path) = (self.clone(), path.clone());
                let (tag, digest) = (tag.clone(), digest.clone());
                blocking(move || services.layout_root(&path, tag.as_deref(), digest.as_ref())).await?
            }
            CacheSource::Client(client) => {
                let descriptor = client.0.fetch(self).await?;
                let document = self.store.image(&descriptor).map_err(|error| storage_error(&error))?;
                RootDocument { descriptor, document, from: None }
            }
        };
        let mut trees = match document {
            ManifestOrIndex::Manifest(manifest) => {
                self.manifest_records(&manifest, from.as_ref(), shown).await?
            }
            ManifestOrIndex::Index(index) => {
                let entries = &index.value.manifests;
                match entries.iter().find(|entry| entry.media_type == CACHE_CONFIG) {
                    // BuildKit's older form: an index of layers and of the list of their records.
                    Some(config) => self.listed_records(config, entries, from.as_ref(), shown).await?,
                    None => {
                        let mut trees = HashMap::new();
                        for entry in index.value.images().take(MAX_IMAGES) {
                            let manifest = self.manifest_of(entry, from.as_ref(), shown).await?;
                            trees.extend(self.manifest_records(&manifest, from.as_ref(), shown).await?);
                        }
                        trees
                    }
                }
            }
        };
        if from.is_none() {
            trees.retain(|_, tree| {
                let mut layers = tree.image_layers();
                layers.all(|layer| self.may_use(&layer.descriptor.digest))
            });
        }
        Ok(trees)
    }

    /// Reads a manifest that an index names.
    async fn manifest_of(
        self: &Arc<Self>,
        entry: &Descriptor,
        from: Option<&Reference>,
        shown: &Shown,
    ) -> Result<Document<Manifest>, BuildError> {
        let document = match from {
            Some(from) => {
                let name = from.with_digest(entry.digest.clone());
                self.resolve_root(&name, None, PullPolicy::Default, &shown.progress).await?.document
            }
            None => {
                if !self.may_use(&entry.digest) {
                    let message = format!("its manifest {} has not been sent", entry.digest);
                    return Err(BuildError::new(ErrorKind::Registry, message));
                }
                self.store.image(entry).map_err(|error| storage_error(&error))?
            }
        };
        match document {
            ManifestOrIndex::Manifest(manifest) => Ok(manifest),
            ManifestOrIndex::Index(_) => {
                Err(BuildError::new(ErrorKind::Registry, "it is an index within an index"))
            }
        }
    }

    /// Returns the records of a cache, or those within an image.
    async fn manifest_records(
        self: &Arc<Self>,
        manifest: &Document<Manifest>,
        from: Option<&Reference>,
        shown: &Shown,
    ) -> Result<HashMap<CacheKey, Tree>, BuildError> {
        let manifest = &manifest.value;
        if manifest.config.media_type == CACHE_CONFIG {
            return self.listed_records(&manifest.config, &manifest.layers, from, shown).await;
        }
        if manifest.config.size > MAX_CONFIG_BYTES {
            return Err(too_large());
        }
        self.ensure_document(&manifest.config, from, shown).await?;
        let config = self.store.config(manifest).map_err(|error| storage_error(&error))?;
        Ok(inline_trees(manifest, &config.value, from))
    }

    /// Returns the records of a list whose layers are among `blobs`.
    async fn listed_records(
        self: &Arc<Self>,
        config: &Descriptor,
        blobs: &[Descriptor],
        from: Option<&Reference>,
        shown: &Shown,
    ) -> Result<HashMap<CacheKey, Tree>, BuildError> {
        if config.size > MAX_CONFIG_BYTES {
            return Err(too_large());
        }
        self.ensure_document(config, from, shown).await?;
        let bytes = self.store.read(config, MAX_CONFIG_BYTES).map_err(|error| storage_error(&error))?;
        let config: CacheConfig = serde_json::from_slice(&bytes).map_err(|error| {
            BuildError::new(ErrorKind::Registry, format!("its list of records is malformed: {error}"))
        })?;
        Ok(config.trees(blobs, from))
    }
}

/// Returns what tells a place from others.
fn place_of(source: &CacheSource) -> String {
    match source {
        CacheSource::Registry(reference) => format!("registry {reference}"),
        CacheSource::Directory { path, tag, digest } => {
            let digest = digest.as_ref().map(Digest::to_string).unwrap_or_default();
            format!("directory {} {} {digest}", path.display(), tag.as_deref().unwrap_or_default())
        }
        CacheSource::Client(client) => format!("client {}", client.0.name()),
    }
}

fn too_large() -> BuildError {
    let message = format!("its list of records is over {MAX_CONFIG_BYTES} bytes");
    BuildError::new(ErrorKind::Registry, message)
}
