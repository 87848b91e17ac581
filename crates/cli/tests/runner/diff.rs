// SPDX-License-Identifier: Apache-2.0
//! `diff` from outside.

use std::path::Path;

use polyarch_oci::Document;
use polyarch_testkit::{Image, PlatformImage, TarBuilder, TestEnvironment, hello_program, hello_rootfs};

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

fn hello(platform: &str, architecture: &str) -> PlatformImage {
    PlatformImage::new(platform, hello_rootfs(architecture, "hello\n"), &["/bin/hello"])
}

fn write(environment: &TestEnvironment, name: &str, image: &Image) -> String {
    image.write_layout(&environment.work().join(Path::new(name)), "v1");
    format!("oci-layout://{name}:v1")
}

#[test]
fn an_image_is_equal_to_itself() {
    let environment = environment();
    let image = Image::new(vec![hello("linux/amd64", "amd64"), hello("linux/arm64", "arm64")]);
    let (a, b) = (write(&environment, "a", &image), write(&environment, "b", &image));
    let output = environment.run(["diff", &a, &b]);
    output.assert_success();
    let expected = format!(
        "--- {a} index {index}\n+++ {b} index {index}\n\nlinux/amd64 {}: the same\n\nlinux/arm64 {}: the same\n",
        image.manifests[0].digest,
        image.manifests[1].digest,
        index = image.index.digest
    );
    assert_eq!(output.stdout, expected);
    assert_eq!(environment.run(["diff", "-q", &a, &b]).assert_success().stdout, "");
}

#[test]
fn two_platforms_of_one_image_are_compared() {
    let environment = environment();
    let image = Image::new(vec![hello("linux/amd64", "amd64"), hello("linux/arm64", "arm64")]);
    let name = write(&environment, "a", &image);
    let output = environment.run(["diff", &name, "--platform", "linux/amd64", "--platform", "linux/arm64"]);
    output.assert_code(1);
    for line in [
        &*format!("--- linux/amd64 {}", image.manifests[0].digest),
        &*format!("+++ linux/arm64 {}", image.manifests[1].digest),
        "  ~ architecture: amd64 -> arm64",
        "  ~ platform: linux/amd64 -> linux/arm64",
        "files: 0 added, 0 removed, 1 changed",
    ] {
        assert!(output.stdout.lines().any(|it| it == line), "{line}\n{output}");
    }
    assert!(
        output.stdout.contains("  ~ /bin/hello: ") && output.stdout.contains("program of amd64 -> arm64"),
        "{output}"
    );
    environment
        .run(["diff", &name])
        .assert_code(2)
        .assert_stderr("name two of its platforms")
        .assert_stderr("--platform linux/amd64,linux/arm64");
    environment
        .run(["diff", &name, "--platform", "linux/amd64,linux/s390x"])
        .assert_code(4)
        .assert_stderr("has no image for linux/s390x; it has linux/amd64, linux/arm64");
}

#[test]
fn what_differs_is_told_by_section_and_as_json() {
    let environment = environment();
    let mut first = hello("linux/amd64", "amd64");
    let mut second = first.clone();
    first.config.config.env.push("OLD=1".to_owned());
    second.config.config.cmd = Some(vec!["/bin/hello".to_owned(), "\u{1b}[31mred".to_owned()]);
    second.config.config.labels.insert("x.y".to_owned(), "1".to_owned());
    first.layers.push(TarBuilder::new().file("etc/gone", 0o644, "x").file("etc/same", 0o644, "x").finish());
    let more = TarBuilder::new()
        .file("etc/same", 0o600, "x")
        .file("etc/new", 0o644, "12345")
        .symlink("etc/link", "new")
        .file("bin/tool", 0o755, hello_program("s390x", "x", 0).unwrap());
    second.layers.push(more.finish());
    let a = write(&environment, "a", &Image::new(vec![first, hello("linux/arm64", "arm64")]));
    let b = write(&environment, "b", &Image::new(vec![second, hello("linux/s390x", "s390x")]));
    let output = environment.run(["diff", &a, &b]);
    output.assert_code(1);
    for line in [
        "config: 3 fields differ",
        r#"  ~ config.Cmd: ["/bin/hello"] -> ["/bin/hello","\u001b[31mred"]"#,
        "  - config.Env.OLD: 1",
        "  + config.Labels.x.y: 1",
        "files: 3 added, 1 removed, 1 changed",
        "  + /etc/link (symlink, 0777 0:0, to new)",
        "  + /etc/new (file, 0644 0:0, 5B)",
        "  - /etc/gone (file, 0644 0:0, 1B)",
        "  ~ /etc/same: mode 0644 -> 0600",
    ] {
        assert!(output.stdout.lines().any(|it| it == line), "{line}\n{output}");
    }
    for part in [
        "layers: 1 shared (",
        ", program of s390x)",
        ": only in the first image",
        ": only in the second image",
    ] {
        assert!(output.stdout.contains(part), "{part}\n{output}");
    }
    // Only what is asked for counts.
    let layers = environment.run(["diff", "--layers", "--platform", "linux/amd64", &a, &b]);
    layers.assert_code(1);
    assert!(!layers.stdout.contains("config") && !layers.stdout.contains("files:"), "{layers}");
    let json = environment.run(["diff", "--format", "json", "--files", "--platform", "linux/amd64", &a, &b]);
    let json: serde_json::Value = serde_json::from_str(&json.assert_code(1).stdout).unwrap();
    assert_eq!(json["equal"], false);
    let files = json["platforms"][0]["files"].as_array().unwrap();
    let found: Vec<_> =
        files.iter().map(|file| (file["path"].as_str().unwrap(), file["change"].as_str().unwrap())).collect();
    assert_eq!(
        found,
        [
            ("bin/tool", "added"),
            ("etc/gone", "removed"),
            ("etc/link", "added"),
            ("etc/new", "added"),
            ("etc/same", "changed")
        ]
    );
    assert_eq!(files[4]["differs"], serde_json::json!(["mode"]));
}

#[test]
fn the_same_files_in_another_index_are_the_same() {
    let environment = environment();
    let image = Image::new(vec![hello("linux/amd64", "amd64"), hello("linux/arm64", "arm64")]);
    let a = write(&environment, "a", &image);
    let mut other = image.clone();
    let mut index = other.index.value.clone();
    index.manifests.reverse();
    index.annotations.insert("k".to_owned(), "v".to_owned());
    other.index = Document::indented(index);
    let b = write(&environment, "b", &other);
    let output = environment.run(["diff", &a, &b]);
    output.assert_code(1);
    assert!(
        output.stdout.contains("index: 1 field differs") && output.stdout.contains("  + annotations.k: v"),
        "{output}"
    );
    environment.run(["diff", "--files", "--layers", &a, &b]).assert_success();
    environment.run(["diff", &a, &a]).assert_success();
    environment.run(["diff", &a, "oci-layout://nowhere:v1"]).assert_stderr("nowhere");
}
