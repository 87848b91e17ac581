// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest` from outside: lists of images from everywhere, and what bad input gets. The
//! comparison with docker's own client is `tests-e2e/manifest.sh`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use polyarch_oci::Digest;
use polyarch_testkit::{DockerRegistry, Image, Need, PlatformImage, TarBuilder, TestEnvironment, requires};
use serde_json::Value;

const NEEDS: &[Need] = &[Need::Command("docker-registry")];

const HTPASSWD: &str = "user:$2y$05$Aq9JcSXHpaAcYmq8GQbCyOFpPOSXAEXm2Dz9nVTSbMJWaLXxTqeMe\n";

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

fn image(platforms: &[&str]) -> Image {
    let layer = |platform: &str| TarBuilder::new().file("platform", 0o644, platform).finish();
    let image = |platform: &&str| PlatformImage::new(platform, layer(platform), &["/program"]);
    Image::new(platforms.iter().map(image).collect())
}

/// Returns the name of one platform's image of an image in a registry.
fn by_digest(name: &str, digest: &Digest) -> String {
    format!("{name}@{digest}")
}

#[test]
fn needs_docker_registry_a_list_has_the_bytes_that_docker_gives_it() {
    if requires(NEEDS).is_some() {
        return;
    }
    let registry = DockerRegistry::start();
    let environment = environment();
    let image = image(&["linux/arm64", "linux/amd64", "linux/arm/v7"]);
    registry.push("app", "v1", &image);
    let (name, list) = (registry.name("app"), registry.name("app:list"));
    let sources: Vec<String> = image.manifests.iter().map(|it| by_digest(&name, &it.digest)).collect();
    let words = ["manifest", "create", &list, &sources[0], &sources[1], &sources[2]];
    environment.run(words).assert_success().assert_stdout(&format!("Created manifest list {list}\n"));
    let again = environment.run(words);
    again.assert_code(2).assert_stderr("refusing to amend an existing manifest list with no --amend flag");
    let shown = environment.run(["manifest", "inspect", &list]);
    let pushed = environment.run(["manifest", "push", "--purge", &list]);
    // What docker 28.2.2 prints and pushes for the same images.
    let digest = "sha256:6d6c64911ac360750f4a674d7bcfef8960df0ca630b7b1c35aeacb5f99ac04a0";
    pushed.assert_success().assert_stdout(&format!("{digest}\n"));
    let answer = registry.manifest("app", "list");
    assert_eq!(Digest::of(&answer.body).to_string(), digest);
    assert_eq!(shown.stdout.trim_end().as_bytes(), answer.body);
    let missing = environment.run(["manifest", "push", &list]);
    missing.assert_code(2).assert_stderr(&format!("No such manifest: {list}"));
}

#[test]
fn needs_docker_registry_images_come_from_everywhere_and_are_pushed_along() {
    if requires(NEEDS).is_some() {
        return;
    }
    let (target, other) = (DockerRegistry::start(), DockerRegistry::start());
    let environment = environment();
    let (here, elsewhere, files) =
        (image(&["linux/amd64"]), image(&["linux/arm64"]), image(&["linux/s390x"]));
    target.push("base", "v1", &here);
    other.push("deep/base", "v1", &elsewhere);
    files.write_layout(&environment.work().join("layout"), "v1");
    let list = target.name("app:v1");
    let sources = [target.name("base:v1"), other.name("deep/base:v1"), "oci-layout://layout:v1".to_owned()];
    let created = environment.run(["manifest", "create", &list, &sources[0], &sources[1], &sources[2]]);
    created
        .assert_success()
        .assert_stderr("(registry)")
        .assert_stderr("linux/s390x")
        .assert_stderr("(layout)");
    let annotated = [
        &["manifest", "annotate", &list, &sources[2], "--annotation", "a=b"][..],
        &["manifest", "annotate", &list, "--annotation", "index:c=d"],
        &["manifest", "annotate", &list, &sources[1], "--arch", "aarch64", "--variant", "v8"],
    ];
    for words in annotated {
        environment.run(words).assert_success().assert_stdout("");
    }
    let listed = environment.run(["manifest", "ls", "--format=json"]);
    let lists: Value = serde_json::from_str(&listed.assert_success().stdout).unwrap();
    assert_eq!(lists[0]["images"].as_array().unwrap().len(), 3, "{lists}");
    let template = environment.run(["manifest", "ls", "--format={{.Name}}: {{.Platforms}}"]);
    template.assert_stdout(&format!("{list}: linux/amd64, linux/arm64/v8, linux/s390x\n"));
    let pushed = environment.run(["manifest", "push", &list]);
    let digest = pushed.assert_success().stdout.lines().last().unwrap();
    assert_eq!(pushed.stdout.matches("Pushed ref ").count(), 3, "{pushed}");
    assert_eq!(lists[0]["indexDigest"], digest);
    let answer = target.manifest("app", "v1");
    assert_eq!(Digest::of(&answer.body).to_string(), digest);
    let index: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(index["annotations"]["c"], "d");
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.iter().filter(|entry| entry["annotations"]["a"] == "b").count(), 1);
    for entry in entries {
        let digest = entry["digest"].as_str().unwrap();
        let manifest: Value = serde_json::from_slice(&target.manifest("app", digest).body).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap();
        assert_eq!(target.request("GET", &format!("/v2/app/blobs/{layer}"), &[], b"").status, 200);
    }
    // Nothing was lost on the way: what was pushed can be inspected as a list of the registry.
    environment.run(["manifest", "rm", &list]).assert_success();
    let verbose = environment.run(["manifest", "inspect", "-v", &list]);
    let images: Value = serde_json::from_str(&verbose.assert_success().stdout).unwrap();
    assert_eq!(images.as_array().unwrap().len(), 3);
    assert_eq!(images[0]["Ref"], format!("{list}@{}", images[0]["Descriptor"]["digest"].as_str().unwrap()));
}

#[test]
fn needs_docker_registry_lists_are_flattened_and_named_by_their_images() {
    if requires(NEEDS).is_some() {
        return;
    }
    let registry = DockerRegistry::start();
    let environment = environment();
    let both = image(&["linux/amd64", "linux/arm64"]);
    registry.push("app", "both", &both);
    let (list, source) = (registry.name("app:v1"), registry.name("app:both"));
    environment.run(["manifest", "create", &list, &source]).assert_success();
    let ambiguous = environment.run(["manifest", "annotate", &list, &source, "--variant", "v8"]);
    ambiguous.assert_code(2).assert_stderr("is a list of several images").assert_stderr("(linux/arm64)");
    let digest = both.manifests[1].digest.to_string();
    environment.run(["manifest", "annotate", &list, &digest, "--variant", "v8"]).assert_success();
    let shown = environment.run(["manifest", "inspect", &list]);
    let index: Value = serde_json::from_str(&shown.assert_success().stdout).unwrap();
    let variants: Vec<&Value> =
        index["manifests"].as_array().unwrap().iter().map(|entry| &entry["platform"]["variant"]).collect();
    assert!(variants.contains(&&Value::from("v8")), "{shown}");
    // The same image again is no second one; a second list of it has its platforms twice.
    environment
        .run(["manifest", "create", "--amend", &list, &source])
        .assert_success()
        .assert_no_stderr("WARNING");
    registry.push("app", "other", &image(&["linux/amd64", "linux/riscv64"]));
    let other = registry.name("app:other");
    registry.push("app", "twin", &{
        let layer = TarBuilder::new().file("another", 0o644, "").finish();
        Image::new(vec![PlatformImage::new("linux/amd64", layer, &["/program"])])
    });
    let twin = registry.name("app:twin");
    let created = environment.run(["manifest", "create", "--amend", &list, &other, &twin]);
    created.assert_success().assert_stderr("have the same platform linux/amd64");
    let pushed = environment.run(["manifest", "push", &list]);
    pushed.assert_code(2).assert_stderr("have the same platform linux/amd64").assert_stderr("--force");
    environment.run(["manifest", "push", "--force", &list]).assert_success();
}

#[test]
fn needs_docker_registry_what_makes_no_sense_is_refused_with_what_would() {
    if requires(NEEDS).is_some() {
        return;
    }
    let registry = DockerRegistry::start();
    let environment = environment();
    registry.push("app", "amd64", &image(&["linux/amd64"]));
    let (list, source) = (registry.name("app:v1"), registry.name("app:amd64"));
    let missing = environment.run(["manifest", "create", &list, &registry.name("app:amd65")]);
    missing.assert_code(5).assert_stderr(&format!("no such manifest: {}", registry.name("app:amd65")));
    environment.run(["manifest", "inspect", &list]).assert_code(5).assert_stderr("no such manifest: ");
    environment.run(["manifest", "create", &list, &source]).assert_success();
    let annotate = |words: &[&str]| {
        environment.run([&["manifest", "annotate", list.as_str(), source.as_str()], words].concat())
    };
    annotate(&["--arch", "x86_64"]).assert_success();
    annotate(&["--arch", "amd46"]).assert_code(2).assert_stderr("did you mean amd64?");
    let contradiction = annotate(&["--os", "linux", "--arch", "arm64"]);
    contradiction
        .assert_code(4)
        .assert_stderr("architecture \"arm64\", but the image's config says \"amd64\"")
        .assert_stderr("--force");
    annotate(&["--arch", "arm64", "--force"]).assert_success();
    annotate(&["--variant", "v8"]).assert_success();
    let near =
        environment.run(["manifest", "inspect", &registry.name("app:v1"), &registry.name("app:amd46")]);
    near.assert_code(2).assert_stderr("did you mean").assert_stderr(&source);
    let near = environment.run(["manifest", "rm", &registry.name("app:v2")]);
    near.assert_code(2).assert_stderr("No such manifest: ").assert_stderr("did you mean");
    environment
        .run(["manifest", "annotate", &list, "--arch", "arm64"])
        .assert_code(2)
        .assert_stderr("image to annotate");
    environment.run(["manifest", "annotate", &list, &source, "--annotation", "a"]).assert_code(2);
    environment
        .run(["manifest", "create", "--format=oic", &list, &source])
        .assert_code(2)
        .assert_stderr("oci");
    // A list that lies is refused as a source as well.
    environment.run(["manifest", "push", &list]).assert_success();
    environment.run(["manifest", "rm", &list]).assert_success();
    let lying = environment.run(["manifest", "create", &registry.name("app:v3"), &list]);
    lying.assert_code(4).assert_stderr("contradicts the image");
    environment.run(["manifest", "ls", "-q"]).assert_success().assert_stdout("");
    environment.run(["manifest", "create", "--force", &registry.name("app:v3"), &list]).assert_success();
}

#[test]
fn needs_docker_registry_a_registry_that_wants_a_login_is_told_with_the_command() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let htpasswd = environment.write("htpasswd", HTPASSWD);
    let section = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}", htpasswd.display());
    let registry = DockerRegistry::start_with(&section);
    image(&["linux/amd64"]).write_layout(&environment.work().join("layout"), "v1");
    let list = registry.name("app:v1");
    environment.run(["manifest", "create", &list, "oci-layout://layout:v1"]).assert_success();
    let refused = environment.run(["manifest", "push", &list]);
    refused.assert_code(5).assert_stdout("").assert_stderr(&format!("login {}", registry.host()));
    environment.run(["manifest", "inspect", &list]).assert_success();
}

#[test]
fn an_old_registry_is_told_with_the_flag_that_converts() {
    let environment = environment();
    image(&["linux/amd64"]).write_layout(&environment.work().join("layout"), "v1");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let list = format!("127.0.0.1:{}/app:v1", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer_as_old_registry(stream.unwrap()));
        }
    });
    environment.run(["manifest", "create", &list, "oci-layout://layout:v1"]).assert_success();
    let refused = environment.run(["manifest", "push", &list]);
    refused.assert_code(5).assert_stderr("manifest push --format docker").assert_stdout("");
    let pushed = environment.run(["manifest", "push", "--format=docker", &list]);
    assert!(pushed.assert_success().stdout.starts_with("Pushed ref "), "{pushed}");
}

/// Has every blob, and takes manifests of Docker's types only. One request per connection.
fn answer_as_old_registry(mut stream: std::net::TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    // Who speaks TLS first gets no line, and then no answer.
    if reader.read_line(&mut line).is_err() || !line.contains("HTTP/1.1") {
        return;
    }
    let (mut length, mut is_docker, request) = (0, false, line.clone());
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        length = header.strip_prefix("content-length: ").map_or(length, |text| text.parse().unwrap());
        is_docker |= header.starts_with("content-type: application/vnd.docker.");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let refusal = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"manifest invalid"}]}"#;
    let (status, text) = match request.split(' ').next() {
        Some("PUT") if is_docker => ("201 Created", ""),
        Some("PUT") => ("400 Bad Request", refusal),
        _ if request.contains("/manifests/") => ("404 Not Found", ""),
        _ => ("200 OK", ""),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
    stream.write_all(format!("{head}{text}").as_bytes()).unwrap();
}
