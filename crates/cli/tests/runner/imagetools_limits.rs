// SPDX-License-Identifier: Apache-2.0
//! `imagetools` against indexes that are larger than any real one: what is asked for has an end.

use polyarch_oci::media_type::{Flavour, OCI_INDEX};
use polyarch_oci::{Descriptor, Digest, Document, ImageIndex};
use polyarch_testkit::TestEnvironment;

use crate::static_registry::{Pages, StaticRegistry};

/// Serves an index of this many images, which need not exist to be composed.
fn registry_of(images: usize) -> StaticRegistry {
    let entry = |number: usize| {
        let digest = Digest::of(number.to_string());
        let platform = if number == 0 { "linux/arm64" } else { "linux/amd64" };
        Descriptor::new(Flavour::Oci.manifest(), digest, 1).with_platform(platform.parse().unwrap())
    };
    let index = Document::indented(ImageIndex::new(Flavour::Oci, (0..images).map(entry).collect()));
    let mut pages = Pages::default();
    pages.manifest("v1", OCI_INDEX, &index.bytes);
    pages.serve()
}

#[test]
fn registries_are_asked_for_a_bounded_number_of_attestations() {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    let small = registry_of(20);
    let name = format!("{}/app:v1", small.host);
    environment.run(["imagetools", "create", "--dry-run", &name]).assert_success();
    assert_eq!(small.count("/referrers/"), 20);
    let large = registry_of(1001);
    let name = format!("{}/app:v1", large.host);
    let refused = environment.run(["imagetools", "create", "--dry-run", &name]);
    refused.assert_code(2).assert_stderr("1001 images").assert_stderr("--platform os/arch");
    assert_eq!(large.count("/referrers/"), 0);
    let one = environment.run(["imagetools", "create", "--dry-run", "--platform=linux/arm64", &name]);
    assert!(one.assert_success().stdout.contains("arm64"), "{one}");
    assert_eq!(large.count("/referrers/"), 1);
}
