// SPDX-License-Identifier: Apache-2.0
//! Says what a digest is: the index, the image of a platform, a config or a layer, and of which name.
//!
//! Every digest that the names of the store lead to is known: index, manifests, configs, layers, diff ids,
//! attestations. What a registry has under a name is told in the same form.

mod meaning;
mod registry;

use std::collections::BTreeSet;

use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::{Descriptor, Digest, ManifestOrIndex, Platform, Reference};
use polyarch_store::Store;

use crate::below::Bounds;

pub use meaning::{ImageDigests, Meaning, in_registry, in_store};
pub use registry::{InRegistry, places_in_registry};

/// The deepest nesting of indexes that is looked into.
const MAX_DEPTH: usize = 8;

/// The most places of a digest that are told: nobody reads more, and an image can be made of one layer many times.
const MAX_PLACES: usize = 5_000;

/// The most digests that look alike and are told.
const MAX_NEAR: usize = 5;

/// How many characters two digests must share to look alike.
const NEAR_CHARACTERS: usize = 4;

/// What a digest is within an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The index, or an index below it.
    Index,
    /// The manifest of one platform.
    Manifest,
    /// The config of one platform, which older docker calls the image id.
    Config,
    /// A layer as it is stored and pushed, by number from the lowest, from 1.
    Layer(usize, usize),
    /// A layer's uncompressed tar, by number from the lowest, from 1.
    DiffId(usize, usize),
    /// The attestation about one platform.
    Attestation,
    /// The config or a layer of an attestation.
    PartOfAttestation,
}

/// A digest's place in an image of the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// The digest.
    pub digest: Digest,
    /// What it is.
    pub role: Role,
    /// The name that leads to it.
    pub name: Reference,
    /// The index that the name points at; `None` when it points at a manifest.
    pub index: Option<Digest>,
    /// The manifest above it, or itself.
    pub manifest: Option<Digest>,
    /// The platform that it belongs to, of an index all.
    pub platforms: Vec<Platform>,
}

/// Finds the places of all digests that begin so, by name; the digest alone has `algorithm:` before it.
///
/// # Errors
/// When the names can't be read; a damaged image has no places.
pub fn places(store: &Store, hex: &str) -> Result<Vec<Place>, BuildError> {
    let mut found = Vec::new();
    walk(store, &mut |place| {
        if place.digest.hex().starts_with(hex) {
            add_place(&mut found, place);
        }
    })?;
    Ok(found)
}

fn add_place(places: &mut Vec<Place>, place: Place) {
    if places.len() < MAX_PLACES && !places.contains(&place) {
        places.push(place);
    }
}

/// Returns digests that begin as another one does, those that share most first.
///
/// # Errors
/// When the names can't be read.
pub fn near(store: &Store, hex: &str) -> Result<Vec<Place>, BuildError> {
    let mut found: Vec<Place> = Vec::new();
    walk(store, &mut |place| {
        add_near(&mut found, place, hex);
    })?;
    Ok(found)
}

/// Returns how many characters two digests share from the beginning.
fn shared(digest: &Digest, hex: &str) -> usize {
    digest.hex().bytes().zip(hex.bytes()).take_while(|(a, b)| a == b).count()
}

/// Adds a digest that looks like another one; each digest once, those that share most first.
fn add_near(places: &mut Vec<Place>, place: Place, hex: &str) {
    if shared(&place.digest, hex) < NEAR_CHARACTERS || places.iter().any(|it| it.digest == place.digest) {
        return;
    }
    places.push(place);
    places.sort_by_key(|place| std::cmp::Reverse(shared(&place.digest, hex)));
    places.truncate(MAX_NEAR);
}

fn walk(store: &Store, visit: &mut dyn FnMut(Place)) -> Result<(), BuildError> {
    for (name, entry) in store.refs().map_err(|error| storage_error(&error))? {
        let document = store.image(&entry.descriptor).ok();
        let is_index = matches!(document, Some(ManifestOrIndex::Index(_)));
        let index = is_index.then(|| entry.descriptor.digest.clone());
        Walk::new(store, name, index, visit).document(&entry.descriptor, document, 0);
    }
    Ok(())
}

/// A walk through the documents of a name, which looks into each index once and at no more documents than an image
/// can have.
struct Walk<'a> {
    store: &'a Store,
    name: Reference,
    index: Option<Digest>,
    visit: &'a mut dyn FnMut(Place),
    seen: BTreeSet<Digest>,
    bounds: Bounds,
}

impl<'a> Walk<'a> {
    fn new(
        store: &'a Store,
        name: Reference,
        index: Option<Digest>,
        visit: &'a mut dyn FnMut(Place),
    ) -> Walk<'a> {
        Walk { store, name, index, visit, seen: BTreeSet::new(), bounds: Bounds::default() }
    }

    fn place(&mut self, digest: &Digest, role: Role, manifest: Option<&Digest>, platforms: &[Platform]) {
        (self.visit)(Place {
            digest: digest.clone(),
            role,
            name: self.name.clone(),
            index: self.index.clone(),
            manifest: manifest.cloned(),
            platforms: platforms.to_vec(),
        });
    }

    fn document(&mut self, descriptor: &Descriptor, document: Option<ManifestOrIndex>, depth: usize) {
        let declared: Vec<Platform> =
            descriptor.platform.iter().map(|platform| platform.clone().normalized()).collect();
        if document.as_ref().is_some_and(|document| !self.bounds.admit(document)) {
            return;
        }
        match document {
            // The index's word is all that is known of what is not here.
            None => self.place(&descriptor.digest, Role::Manifest, Some(&descriptor.digest), &declared),
            Some(ManifestOrIndex::Index(_)) if !self.seen.insert(descriptor.digest.clone()) => {}
            Some(ManifestOrIndex::Index(index)) => {
                let platforms: Vec<Platform> = index
                    .value
                    .images()
                    .filter_map(|entry| entry.platform.clone())
                    .map(Platform::normalized)
                    .collect();
                self.place(&descriptor.digest, Role::Index, None, &platforms);
                for entry in index.value.manifests.iter().filter(|_| depth < MAX_DEPTH) {
                    if self.bounds.are_passed() {
                        return;
                    }
                    if entry.is_attestation() {
                        self.attestation(entry, &index.value.manifests);
                    } else {
                        self.document(entry, self.store.image(entry).ok(), depth + 1);
                    }
                }
            }
            Some(ManifestOrIndex::Manifest(manifest)) => {
                let config = self.store.config(&manifest.value).ok();
                let platforms = match (&declared[..], &config) {
                    ([], Some(config)) => vec![config.value.platform()],
                    _ => declared,
                };
                let digest = Some(&manifest.digest);
                self.place(&descriptor.digest, Role::Manifest, digest, &platforms);
                self.place(&manifest.value.config.digest, Role::Config, digest, &platforms);
                let count = manifest.value.layers.len();
                for (at, layer) in manifest.value.layers.iter().enumerate() {
                    self.place(&layer.digest, Role::Layer(at + 1, count), digest, &platforms);
                }
                let diff_ids = config.map(|config| config.value.rootfs.diff_ids).unwrap_or_default();
                for (at, id) in diff_ids.iter().enumerate() {
                    // Of a layer that is not compressed it is the same digest, told already.
                    if manifest.value.layers.get(at).is_none_or(|layer| layer.digest != id.0) {
                        self.place(&id.0, Role::DiffId(at + 1, diff_ids.len()), digest, &platforms);
                    }
                }
            }
        }
    }

    fn attestation(&mut self, entry: &Descriptor, siblings: &[Descriptor]) {
        let about = entry.annotations.get("vnd.docker.reference.digest");
        let about: Option<Digest> = about.and_then(|digest| digest.parse().ok());
        let about = siblings.iter().find(|it| about.as_ref() == Some(&it.digest));
        let platforms: Vec<Platform> =
            about.and_then(|it| it.platform.clone()).map(Platform::normalized).into_iter().collect();
        self.place(&entry.digest, Role::Attestation, Some(&entry.digest), &platforms);
        let Ok(document) = self.store.image(entry) else { return };
        if self.bounds.admit(&document)
            && let ManifestOrIndex::Manifest(manifest) = document
        {
            for blob in manifest.value.layers.iter().chain([&manifest.value.config]) {
                self.place(&blob.digest, Role::PartOfAttestation, Some(&entry.digest), &platforms);
            }
        }
    }
}

/// Makes the error of a digest that no name leads to, with those that look like it.
///
/// # Errors
/// When the names can't be read.
pub fn unknown_digest(store: &Store, text: &str, hex: &str) -> Result<BuildError, BuildError> {
    let near = near(store, hex)?;
    let error = BuildError::new(ErrorKind::Usage, format!("no name of the store leads to {text}"));
    Ok(match alike(&near, hex) {
        Some(hint) => error.with_hint(hint),
        None => error.with_hint("with a name before the digest its registry is asked: NAME@sha256:..."),
    })
}

/// Makes the hint that lists digests that look alike, or says where else the digest itself is.
pub fn alike(near: &[Place], hex: &str) -> Option<String> {
    if let Some(place) = near.iter().find(|place| place.digest.hex() == hex) {
        return Some(format!("it is in {}: polyarch resolve {}", place.name.familiar(), place.digest));
    }
    let list: Vec<String> =
        near.iter().map(|place| format!("{} (in {})", place.digest, place.name.familiar())).collect();
    (!list.is_empty()).then(|| format!("these begin alike: {}", list.join(", ")))
}

#[cfg(test)]
mod tests {
    use polyarch_oci::media_type::Flavour;
    use polyarch_oci::{Document, ImageConfig, ImageIndex, Manifest};

    use super::*;

    fn put<T: serde::Serialize>(store: &Store, media_type: &str, document: &Document<T>) -> Descriptor {
        store.put(&document.bytes).unwrap();
        Descriptor::new(media_type, document.digest.clone(), document.size())
    }

    #[test]
    fn indexes_that_name_one_another_many_times_are_looked_into_once() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let flavour = Flavour::Oci;
        let config = put(&store, flavour.config(), &Document::compact(ImageConfig::default()));
        let manifest = Document::compact(Manifest::new(flavour, config.clone(), vec![config.clone(); 6_000]));
        let image = put(&store, flavour.manifest(), &manifest);
        let mut root = image.clone();
        // Followed each time, these are ten million ways to one manifest.
        for _ in 0..7 {
            root = put(&store, flavour.index(), &Document::compact(ImageIndex::new(flavour, vec![root; 10])));
        }
        store.set_ref(&"app".parse().unwrap(), &root).unwrap();
        let found = places(&store, image.digest.hex()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].role, &found[0].index), (&Role::Manifest, &Some(root.digest)));
        assert_eq!(places(&store, config.digest.hex()).unwrap().len(), MAX_PLACES);
        let other = format!("{}{}", &image.digest.hex()[..32], "0".repeat(32));
        assert_eq!(near(&store, &other).unwrap().len(), 1);
    }
}
