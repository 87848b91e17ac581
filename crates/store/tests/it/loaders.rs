// SPDX-License-Identifier: Apache-2.0
//! Our archives in the hands of skopeo and podman, and theirs in ours.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use polyarch_oci::media_type::Compression;
use polyarch_oci::{Descriptor, ManifestOrIndex, Reference};
use polyarch_store::{DockerArchive, DockerLayers, LayoutOptions, Missing, NamedImage, Store, StoreError};
use serde_json::Value;

use crate::images::put_index;

const ALL: [Compression; 3] = [Compression::Uncompressed, Compression::Gzip, Compression::Zstd];

/// Runs a program and returns its output; `None`, with a reason printed, when it is not installed.
fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(arguments).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED: {program} is not installed");
            return None;
        }
        other => other.unwrap(),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    Some(String::from_utf8(output.stdout).unwrap())
}

struct Sample {
    dir: tempfile::TempDir,
    store: Store,
    index: Descriptor,
    images: Vec<Descriptor>,
}

impl Sample {
    fn new(compression: Compression) -> Sample {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let (index, images) = put_index(&store, &["linux/amd64", "linux/arm64", "linux/arm/v7"], compression);
        Sample { dir, store, index, images }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write_oci(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let image = NamedImage::new(self.index.clone(), Some(reference("example.com/app:v1")));
        let out = File::create(&path).unwrap();
        self.store.write_oci_archive(&[image], LayoutOptions::default(), out).unwrap();
        path
    }

    fn write_docker(&self, name: &str, image: &Descriptor, layers: DockerLayers) -> PathBuf {
        let path = self.path(name);
        let names = vec![reference("example.com/app:v1"), reference("example.com/app:v2")];
        let archive = DockerArchive { manifest: image.clone(), names, layers, epoch: 0 };
        self.store.write_docker_archive(&archive, File::create(&path).unwrap()).unwrap();
        path
    }

    /// Returns the digest of an image's config, which is its id in Docker's world.
    fn image_id(&self, image: &Descriptor) -> String {
        let ManifestOrIndex::Manifest(manifest) = self.store.image(image).unwrap() else {
            panic!("a manifest");
        };
        manifest.value.config.digest.to_string()
    }
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn at(transport: &str, path: &Path, rest: &str) -> String {
    format!("{transport}:{}{rest}", path.display())
}

#[test]
fn needs_skopeo_it_reads_our_oci_archives() {
    for compression in ALL {
        let sample = Sample::new(compression);
        let source = at("oci-archive", &sample.write_oci("oci.tar"), ":v1");
        let Some(raw) = run("skopeo", &["inspect", "--raw", &source]) else { return };
        assert_eq!(polyarch_oci::Digest::of(raw), sample.index.digest, "{compression:?}");
        for (architecture, variant) in [("amd64", ""), ("arm64", ""), ("arm", "v7")] {
            let mut arguments = vec!["--override-arch", architecture];
            if !variant.is_empty() {
                arguments.extend(["--override-variant", variant]);
            }
            arguments.extend(["inspect", "--config", &source]);
            let config: Value = serde_json::from_str(&run("skopeo", &arguments).unwrap()).unwrap();
            assert_eq!(config["architecture"], architecture);
        }
    }
}

#[test]
fn needs_skopeo_it_copies_all_platforms_of_our_layout_and_we_read_its_copies() {
    let sample = Sample::new(Compression::Gzip);
    let layout = sample.path("layout");
    let image = NamedImage::new(sample.index.clone(), Some(reference("example.com/app:v1")));
    sample.store.write_layout(&[image], LayoutOptions::default(), &layout).unwrap();
    let source = at("oci", &layout, ":v1");
    let copies = [("oci-archive", sample.path("copy.tar")), ("oci", sample.path("copy"))];
    for (transport, path) in &copies {
        let target = at(transport, path, ":v2");
        if run("skopeo", &["--insecure-policy", "copy", "--all", &source, &target]).is_none() {
            return;
        }
    }
    let other = Store::open(&sample.path("other")).unwrap();
    let from_archive = other.import_archive(File::open(&copies[0].1).unwrap(), Missing::Refuse).unwrap();
    let from_directory = other.import_layout(&copies[1].1, Missing::Refuse).unwrap();
    for found in [from_archive, from_directory] {
        assert_eq!(found[0].ref_name.as_deref(), Some("v2"));
        assert_eq!(found[0].descriptor.digest, sample.index.digest);
    }
    assert_eq!(other.closure(&sample.index, Missing::Refuse).unwrap().len(), 1 + 3 + 3 + 4);
}

#[test]
fn needs_skopeo_it_reads_our_docker_archives() {
    for compression in ALL {
        for layers in [DockerLayers::AsTheyAre, DockerLayers::Uncompressed] {
            let sample = Sample::new(compression);
            let image = &sample.images[1];
            let path = sample.write_docker("docker.tar", image, layers);
            for tag in ["v1", "v2"] {
                let source = at("docker-archive", &path, &format!(":example.com/app:{tag}"));
                let copy = sample.path(&format!("copy-{tag}"));
                let target = at("dir", &copy, "");
                // Copying reads and checks every layer.
                let arguments = ["--insecure-policy", "--override-arch", "arm64", "copy", &source, &target];
                if run("skopeo", &arguments).is_none() {
                    return;
                }
                let manifest: Value =
                    serde_json::from_slice(&std::fs::read(copy.join("manifest.json")).unwrap()).unwrap();
                assert_eq!(
                    manifest["config"]["digest"],
                    sample.image_id(image),
                    "{compression:?} {layers:?}"
                );
            }
        }
    }
}

#[test]
fn needs_skopeo_we_read_its_docker_archives() {
    let sample = Sample::new(Compression::Gzip);
    let source = at("oci-archive", &sample.write_oci("oci.tar"), ":v1");
    let path = sample.path("theirs.tar");
    let target = at("docker-archive", &path, ":example.com/app:v3");
    let arguments = ["--insecure-policy", "--override-arch", "arm64", "copy", &source, &target];
    if run("skopeo", &arguments).is_none() {
        return;
    }
    let other = Store::open(&sample.path("other")).unwrap();
    let found = other.import_archive(File::open(&path).unwrap(), Missing::Refuse).unwrap();
    assert_eq!(found[0].name, Some(reference("example.com/app:v3")));
    assert_eq!(found[0].descriptor.platform.as_ref().unwrap().to_string(), "linux/arm64");
    assert_eq!(other.closure(&found[0].descriptor, Missing::Refuse).unwrap().len(), 4);
}

#[test]
fn needs_podman_it_loads_our_archives_and_we_read_what_it_saves() {
    let sample = Sample::new(Compression::Gzip);
    let image = &sample.images[0];
    let [root, runroot] = ["root", "runroot"].map(|name| sample.path(name).display().to_string());
    let podman = |arguments: &[&str]| {
        let own = [
            "--root",
            &root,
            "--runroot",
            &runroot,
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
        ];
        run("podman", &[&own[..], arguments].concat())
    };
    for layers in [DockerLayers::AsTheyAre, DockerLayers::Uncompressed] {
        let path = sample.write_docker("docker.tar", image, layers).display().to_string();
        let Some(loaded) = podman(&["load", "-i", &path]) else { return };
        assert!(loaded.contains("example.com/app:v1"), "{loaded}");
        let id = podman(&["image", "inspect", "--format", "{{.Id}}", "example.com/app:v1"]).unwrap();
        assert_eq!(format!("sha256:{}", id.trim()), sample.image_id(image), "{layers:?}");
        if layers == DockerLayers::AsTheyAre {
            podman(&["rmi", "--all", "--force"]).unwrap();
        }
    }
    for format in ["docker-archive", "oci-archive"] {
        let path = sample.path(&format!("saved-{format}.tar"));
        let text = path.display().to_string();
        podman(&["save", "--format", format, "-o", &text, "example.com/app:v1"]).unwrap();
        let other = Store::open(&sample.path(format)).unwrap();
        let found = other.import_archive(File::open(&path).unwrap(), Missing::Refuse).unwrap();
        assert_eq!(found[0].name, Some(reference("example.com/app:v1")), "{format}");
    }
}

#[test]
fn an_index_is_no_docker_archive() {
    let sample = Sample::new(Compression::Gzip);
    let archive = DockerArchive {
        manifest: sample.index.clone(),
        names: vec![],
        layers: DockerLayers::default(),
        epoch: 0,
    };
    let error = sample.store.write_docker_archive(&archive, Vec::new()).err().unwrap();
    assert!(matches!(error, StoreError::NotAManifest { .. }), "{error}");
}
