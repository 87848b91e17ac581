// SPDX-License-Identifier: Apache-2.0
//! Documents in the store: images, their configs, and everything that they name.

use std::collections::HashSet;

use polyarch_oci::config::MAX_CONFIG_BYTES;
use polyarch_oci::manifest::MAX_MANIFEST_BYTES;
use polyarch_oci::{Descriptor, Document, ImageConfig, Manifest, ManifestOrIndex, media_type};

use crate::{Store, StoreError};

/// The deepest nesting of indexes.
const MAX_DEPTH: usize = 8;

/// The largest number of distinct blobs of one image.
pub(crate) const MAX_BLOBS: usize = 100_000;

/// What to do about blobs that a document names and the store lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Fail with [`StoreError::MissingBlob`].
    Refuse,
    /// Leave them out: the image is sparse, some platforms or layers are elsewhere.
    Skip,
}

impl Store {
    /// Reads an index or a manifest, verified.
    pub fn image(&self, descriptor: &Descriptor) -> Result<ManifestOrIndex, StoreError> {
        let bytes = self.read(descriptor, MAX_MANIFEST_BYTES)?;
        ManifestOrIndex::parse(bytes, &descriptor.media_type)
            .map_err(|source| StoreError::Document { digest: descriptor.digest.clone(), source })
    }

    /// Reads the config of an image, verified.
    pub fn config(&self, manifest: &Manifest) -> Result<Document<ImageConfig>, StoreError> {
        let bytes = self.read(&manifest.config, MAX_CONFIG_BYTES)?;
        Document::parse(bytes, "image config")
            .map_err(|source| StoreError::Document { digest: manifest.config.digest.clone(), source })
    }

    /// Returns what a document names directly: an index its manifests, a manifest its config and layers.
    ///
    /// A descriptor whose media type is neither has no children, and is not read.
    ///
    /// # Errors
    /// When the document cannot be read. With [`Missing::Refuse`] also when one of the children is not
    /// in the store; with [`Missing::Skip`] absent ones are left out, an absent document has none, and the
    /// descriptor's size does not count: what one index says wrongly of a document keeps nobody from it.
    pub fn children(&self, descriptor: &Descriptor, missing: Missing) -> Result<Vec<Descriptor>, StoreError> {
        let mut children = match (is_document(descriptor), missing) {
            (false, _) => return Ok(Vec::new()),
            (true, Missing::Skip) => match self.size(&descriptor.digest) {
                Some(size) => direct_children(&self.image(&Descriptor { size, ..descriptor.clone() })?),
                None => return Ok(Vec::new()),
            },
            (true, Missing::Refuse) => direct_children(&self.image(descriptor)?),
        };
        match missing {
            Missing::Skip => children.retain(|child| self.contains(&child.digest)),
            Missing::Refuse => {
                if let Some(child) = children.iter().find(|child| !self.contains(&child.digest)) {
                    return Err(StoreError::MissingBlob { digest: child.digest.clone() });
                }
            }
        }
        Ok(children)
    }

    /// Returns everything that an image consists of, each digest once, children before parents and the
    /// root last: the order in which it can be published.
    ///
    /// # Errors
    /// As [`Store::children`]; also when indexes are nested too deeply or name too many blobs.
    pub fn closure(&self, root: &Descriptor, missing: Missing) -> Result<Vec<Descriptor>, StoreError> {
        if missing == Missing::Refuse && !self.contains(&root.digest) {
            return Err(StoreError::MissingBlob { digest: root.digest.clone() });
        }
        let mut walk = Walk { store: self, missing, seen: HashSet::new(), found: Vec::new() };
        if self.contains(&root.digest) {
            walk.visit(root, 0)
                .and_then(|complete| if complete { Ok(()) } else { Err(too_complex(root)) })?;
        }
        Ok(walk.found)
    }
}

/// Returns what a document names directly, whether or not it is in a store.
pub fn direct_children(document: &ManifestOrIndex) -> Vec<Descriptor> {
    match document {
        ManifestOrIndex::Index(index) => index.value.manifests.clone(),
        ManifestOrIndex::Manifest(manifest) => {
            let config = std::iter::once(&manifest.value.config);
            config.chain(&manifest.value.layers).cloned().collect()
        }
    }
}

/// Tells whether a descriptor names a document; an empty media type occurs only at old ones.
pub(crate) fn is_document(descriptor: &Descriptor) -> bool {
    let media_type = descriptor.media_type.as_str();
    media_type.is_empty() || media_type::is_index(media_type) || media_type::is_manifest(media_type)
}

pub(crate) fn too_complex(root: &Descriptor) -> StoreError {
    StoreError::TooComplex { digest: root.digest.clone(), depth: MAX_DEPTH, blobs: MAX_BLOBS }
}

struct Walk<'a> {
    store: &'a Store,
    missing: Missing,
    seen: HashSet<polyarch_oci::Digest>,
    found: Vec<Descriptor>,
}

impl Walk<'_> {
    /// Visits a descriptor; `false` when a cap is passed.
    fn visit(&mut self, descriptor: &Descriptor, depth: usize) -> Result<bool, StoreError> {
        if !self.seen.insert(descriptor.digest.clone()) {
            return Ok(true);
        }
        if depth > MAX_DEPTH || self.seen.len() > MAX_BLOBS {
            return Ok(false);
        }
        for child in self.store.children(descriptor, self.missing)? {
            if !self.visit(&child, depth + 1)? {
                return Ok(false);
            }
        }
        self.found.push(descriptor.clone());
        Ok(true)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use polyarch_oci::media_type::{Compression, Flavour};
    use polyarch_oci::{DiffId, Digest, ImageIndex, Platform};

    use super::*;

    /// Makes an image of the given uncompressed layers.
    pub(crate) fn put_image(store: &Store, platform: &str, layers: &[&[u8]]) -> Descriptor {
        let platform: Platform = platform.parse().unwrap();
        let mut config = ImageConfig::default();
        config.set_platform(&platform);
        config.rootfs.diff_ids = layers.iter().map(|layer| DiffId(Digest::of(layer))).collect();
        let config = Document::compact(config);
        store.put(&config.bytes).unwrap();
        let layers = layers.iter().map(|layer| {
            let media_type = Compression::Uncompressed.layer_media_type(Flavour::Oci);
            Descriptor::new(media_type, store.put(layer).unwrap(), layer.len() as u64)
        });
        let config = Descriptor::new(media_type::OCI_CONFIG, config.digest.clone(), config.size());
        let manifest = Document::indented(Manifest::new(Flavour::Oci, config, layers.collect()));
        store.put(&manifest.bytes).unwrap();
        Descriptor::new(media_type::OCI_MANIFEST, manifest.digest.clone(), manifest.size())
            .with_platform(platform)
    }

    /// Makes an index of images.
    pub(crate) fn put_index(store: &Store, images: Vec<Descriptor>) -> Descriptor {
        let index = Document::indented(ImageIndex::new(Flavour::Oci, images));
        store.put(&index.bytes).unwrap();
        Descriptor::new(media_type::OCI_INDEX, index.digest.clone(), index.size())
    }

    #[test]
    fn the_closure_has_everything_once_and_parents_last() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let amd64 = put_image(&store, "linux/amd64", &[b"shared", b"amd64"]);
        let arm64 = put_image(&store, "linux/arm64", &[b"shared", b"arm64"]);
        let index = put_index(&store, vec![amd64.clone(), arm64]);
        let all = store.closure(&index, Missing::Refuse).unwrap();
        assert_eq!(all.len(), 1 + 2 + 2 + 3);
        assert_eq!(all.last().unwrap().digest, index.digest);
        for (at, descriptor) in all.iter().enumerate() {
            for child in store.children(descriptor, Missing::Refuse).unwrap() {
                assert!(all[..at].iter().any(|earlier| earlier.digest == child.digest));
            }
        }
        let ManifestOrIndex::Manifest(manifest) = store.image(&amd64).unwrap() else { panic!("a manifest") };
        assert_eq!(store.config(&manifest.value).unwrap().value.platform().to_string(), "linux/amd64");
    }

    #[test]
    fn sparse_images_are_whole_only_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let here = put_image(&store, "linux/amd64", &[b"layer"]);
        let elsewhere = Descriptor::new(media_type::OCI_MANIFEST, Digest::of("elsewhere"), 9);
        let index = put_index(&store, vec![here, elsewhere.clone()]);
        let error = store.closure(&index, Missing::Refuse).unwrap_err();
        assert!(matches!(error, StoreError::MissingBlob { digest } if digest == elsewhere.digest));
        assert_eq!(store.closure(&index, Missing::Skip).unwrap().len(), 4);
        assert!(store.closure(&elsewhere, Missing::Skip).unwrap().is_empty());
        assert!(store.closure(&elsewhere, Missing::Refuse).is_err());
    }

    #[test]
    fn nested_indexes_end_somewhere() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut index = put_image(&store, "linux/amd64", &[]);
        for _ in 0..MAX_DEPTH - 1 {
            index = put_index(&store, vec![index]);
        }
        assert!(store.closure(&index, Missing::Refuse).is_ok());
        for _ in 0..2 {
            index = put_index(&store, vec![index]);
        }
        assert!(matches!(store.closure(&index, Missing::Refuse), Err(StoreError::TooComplex { .. })));
    }
}
