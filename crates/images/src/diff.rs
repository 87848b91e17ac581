// SPDX-License-Identifier: Apache-2.0
//! Two images compared, platform by platform: config, layers and files (`docs/diff.md`).
//!
//! Files are compared as the layers tell them, without unpacking; times are left out, because nobody calls an
//! image another one for them.

use polyarch_build::layer_contents::Reading;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_contents::ImageContents;
use polyarch_oci::{Descriptor, Digest, Document, ImageConfig, Manifest, ManifestOrIndex, Platform};
use serde::Serialize;
use serde_json::{Value, json};

use crate::diff_config::{ConfigChange, changes};
use crate::diff_files::{FileChange, file_changes};
use crate::entries::{images_of, is_wanted, lacks};
use crate::found::FoundImage;
use crate::verify::read_layer;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Platform, configuration, history and annotations.
    pub config: bool,
    /// The layers, as they are stored.
    pub layers: bool,
    /// The files.
    pub files: bool,
}

impl Parts {
    /// Everything.
    pub const ALL: Parts = Parts { config: true, layers: true, files: true };
}

/// How two images differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageDiff {
    /// The first image.
    pub before: ImageSide,
    /// The second image.
    pub after: ImageSide,
    /// Whether nothing of what was compared differs.
    pub equal: bool,
    /// What the two documents that the names mean say of the image as a whole.
    pub index: Vec<ConfigChange>,
    /// Each pair of platforms, in the order of the first image; then what only the second one has.
    pub platforms: Vec<PlatformDiff>,
}

/// One of the two images.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageSide {
    /// The name it was asked by.
    pub name: String,
    /// The digest of the document that the name means.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
}

/// How the images of two platforms differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlatformDiff {
    /// The first one; `None` when only the second image has the platform.
    pub before: Option<PlatformSide>,
    /// The second one; `None` when only the first image has the platform.
    pub after: Option<PlatformSide>,
    /// Whether nothing of what was compared differs.
    pub equal: bool,
    /// Platform, configuration, history and annotations.
    pub config: Vec<ConfigChange>,
    /// All layers, shared ones included; empty when they were not compared.
    pub layers: Vec<LayerPlace>,
    /// Whether the same layers stand in the same order.
    pub layers_equal: bool,
    /// The files that differ, by path.
    pub files: Vec<FileChange>,
}

/// One platform of an image.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlatformSide {
    /// The platform.
    pub platform: String,
    /// The digest of its manifest.
    pub digest: Digest,
}

/// Which of the two a layer is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerIn {
    /// Both.
    Both,
    /// The first one.
    Before,
    /// The second one.
    After,
}

/// A layer and where it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerPlace {
    /// Which of the two it is in.
    #[serde(rename = "in")]
    pub place: LayerIn,
    /// Its blob.
    pub digest: Digest,
    /// The size of the blob.
    pub size: u64,
    /// A layer of the other image with the same tar inside another blob.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_content_as: Option<Digest>,
}

/// One platform's image, its documents read.
struct Entry<'a> {
    image: &'a FoundImage,
    descriptor: Descriptor,
    platform: Platform,
}

/// Compares two images, all platforms that match the ones named; all when none is.
///
/// Two images of one platform each are compared whatever their platforms are.
///
/// # Errors
/// When a document or a layer can't be read, and when neither has a platform that was named.
pub async fn diff_images(
    before: &FoundImage,
    after: &FoundImage,
    platforms: &[Platform],
    parts: Parts,
) -> Result<ImageDiff, BuildError> {
    let (mut first, mut second) = (entries(before).await?, entries(after).await?);
    if !platforms.is_empty() {
        for (image, entries) in [(before, &mut first), (after, &mut second)] {
            let known: Vec<Platform> = entries.iter().map(|entry| entry.platform.clone()).collect();
            if let Some(lacking) =
                platforms.iter().find(|wanted| !known.iter().any(|known| is_wanted(wanted, known)))
            {
                return Err(lacks(image, lacking, &known));
            }
            entries.retain(|entry| platforms.iter().any(|wanted| is_wanted(wanted, &entry.platform)));
        }
    }
    let are_single = first.len() == 1 && second.len() == 1;
    let mut found = Vec::new();
    for entry in first {
        let pair = second.iter().position(|other| are_single || other.platform == entry.platform);
        match pair {
            Some(at) => found.push(compare(&entry, &second.remove(at), parts).await?),
            None => found.push(PlatformDiff::one_sided(Some(&entry), None)),
        }
    }
    found.extend(second.iter().map(|entry| PlatformDiff::one_sided(None, Some(entry))));
    let index = if parts.config && platforms.is_empty() {
        changes(&about_index(&before.document), &about_index(&after.document))
    } else {
        Vec::new()
    };
    Ok(ImageDiff::new(before, after, index, found))
}

/// Compares two platforms of one image.
///
/// # Errors
/// As [`diff_images`].
pub async fn diff_platforms(
    image: &FoundImage,
    before: &Platform,
    after: &Platform,
    parts: Parts,
) -> Result<ImageDiff, BuildError> {
    let entries = entries(image).await?;
    let known: Vec<Platform> = entries.iter().map(|entry| entry.platform.clone()).collect();
    let select = |wanted: &Platform| {
        let exact = entries.iter().find(|entry| entry.platform == wanted.clone().normalized());
        exact
            .or_else(|| entries.iter().find(|entry| is_wanted(wanted, &entry.platform)))
            .ok_or_else(|| lacks(image, wanted, &known))
    };
    let found = compare(select(before)?, select(after)?, parts).await?;
    Ok(ImageDiff::new(image, image, Vec::new(), vec![found]))
}

/// Lists the images of an index with their platforms.
async fn entries(image: &FoundImage) -> Result<Vec<Entry<'_>>, BuildError> {
    let (descriptors, problems) = images_of(image).await?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(BuildError::new(ErrorKind::Registry, format!("{}: {problem}", image.name)));
    }
    let mut entries = Vec::with_capacity(descriptors.len());
    for descriptor in descriptors {
        let platform = match &descriptor.platform {
            Some(platform) if !platform.architecture.is_empty() => platform.clone().normalized(),
            _ => {
                let manifest = image.read_manifest(&descriptor).await?;
                image.declared_platform(&manifest.value).await?
            }
        };
        entries.push(Entry { image, descriptor, platform });
    }
    Ok(entries)
}

async fn compare(before: &Entry<'_>, after: &Entry<'_>, parts: Parts) -> Result<PlatformDiff, BuildError> {
    let mut found = PlatformDiff {
        before: Some(before.side()),
        after: Some(after.side()),
        equal: false,
        config: Vec::new(),
        layers: Vec::new(),
        layers_equal: true,
        files: Vec::new(),
    };
    let (first, second) = (before.documents().await?, after.documents().await?);
    if parts.config {
        found.config = changes(&about_image(before, &first), &about_image(after, &second));
    }
    if parts.layers {
        found.layers = layer_places(&first, &second);
        let digests = |documents: &Documents| {
            documents.manifest.layers.iter().map(|layer| layer.digest.clone()).collect::<Vec<_>>()
        };
        found.layers_equal = digests(&first) == digests(&second);
    }
    // The same manifest has the same files.
    if parts.files && before.descriptor.digest != after.descriptor.digest {
        found.files = file_changes(&before.contents(&first).await?, &after.contents(&second).await?);
    }
    found.equal = found.config.is_empty() && found.layers_equal && found.files.is_empty();
    Ok(found)
}

struct Documents {
    manifest: Manifest,
    config: ImageConfig,
}

impl Entry<'_> {
    fn side(&self) -> PlatformSide {
        PlatformSide { platform: self.platform.to_string(), digest: self.descriptor.digest.clone() }
    }

    async fn documents(&self) -> Result<Documents, BuildError> {
        let manifest: Document<Manifest> = self.image.read_manifest(&self.descriptor).await?;
        let config = self.image.config(&manifest.value).await?.value;
        Ok(Documents { manifest: manifest.value, config })
    }

    /// Reads all layers, which are remembered.
    async fn contents(&self, documents: &Documents) -> Result<ImageContents, BuildError> {
        let mut contents = ImageContents::default();
        for layer in &documents.manifest.layers {
            let read = read_layer(self.image, layer, Reading::Remembered).await.map_err(|mut error| {
                error.message = format!("{}: {}: {}", self.image.name, self.platform, error.message);
                error
            })?;
            contents.add(&read.contents).map_err(|error| {
                let place = format!("{}: {}: layer {}", self.image.name, self.platform, layer.digest);
                BuildError::from_source(ErrorKind::Registry, place, &error)
            })?;
        }
        Ok(contents)
    }
}

impl PlatformDiff {
    fn one_sided(before: Option<&Entry<'_>>, after: Option<&Entry<'_>>) -> PlatformDiff {
        PlatformDiff {
            before: before.map(Entry::side),
            after: after.map(Entry::side),
            equal: false,
            config: Vec::new(),
            layers: Vec::new(),
            layers_equal: true,
            files: Vec::new(),
        }
    }
}

impl ImageDiff {
    fn new(
        before: &FoundImage,
        after: &FoundImage,
        index: Vec<ConfigChange>,
        platforms: Vec<PlatformDiff>,
    ) -> ImageDiff {
        let side = |image: &FoundImage| ImageSide {
            name: image.name.clone(),
            digest: image.descriptor.digest.clone(),
            media_type: image.document.media_type().to_owned(),
        };
        let equal = index.is_empty() && platforms.iter().all(|platform| platform.equal);
        ImageDiff { before: side(before), after: side(after), equal, index, platforms }
    }
}

/// Says what an index tells beside its entries; of an image of one platform nothing.
fn about_index(document: &ManifestOrIndex) -> Value {
    match document {
        ManifestOrIndex::Index(index) => json!({ "annotations": index.value.annotations }),
        ManifestOrIndex::Manifest(_) => json!({}),
    }
}

/// Says what an image's documents tell beside its layers.
fn about_image(entry: &Entry<'_>, documents: &Documents) -> Value {
    // A config is made of texts, numbers, lists and maps with texts as keys: all of that is JSON.
    let mut config = serde_json::to_value(&documents.config).unwrap_or_default();
    if let Some(fields) = config.as_object_mut() {
        // The layers have a section of their own.
        fields.remove("rootfs");
        fields.insert("annotations".to_owned(), json!(documents.manifest.annotations));
        fields.insert("platform".to_owned(), json!(entry.platform.to_string()));
    }
    config
}

/// Lists the layers of both in order: what only the first one has stands before what only the second one has.
fn layer_places(before: &Documents, after: &Documents) -> Vec<LayerPlace> {
    let diff_id = |documents: &Documents, at: usize| documents.config.rootfs.diff_ids.get(at).cloned();
    let twin = |own: &Documents, at: usize, other: &Documents| {
        let content = diff_id(own, at)?;
        let at = other.config.rootfs.diff_ids.iter().position(|known| *known == content)?;
        other.manifest.layers.get(at).map(|layer| layer.digest.clone())
    };
    let has = |documents: &Documents, layer: &Descriptor| {
        documents.manifest.layers.iter().any(|known| known.digest == layer.digest)
    };
    let place = |own: &Documents, other: &Documents, at: usize, place: LayerIn| {
        let layer = &own.manifest.layers[at];
        let is_shared = place == LayerIn::Both;
        LayerPlace {
            place,
            digest: layer.digest.clone(),
            size: layer.size,
            same_content_as: if is_shared { None } else { twin(own, at, other) },
        }
    };
    let mut places = Vec::new();
    for (at, layer) in before.manifest.layers.iter().enumerate() {
        let which = if has(after, layer) { LayerIn::Both } else { LayerIn::Before };
        places.push(place(before, after, at, which));
    }
    for (at, layer) in after.manifest.layers.iter().enumerate() {
        if !has(before, layer) {
            places.push(place(after, before, at, LayerIn::After));
        }
    }
    places
}
