// SPDX-License-Identifier: Apache-2.0
//! `verify` from outside: images that are what they claim, and images that are not.

use std::io::Write as _;

use polyarch_oci::media_type::{Compression, Flavour};
use polyarch_oci::{Descriptor, Digest, Document};
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
    let arm = format!("  linux/arm/v7  {}  ok (1 layer, 9 files, 1 program)", image.manifests[2].digest);
    assert_eq!(lines[4], arm, "{output}");
    assert_eq!(lines.len(), 6, "{output}");
    // What is remembered of a layer says nothing about bytes that have changed since.
    let layer = Digest::of(hello_rootfs("arm", "hello\n"));
    let find = environment.program("find").arg(environment.store()).args(["-name", layer.hex()]).output();
    let paths = String::from_utf8(find.unwrap().stdout).unwrap();
    let path = paths.lines().find(|path| path.contains("/blobs/")).unwrap();
    assert!(paths.contains("/layer-contents/"), "{paths}");
    let mut bytes = std::fs::read(path).unwrap();
    bytes[700] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, &bytes).unwrap();
    let expected = format!("error: layer {} is damaged: ", layer);
    for flags in [&[][..], &["--no-cache"]] {
        let output = verify(&environment, "good", &image, flags);
        output.assert_code(1);
        assert!(
            output.stdout.contains(&expected) && output.stdout.contains(&Digest::of(&bytes).to_string()),
            "{output}"
        );
    }
    // One that was cut off is noticed at once.
    std::fs::write(path, &bytes[..512]).unwrap();
    let output = verify(&environment, "good", &image, &[]);
    output.assert_code(1);
    assert!(output.stdout.contains("layer-damaged, layer 1]"), "{output}");
    assert!(output.stdout.contains("linux/arm64   sha256:") && output.stdout.contains("  ok ("), "{output}");
}

#[test]
fn an_entry_with_a_program_of_another_platform_is_told() {
    let environment = environment();
    let image = Image::new(vec![hello("linux/amd64", "amd64"), hello("linux/arm64", "amd64")]);
    let output = verify(&environment, "wrong", &image, &[]);
    output.assert_code(1);
    let expected = "    error: /bin/hello is the program of CMD and of amd64, and the image is for linux/arm64 [entry-foreign, layer 1]";
    assert!(output.stdout.lines().any(|line| line == expected), "{output}");
    assert!(output.stdout.contains("1 error (1 layer"), "{output}");
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
        "error: /bin/hello is the program of CMD and of arm64, and the image is for linux/amd64 [entry-foreign, layer 1]",
        "warning: the index says linux/arm without a variant, which readers take for v7; the config says linux/arm/v7 [variant-missing]",
        "[document-damaged]",
    ] {
        assert!(output.stdout.contains(expected), "{expected}\n{output}");
    }
}

/// Makes an image with a layer that is no archive and one that has not the diff id of its config; and returns what is
/// told of the latter.
fn lying_image() -> (Image, String) {
    let mut lying = hello("linux/amd64", "amd64");
    lying.layers.push(b"this is no tar archive, however long one looks at it".repeat(20));
    let mut image = Image::new(vec![lying, hello("linux/arm64", "arm64")]);
    // The second config promises another diff id: its document is made again, and all above it.
    let config = String::from_utf8(image.blobs[3].clone()).expect("configs are text");
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
    let expected = format!(
        "error: layer {diff_id} is uncompressed {diff_id}, the config says {} [diff-id, layer 1]",
        Digest::of("other")
    );
    (image, expected)
}

#[test]
fn layers_that_lie_are_named_with_their_digests() {
    let environment = environment();
    let (image, expected) = lying_image();
    let output = verify(&environment, "lying", &image, &[]);
    output.assert_code(1);
    assert!(output.stdout.contains("can't be read: malformed tar archive"), "{output}");
    assert!(output.stdout.contains(&expected), "{expected}\n{output}");
}

#[test]
fn what_cant_be_unpacked_is_told_and_not_executed_needs_user_namespaces() {
    if requires(&[Need::UserNamespaces]).is_some() {
        return;
    }
    let (image, expected) = lying_image();
    let output = verify(&environment(), "lying", &image, &["--exec"]);
    assert!(output.assert_code(1).stdout.contains(&expected), "{output}");
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

/// Puts another blob in the place of each image's only layer.
fn with_layers(mut image: Image, media_type: &str, change: impl Fn(&[u8]) -> Vec<u8>) -> Image {
    let mut index = image.index.value.clone();
    for (number, document) in image.manifests.iter_mut().enumerate() {
        let layer = &mut image.blobs[2 * number + 1];
        *layer = change(layer);
        let mut manifest = document.value.clone();
        manifest.layers = vec![Descriptor::new(media_type, Digest::of(&*layer), layer.len() as u64)];
        *document = Document::indented(manifest);
        index.manifests[number].digest = document.digest.clone();
        index.manifests[number].size = document.size();
    }
    image.index = Document::indented(index);
    image
}

fn compress(compression: Compression, tar: &[u8]) -> Vec<u8> {
    let mut out = polyarch_snapshot::compressor(compression, None, 1, Vec::new()).expect("it is known");
    out.write_all(tar).expect("memory takes it");
    out.finish().expect("memory takes it")
}

#[test]
fn compressed_layers_are_read_and_torn_ones_named() {
    let environment = environment();
    let image = || Image::new(vec![hello("linux/amd64", "amd64"), hello("linux/arm64", "amd64")]);
    for (compression, name) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")] {
        let media_type = compression.layer_media_type(Flavour::Oci);
        let whole = with_layers(image(), media_type, |tar| compress(compression, tar));
        let output = verify(&environment, name, &whole, &[]);
        output.assert_code(1);
        let amd64 = format!("  linux/amd64  {}  ok (1 layer", whole.manifests[0].digest);
        assert!(
            output.stdout.contains(&amd64) && output.stdout.contains("[entry-foreign, layer 1]"),
            "{output}"
        );
        // All digests are right, and the stream has no end.
        let torn = with_layers(image(), media_type, |tar| {
            let blob = compress(compression, tar);
            blob[..blob.len() - 9].to_vec()
        });
        let output = verify(&environment, &format!("{name}-torn"), &torn, &[]);
        output.assert_code(1);
        let digest = &torn.manifests[0].value.layers[0].digest;
        let expected = format!("error: layer {digest} can't be read: ");
        assert!(output.stdout.contains(&expected), "{expected}\n{output}");
        // A media type that promises something else.
        let other = Compression::Uncompressed.layer_media_type(Flavour::Oci);
        let lying = with_layers(image(), other, |tar| compress(compression, tar));
        verify(&environment, &format!("{name}-lying"), &lying, &[]).assert_code(1);
    }
    let unknown = with_layers(image(), "application/vnd.example.layer", <[u8]>::to_vec);
    let output = verify(&environment, "unknown", &unknown, &[]);
    output.assert_code(1);
    assert!(
        output.stdout.contains("has the unknown media type \"application/vnd.example.layer\""),
        "{output}"
    );
}

#[test]
fn archives_and_images_of_the_store_are_verified_like_any_other() {
    let environment = environment();
    let image = Image::new(vec![hello("linux/amd64", "amd64"), hello("linux/arm64", "amd64")]);
    image.write_layout(&environment.work().join("layout"), "local/app:1");
    assert!(
        environment.program("tar").args(["-C", "layout", "-cf", "app.tar", "."]).status().unwrap().success()
    );
    for source in ["oci-archive:app.tar", "app.tar", "oci-archive:app.tar:local/app:1"] {
        let output = environment.run(["verify", source]);
        output.assert_code(1);
        assert!(output.stdout.contains("[entry-foreign, layer 1]"), "{output}");
        let index = format!("index {}\n", image.index.digest);
        assert!(output.stdout.contains(&index), "{output}");
    }
    environment.run(["load", "-i", "app.tar"]).assert_success();
    let named = environment.run(["verify", "local/app:1", "--platform", "linux/arm64"]);
    named.assert_code(1);
    assert!(named.stdout.contains("[entry-foreign, layer 1]"), "{named}");
    let digest = image.manifests[0].digest.to_string();
    let alone = environment.run(["verify", &digest]);
    assert!(alone.assert_success().stdout.contains(&format!("manifest {digest}\n")), "{alone}");
    for (form, name) in [("docker-archive", "docker.tar"), ("oci-archive", "oci.tar")] {
        let save = ["save", "--format", form, "--platform", "linux/arm64", "-o", name, "local/app:1"];
        environment.run(save).assert_success();
        let output = environment.run(["verify", &format!("{form}:{name}")]);
        output.assert_code(1);
        assert!(output.stdout.contains("[entry-foreign, layer 1]"), "{output}");
    }
    // An archive that was cut off is refused as a whole.
    let bytes = std::fs::read(environment.work().join("app.tar")).unwrap();
    environment.write("torn.tar", &bytes[..bytes.len() / 3]);
    let torn = environment.run(["verify", "oci-archive:torn.tar"]);
    assert!(torn.code > 1 && torn.stdout.is_empty(), "{torn}");
    torn.assert_stderr("torn.tar");
}

#[test]
fn a_registry_that_gives_less_or_something_else_is_told() {
    if requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let (environment, registry) = (environment(), DockerRegistry::start());
    let image = Image::new(vec![hello("linux/amd64", "amd64"), hello("linux/arm64", "arm64")]);
    registry.push("app", "1", &image);
    let digest = image.manifests[1].value.layers[0].digest.clone();
    let file = registry.blob_file(&digest);
    let bytes = std::fs::read(&file).unwrap();
    let mut other = bytes.clone();
    other[700] ^= 1;
    for (content, got) in [(&bytes[..1000], "1000"), (&other[..], &*Digest::of(&other).to_string())] {
        std::fs::write(&file, content).unwrap();
        let output = environment.run(["verify", &registry.name("app:1")]);
        output.assert_code(1);
        let line = output.stdout.lines().find(|line| line.contains("[layer-damaged, layer 1]"));
        let line = line.unwrap_or_else(|| panic!("{output}"));
        assert!(line.contains(&digest.to_string()) && line.contains(got), "{line}");
        assert!(output.stdout.contains("linux/amd64") && output.stdout.contains("  ok (1 layer"), "{output}");
    }
    // Nothing of it was kept.
    std::fs::write(&file, &bytes).unwrap();
    environment.run(["verify", &registry.name("app:1")]).assert_success();
}

#[test]
fn what_keeps_from_looking_is_an_error_and_says_nothing_about_the_image() {
    if requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let (environment, registry) = (environment(), DockerRegistry::start());
    registry.push(
        "app",
        "1",
        &Image::new(vec![hello("linux/amd64", "amd64"), hello("linux/arm64", "arm64")]),
    );
    let name = registry.name("app:1");
    environment.run(["pull", "--platform=linux/amd64", &name]).assert_success();
    drop(registry);
    let output = environment.run(["verify", &name]);
    output.assert_code(5).assert_stdout("").assert_stderr("ERROR: can't fetch sha256:");
}

/// Makes the files of an image for a machine, named as in ELF.
type Files<'a> = dyn Fn(u16) -> TarBuilder + 'a;

/// Makes a dynamically linked program, as far as its interpreter is concerned.
fn dynamic_program(machine: u16, interpreter: &str) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    file.resize(16, 0);
    file.extend([2u16, machine].into_iter().flat_map(u16::to_le_bytes));
    file.extend(1u32.to_le_bytes());
    let (headers, start) = (64, 64 + 2 * 56);
    file.extend([0x40_0000 + start, headers, 0].into_iter().flat_map(u64::to_le_bytes));
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 2, 0, 0, 0].into_iter().flat_map(u16::to_le_bytes));
    let length = interpreter.len() as u64 + 1;
    for (kind, flags, offset, size) in [(3u32, 4u32, start, length), (1, 5, 0, start + length)] {
        file.extend([kind, flags].into_iter().flat_map(u32::to_le_bytes));
        let place = 0x40_0000 + offset;
        file.extend([offset, place, place, size, size, 0x1_0000].into_iter().flat_map(u64::to_le_bytes));
    }
    file.extend(interpreter.as_bytes());
    file.push(0);
    file
}

#[test]
fn programs_that_cant_be_executed_are_told_natively_and_emulated_needs_qemu() {
    let needs = [Need::Root, Need::UserNamespaces, Need::PrivateBinfmt, Need::Qemu("aarch64")];
    if requires(&needs).is_some() {
        return;
    }
    let environment = environment();
    let image = |files: &Files| {
        let of = |platform: &str, machine: u16| {
            PlatformImage::new(platform, files(machine).finish(), &["/bin/app"])
        };
        Image::new(vec![of("linux/amd64", 62), of("linux/arm64", 183)])
    };
    let program = |machine: u16| dynamic_program(machine, "/lib/ld.so.1");
    let tar = |machine: u16| TarBuilder::new().file("bin/app", 0o755, program(machine));
    let cases: [(&str, &Files, &str); 4] = [
        ("absent", &tar, "interpreter-missing"),
        ("text", &|machine| tar(machine).file("lib/ld.so.1", 0o755, "no ELF file"), "interpreter-missing"),
        ("script", &|_| TarBuilder::new().file("bin/app", 0o755, "#!/bin/none\n"), "entry-missing"),
        (
            "mode",
            &|machine| TarBuilder::new().file("bin/app", 0o644, program(machine)),
            "entry-not-executable",
        ),
    ];
    for (name, files, rule) in cases {
        let output = verify(&environment, name, &image(files), &["--exec"]);
        output.assert_code(1);
        for rule in [rule, "exec-failed"] {
            let count = output.stdout.lines().filter(|line| line.contains(&format!("[{rule}"))).count();
            assert_eq!(count, 2, "{name}: {rule}\n{output}");
        }
    }
    // An unknown user is a finding as well, and no reason to look no further.
    let mut nobody = hello("linux/amd64", "amd64");
    nobody.config.config.user = "nobody-there".to_owned();
    let output =
        verify(&environment, "user", &Image::new(vec![nobody, hello("linux/arm64", "arm64")]), &["--exec"]);
    output.assert_code(1);
    assert!(output.stdout.contains("nobody-there") && output.stdout.contains("[exec-failed]"), "{output}");
    assert_eq!(output.stdout.matches("  ok (1 layer").count(), 1, "{output}");
}
