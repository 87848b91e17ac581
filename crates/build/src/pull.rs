// SPDX-License-Identifier: Apache-2.0
//! Images brought into the store, and names pushed from it.

use std::sync::Arc;

use futures_util::future::join_all;
use polyarch_oci::{Descriptor, ManifestOrIndex, Platform, Reference};
use polyarch_solver::progress::Progress;

use crate::error::{BuildError, ErrorKind};
use crate::fetch::Shown;
use crate::image_source::storage_error;
use crate::push::PushPlan;
use crate::request::PullPolicy;
use crate::services::Services;

/// What to pull.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// The name.
    pub reference: Reference,
    /// One platform; the machine's own when absent.
    pub platform: Option<Platform>,
    /// All platforms, whatever `platform` says.
    pub all_platforms: bool,
}

/// What was pulled.
#[derive(Debug, Clone)]
pub struct PullResult {
    /// The document that the name means.
    pub root: Descriptor,
    /// The platforms that are in the store now, each with its manifest.
    pub platforms: Vec<(Platform, Descriptor)>,
    /// Whether the name meant the same before.
    pub was_current: bool,
}

impl Services {
    /// Pulls an image; its name then means the registry's document, byte for byte.
    ///
    /// # Errors
    /// The registry's refusals, a platform that the image lacks, and what keeps the store from writing.
    pub async fn pull(
        self: &Arc<Self>,
        request: &PullRequest,
        progress: &Progress,
    ) -> Result<PullResult, BuildError> {
        let reference = request.reference.clone().with_default_tag();
        let vertex = progress.begin("pull", format!("pulling {reference}"));
        let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
        match self.pull_shown(request, &reference, &shown).await {
            Ok(result) => {
                vertex.done();
                Ok(result)
            }
            Err(error) => {
                vertex.failed(&error);
                Err(error)
            }
        }
    }

    async fn pull_shown(
        self: &Arc<Self>,
        request: &PullRequest,
        reference: &Reference,
        shown: &Shown,
    ) -> Result<PullResult, BuildError> {
        let root = self.resolve_root(reference, None, PullPolicy::Always, &shown.progress).await?;
        let wanted: Vec<Platform> = match (&root.document, request.all_platforms) {
            (ManifestOrIndex::Index(index), true) => crate::image_source::platforms_of(&index.value),
            (ManifestOrIndex::Manifest(_), true) => Vec::new(),
            (_, false) => vec![request.platform.clone().unwrap_or_else(Platform::host)],
        };
        let mut images = Vec::new();
        if wanted.is_empty()
            && let ManifestOrIndex::Manifest(manifest) = &root.document
        {
            // Its own platform is in its config, which select_image reads.
            let platform = self.declared_platform(&manifest.value, &root, shown).await?;
            images.push(self.select_image(reference, &root, &platform, shown).await?);
        }
        for platform in &wanted {
            images.push(self.select_image(reference, &root, platform, shown).await?);
        }
        if let (ManifestOrIndex::Index(index), true) = (&root.document, request.all_platforms) {
            // What is said about the images belongs to the index, which could not be pushed without it.
            for entry in index.value.manifests.iter().filter(|entry| entry.is_attestation()) {
                let attestation = self.manifest(reference, entry, root.from.as_ref()).await?;
                for blob in attestation.value.layers.iter().chain([&attestation.value.config]) {
                    self.ensure_blob(blob, root.from.as_ref(), shown).await?;
                }
            }
        }
        let layers = images.iter().flat_map(|image| &image.layers);
        let fetched =
            join_all(layers.map(|layer| self.ensure_blob(&layer.descriptor, layer.from.as_ref(), shown)))
                .await;
        fetched.into_iter().collect::<Result<Vec<()>, _>>()?;
        let was_current = self
            .store
            .get_ref(reference)
            .map_err(|error| storage_error(&error))?
            .is_some_and(|entry| entry.descriptor.digest == root.descriptor.digest);
        self.store.set_ref(reference, &root.descriptor).map_err(|error| storage_error(&error))?;
        let platforms = images
            .into_iter()
            .map(|image| {
                let manifest = &image.manifest;
                let descriptor =
                    Descriptor::new(&manifest.value.media_type, manifest.digest.clone(), manifest.size());
                (image.platform, descriptor)
            })
            .collect();
        Ok(PullResult { root: root.descriptor, platforms, was_current })
    }

    async fn declared_platform(
        self: &Arc<Self>,
        manifest: &polyarch_oci::Manifest,
        root: &crate::image_source::RootDocument,
        shown: &Shown,
    ) -> Result<Platform, BuildError> {
        self.ensure_blob(&manifest.config, root.from.as_ref(), shown).await?;
        Ok(self.store.config(manifest).map_err(|error| storage_error(&error))?.value.platform())
    }

    /// Pushes a name of the store with all its platforms; returns the digest that the registry now has.
    ///
    /// # Errors
    /// When the store has no such name, and the registry's refusals.
    pub async fn push(
        self: &Arc<Self>,
        name: &Reference,
        progress: &Progress,
    ) -> Result<Descriptor, BuildError> {
        let name = name.clone().with_default_tag();
        let entry = self.store.get_ref(&name).map_err(|error| storage_error(&error))?.ok_or_else(|| {
            BuildError::new(ErrorKind::Usage, format!("the store has no image {}", name.familiar()))
                .with_hint("list the names that it has: polyarch images")
        })?;
        let vertex = progress.begin("push", format!("pushing {name}"));
        let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
        let plan = PushPlan { root: entry.descriptor.clone(), names: vec![name], by_digest: false };
        match self.push_plan(&plan, &shown).await {
            Ok(()) => {
                vertex.done();
                Ok(entry.descriptor)
            }
            Err(error) => {
                vertex.failed(&error);
                Err(error)
            }
        }
    }
}
