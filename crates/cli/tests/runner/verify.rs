// SPDX-License-Identifier: Apache-2.0
//! `verify` from outside: images that are what they claim, and images that are not.

use polyarch_oci::{Digest, Document};
use polyarch_testkit::{
    DockerRegistry, Image, Need, Output, PlatformImage, TarBuilder, TestEnvironment, hello_program,
    hello_rootfs, requires,
};

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

fn hello(platform: &str, architecture: &str) -> PlatformImage {
    PlatformImage::new(platform, hello_rootfs(architecture, "hello\n"), &["/bin/hello"])
}

/// Writes an image as the layout `name` and verifies it.
fn verify(environment: &TestEnvironment, name: &str, image: &Image, more: &[&str]) -> Output {
    image.write_layout(&environment.work().join(name), "v1");
    let source = format!("oci-layout://{name}:v1");
    environment.run(["verify", &source].iter().chain(more))
}

#[test]
fn a_good_index_is_ok_and_its_second_proof_reads_nothing() {
    let environment = environment();
    let images = vec![
        hello("linux/amd64", "amd64"),
        hello("linux/arm64", "arm64"),
        hello("linux/arm/v7", "arm"),
        hello("linux/s390x", "s390x"),
    ];
    let image = Image::new(images);
    let output = verify(&environment, "good", &image, &[]);
    output.assert_success();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[0], "oci-layout://good:v1");
    assert_eq!(lines[1], format!("index {}", image.index.digest));
    let arm = format!("  linux/arm/v7  {}  ok (1 layers, 9 files, 1 programs)", image.manifests[2].digest);
    assert_eq!(lines[4], arm, "{output}");
    assert_eq!(lines.len(), 6, "{output}");
    // What is remembered is believed while the blob has its size, unless asked otherwise.
    let layer = Digest::of(hello_rootfs("arm", "hello\n"));
    let find = environment.program("find").arg(environment.store()).args(["-name", layer.hex()]).output();
    let paths = String::from_utf8(find.unwrap().stdout).unwrap();
    let path = paths.lines().find(|path| path.contains("/blobs/")).unwrap();
    assert!(paths.contains("/layer-contents/"), "{paths}");
    let mut bytes = std::fs::read(path).unwrap();
    bytes[700] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, &bytes).unwrap();
    verify(&environment, "good", &image, &[]).assert_success();
    let output = verify(&environment, "good", &image, &["--no-cache"]);
    output.assert_code(1);
    let expected = format!("error: layer {} is damaged: ", layer);
    assert!(
        output.stdout.contains(&expected) && output.stdout.contains(&Digest::of(&bytes).to_string()),
        "{output}"
    );
    // One that was cut off is noticed at once.
    std::fs::write(path, &bytes[..512]).unwrap();
    let output = verify(&environment, "good", &image, &[]);
    output.assert_code(1);
    assert!(output.stdout.contains("layer-damaged, layer 0]"), "{output}");
    assert!(output.stdout.contains("linux/arm64   sha256:") && output.stdout.contains("  ok ("), "{output}");
}

#[test]
fn an_entry_with_a_program_of_another_platform_is_told() {
    let environment = environment();
    let image = Image::new(vec![hello("linux/amd64", "amd64"), hello("linux/arm64", "amd64")]);
    let output = verify(&environment, "wrong", &image, &[]);
    output.assert_code(1);
    let expected = "    error: /bin/hello is the program of CMD and of amd64, and the image is for linux/arm64 [entry-foreign, layer 0]";
    assert!(output.stdout.lines().any(|line| line == expected), "{output}");
    assert!(output.stdout.contains("1 error (1 layers"), "{output}");
    // Only one platform is asked for, and that is good.
    verify(&environment, "wrong", &image, &["--platform", "linux/amd64"]).assert_success();
    verify(&environment, "wrong", &image, &["--platform", "linux/s390x"])
        .assert_code(4)
        .assert_stderr("has no image for linux/s390x; it has linux/amd64, linux/arm64");
    let json: serde_json::Value =
        serde_json::from_str(&verify(&environment, "wrong", &image, &["--format", "json"]).stdout).unwrap();
    assert_eq!(json[0]["ok"], false);
    assert_eq!(json[0]["platforms"][1]["findings"][0]["rule"], "entry-foreign");
    assert_eq!(json[0]["platforms"][1]["findings"][0]["path"], "bin/hello");
}

#[test]
fn an_index_that_says_something_else_is_told() {
    let environment = environment();
    let mut image = Image::new(vec![
        hello("linux/amd64", "amd64"),
        hello("linux/arm64", "arm64"),
        hello("linux/arm/v7", "arm"),
        hello("linux/riscv64", "riscv64"),
    ]);
    let mut index = image.index.value.clone();
    // A wrong architecture, the same one twice, and no variant.
    index.manifests[1].platform.as_mut().unwrap().architecture = "amd64".to_owned();
    index.manifests[2].platform.as_mut().unwrap().variant = String::new();
    index.manifests[3].size += 1;
    image.index = Document::indented(index);
    let output = verify(&environment, "misannotated", &image, &[]);
    output.assert_code(1);
    for expected in [
        "error: 2 entries are for linux/amd64: ",
        "error: the index says linux/amd64, the config says linux/arm64 [platform-contradicts]",
        "error: /bin/hello is the program of CMD and of arm64, and the image is for linux/amd64 [entry-foreign, layer 0]",
        "warning: the index says linux/arm without a variant, which readers take for v7; the config says linux/arm/v7 [variant-missing]",
        "[document-damaged]",
    ] {
        assert!(output.stdout.contains(expected), "{expected}\n{output}");
    }
}

#[test]
fn layers_that_lie_are_named_with_their_digests() {
    let environment = environment();
    let mut lying = hello("linux/amd64", "amd64");
    lying.layers.push(b"this is no tar archive, however long one looks at it".repeat(20));
    let mut image = Image::new(vec![lying, hello("linux/arm64", "arm64")]);
    // The second config promises another diff id: its document is made again, and all above it.
    let config = String::from_utf8(image.blobs[3].clone()).unwrap();
    let diff_id = Digest::of(hello_rootfs("arm64", "hello\n"));
    let config = config.replace(diff_id.hex(), Digest::of("other").hex()).into_bytes();
    let mut manifest = image.manifests[1].value.clone();
    manifest.config.digest = Digest::of(&config);
    image.blobs[3] = config;
    image.manifests[1] = Document::indented(manifest);
    let mut index = image.index.value.clone();
    index.manifests[1].digest = image.manifests[1].digest.clone();
    index.manifests[1].size = image.manifests[1].size();
    image.index = Document::indented(index);
    let output = verify(&environment, "lying", &image, &[]);
    output.assert_code(1);
    assert!(output.stdout.contains("can't be read: malformed tar archive"), "{output}");
    let expected = format!(
        "error: layer {diff_id} is uncompressed {diff_id}, the config says {} [diff-id, layer 0]",
        Digest::of("other")
    );
    assert!(output.stdout.contains(&expected), "{expected}\n{output}");
}

#[test]
fn an_image_of_a_registry_is_verified_and_executed_needs_qemu() {
    let needs = [
        Need::Root,
        Need::UserNamespaces,
        Need::PrivateBinfmt,
        Need::Qemu("aarch64"),
        Need::Command("docker-registry"),
    ];
    if requires(&needs).is_some() {
        return;
    }
    let (environment, registry) = (environment(), DockerRegistry::start());
    // A program that is what its header says and dies all the same: its first instruction is none.
    let mut dies = hello_program("arm64", "x", 0).unwrap();
    dies[120..124].copy_from_slice(&[0; 4]);
    let dying = TarBuilder::new().file("bin/hello", 0o755, dies).finish();
    registry.push(
        "good",
        "1",
        &Image::new(vec![hello("linux/amd64", "amd64"), hello("linux/arm64", "arm64")]),
    );
    registry.push(
        "dying",
        "1",
        &Image::new(vec![
            hello("linux/amd64", "amd64"),
            PlatformImage::new("linux/arm64", dying, &["/bin/hello"]),
        ]),
    );
    environment.run(["verify", "--exec", &registry.name("good:1")]).assert_success();
    environment.run(["verify", &registry.name("dying:1")]).assert_success();
    let output = environment.run(["verify", "--exec", &registry.name("dying:1")]);
    output.assert_code(1);
    assert!(
        output.stdout.contains("error: /bin/hello --version was killed by SIGILL [exec-failed]"),
        "{output}"
    );
    environment.run(["verify", &registry.name("nothing:1")]).assert_code(5).assert_stderr("nothing:1");
}
