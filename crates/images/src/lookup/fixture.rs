// SPDX-License-Identifier: Apache-2.0
//! A store for the tests of lookups.

use polyarch_build::BuildError;
use polyarch_oci::media_type::{self, Flavour};
use polyarch_oci::{Descriptor, Document, ImageConfig, ImageIndex, Manifest};
use polyarch_store::Store;

use super::find;

pub(crate) struct Fixture {
    _dir: tempfile::TempDir,
    pub(crate) store: Store,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Fixture { _dir: dir, store }
    }

    pub(crate) fn image(&self, platform: &str, comment: &str) -> Descriptor {
        let mut config = ImageConfig { author: comment.to_owned(), ..ImageConfig::default() };
        config.set_platform(&platform.parse().unwrap());
        let config = Document::compact(config);
        self.store.put(&config.bytes).unwrap();
        let config = Descriptor::new(media_type::OCI_CONFIG, config.digest.clone(), config.size());
        let manifest = Document::indented(Manifest::new(Flavour::Oci, config, Vec::new()));
        self.store.put(&manifest.bytes).unwrap();
        Descriptor::new(media_type::OCI_MANIFEST, manifest.digest.clone(), manifest.size())
    }

    pub(crate) fn index(&self, name: &str, entries: Vec<Descriptor>) -> Descriptor {
        let index = Document::indented(ImageIndex::new(Flavour::Oci, entries));
        self.store.put(&index.bytes).unwrap();
        let root = Descriptor::new(media_type::OCI_INDEX, index.digest.clone(), index.size());
        self.name(name, &root);
        root
    }

    pub(crate) fn name(&self, name: &str, root: &Descriptor) {
        self.store.set_ref(&name.parse().unwrap(), root).unwrap();
    }

    pub(crate) fn error(&self, text: &str) -> BuildError {
        find(&self.store, text).unwrap_err()
    }
}

/// Adds `user/app:v1` for two platforms; returns its index and its images.
pub(crate) fn two_platforms(fixture: &Fixture) -> (Descriptor, Descriptor, Descriptor) {
    let of = |platform: &str| fixture.image(platform, "").with_platform(platform.parse().unwrap());
    let (amd64, arm64) = (of("linux/amd64"), of("linux/arm64"));
    let root = fixture.index("user/app:v1", vec![amd64.clone(), arm64.clone()]);
    (root, amd64, arm64)
}
