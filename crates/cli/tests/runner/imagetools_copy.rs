// SPDX-License-Identifier: Apache-2.0
//! `imagetools` past what is composed: copies between places, the local store, layouts, errors.

use std::path::Path;

use polyarch_oci::Digest;
use polyarch_testkit::{DockerRegistry, Need, Output, TestEnvironment, requires};
use serde_json::Value;

use crate::imagetools_sources::Sources;

const NEEDS: &[Need] = &[Need::Command("docker-registry")];

fn bench() -> (TestEnvironment, DockerRegistry) {
    let registry = DockerRegistry::start();
    Sources::push(&registry);
    (TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch")), registry)
}

fn imagetools<const N: usize>(environment: &TestEnvironment, arguments: [&str; N]) -> Output {
    environment.run(["imagetools"].into_iter().chain(arguments))
}

/// Returns the digests of all manifests, configs and layers that a registry has of an image.
fn everything(registry: &DockerRegistry, repository: &str, reference: &str) -> Vec<String> {
    let body = registry.manifest(repository, reference).body;
    let document: Value = serde_json::from_slice(&body).unwrap();
    let digest = |entry: &Value| entry["digest"].as_str().unwrap().to_owned();
    let mut found = vec![Digest::of(&body).to_string()];
    if let Some(entries) = document["manifests"].as_array() {
        for entry in entries {
            found.extend(everything(registry, repository, &digest(entry)));
        }
        return found;
    }
    for blob in document["layers"].as_array().unwrap().iter().chain([&document["config"]]) {
        let path = format!("/v2/{repository}/blobs/{}", digest(blob));
        let answer = registry.request("GET", &path, &[], b"");
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(Digest::of(&answer.body).to_string(), digest(blob));
        found.push(digest(blob));
    }
    found
}

fn store_has(environment: &TestEnvironment, digest: &str) -> bool {
    let hex = digest.strip_prefix("sha256:").unwrap();
    let has = |directory: &Path| directory.join("blobs/sha256").join(hex).exists();
    let staged = std::fs::read_dir(environment.store().join("staged")).into_iter().flatten();
    has(&environment.store()) || staged.flatten().any(|boot| has(&boot.path()))
}

#[test]
fn images_are_mounted_within_a_registry_and_stream_to_another() {
    if requires(NEEDS).is_some() {
        return;
    }
    let (environment, registry) = bench();
    let other = DockerRegistry::start();
    let source = registry.name("s/attested:1");
    let near = registry.name("copy/near:1");
    let far = other.name("copy/far:1");
    let second = other.name("copy/far:second");
    let output = imagetools(&environment, ["create", "-t", &near, "-t", &far, "-t", &second, &source]);
    output.assert_success().assert_stdout("");
    let all = everything(&registry, "s/attested", "1");
    assert_eq!(everything(&registry, "copy/near", "1"), all);
    assert_eq!(everything(&other, "copy/far", "1"), all);
    assert_eq!(everything(&other, "copy/far", "second"), all);
    let is_mount = |line: &String| line.contains("mount=") && line.contains("http.response.status=201");
    assert!(registry.log().iter().any(is_mount), "{:#?}", registry.log());
    let layer = {
        let index: Value = serde_json::from_slice(&registry.manifest("s/attested", "1").body).unwrap();
        let image = registry.manifest("s/attested", index["manifests"][0]["digest"].as_str().unwrap());
        let image: Value = serde_json::from_slice(&image.body).unwrap();
        image["layers"][0]["digest"].as_str().unwrap().to_owned()
    };
    assert!(!store_has(&environment, &layer), "the layer went through the store");
    // What a registry keeps beside an image goes along.
    let referred = registry.name("s/referred:1");
    let target = other.name("copy/referred:1");
    imagetools(&environment, ["create", "-t", &target, &referred]).assert_success();
    assert_eq!(everything(&other, "copy/referred", "1").len(), 1 + 3 + 4);
}

#[test]
fn what_only_the_local_store_has_is_shown_and_composed() {
    if requires(NEEDS).is_some() {
        return;
    }
    let (environment, registry) = bench();
    let local = registry.name("local/only:1");
    let layout = format!("oci-layout://{}:v1", environment.work().join("layout").display());
    let pulled = registry.name("s/index:1");
    environment.run(["pull", "--all-platforms", &pulled]).assert_success();
    environment.run(["tag", &pulled, &local]).assert_success();
    let shown = imagetools(&environment, ["inspect", &local]);
    shown.assert_success().assert_stderr("is taken from the local store");
    let digest = Digest::of(&registry.manifest("s/index", "1").body).to_string();
    assert!(shown.stdout.contains(&digest), "{shown}");
    let target = registry.name("local/new:1");
    let output = imagetools(&environment, ["create", "-t", &target, "-t", &layout, &local]);
    output.assert_success().assert_stderr("is taken from the local store");
    assert_eq!(everything(&registry, "local/new", "1"), everything(&registry, "s/index", "1"));
    // A layout is a source as well, by name and by digest; so is an archive of it.
    let by_digest = layout.replace(":v1", &format!("@{digest}"));
    let archive = environment.work().join("layout.tar");
    let packed =
        environment.program("tar").args(["-C", "layout", "-cf", "layout.tar", "."]).status().unwrap();
    assert!(packed.success());
    let archive = format!("oci-archive:{}", archive.display());
    let fresh = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    for (at, source) in [&layout, &by_digest, &archive].into_iter().enumerate() {
        let raw = imagetools(&fresh, ["inspect", "--raw", source]);
        assert_eq!(Digest::of(&raw.assert_success().stdout).to_string(), digest, "{source}");
        let repository = format!("local/from{at}");
        let target = registry.name(&format!("{repository}:1"));
        imagetools(&fresh, ["create", "-t", &target, source]).assert_success();
        assert_eq!(everything(&registry, &repository, "1"), everything(&registry, "s/index", "1"));
    }
}

#[test]
fn the_metadata_file_has_the_descriptor_and_the_names() {
    if requires(NEEDS).is_some() {
        return;
    }
    let (environment, registry) = bench();
    let (first, second) = (registry.name("b/app:1"), registry.name("a/app:1"));
    let (amd64, arm64) = (registry.name("s/oci-amd64:1"), registry.name("s/oci-arm64:1"));
    let arguments = ["create", "-t", &first, "-t", &second, "--metadata-file", "out.json", &amd64, &arm64];
    imagetools(&environment, arguments).assert_success();
    let body = registry.manifest("a/app", "1").body;
    let expected = format!(
        "{{\n  \"containerimage.descriptor\": {{\n    \"mediaType\": \
         \"application/vnd.oci.image.index.v1+json\",\n    \"digest\": \"{}\",\n    \"size\": {}\n  }},\n  \
         \"image.name\": \"{},{}\"\n}}",
        Digest::of(&body),
        body.len(),
        registry.name("a/app"),
        registry.name("b/app"),
    );
    assert_eq!(std::fs::read_to_string(environment.work().join("out.json")).unwrap(), expected);
}

#[test]
fn wrong_sources_get_one_clear_error_and_nothing_is_published() {
    if requires(NEEDS).is_some() {
        return;
    }
    let (environment, registry) = bench();
    let target = registry.name("out/wrong:1");
    let index = registry.name("s/index:1");
    let none = registry.name("s/none:1");
    let digest = Digest::of("nothing").to_string();
    environment.write("manifest.json", registry.manifest("s/index", "1").body);
    environment.run(["pull", &registry.name("s/oci-amd64:1")]).assert_success();
    let near = registry.name("s/oci-amd64:2");
    for (arguments, code, texts) in [
        (vec!["-t", &target], 2, vec!["no sources specified"]),
        (vec![&*index], 2, vec!["no tags specified", "--dry-run"]),
        (vec!["-t", &target, &none], 5, vec!["can't find", "not found"]),
        (vec!["-t", &target, &near], 5, vec!["not found", "s/oci-amd64:1"]),
        (vec!["-t", &target, &index, &digest], 2, vec!["no repository is named", "NAME@sha256:"]),
        (vec!["--append", "-t", &target, &index], 5, vec!["--append adds to an image that is there"]),
        (
            vec!["-t", &target, "-p", "linux/s390x", &index],
            4,
            vec!["none of the", "linux/amd64, linux/arm64"],
        ),
        (vec!["-t", &target, "--annotation", "a=b", &index], 2, vec!["index:a=", "not supported"]),
        (vec!["-t", &target, "-f", "manifest.json"], 2, vec!["manifest.json", "schemaVersion 2"]),
        (vec!["-t", &target, "oci-layout://nowhere:1"], 2, vec!["nowhere", "OCI layout"]),
        (vec!["-t", &target, "--progress=fancy", &index], 2, vec!["--progress"]),
    ] {
        let output = environment.run(["imagetools", "create"].into_iter().chain(arguments));
        output.assert_code(code).assert_stdout("");
        for text in texts {
            output.assert_stderr(text);
        }
        assert_eq!(output.stderr.matches("ERROR: ").count(), 1, "{output}");
    }
    let tags = registry.request("GET", "/v2/out/wrong/tags/list", &[], b"");
    assert_eq!(tags.status, 404, "{}", String::from_utf8_lossy(&tags.body));
}

#[test]
fn a_damaged_layout_says_which_digest_was_expected_and_found() {
    if requires(NEEDS).is_some() {
        return;
    }
    let (environment, registry) = bench();
    let layout = "oci-layout://damaged:1";
    imagetools(&environment, ["create", "-t", layout, &registry.name("s/oci-amd64:1")]).assert_success();
    let image: Value = serde_json::from_slice(&registry.manifest("s/oci-amd64", "1").body).unwrap();
    let layer = image["layers"][0]["digest"].as_str().unwrap();
    let file = environment.work().join("damaged/blobs/sha256").join(layer.strip_prefix("sha256:").unwrap());
    let good = std::fs::read(&file).unwrap();
    let mut lying = good.clone();
    lying[0] ^= 1;
    for bad in [&good[..good.len() - 1], &lying[..]] {
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, bad).unwrap();
        let fresh = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
        let source = format!("oci-layout://{}:1", environment.work().join("damaged").display());
        let output = imagetools(&fresh, ["create", "-t", &registry.name("out/damaged:1"), &source]);
        output.assert_code(6).assert_stderr(layer).assert_stderr("expected").assert_stderr("damaged");
    }
    assert_eq!(registry.request("GET", "/v2/out/damaged/tags/list", &[], b"").status, 404);
}
