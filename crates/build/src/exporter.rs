// SPDX-License-Identifier: Apache-2.0
//! Results leave the build: documents are made once, then every output gets what it asked for.

mod archive;
mod attestations;
mod bills;
mod files;
mod finished;

use std::sync::Arc;

use futures_util::future::try_join_all;
use polyarch_oci::media_type::Flavour;
use polyarch_oci::{Descriptor, Document, ImageIndex, Reference};
use polyarch_solver::progress::{ActiveStatus, ActiveVertex, Progress};

use crate::check::check_programs;
use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking};
use crate::image::{ImageDraft, PlatformImage, assemble};
use crate::image_source::storage_error;
use crate::layers::LayerOptions;
use crate::provenance::Capture;
use crate::push::PushPlan;
use crate::remote_cache::{CachedStep, INLINE_KEY, inline_records};
use crate::request::{BuildRequest, Output};
use crate::sbom::Scanned;
use crate::services::Services;
use crate::tree::Tree;

use attestations::Attestation;
pub(crate) use attestations::Subject;
pub use finished::FinishedImage;

/// A platform's result on its way out.
#[derive(Clone)]
pub(crate) struct PlatformTree {
    pub(crate) draft: ImageDraft,
    pub(crate) tree: Tree,
    /// How it was made; not known of images that were made elsewhere.
    pub(crate) capture: Option<Capture>,
    /// What a scanner has found in it, where one was asked.
    pub(crate) scanned: Option<Arc<Vec<Scanned>>>,
    /// Its steps with their records, for whoever exports them; none unless that was asked for.
    pub(crate) steps: Vec<CachedStep>,
}

/// What the image outputs made.
#[derive(Default)]
pub(crate) struct Exported {
    /// The index, or the manifest of the only platform.
    pub(crate) root: Option<Descriptor>,
    /// The documents of each platform.
    pub(crate) images: Vec<PlatformImage>,
    /// The names that were pushed.
    pub(crate) pushed: Vec<Reference>,
}

/// Gives every output what it asked for. Names change last, and only when all else has succeeded.
pub(crate) async fn export(
    services: &Arc<Services>,
    request: &BuildRequest,
    platforms: &[PlatformTree],
    progress: &Progress,
) -> Result<Exported, BuildError> {
    let mut exported = Exported::default();
    if !request.outputs.is_empty() && !request.outputs.iter().any(Output::is_image) {
        files::export(services, request, platforms, progress).await?;
        return Ok(exported);
    }
    if request.image.force_compression {
        let message = "force-compression is not supported yet: layers of base images stay as they are";
        return Err(BuildError::new(ErrorKind::Usage, message));
    }
    let vertex = progress.begin("exporting to image", "exporting to image");
    match export_image(services, request, platforms, &vertex, progress).await {
        Ok(image) => {
            exported = image;
            vertex.done();
            Ok(exported)
        }
        Err(error) => {
            vertex.failed(&error);
            Err(error)
        }
    }
}

async fn export_image(
    services: &Arc<Services>,
    request: &BuildRequest,
    platforms: &[PlatformTree],
    vertex: &ActiveVertex,
    progress: &Progress,
) -> Result<Exported, BuildError> {
    let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
    let options = LayerOptions::of(request);
    let layers = {
        let _status = vertex.status("exporting layers", 0);
        try_join_all(platforms.iter().map(|it| services.layer_blobs(&it.tree, &options, &shown))).await?
    };
    if request.verify {
        check_programs(services, platforms, &layers).await?;
    }
    if request.outputs.iter().any(|output| !output.is_image()) {
        files::export(services, request, platforms, progress).await?;
    }
    let images: Vec<PlatformImage> = platforms
        .iter()
        .zip(layers)
        .map(|(it, layers)| {
            let mut draft = it.draft.clone();
            // A base image's own records are about other images.
            draft.config.rest.remove(INLINE_KEY);
            if let Some(records) = inline_records(&it.tree, &it.steps).filter(|_| request.cache.is_inline()) {
                draft.config.rest.insert(INLINE_KEY.to_owned(), records.into());
            }
            assemble(&draft, &it.tree.steps, layers, request.source_date_epoch, &request.image)
        })
        .collect();
    let wanted = attestations::of_images(request);
    let mut attested: Vec<Vec<Attestation>> = Vec::new();
    for (tree, image) in platforms.iter().zip(&images) {
        let bills = bills::bills(services, request, &wanted, tree, &shown).await?;
        attested.push(attestations::attest(&wanted, tree, &image.manifest.value.layers, bills));
    }
    publish(services, request, images, &attested, vertex, &shown).await
}

/// Gives images whose documents are made to every image output; `attested` is what is said about each.
async fn publish(
    services: &Arc<Services>,
    request: &BuildRequest,
    images: Vec<PlatformImage>,
    attested: &[Vec<Attestation>],
    vertex: &ActiveVertex,
    shown: &Shown,
) -> Result<Exported, BuildError> {
    let pushes = request.outputs.iter().any(|output| matches!(output, Output::Image { push: true, .. }));
    if request.outputs.is_empty()
        || request.outputs.iter().any(|it| !matches!(it, Output::Image { push: true, .. }))
    {
        // What stays here, or goes into an archive, must be whole; what is only pushed may stay where it lies.
        let blobs = images.iter().flat_map(|image| &image.layers);
        try_join_all(blobs.map(|layer| services.ensure_blob(&layer.descriptor, layer.from.as_ref(), shown)))
            .await?;
    }
    for image in &images {
        put_document(services, &image.config, "config", vertex)?;
        put_document(services, &image.manifest, "manifest", vertex)?;
        image.layers.iter().for_each(|layer| services.remember_origin(layer));
    }
    let mut beside = Vec::new();
    for (image, attested) in images.iter().zip(attested).filter(|(_, attested)| !attested.is_empty()) {
        beside.push(attestations::put_manifest(services, request, image, attested, vertex)?);
    }
    let root = root_document(services, request, &images, beside, vertex)?;
    for output in &request.outputs {
        match output {
            Output::Oci { destination, tar } => {
                archive::write_oci(services, request, &root, destination, *tar, shown).await?;
            }
            Output::Docker { destination: Some(destination) } => {
                archive::write_docker(services, request, &images, destination, shown).await?;
            }
            _ => {}
        }
    }
    let mut pushed = Vec::new();
    if pushes {
        if request.names.is_empty() {
            return Err(BuildError::new(ErrorKind::Usage, "tag is needed when pushing to registry")
                .with_hint("add -t HOST/REPOSITORY:TAG"));
        }
        let by_digest = request.outputs.iter().any(|it| matches!(it, Output::Image { by_digest: true, .. }));
        let _status = vertex.status("pushing layers", 0);
        let plan = PushPlan {
            root: root.clone(),
            names: request.names.clone(),
            by_digest,
            mount_from: Default::default(),
        };
        services.push_plan(&plan, shown).await?;
        pushed = if by_digest {
            request.names.iter().map(|name| name.with_digest(root.digest.clone())).collect()
        } else {
            request.names.clone()
        };
    }
    for name in request.names.iter().filter(|_| request.keeps_names) {
        let _status = vertex.status(format!("naming to {name}"), 0);
        let (store, name, root) = (services.store.clone(), name.clone(), root.clone());
        blocking(move || store.set_ref(&name, &root)).await.map_err(|error| storage_error(&error))?;
    }
    Ok(Exported { root: Some(root), images, pushed })
}

/// Makes the index, unless one platform goes without; `beside` are its entries that are no images.
fn root_document(
    services: &Services,
    request: &BuildRequest,
    images: &[PlatformImage],
    beside: Vec<Descriptor>,
    vertex: &ActiveVertex,
) -> Result<Descriptor, BuildError> {
    if let [image] = images
        && beside.is_empty()
        && !request.image.always_index
        && request.image.index_annotations.is_empty()
    {
        let mut descriptor = image.descriptor();
        descriptor.platform = None;
        return Ok(descriptor);
    }
    let entries = images.iter().map(PlatformImage::descriptor).chain(beside);
    let mut index = ImageIndex::new(request.image.flavour, entries.collect());
    if request.image.flavour == Flavour::Oci {
        index.annotations = request.image.index_annotations.iter().cloned().collect();
    }
    let index = Document::indented(index);
    put_document(services, &index, "manifest list", vertex)?;
    Ok(Descriptor::new(request.image.flavour.index(), index.digest.clone(), index.size()))
}

fn put_document<T>(
    services: &Services,
    document: &Document<T>,
    what: &str,
    vertex: &ActiveVertex,
) -> Result<(), BuildError> {
    let _status: ActiveStatus = vertex.status(format!("exporting {what} {}", document.digest), 0);
    services.store.put(&document.bytes).map_err(|error| storage_error(&error))?;
    Ok(())
}
