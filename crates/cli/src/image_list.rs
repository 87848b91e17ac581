// SPDX-License-Identifier: Apache-2.0
//! The images of a store: names, platforms, sizes, and what of them is there.

use std::collections::BTreeMap;
use std::time::SystemTime;

use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::{Descriptor, Digest, ImageConfig, ManifestOrIndex, Platform, PlatformMatcher, Reference};
use polyarch_store::Store;

/// An image of the store.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSummary {
    /// Its name.
    pub name: Reference,
    /// Its index or manifest.
    pub descriptor: Descriptor,
    /// When the name was last set.
    pub updated: Option<SystemTime>,
    /// Its platforms, in the order of the index.
    pub platforms: Vec<PlatformSummary>,
    /// What the store has of it, in bytes, each blob counted once.
    pub size_bytes: u64,
}

/// One platform of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct PlatformSummary {
    /// The platform.
    pub platform: Platform,
    /// The manifest.
    pub digest: Digest,
    /// The config; `None` when the store lacks the manifest.
    pub config: Option<Digest>,
    /// The sum of the sizes of config and layers; `None` when the store lacks the manifest.
    pub size_bytes: Option<u64>,
    /// Whether the store has all of it.
    pub is_complete: bool,
}

impl ImageSummary {
    /// Tells whether the store has all of what a platform would run; of any platform when none is named.
    pub fn has(&self, platform: Option<&Platform>) -> bool {
        let host = Platform::host();
        let wanted = match platform {
            // An image of one platform only runs as that.
            None if self.platforms.len() == 1 => return self.platforms[0].is_complete,
            None => &host,
            Some(platform) => platform,
        };
        let matcher = PlatformMatcher::only(wanted);
        let best = self.platforms.iter().filter(|known| matcher.rank(&known.platform).is_some());
        best.min_by_key(|known| matcher.rank(&known.platform)).is_some_and(|known| known.is_complete)
    }
}

/// Lists the images of a store, by name.
///
/// # Errors
/// When the store can't be read. An image whose own document is missing or damaged has no platforms.
pub fn list_images(store: &Store) -> Result<Vec<ImageSummary>, BuildError> {
    let refs = store
        .refs()
        .map_err(|error| BuildError::new(ErrorKind::Storage, polyarch_build::error::chain_of(&error)))?;
    let mut images: Vec<ImageSummary> = Vec::with_capacity(refs.len());
    for (name, entry) in refs {
        let mut blobs = BTreeMap::new();
        let platforms = platforms(store, &entry.descriptor, &mut blobs);
        images.push(ImageSummary {
            name,
            platforms,
            descriptor: entry.descriptor,
            updated: Some(SystemTime::from(entry.updated)),
            size_bytes: blobs.values().fold(0, |sum: u64, size| sum.saturating_add(*size)),
        });
    }
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(images)
}

/// Reads the config of the platform that stands for an image in listings: this machine's, or the first that
/// is here; `None` when none is.
pub fn main_config(store: &Store, image: &ImageSummary) -> Option<ImageConfig> {
    let matcher = PlatformMatcher::strict(&Platform::host());
    let mut here: Vec<&PlatformSummary> =
        image.platforms.iter().filter(|platform| platform.config.is_some()).collect();
    here.sort_by_key(|platform| matcher.rank(&platform.platform).unwrap_or(usize::MAX));
    here.into_iter().find_map(|platform| {
        let descriptor = Descriptor::new("", platform.digest.clone(), store.size(&platform.digest)?);
        match store.image(&descriptor).ok()? {
            ManifestOrIndex::Manifest(manifest) => Some(store.config(&manifest.value).ok()?.value),
            ManifestOrIndex::Index(_) => None,
        }
    })
}

/// Blobs that the store has, with their sizes.
type Blobs = BTreeMap<Digest, u64>;

fn platforms(store: &Store, root: &Descriptor, blobs: &mut Blobs) -> Vec<PlatformSummary> {
    match store.image(root) {
        Ok(ManifestOrIndex::Index(index)) => {
            blobs.insert(root.digest.clone(), root.size);
            let images = index.value.images().filter(|image| !image.is_attestation());
            images.map(|image| summarize(store, image, image.platform.clone(), blobs)).collect()
        }
        Ok(ManifestOrIndex::Manifest(manifest)) => {
            let config = store.config(&manifest.value).ok();
            let platform = config.map(|config| config.value.platform());
            vec![summarize(store, root, platform, blobs)]
        }
        Err(_) => Vec::new(),
    }
}

fn summarize(
    store: &Store,
    descriptor: &Descriptor,
    platform: Option<Platform>,
    all: &mut Blobs,
) -> PlatformSummary {
    let manifest = match store.image(descriptor) {
        Ok(ManifestOrIndex::Manifest(manifest)) => Some(manifest.value),
        _ => None,
    };
    let blobs =
        || manifest.iter().flat_map(|manifest| [&manifest.config].into_iter().chain(&manifest.layers));
    let mut is_complete = manifest.is_some();
    for blob in blobs().chain(manifest.is_some().then_some(descriptor)) {
        if store.contains(&blob.digest) {
            all.insert(blob.digest.clone(), blob.size);
        } else {
            is_complete = false;
        }
    }
    PlatformSummary {
        platform: platform.unwrap_or_default(),
        digest: descriptor.digest.clone(),
        config: manifest.as_ref().map(|manifest| manifest.config.digest.clone()),
        size_bytes: manifest
            .as_ref()
            .map(|_| blobs().fold(0, |sum: u64, blob| sum.saturating_add(blob.size))),
        is_complete,
    }
}
