// SPDX-License-Identifier: Apache-2.0
//! What the sources of `polyarch manifest create` stand for: names of the store that are here in part,
//! layouts, archives, attested images; and that what a list has stays.

use polyarch_oci::{Descriptor, Digest, Document, media_type};
use polyarch_testkit::{
    DockerRegistry, Image, Need, Output, PlatformImage, TarBuilder, TestEnvironment, requires,
};
use serde_json::Value;

const NEEDS: &[Need] = &[Need::Command("docker-registry")];

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

fn image(platforms: &[&str], content: &str) -> Image {
    let layer =
        |platform: &str| TarBuilder::new().file("content", 0o644, format!("{platform} {content}")).finish();
    let image = |platform: &&str| PlatformImage::new(platform, layer(platform), &["/program"]);
    Image::new(platforms.iter().map(image).collect())
}

/// An image for two platforms, of which the first has an attestation.
fn attested() -> Image {
    let mut image = image(&["linux/amd64", "linux/arm64", "unknown/unknown"], "attested");
    let mut index = image.index.value.clone();
    let subject = image.manifests[0].digest.to_string();
    index.manifests[2].annotations = [
        ("vnd.docker.reference.digest".to_owned(), subject),
        ("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned()),
    ]
    .into();
    // buildx writes unknown/unknown; nobody has to.
    index.manifests[2].platform = None;
    image.index = Document::indented(index);
    image
}

/// Returns the architectures of a pushed list, sorted, after asking for every blob of its images.
fn architectures(registry: &DockerRegistry, repository: &str, tag: &str) -> Vec<String> {
    let index: Value = serde_json::from_slice(&registry.manifest(repository, tag).body).unwrap();
    let mut architectures = Vec::new();
    for entry in index["manifests"].as_array().unwrap() {
        let manifest = registry.manifest(repository, entry["digest"].as_str().unwrap());
        let manifest: Value = serde_json::from_slice(&manifest.body).unwrap();
        for blob in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
            let path = format!("/v2/{repository}/blobs/{}", blob["digest"].as_str().unwrap());
            assert_eq!(registry.request("GET", &path, &[], b"").status, 200, "{path}");
        }
        architectures.push(entry["platform"]["architecture"].as_str().unwrap_or("none").to_owned());
    }
    architectures.sort();
    architectures
}

fn entries(shown: &Output) -> Vec<Value> {
    let index: Value = serde_json::from_str(&shown.assert_success().stdout).unwrap();
    index["manifests"].as_array().unwrap().clone()
}

#[test]
fn needs_docker_registry_a_name_that_is_here_in_part_is_what_its_registry_says() {
    if requires(NEEDS).is_some() {
        return;
    }
    let registry = DockerRegistry::start();
    let environment = environment();
    registry.push("golang", "1.18", &image(&["linux/amd64", "linux/arm64", "linux/arm/v7"], "go"));
    registry.push("cube", "arm64", &image(&["linux/arm64"], "cube"));
    let (golang, amd64) = (registry.name("golang:1.18"), registry.name("cube:amd64"));
    environment.run(["pull", "-q", "--platform=linux/amd64", &golang]).assert_success();
    // Looking at the image leaves documents of all platforms in the store, but no layers.
    environment.run(["imagetools", "inspect", "--format={{json .Image}}", &golang]).assert_success();
    environment.run(["tag", &golang, &amd64]).assert_success();
    environment.run(["push", "-q", &amd64, "--platform=linux/amd64"]).assert_success();
    let (list, arm64) = (registry.name("cube:v1"), registry.name("cube:arm64"));
    environment
        .run(["manifest", "create", &list, &arm64, &amd64])
        .assert_success()
        .assert_no_stderr("WARNING");
    environment.run(["manifest", "push", &list]).assert_success();
    assert_eq!(architectures(&registry, "cube", "v1"), ["amd64", "arm64"]);

    // Of a name that no registry has, the platforms that are here are all.
    let (only, list) = (registry.name("only:here"), registry.name("only:v1"));
    environment.run(["tag", &golang, &only]).assert_success();
    let created = environment.run(["manifest", "create", &list, &only]);
    created
        .assert_success()
        .assert_stderr("the store has linux/amd64")
        .assert_stderr("left out: linux/arm64, linux/arm/v7")
        .assert_stderr("polyarch pull --all-platforms");
    environment.run(["manifest", "annotate", &list, &only, "--annotation", "a=b"]).assert_success();
    environment.run(["manifest", "push", &list]).assert_success();
    assert_eq!(architectures(&registry, "only", "v1"), ["amd64"]);

    // What the registry has whole, the list gets whole.
    let list = registry.name("golang:list");
    environment.run(["manifest", "create", &list, &golang]).assert_success().assert_no_stderr("WARNING");
    environment.run(["manifest", "push", &list]).assert_success();
    assert_eq!(architectures(&registry, "golang", "list"), ["amd64", "arm", "arm64"]);
}

#[test]
fn needs_docker_registry_archives_and_layouts_give_their_images() {
    if requires(NEEDS).is_some() {
        return;
    }
    let registry = DockerRegistry::start();
    let environment = environment();
    registry.push("app", "two", &image(&["linux/amd64", "linux/arm64"], "app"));
    let two = registry.name("app:two");
    environment.run(["pull", "-q", "--all-platforms", &two]).assert_success();
    environment
        .run(["save", "--platform=linux/arm64", "--format=docker", "-o", "docker.tar", &two])
        .assert_success();
    environment.run(["save", "--format=oci", "-o", "oci.tar", &two]).assert_success();
    environment.run(["rmi", &two]).assert_success();
    environment.run(["prune", "-af"]).assert_success();
    let riscv64 = image(&["linux/riscv64", "linux/s390x"], "layout");
    riscv64.write_layout(&environment.work().join("layout"), "v1");
    let one = format!("oci-layout://layout@{}", riscv64.manifests[0].digest);
    let list = registry.name("joined:v1");
    environment.run(["manifest", "create", &list, "oci-archive:oci.tar", &one]).assert_success();
    assert_eq!(entries(&environment.run(["manifest", "inspect", &list])).len(), 3);
    // The sources may go: the list has what it needs.
    std::fs::remove_dir_all(environment.work().join("layout")).unwrap();
    std::fs::remove_file(environment.work().join("oci.tar")).unwrap();
    environment.run(["prune", "-af"]).assert_success();
    environment.run(["manifest", "push", "--purge", &list]).assert_success();
    assert_eq!(architectures(&registry, "joined", "v1"), ["amd64", "arm64", "riscv64"]);
    let list = registry.name("joined:docker");
    environment.run(["manifest", "create", &list, "docker-archive:docker.tar"]).assert_success();
    environment.run(["manifest", "push", &list]).assert_success();
    assert_eq!(architectures(&registry, "joined", "docker"), ["arm64"]);
    let missing = environment.run(["manifest", "create", &list, "--amend", "docker-archive:none.tar"]);
    missing.assert_code(2).assert_stderr("none.tar");
    let missing = environment.run(["manifest", "create", &list, "--amend", "oci-layout://none:v1"]);
    missing.assert_stderr("none").assert_stdout("");
    assert_ne!(missing.code, 0, "{missing}");
}

#[test]
fn needs_docker_registry_attestations_go_with_their_image() {
    if requires(NEEDS).is_some() {
        return;
    }
    let (registry, other) = (DockerRegistry::start(), DockerRegistry::start());
    let environment = environment();
    let image = attested();
    other.push("app", "built", &image);
    let (built, list) = (other.name("app:built"), registry.name("app:v1"));
    environment.run(["manifest", "create", &list, &built]).assert_success();
    environment.run(["manifest", "push", &list]).assert_success();
    assert_eq!(architectures(&registry, "app", "v1"), ["amd64", "arm64", "none"]);
    let shown = entries(&environment.run(["manifest", "inspect", &list]));
    assert_eq!(shown[2]["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    let docker = environment.run(["manifest", "push", "--format=docker", &list]);
    docker.assert_success().assert_stderr("a Docker manifest list can't hold attestations");
    assert_eq!(architectures(&registry, "app", "v1"), ["amd64", "arm64"]);
    let kind = registry.manifest("app", "v1").header("content-type").map(str::to_owned);
    assert_eq!(kind.as_deref(), Some("application/vnd.docker.distribution.manifest.list.v2+json"));
    // An image by its digest comes alone.
    let one = format!("{}@{}", other.name("app"), image.manifests[1].digest);
    let list = registry.name("app:one");
    environment.run(["manifest", "create", "--format=oci", &list, &one]).assert_success();
    assert_eq!(entries(&environment.run(["manifest", "inspect", &list])).len(), 1);
}

#[test]
fn needs_docker_registry_what_the_registry_has_is_not_sent_again() {
    if requires(NEEDS).is_some() {
        return;
    }
    let registry = DockerRegistry::start();
    let environment = environment();
    let image = image(&["linux/amd64", "linux/arm64"], "mounted");
    registry.push("built", "v1", &image);
    let (built, list) = (registry.name("built:v1"), registry.name("app:v1"));
    environment.run(["pull", "-q", "--all-platforms", &built]).assert_success();
    let created = environment.run(["manifest", "create", &list, &built]);
    created.assert_success().assert_stderr("(local store)");
    let pushed = environment.run(["manifest", "push", &list]);
    pushed.assert_success().assert_stderr("mounted sha256:").assert_no_stderr("pushing sha256:");
    assert_eq!(architectures(&registry, "app", "v1"), ["amd64", "arm64"]);

    // A layer that its maker alone may hand out stays where it is.
    let mut manifest = image.manifests[0].value.clone();
    let mut foreign = Descriptor::new(media_type::DOCKER_FOREIGN_LAYER_GZIP, Digest::of(b"foreign"), 7);
    foreign.urls = vec!["http://127.0.0.1:1/layer".to_owned()];
    manifest.layers.push(foreign);
    let manifest = Document::indented(manifest);
    let section = "validation: {manifests: {urls: {allow: ['.*']}}}";
    let from = DockerRegistry::start_with(section);
    image.blobs.iter().for_each(|blob| from.push_blob("windows", blob));
    from.put_manifest("windows", "v1", media_type::OCI_MANIFEST, &manifest.bytes);
    let target = DockerRegistry::start_with(section);
    let list = target.name("windows:list");
    environment.run(["manifest", "create", &list, &from.name("windows:v1")]).assert_success();
    environment.run(["manifest", "push", &list]).assert_success();
    assert_eq!(target.manifest("windows", &manifest.digest.to_string()).body, manifest.bytes);
}

#[test]
fn what_a_list_has_is_kept_and_edits_at_once_all_count() {
    let environment = environment();
    let platforms = ["linux/amd64", "linux/arm64", "linux/riscv64", "linux/s390x"];
    let image = image(&platforms, "kept");
    image.write_layout(&environment.work().join("layout"), "v1");
    let list = "localhost/app:v1";
    environment.run(["manifest", "create", list, "oci-layout://layout:v1"]).assert_success();
    let words = |at: usize, entry: &Digest| {
        let annotation = format!("writer-{at}=yes");
        ["manifest", "annotate", list, &entry.to_string(), "--annotation", &annotation].map(str::to_owned)
    };
    let writers: Vec<_> = (0..8)
        .map(|at| environment.command(words(at, &image.manifests[at % 4].digest)).spawn().unwrap())
        .collect();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    environment.run(["prune", "-af"]).assert_success();
    let shown = entries(&environment.run(["manifest", "inspect", list]));
    let annotations: usize = shown.iter().map(|entry| entry["annotations"].as_object().unwrap().len()).sum();
    assert_eq!((shown.len(), annotations), (4, 8), "{shown:?}");
    let verbose = environment.run(["manifest", "inspect", "-v", list]);
    let images: Value = serde_json::from_str(&verbose.assert_success().stdout).unwrap();
    assert_eq!(images.as_array().unwrap().len(), 4);
    environment.run(["manifest", "rm", list]).assert_success();
    environment.run(["prune", "-af"]).assert_success();
    let blobs = environment.store().join("blobs/sha256");
    assert_eq!(std::fs::read_dir(&blobs).map_or(0, Iterator::count), 0, "the list's images are left behind");
}
