// SPDX-License-Identifier: Apache-2.0
//! Says what a digest is: the index, the image of a platform, a config or a layer, and of which name.
//!
//! Every digest that the names of the store lead to is known: index, manifests, configs, layers, diff ids,
//! attestations. What a registry has under a name is told in the same form.

mod meaning;
mod registry;

use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::{Descriptor, Digest, ManifestOrIndex, Platform, Reference};
use polyarch_store::Store;

pub use meaning::{ImageDigests, Meaning, in_registry, in_store};
pub use registry::{InRegistry, places_in_registry};

/// The deepest nesting of indexes that is looked into.
const MAX_DEPTH: usize = 8;

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
        if place.digest.hex().starts_with(hex) && !found.contains(&place) {
            found.push(place);
        }
    })?;
    Ok(found)
}

/// Returns digests that begin as another one does, those that share most first.
///
/// # Errors
/// When the names can't be read.
pub fn near(store: &Store, hex: &str) -> Result<Vec<Place>, BuildError> {
    let mut found: Vec<Place> = Vec::new();
    walk(store, &mut |place| {
        if shared(&place.digest, hex) >= NEAR_CHARACTERS {
            found.push(place);
            rank_by_likeness(&mut found, hex);
            found.truncate(MAX_NEAR);
        }
    })?;
    Ok(found)
}

/// Returns how many characters two digests share from the beginning.
fn shared(digest: &Digest, hex: &str) -> usize {
    digest.hex().bytes().zip(hex.bytes()).take_while(|(a, b)| a == b).count()
}

/// Keeps what looks like a digest, each digest once, those that share most first.
fn rank_by_likeness(places: &mut Vec<Place>, hex: &str) {
    places.retain(|place| shared(&place.digest, hex) >= NEAR_CHARACTERS);
    places.sort_by_key(|place| std::cmp::Reverse(shared(&place.digest, hex)));
    let mut seen = std::collections::HashSet::new();
    places.retain(|place| seen.insert(place.digest.clone()));
}

fn walk(store: &Store, visit: &mut dyn FnMut(Place)) -> Result<(), BuildError> {
    for (name, entry) in store.refs().map_err(|error| storage_error(&error))? {
        let document = store.image(&entry.descriptor).ok();
        let is_index = matches!(document, Some(ManifestOrIndex::Index(_)));
        let index = is_index.then(|| entry.descriptor.digest.clone());
        Walk { store, name, index, visit }.document(&entry.descriptor, document, 0);
    }
    Ok(())
}

struct Walk<'a> {
    store: &'a Store,
    name: Reference,
    index: Option<Digest>,
    visit: &'a mut dyn FnMut(Place),
}

impl Walk<'_> {
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
        match document {
            // The index's word is all that is known of what is not here.
            None => self.place(&descriptor.digest, Role::Manifest, Some(&descriptor.digest), &declared),
            Some(ManifestOrIndex::Index(index)) => {
                let platforms: Vec<Platform> = index
                    .value
                    .images()
                    .filter_map(|entry| entry.platform.clone())
                    .map(Platform::normalized)
                    .collect();
                self.place(&descriptor.digest, Role::Index, None, &platforms);
                for entry in index.value.manifests.iter().filter(|_| depth < MAX_DEPTH) {
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
        let about = siblings.iter().find(|it| about.is_some_and(|digest| *digest == it.digest.to_string()));
        let platforms: Vec<Platform> =
            about.and_then(|it| it.platform.clone()).map(Platform::normalized).into_iter().collect();
        self.place(&entry.digest, Role::Attestation, Some(&entry.digest), &platforms);
        if let Ok(ManifestOrIndex::Manifest(manifest)) = self.store.image(entry) {
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
