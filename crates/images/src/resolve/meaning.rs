// SPDX-License-Identifier: Apache-2.0
//! What a name means, in the store and at its registry: an index and its platforms, or one manifest.

use std::sync::Arc;

use polyarch_build::fetch::Shown;
use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, Services};
use polyarch_oci::{Descriptor, Digest, ManifestOrIndex, Platform, Reference};
use polyarch_store::Store;

use crate::below::Bounds;
use crate::find::{FindOptions, Lookup};
use crate::source::ImageSource;

/// What a name means in one place.
#[derive(Debug, Clone, PartialEq)]
pub struct Meaning {
    /// The index or manifest.
    pub root: Digest,
    /// Whether the root is an index.
    pub is_index: bool,
    /// Its images.
    pub images: Vec<ImageDigests>,
}

/// The digests of one platform's image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageDigests {
    /// The platform.
    pub platform: Platform,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// The digest of the config; `None` when the manifest isn't there.
    pub config: Option<Digest>,
}

/// Tells what a root of the store means.
///
/// # Errors
/// When it is damaged.
pub fn in_store(store: &Store, root: &Descriptor) -> Result<Meaning, BuildError> {
    let images = crate::lookup::images_of(store, root)?;
    let document = store.image(root).map_err(|error| storage_error(&error))?;
    let images = images.into_iter().map(|image| ImageDigests {
        platform: image.platform,
        manifest: image.descriptor.digest,
        config: image.manifest.map(|manifest| manifest.value.config.digest),
    });
    Ok(Meaning {
        root: root.digest.clone(),
        is_index: matches!(document, ManifestOrIndex::Index(_)),
        images: images.collect(),
    })
}

/// Asks the registry what a name means.
///
/// # Errors
/// When the registry doesn't have it, or can't be asked.
pub async fn in_registry(
    services: &Arc<Services>,
    name: &Reference,
    shown: &Shown,
) -> Result<Meaning, BuildError> {
    let options = FindOptions::new(Lookup::RegistryOnly);
    let source = ImageSource::Reference(name.clone().with_default_tag());
    let found = crate::find::find(services, &source, &options, shown).await?;
    let (mut images, mut bounds) = (Vec::new(), Bounds::default());
    let is_index = match &found.document {
        ManifestOrIndex::Index(index) => {
            for entry in index.value.images() {
                // An index within an index has no config.
                let manifest = found.read_document(entry).await?;
                bounds.count(&found, &manifest)?;
                let (platform, config) = match manifest {
                    ManifestOrIndex::Manifest(manifest) => {
                        let platform = match &entry.platform {
                            Some(platform) => platform.clone().normalized(),
                            None => found.declared_platform(&manifest.value).await?,
                        };
                        (platform, Some(manifest.value.config.digest))
                    }
                    ManifestOrIndex::Index(_) => (entry.platform.clone().unwrap_or_default(), None),
                };
                images.push(ImageDigests { platform, manifest: entry.digest.clone(), config });
            }
            true
        }
        ManifestOrIndex::Manifest(manifest) => {
            let platform = found.declared_platform(&manifest.value).await?;
            let config = Some(manifest.value.config.digest.clone());
            images.push(ImageDigests { platform, manifest: manifest.digest.clone(), config });
            false
        }
    };
    Ok(Meaning { root: found.document.digest().clone(), is_index, images })
}
