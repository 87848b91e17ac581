// SPDX-License-Identifier: Apache-2.0
//! Images whose documents and blobs go by SHA-512 digests (image-spec, descriptor.md, "Digests"): what was
//! asked for by such a digest is found again by it.

use polyarch_oci::media_type::{Compression, Flavour, OCI_INDEX};
use polyarch_oci::{
    Algorithm, Descriptor, DiffId, Digest, Document, Hasher, ImageConfig, ImageIndex, Manifest, RootFs,
};
use polyarch_testkit::{TarBuilder, TestEnvironment};

use crate::static_registry::Pages;

fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, sha512(bytes), bytes.len() as u64)
}

/// Makes an index of one image whose every part has a SHA-512 digest; returns the index's digest.
fn pages() -> (Pages, Digest) {
    let layer = TarBuilder::new().file("hello", 0o644, "hello").finish();
    let mut config = ImageConfig::default();
    config.set_platform(&"linux/amd64".parse().unwrap());
    config.rootfs = RootFs { diff_ids: vec![DiffId(Digest::of(&layer))], ..RootFs::default() };
    let config = Document::compact(config).bytes;
    let layer_type = Compression::Uncompressed.layer_media_type(Flavour::Oci);
    let manifest = Document::indented(Manifest::new(
        Flavour::Oci,
        descriptor(Flavour::Oci.config(), &config),
        vec![descriptor(layer_type, &layer)],
    ))
    .bytes;
    let entry = descriptor(Flavour::Oci.manifest(), &manifest).with_platform("linux/amd64".parse().unwrap());
    let index = Document::indented(ImageIndex::new(Flavour::Oci, vec![entry])).bytes;
    let root = sha512(&index);
    let mut pages = Pages::default();
    pages.manifest("v1", OCI_INDEX, &index);
    pages.manifest(&root, OCI_INDEX, &index);
    pages.manifest(sha512(&manifest), Flavour::Oci.manifest(), &manifest);
    for blob in [&config, &layer] {
        pages.blob(&sha512(blob), blob);
    }
    (pages, root)
}

#[test]
fn images_by_sha512_digests_are_pulled_and_found_again() {
    let (pages, root) = pages();
    let host = pages.serve().host;
    for name in [format!("{host}/app@{root}"), format!("{host}/app:v1")] {
        let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
        for _ in 0..2 {
            environment.run(["pull", "--platform=linux/amd64", &name]).assert_success();
        }
        let inspected = environment.run(["imagetools", "inspect", &name]);
        assert!(inspected.assert_success().stdout.contains("linux/amd64"), "{inspected}");
        environment.run(["inspect", "--platform=linux/amd64", &name]).assert_success();
        let listed = environment.run(["images", "--format=json"]);
        assert!(listed.assert_success().stdout.contains("amd64"), "{listed}");
        environment.run(["save", "--format=oci", "-o", "saved.tar", &name]).assert_success();
        let other = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
        let saved = environment.work().join("saved.tar");
        other.run(["load", "-i", &saved.display().to_string()]).assert_success();
        let target = "oci-layout://copy:v1";
        environment.run(["imagetools", "create", "--tag", target, &name]).assert_success();
        environment.run(["imagetools", "inspect", target]).assert_success();
        environment.run(["prune", "--all", "--force"]).assert_success();
    }
}
