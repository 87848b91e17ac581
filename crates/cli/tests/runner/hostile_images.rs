// SPDX-License-Identifier: Apache-2.0
//! Images made to harm whoever looks at them: each ends with an answer, and soon.

use std::path::{Path, PathBuf};

use polyarch_oci::media_type::{Flavour, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use polyarch_oci::{Descriptor, Digest, Document, ImageConfig, ImageIndex, Manifest};
use polyarch_testkit::{DockerRegistry, Need, TestEnvironment, requires};

use crate::everyday::hello_image;

/// An OCI layout that is written document by document.
struct Layout(PathBuf);

impl Layout {
    fn new(environment: &TestEnvironment, name: &str) -> Layout {
        let directory = environment.work().join(name);
        std::fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Layout(directory)
    }

    fn put(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        std::fs::write(self.0.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    fn image(&self, platform: &str) -> Descriptor {
        let mut config = ImageConfig::default();
        config.set_platform(&platform.parse().unwrap());
        let config = self.put(OCI_CONFIG, &Document::compact(config).bytes);
        let manifest = Document::compact(Manifest::new(Flavour::Oci, config, Vec::new()));
        self.put(OCI_MANIFEST, &manifest.bytes).with_platform(platform.parse().unwrap())
    }

    fn index(&self, entries: Vec<Descriptor>) -> Descriptor {
        self.put(OCI_INDEX, &Document::compact(ImageIndex::new(Flavour::Oci, entries)).bytes)
    }

    /// Writes `index.json` and returns the text that names its only image.
    fn finish(&self, mut root: Descriptor) -> String {
        root.annotations.insert("org.opencontainers.image.ref.name".into(), "1".into());
        let index = Document::compact(ImageIndex::new(Flavour::Oci, vec![root]));
        std::fs::write(self.0.join("index.json"), &index.bytes).unwrap();
        source(&self.0)
    }
}

fn source(layout: &Path) -> String {
    format!("oci-layout://{}:1", layout.display())
}

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

#[test]
fn indexes_within_indexes_have_a_depth() {
    let environment = environment();
    let layout = Layout::new(&environment, "deep");
    let mut root = layout.image("linux/amd64");
    for _ in 0..12 {
        root = layout.index(vec![root]);
    }
    let deep = layout.finish(root);
    let copy = source(&environment.work().join("copy"));
    for arguments in [
        &["imagetools", "create", "-t", &copy, &deep][..],
        &["imagetools", "inspect", "--format", "{{json .Image}}", &deep],
        &["manifest", "create", "example.com/list", &deep],
    ] {
        let output = environment.run(arguments);
        output.assert_code(5).assert_stderr("is an index within more than 8 others").assert_stdout("");
    }
    assert!(!environment.work().join("copy/index.json").exists());
}

#[test]
fn an_index_named_many_times_is_looked_into_once() {
    let environment = environment();
    let layout = Layout::new(&environment, "many");
    let mut root = layout.index(vec![layout.image("linux/amd64")]);
    // Followed each time, these are more than a hundred million ways to one image.
    for _ in 0..5 {
        root = layout.index(vec![root; 50]);
    }
    let many = layout.finish(root);
    let shown = environment.run(["imagetools", "inspect", "--format", "{{.Image.Architecture}}", &many]);
    shown.assert_success().assert_stdout("amd64");
    let created = environment.run(["manifest", "create", "example.com/list", &many]);
    created.assert_success().assert_stdout("Created manifest list example.com/list:latest\n");
    let copy = source(&environment.work().join("copy"));
    environment.run(["imagetools", "create", "-t", &copy, &many]).assert_success();
}

#[test]
fn the_manifests_of_an_image_have_a_number() {
    let environment = environment();
    let layout = Layout::new(&environment, "crowd");
    let crowd = layout.finish(layout.index(vec![layout.image("linux/amd64"); 10_001]));
    let output = environment.run(["imagetools", "inspect", "--format", "{{json .Image}}", &crowd]);
    output.assert_code(5).assert_stderr("it has more than 10000 manifests");
    let output = environment.run(["manifest", "inspect", "-v", &crowd]);
    output.assert_code(5).assert_stderr("it has more than 10000 manifests").assert_stdout("");
}

#[test]
fn a_layouts_entry_that_is_too_large_for_a_document_is_not_brought_in() {
    let environment = environment();
    let layout = Layout::new(&environment, "large");
    let image = layout.image("linux/amd64");
    let file = layout.0.join("blobs/sha256").join(image.digest.hex());
    std::fs::File::options().write(true).open(&file).unwrap().set_len(1 << 40).unwrap();
    let large = layout.finish(Descriptor { size: 1 << 40, ..image });
    let output = environment.run(["imagetools", "inspect", &large]);
    output.assert_code(2).assert_stderr("is too large for an image's document");
}

#[test]
fn an_index_that_lies_about_sizes_gets_no_name() {
    if requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let (environment, registry) = (environment(), DockerRegistry::start());
    registry.push("user/app", "1", &hello_image(&["linux/amd64"], "hello"));
    let body = registry.manifest("user/app", "1").body;
    let mut index: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let size = index["manifests"][0]["size"].as_u64().unwrap();
    index["manifests"][0]["size"] = (size + 1).into();
    registry.put_manifest("user/app", "lying", OCI_INDEX, index.to_string().as_bytes());
    let name = format!("{}:lying", registry.name("user/app"));
    for flag in ["--platform=linux/amd64", "--all-platforms"] {
        let output = environment.run(["pull", flag, &name]);
        output.assert_code(5).assert_stderr(&format!("has {size} bytes, its index says {}", size + 1));
    }
    environment.run(["images", "--quiet"]).assert_success().assert_stdout("");
}
