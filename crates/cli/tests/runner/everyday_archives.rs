// SPDX-License-Identifier: Apache-2.0
//! Save and load from outside: with podman and skopeo at the other end, and archives that lie.

use std::io::{Read as _, Write as _};
use std::path::Path;

use polyarch_testkit::environment::finish;
use polyarch_testkit::{DockerRegistry, Need, Output, TestEnvironment, requires};

use crate::everyday::{complete_platforms, hello_image};

const FOUR: [&str; 4] = ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/riscv64"];

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

/// Loads an image of four platforms from a layout under the name `user/aa:0.2`; returns its digest.
fn load_four(environment: &TestEnvironment) -> String {
    let image = hello_image(&FOUR, "hello from");
    image.write_layout(&environment.work().join("layout"), "docker.io/user/aa:0.2");
    let mut tar = environment.program("tar");
    finish_ok(tar.args(["-C", "layout", "-cf", "four.tar", "."]));
    let output = environment.run(["load", "-i", "four.tar"]);
    output.assert_success().assert_stdout("Loaded image: user/aa:0.2\n");
    image.index.digest.to_string()
}

fn finish_ok(command: &mut std::process::Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// Runs podman with a store of its own.
fn podman(environment: &TestEnvironment, arguments: &[&str]) -> Output {
    let mut podman = environment.program("podman");
    let at = |name: &str| environment.work().join(name).display().to_string();
    podman.args(["--root", &at("podman-root"), "--runroot", &at("podman-run"), "--storage-driver=vfs"]);
    podman.args(arguments);
    finish(podman, Vec::new())
}

#[test]
fn all_platforms_come_back_from_an_archive_that_is_compressed_or_a_stream() {
    let environment = environment();
    let digest = load_four(&environment);
    let saved = environment.run(["save", "-o", "saved.tar", "user/aa:0.2"]);
    saved.assert_success().assert_stdout("");
    let told =
        format!("Saved image: user/aa:0.2\nDigest: {digest}\nIt is an index of 4 platforms; saved of it:\n");
    assert!(saved.stderr.starts_with(&told) && saved.stderr.lines().count() == 7, "{saved}");
    let bytes = std::fs::read(environment.work().join("saved.tar")).unwrap();
    let mut gzip = environment.program("gzip");
    finish_ok(gzip.args(["-k", "saved.tar"]));
    let mut zstd = environment.program("sh");
    finish_ok(zstd.args(["-c", "command -v zstd >/dev/null || exit 0; zstd -q saved.tar"]));
    let mut others = environment.program("sh");
    let script = "command -v bzip2 >/dev/null && bzip2 -k saved.tar; command -v xz >/dev/null && xz -k saved.tar; true";
    finish_ok(others.args(["-c", script]));

    for file in ["saved.tar", "saved.tar.gz", "saved.tar.zst", "saved.tar.bz2", "saved.tar.xz"] {
        if !environment.work().join(file).exists() {
            continue;
        }
        let mut other = self::environment();
        other.set("POLYARCH_ROOT", environment.work().join(format!("store-of-{file}")).display().to_string());
        let path = environment.work().join(file);
        let output = other.run(["load", "--platform=linux/arm64", "-i", path.to_str().unwrap()]);
        output.assert_success().assert_stdout("Loaded image: user/aa:0.2\n").assert_stderr(&digest);
        assert_eq!(complete_platforms(&other, "docker.io/user/aa:0.2"), FOUR);
    }
    let other = self::environment();
    other.run_with_stdin(["load", "-q"], bytes).assert_success().assert_stdout("Loaded image: user/aa:0.2\n");
    let output = other.run([
        "load",
        "--platform=linux/s390x",
        "-i",
        environment.work().join("saved.tar").to_str().unwrap(),
    ]);
    output.assert_code(4).assert_stderr("has no image for linux/s390x; it has linux/amd64, linux/arm64");
}

#[test]
fn no_name_looks_like_a_digest_and_what_goes_is_not_pulled() {
    let environment = environment();
    let digest = load_four(&environment);
    let other = format!("sha256:{}", "a".repeat(64));
    let output = environment.run(["tag", "user/aa:0.2", &other]);
    output.assert_code(2).assert_stderr("a name must not look like a digest");
    let output = environment.run(["rmi", "nothing"]);
    output.assert_code(2).assert_stderr("no such image: nothing\nhint: polyarch images lists");
    environment.run(["rmi", &digest]).assert_success().assert_stdout("Untagged: user/aa:0.2\n");
}

#[test]
fn what_is_no_archive_is_told_by_what_it_is() {
    let environment = environment();
    let output = environment.run_with_stdin(["load"], Vec::new());
    output.assert_code(2).assert_stderr("ERROR: can't load standard input: it is empty\nhint: ");
    let output = environment.run_with_stdin(["load"], vec![0; 1024]);
    output.assert_code(2).assert_stderr("with: polyarch import - NAME");
    let output = environment.run(["load", "-i", "."]);
    output
        .assert_code(2)
        .assert_stderr("it is a directory\nhint: an OCI layout is loaded as an archive: tar -cC ");
}

#[test]
fn what_an_archive_says_of_itself_is_told_on_one_line() {
    let environment = environment();
    let work = environment.work().join("odd");
    std::fs::create_dir(&work).unwrap();
    std::fs::write(work.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let digest = format!("sha256:{}", "a".repeat(64));
    for (size, told) in [
        (5, r#"can't load odd.tar: "x\nERROR: y": the document sha256:aaa"#),
        (1_u64 << 60, "has 1152921504606846976 bytes, and at most"),
    ] {
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":"x\nERROR: y"}}}}]}}"#
        );
        std::fs::write(work.join("index.json"), index).unwrap();
        let mut tar = environment.program("tar");
        finish_ok(tar.args(["-C", "odd", "-cf", "odd.tar", "."]));
        let output = environment.run(["load", "-i", "odd.tar"]);
        output.assert_code(2).assert_stdout("").assert_stderr(told);
    }
}

#[test]
fn part_of_an_index_is_saved_as_far_as_it_is_here() {
    if requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let (environment, registry) = (environment(), DockerRegistry::start());
    registry.push("user/aa", "0.2", &hello_image(&FOUR, "hello"));
    let name = format!("{}:0.2", registry.name("user/aa"));
    environment.run(["pull", "--platform=linux/amd64,linux/arm64", &name]).assert_success();
    let output = environment.run(["save", "-o", "two.tar", &name]);
    output.assert_success().assert_stderr("linux/arm/v7, linux/riscv64 is not in the store");
    let other = self::environment();
    let load = |file: &str, other: &TestEnvironment| {
        let path = environment.work().join(file);
        other.run(["load", "-i", path.to_str().unwrap()])
    };
    load("two.tar", &other).assert_success();
    assert_eq!(complete_platforms(&other, &name), ["linux/amd64", "linux/arm64"]);

    // One platform that is asked for is a manifest alone; loading it says what it replaces.
    environment.run(["save", "--platform=linux/arm64", "-o", "one.tar", &name]).assert_success();
    let output = load("one.tar", &other);
    output
        .assert_success()
        .assert_stderr("Here only of that one, until the next prune: linux/amd64.")
        .assert_stderr("polyarch tag");
    assert_eq!(complete_platforms(&other, &name), ["linux/arm64"]);
    let output = environment.run(["save", "--platform=linux/riscv64", "-o", "no.tar", &name]);
    output.assert_code(4).assert_stderr("not all of").assert_stderr("pull --platform linux/riscv64");
    assert!(!environment.work().join("no.tar").exists());
}

#[test]
fn podman_and_skopeo_read_what_is_saved_needs_podman() {
    if requires(&[Need::Command("podman"), Need::Command("skopeo"), Need::Root]).is_some() {
        return;
    }
    let environment = environment();
    load_four(&environment);
    let architecture = |name: &str| {
        podman(&environment, &["image", "inspect", "--format={{.Os}}/{{.Architecture}}", name])
            .assert_success()
            .stdout
            .trim()
            .to_owned()
    };
    for (arguments, expected) in [
        (&["--platform=linux/riscv64"][..], "linux/riscv64"),
        (&["--platform=linux/arm64", "--format=docker"], "linux/arm64"),
        (&[], "linux/amd64"),
        (&["--format=docker"], "linux/amd64"),
    ] {
        let mut words = vec!["save", "-o", "for-podman.tar"];
        words.extend(arguments);
        words.push("user/aa:0.2");
        environment.run(&words).assert_success();
        let output = podman(&environment, &["load", "-i", "for-podman.tar"]);
        // Docker's old form has docker's short names, which podman takes for its own.
        let name = match arguments.contains(&"--format=docker") {
            true => "localhost/user/aa:0.2",
            false => "docker.io/user/aa:0.2",
        };
        assert!(output.assert_success().stdout.contains(name), "{arguments:?} {output}");
        assert_eq!(architecture(name), expected, "{arguments:?}");
        podman(&environment, &["rmi", "-f", name]).assert_success();
    }

    environment.run(["save", "--format=oci", "-o", "oci.tar", "user/aa:0.2"]).assert_success();
    let mut skopeo = environment.program("skopeo");
    skopeo.args(["inspect", "--raw", "oci-archive:oci.tar"]);
    let raw = finish(skopeo, Vec::new());
    assert!(raw.assert_success().stdout.contains("riscv64"), "{raw}");

    // And back: what podman saves has one platform and keeps its name.
    environment.run(["save", "--platform=linux/arm64", "-o", "arm64.tar", "user/aa:0.2"]).assert_success();
    podman(&environment, &["load", "-i", "arm64.tar"]).assert_success();
    for form in ["docker-archive", "oci-archive"] {
        let file = format!("podman-{form}.tar");
        podman(&environment, &["save", "--format", form, "-o", &file, "docker.io/user/aa:0.2"])
            .assert_success();
        let other = self::environment();
        let path = environment.work().join(&file);
        let output = other.run(["load", "-i", path.to_str().unwrap()]);
        output.assert_success().assert_stdout("Loaded image: user/aa:0.2\n");
        assert_eq!(complete_platforms(&other, "docker.io/user/aa:0.2"), ["linux/arm64"]);
    }
}

#[test]
fn archives_that_are_truncated_or_lie_are_refused_and_name_nothing() {
    let environment = environment();
    load_four(&environment);
    environment.run(["save", "-o", "good.tar", "user/aa:0.2"]).assert_success();
    let good = std::fs::read(environment.work().join("good.tar")).unwrap();
    let other = self::environment();
    let load = |name: &str, bytes: &[u8]| {
        other.write(name, bytes);
        other.run(["load", "-i", name])
    };
    load("half.tar", &good[..good.len() / 2])
        .assert_code(2)
        .assert_stderr("can't load half.tar")
        .assert_stderr("truncated");
    let mut gzip = flate(&good);
    gzip.truncate(gzip.len() - 100);
    load("half.tar.gz", &gzip).assert_code(2).assert_stderr("can't load half.tar.gz");
    // A byte of a layer is another: the digest that was expected, and the one that came.
    let at = good.windows(14).position(|bytes| bytes == b"hello from lin").unwrap();
    let mut lying = good.clone();
    lying[at] = b'H';
    // In a store of its own: what another archive brought under the right digest would do as well.
    let fresh = self::environment();
    fresh.write("lying.tar", &lying);
    let output = fresh.run(["load", "-i", "lying.tar"]);
    output.assert_code(2).assert_stderr("content has digest sha256:").assert_stderr("but sha256:");
    load("not.tar", b"not an archive at all").assert_code(2).assert_stderr("can't load not.tar: ");
    load("text.tar", &b"root:x:0:0:root:/root:/bin/sh\n".repeat(40))
        .assert_code(2)
        .assert_stderr("can't load text.tar: it is no tar archive, or a damaged one\n");
    load("rootfs.tar", &[0; 1024]).assert_code(2).assert_stderr("polyarch import rootfs.tar NAME");
    other.run(["load", "-i", "absent.tar"]).assert_code(2).assert_stderr("absent.tar");
    other.run(["images", "--format=json"]).assert_success().assert_stdout("[]\n");
    other.run(["save", "absent"]).assert_code(2).assert_stderr("no such image: absent");
}

/// Compresses with the machine's gzip.
fn flate(bytes: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
    finish_ok(std::process::Command::new("gzip").arg(&path));
    let mut compressed = Vec::new();
    std::fs::File::open(Path::new(&format!("{}.gz", path.display())))
        .unwrap()
        .read_to_end(&mut compressed)
        .unwrap();
    compressed
}

#[test]
fn names_are_given_and_taken_away() {
    let environment = environment();
    let digest = load_four(&environment);
    let hex = digest.strip_prefix("sha256:").unwrap();
    environment.run(["tag", "user/aa:0.2", "user/aa:latest"]).assert_success().assert_stdout("");
    environment.run(["tag", &hex[..12], "other"]).assert_success();
    environment.run(["tag", "user/ab:0.2", "x"]).assert_code(2).assert_stderr("did you mean user/aa:0.2");
    environment.run(["tag", "user/aa:0.2", &format!("x@{digest}")]).assert_code(2).assert_stderr("no digest");
    assert_eq!(complete_platforms(&environment, "docker.io/library/other:latest"), FOUR);

    let output = environment.run(["rmi", "other", "absent"]);
    output.assert_code(2).assert_stdout("Untagged: other:latest\n").assert_stderr("no such image: absent");
    environment.run(["rmi", "-f", "absent"]).assert_success().assert_stderr("WARNING: no such image");
    environment.run(["image", "rm", &hex[..12]]).assert_code(2).assert_stderr("several names");
    let output = environment.run(["rmi", "--force", &digest]);
    output.assert_success().assert_stdout("Untagged: user/aa:0.2\nUntagged: user/aa:latest\n");
    environment.run(["images", "--format=json"]).assert_stdout("[]\n");
    // Only names went: until a prune the image is there by its digest.
    environment.run(["tag", &digest, "again"]).assert_success();
    assert_eq!(complete_platforms(&environment, "docker.io/library/again:latest"), FOUR);
}
