// SPDX-License-Identifier: Apache-2.0
//! The places of a digest in a repository of a registry: under the tag that is named, or under any.

use std::collections::BTreeSet;
use std::sync::Arc;

use polyarch_build::fetch::{Shown, registry_error};
use polyarch_build::{BuildError, Services};
use polyarch_oci::{Digest, ManifestOrIndex, Reference};

use super::{MAX_DEPTH, Place, Walk, add_near, add_place};
use crate::below::Bounds;
use crate::find::{FindOptions, Lookup, find};
use crate::found::FoundImage;
use crate::source::ImageSource;

/// The most tags of a repository that are looked at.
const MAX_TAGS: usize = 100;

/// What was found of a digest in a repository.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InRegistry {
    /// The places.
    pub places: Vec<Place>,
    /// Digests there that look alike, those that share most first; only when there is no place.
    pub near: Vec<Place>,
    /// How many tags were looked at, and how many there are.
    pub tags: (usize, usize),
}

/// Finds the places of a digest under the tag of a name, or under the tags of its repository.
///
/// Fetches documents and configs, no layers.
///
/// # Errors
/// When the registry can't be asked, or doesn't have the tag. A tag that nobody asked for and that can't
/// be read is passed over.
pub async fn places_in_registry(
    services: &Arc<Services>,
    name: &Reference,
    digest: &Digest,
    shown: &Shown,
) -> Result<InRegistry, BuildError> {
    let tags = match name.tag() {
        Some(tag) => vec![tag.to_owned()],
        None => services
            .registry()
            .list_tags(name)
            .await
            .map_err(|error| registry_error(format!("can't list the tags of {}", name.name()), &error))?,
    };
    let mut result = InRegistry { tags: (tags.len().min(MAX_TAGS), tags.len()), ..InRegistry::default() };
    let mut others: Vec<Place> = Vec::new();
    for tag in tags.iter().take(MAX_TAGS) {
        let Ok(tagged) = format!("{}:{tag}", name.name()).parse::<Reference>() else { continue };
        let source = ImageSource::Reference(tagged.clone());
        let found = match find(services, &source, &FindOptions::new(Lookup::RegistryOnly), shown).await {
            Ok(found) => found,
            Err(error) if name.tag().is_some() => return Err(error),
            Err(_) => continue,
        };
        // What the index itself names needs no further question.
        if !names_it(&found, digest) {
            fetch_documents(&found).await;
        }
        let is_index = matches!(found.document, ManifestOrIndex::Index(_));
        let index = is_index.then(|| found.descriptor.digest.clone());
        let mut visit = |place: Place| {
            if place.digest == *digest {
                add_place(&mut result.places, place);
            } else {
                add_near(&mut others, place, digest.hex());
            }
        };
        let document = Some(found.document.clone());
        Walk::new(services.store(), tagged, index, &mut visit).document(&found.descriptor, document, 0);
    }
    if result.places.is_empty() {
        result.near = others;
    }
    Ok(result)
}

fn names_it(found: &FoundImage, digest: &Digest) -> bool {
    match &found.document {
        ManifestOrIndex::Index(index) => {
            found.descriptor.digest == *digest
                || index.value.manifests.iter().any(|entry| entry.digest == *digest)
        }
        ManifestOrIndex::Manifest(_) => false,
    }
}

/// Brings manifests and configs into the store. What can't be had has no places.
async fn fetch_documents(found: &FoundImage) {
    let (mut bounds, mut seen) = (Bounds::default(), BTreeSet::new());
    let mut waiting = vec![(found.document.clone(), 0)];
    while let Some((document, depth)) = waiting.pop() {
        match document {
            ManifestOrIndex::Index(index) if depth < MAX_DEPTH => {
                for entry in &index.value.manifests {
                    if seen.insert(entry.digest.clone())
                        && let Ok(document) = found.read_document(entry).await
                    {
                        if !bounds.admit(&document) {
                            return;
                        }
                        waiting.push((document, depth + 1));
                    }
                }
            }
            ManifestOrIndex::Index(_) => {}
            // A config that can't be read leaves the diff ids unknown.
            ManifestOrIndex::Manifest(manifest) => drop(found.config(&manifest.value).await),
        }
    }
}
