// SPDX-License-Identifier: Apache-2.0
//! The images of a store: names, platforms, sizes, and what of them is there.

use std::time::SystemTime;

use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::{Descriptor, Digest, ManifestOrIndex, Platform, PlatformMatcher, Reference};
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
}

/// One platform of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct PlatformSummary {
    /// The platform.
    pub platform: Platform,
    /// The manifest.
    pub digest: Digest,
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
    let mut images: Vec<ImageSummary> = refs
        .into_iter()
        .map(|(name, entry)| ImageSummary {
            name,
            platforms: platforms(store, &entry.descriptor),
            descriptor: entry.descriptor,
            updated: Some(SystemTime::from(entry.updated)),
        })
        .collect();
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(images)
}

fn platforms(store: &Store, root: &Descriptor) -> Vec<PlatformSummary> {
    match store.image(root) {
        Ok(ManifestOrIndex::Index(index)) => {
            let images = index.value.images().filter(|image| !image.is_attestation());
            images.map(|image| summarize(store, image, image.platform.clone())).collect()
        }
        Ok(ManifestOrIndex::Manifest(manifest)) => {
            let config = store.config(&manifest.value).ok();
            let platform = config.map(|config| config.value.platform());
            vec![summarize(store, root, platform)]
        }
        Err(_) => Vec::new(),
    }
}

fn summarize(store: &Store, descriptor: &Descriptor, platform: Option<Platform>) -> PlatformSummary {
    let manifest = match store.image(descriptor) {
        Ok(ManifestOrIndex::Manifest(manifest)) => Some(manifest.value),
        _ => None,
    };
    let blobs =
        || manifest.iter().flat_map(|manifest| [&manifest.config].into_iter().chain(&manifest.layers));
    PlatformSummary {
        platform: platform.unwrap_or_default(),
        digest: descriptor.digest.clone(),
        size_bytes: manifest.as_ref().map(|_| blobs().map(|blob| blob.size).sum()),
        is_complete: manifest.is_some() && blobs().all(|blob| store.contains(&blob.digest)),
    }
}
