// SPDX-License-Identifier: Apache-2.0
//! The images that a source of a list stands for, one by one.
//!
//! A name of the store may be here for some of its platforms only: then its registry is asked what the
//! name stands for. Where the registry has no such name, it stands for the platforms that are here.

use std::collections::BTreeSet;
use std::sync::Arc;

use polyarch_build::fetch::Shown;
use polyarch_build::held::platform_names;
use polyarch_build::image_source::is_index;
use polyarch_build::{BuildError, ErrorKind, Services};
use polyarch_oci::{Descriptor, Digest, Document, Manifest, ManifestOrIndex, Platform};

use super::create::MAX_ENTRIES;
use super::find_source;
use crate::below::Below;
use crate::{FoundImage, ImageSource, Lookup, Origin};

/// The deepest nesting of indexes that is looked through in the store.
const MAX_DEPTH: usize = 4;

/// The images of an index.
pub(super) struct Flat {
    /// The manifests, each with the entry of its index, in order.
    pub(super) manifests: Vec<(Descriptor, Document<Manifest>)>,
    /// Entries of an image of the store that are not here.
    left_out: Vec<Descriptor>,
}

impl Flat {
    /// Says what a source has and the list will not.
    pub(super) fn warning(&self, source: &str) -> Option<String> {
        let images: Vec<&Descriptor> = self.left_out.iter().filter(|it| !it.is_attestation()).collect();
        let attestations = self.left_out.len() - images.len();
        let mut lacking = Vec::new();
        if !images.is_empty() {
            lacking.push(names(images.into_iter()));
        }
        if attestations > 0 {
            lacking.push(format!("{attestations} of its attestations"));
        }
        let here = names(self.manifests.iter().map(|(entry, _)| entry).filter(|it| !it.is_attestation()));
        (!lacking.is_empty()).then(|| {
            format!(
                "of {source} the store has {here}, and the list gets no more; left out: {} (all of an image: \
                 polyarch pull --all-platforms)",
                lacking.join(" and ")
            )
        })
    }
}

fn names<'a>(entries: impl Iterator<Item = &'a Descriptor>) -> String {
    let platforms: Vec<Platform> =
        entries.map(|entry| entry.platform.clone().unwrap_or_default().normalized()).collect();
    platform_names(&platforms)
}

/// Finds a source, in the store first. What is not whole there is the registry's to tell.
pub(super) async fn find_whole(
    services: &Arc<Services>,
    source: &ImageSource,
    shown: &Shown,
) -> Result<FoundImage, BuildError> {
    let found = find_source(services, source, Lookup::StoreThenRegistry, shown).await?;
    if matches!(found.origin, Origin::Store(Some(_)))
        && !is_whole(services, &found.descriptor, 0, &mut BTreeSet::new())
    {
        return find_source(services, source, Lookup::RegistryThenStore, shown).await;
    }
    Ok(found)
}

/// Tells whether the store has a document and everything in it, or knows where the rest is.
fn is_whole(services: &Services, descriptor: &Descriptor, depth: usize, seen: &mut BTreeSet<Digest>) -> bool {
    if !seen.insert(descriptor.digest.clone()) {
        return true;
    }
    match services.store().image(descriptor) {
        Ok(ManifestOrIndex::Manifest(manifest)) => is_in_reach(services, &manifest.value),
        Ok(ManifestOrIndex::Index(index)) if depth <= MAX_DEPTH => {
            index.value.manifests.iter().all(|entry| is_whole(services, entry, depth + 1, seen))
        }
        Ok(ManifestOrIndex::Index(_)) | Err(_) => false,
    }
}

/// Tells whether the store has the config of an image, and has each of its layers or knows a repository
/// that does.
pub(super) fn is_in_reach(services: &Services, manifest: &Manifest) -> bool {
    let store = services.store();
    let has_layer =
        |layer: &Descriptor| store.contains(&layer.digest) || services.blob_origin(&layer.digest).is_some();
    store.contains(&manifest.config.digest) && manifest.layers.iter().all(has_layer)
}

/// Reads the manifests of an index and of the indexes in it, in order. Of an image of the store or of an
/// archive, those that are here.
pub(super) async fn flatten(services: &Services, found: &FoundImage) -> Result<Flat, BuildError> {
    let too_much = |what: String| {
        let message = format!("{} has {what}", found.name);
        BuildError::new(ErrorKind::Usage, message).with_hint("name the images one by one, by their digests")
    };
    let is_all_there_is = matches!(found.origin, Origin::Store(_) | Origin::Archive(_));
    let is_absent = |entry: &Descriptor| is_all_there_is && !services.store().contains(&entry.digest);
    let Below { mut manifests, mut left_out } = found.below(&found.descriptor, is_absent).await?;
    if manifests.len() + left_out.len() > MAX_ENTRIES {
        return Err(too_much(format!("more than {MAX_ENTRIES} images")));
    }
    if let Some((entry, _)) = manifests.iter().find(|(entry, _)| is_index(entry)) {
        return Err(too_much(format!("a manifest, {}, that it calls an index", entry.digest)));
    }
    let is_lacking = |manifest: &Manifest| is_all_there_is && !is_in_reach(services, manifest);
    let lacking = manifests.extract_if(.., |(_, manifest)| is_lacking(&manifest.value));
    left_out.extend(lacking.map(|(entry, _)| entry));
    let images: Vec<String> = manifests
        .iter()
        .filter(|(entry, _)| !entry.is_attestation())
        .map(|(entry, _)| entry.digest.to_string())
        .collect();
    // What is said about an image that isn't there would be about nothing.
    let is_about_one = |entry: &Descriptor| {
        let subject = entry.annotations.get("vnd.docker.reference.digest");
        !entry.is_attestation() || subject.is_some_and(|subject| images.contains(subject))
    };
    manifests.retain(|(entry, _)| is_about_one(entry));
    left_out.retain(is_about_one);
    if images.is_empty() && !left_out.is_empty() {
        let message = format!("{} is here by name only: the store has none of its images", found.name);
        return Err(
            BuildError::new(ErrorKind::Usage, message).with_hint(format!("polyarch pull {}", found.name))
        );
    }
    if images.is_empty() {
        return Err(too_much("no images".to_owned()));
    }
    Ok(Flat { manifests, left_out })
}
