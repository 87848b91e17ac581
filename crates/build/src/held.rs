// SPDX-License-Identifier: Apache-2.0
//! What the store has of an image: which platforms, and whether all of each.
//!
//! A document may be here without what it names: after pulling one platform of four, the index knows
//! four and one of them can be run.

use std::collections::HashMap;

use polyarch_oci::{Descriptor, Digest, ManifestOrIndex, Platform, PlatformMatcher, Reference};
use polyarch_store::Store;

use crate::error::{BuildError, ErrorKind};
use crate::image_source::storage_error;
use crate::services::Services;

/// One platform of a stored image.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldPlatform {
    /// The platform, normalized.
    pub platform: Platform,
    /// Its manifest.
    pub manifest: Descriptor,
    /// Whether the store has the manifest, the config and every layer.
    pub is_complete: bool,
}

/// Lists the platforms of a stored index or manifest, in its order, attestations left out.
///
/// # Errors
/// When the document itself can't be read. What it names may be missing or damaged: that platform is then
/// not complete.
pub fn held_platforms(store: &Store, root: &Descriptor) -> Result<Vec<HeldPlatform>, BuildError> {
    match store.image(root).map_err(|error| storage_error(&error))? {
        ManifestOrIndex::Manifest(manifest) => {
            let declared = store.config(&manifest.value).ok().map(|config| config.value.platform());
            let platform = declared.or_else(|| root.platform.clone()).unwrap_or_default();
            Ok(vec![HeldPlatform { platform, manifest: root.clone(), is_complete: is_complete(store, root) }])
        }
        ManifestOrIndex::Index(index) => {
            // An index may name one manifest any number of times; it is read once.
            let mut known: HashMap<(&Digest, u64), bool> = HashMap::new();
            let images = index.value.images().map(|entry| HeldPlatform {
                platform: entry.platform.clone().unwrap_or_default().normalized(),
                manifest: entry.clone(),
                is_complete: *known
                    .entry((&entry.digest, entry.size))
                    .or_insert_with(|| is_complete(store, entry)),
            });
            Ok(images.collect())
        }
    }
}

/// Tells whether the store has a manifest, its config and its layers.
fn is_complete(store: &Store, manifest: &Descriptor) -> bool {
    match store.image(manifest) {
        Ok(ManifestOrIndex::Manifest(manifest)) => {
            let manifest = &manifest.value;
            manifest.layers.iter().chain([&manifest.config]).all(|blob| store.contains(&blob.digest))
        }
        _ => false,
    }
}

/// Chooses of these the one that runs best as a platform; never one of another architecture.
pub fn best_of<'a>(held: &'a [HeldPlatform], platform: &Platform) -> Option<&'a HeldPlatform> {
    let matcher = PlatformMatcher::strict(platform);
    held.iter().filter(|it| matcher.rank(&it.platform).is_some()).min_by_key(|it| matcher.rank(&it.platform))
}

/// Names platforms for people: `linux/amd64, linux/arm/v7`.
pub fn platform_names<'a>(platforms: impl IntoIterator<Item = &'a Platform>) -> String {
    let names: Vec<String> = platforms.into_iter().map(ToString::to_string).collect();
    if names.is_empty() { "no platform".to_owned() } else { names.join(", ") }
}

impl Services {
    /// Looks up what a name of the store means, with the platforms that are here.
    ///
    /// A name with a digest also means a document that has no name any more, as long as it is here.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn held_image(
        &self,
        reference: &Reference,
    ) -> Result<Option<(Descriptor, Vec<HeldPlatform>)>, BuildError> {
        let reference = reference.clone().with_default_tag();
        let Some(root) = self.local_root(&reference)? else { return Ok(None) };
        let held = held_platforms(&self.store, &root.descriptor)?;
        Ok(Some((root.descriptor, held)))
    }
}

/// Makes the error of a platform that a stored image lacks or has only the name of.
pub fn not_held(name: &str, platform: &Platform, held: &[HeldPlatform]) -> BuildError {
    let here = platform_names(held.iter().filter(|it| it.is_complete).map(|it| &it.platform));
    if best_of(held, platform).is_some() {
        let message = format!("the store has not all of {name} for {platform}; it has {here}");
        return BuildError::new(ErrorKind::Platform, message)
            .with_hint(format!("polyarch pull --platform {platform} {name}"));
    }
    let known = platform_names(held.iter().map(|it| &it.platform));
    let error =
        BuildError::new(ErrorKind::Platform, format!("{name} has no image for {platform}; it has {known}"));
    match held.iter().find(|it| it.is_complete) {
        Some(other) => error.with_hint(format!("name one that is here: --platform {}", other.platform)),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use polyarch_oci::media_type::{self, Flavour};
    use polyarch_oci::{Document, ImageIndex, Manifest};

    use super::*;

    #[test]
    fn an_entry_is_judged_by_its_digest_and_size_however_often_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let config = Descriptor::new(media_type::OCI_CONFIG, store.put(b"{}").unwrap(), 2);
        let manifest = Document::indented(Manifest::new(Flavour::Oci, config, Vec::new()));
        store.put(&manifest.bytes).unwrap();
        let entry = |size: u64, platform: &str| {
            Descriptor::new(media_type::OCI_MANIFEST, manifest.digest.clone(), size)
                .with_platform(platform.parse().unwrap())
        };
        let wrong = entry(manifest.size() + 1, "linux/s390x");
        let mut entries = vec![entry(manifest.size(), "linux/amd64"); 10_000];
        entries.extend([wrong, entry(manifest.size(), "linux/arm64")]);
        let index = Document::compact(ImageIndex::new(Flavour::Oci, entries));
        store.put(&index.bytes).unwrap();
        let root = Descriptor::new(media_type::OCI_INDEX, index.digest.clone(), index.size());
        let held = held_platforms(&store, &root).unwrap();
        assert_eq!(held.len(), 10_002);
        let incomplete: Vec<String> =
            held.iter().filter(|it| !it.is_complete).map(|it| it.platform.to_string()).collect();
        assert_eq!(incomplete, ["linux/s390x"]);
    }
}
