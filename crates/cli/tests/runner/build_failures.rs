// SPDX-License-Identifier: Apache-2.0
//! What bad input gets: one error, its place, what to do, and the exit code of its class.

use std::fs;

use polyarch_testkit::{DockerRegistry, Need, TestEnvironment, hello_rootfs, requires};
use polyarch_testkit::{Image, PlatformImage};

use super::build_steps::{build, dockerfile, with_base};

const ROOT: &[Need] = &[Need::Root, Need::UserNamespaces];

#[test]
fn mistakes_in_a_dockerfile_are_shown_with_their_lines_needs_root() {
    if requires(ROOT).is_some() {
        return;
    }
    let table = [
        ("", "no instructions", ""),
        ("FROM scratch\nCOYP a b\n", "unknown instruction: COYP", ">>> COYP a b"),
        ("FROM scratch\nCOPY --form=x a b\n", "--form", ">>> COPY --form=x a b"),
        ("FROM scratch\nRUN <<EOF\necho\n", "unterminated heredoc", ">>> RUN <<EOF"),
        ("RUN true\nFROM scratch\n", "before the first FROM", ">>> RUN true"),
        ("FROM scratch\nCOPY absent /\n", "absent", ">>> COPY absent /"),
        ("FROM scratch\nCOPY --from=9 a b\n", "no stage number 9", ">>> COPY --from=9 a b"),
        (
            "FROM scratch AS a\nCOPY --from=b /x /\nFROM a AS b\n",
            "it needs to be defined before current stage \"a\"",
            ">>> COPY --from=b",
        ),
        ("FROM --platform=linux/a/b/c scratch\n", "linux/a/b/c", ">>> FROM --platform"),
        ("ARG base\nFROM $base\n", "should not be blank", ">>> FROM $base"),
        ("FROM Upper/Case\n", "lowercase", ">>> FROM Upper/Case"),
        ("FROM scratch\nEXPOSE 99999\n", "99999", ">>> EXPOSE 99999"),
        ("FROM scratch\nENV a=${b:?must be set}\n", "must be set", ">>> ENV a="),
    ];
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    for (text, message, excerpt) in table {
        environment.write("Dockerfile", text);
        let output = build(&environment, &[]);
        output.assert_code(3).assert_stderr(message).assert_stderr(excerpt);
    }
}

#[test]
fn an_unknown_target_names_the_stages_needs_root() {
    if requires(ROOT).is_some() {
        return;
    }
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("Dockerfile", "FROM scratch AS builder\nFROM scratch AS final\n");
    let output = build(&environment, &["--target", "bulder"]);
    output.assert_code(3).assert_stderr("did you mean builder?").assert_stderr("builder, final");
}

#[test]
fn a_missing_context_or_dockerfile_is_told_needs_root() {
    if requires(ROOT).is_some() {
        return;
    }
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.run(["build", "nowhere"]).assert_code(2).assert_stderr("nowhere");
    environment.run(["build", "."]).assert_code(3).assert_stderr("-f FILE");
    environment.run(["build", "-f", "absent", "."]).assert_code(2).assert_stderr("absent");
}

#[test]
fn a_failed_step_shows_its_last_lines_its_place_and_its_code_needs_root() {
    if requires(&[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox")]).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(&environment, "RUN seq 30 && echo broken >&2 && exit 42\nRUN never\n");
    let output = build(&environment, &[]);
    output
        .assert_code(1)
        .assert_stderr("exit code: 42")
        .assert_stderr(">>> RUN seq 30")
        .assert_no_stderr("RUN never\n#");
    let tail = output.stderr.split("------").nth(1).unwrap();
    assert!(tail.contains("broken") && tail.contains("22") && !tail.contains("\n20"), "{tail}");

    dockerfile(&environment, "RUN [\"/no/such/program\"]\n");
    build(&environment, &[]).assert_code(1).assert_stderr("/no/such/program");
}

#[test]
fn registries_that_refuse_are_named_with_what_to_do_needs_registry() {
    if requires(&[Need::Root, Need::UserNamespaces, Need::Command("docker-registry")]).is_some() {
        return;
    }
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    let registry = DockerRegistry::start();
    environment.write("Dockerfile", format!("FROM {}\n", registry.name("absent:1")));
    build(&environment, &[])
        .assert_code(5)
        .assert_stderr(&registry.name("absent:1"))
        .assert_stderr(">>> FROM");
    environment.write("Dockerfile", "FROM 127.0.0.1:1/image\n");
    build(&environment, &[]).assert_code(5).assert_stderr("127.0.0.1:1");

    let htpasswd =
        environment.write("htpasswd", "user:$2y$05$Aq9JcSXHpaAcYmq8GQbCyOFpPOSXAEXm2Dz9nVTSbMJWaLXxTqeMe\n");
    let section = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}", htpasswd.display());
    let guarded = DockerRegistry::start_with(&section);
    environment.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let output = build(&environment, &["-t", &guarded.name("app:1"), "--push"]);
    output.assert_code(5).assert_stderr("401").assert_stderr(&guarded.host());
    // Nothing was named: the build failed as a whole.
    assert!(!environment.run(["images"]).assert_success().stdout.contains("app"));
}

#[test]
fn a_damaged_layer_is_refused_needs_registry() {
    if requires(&[Need::Root, Need::UserNamespaces, Need::Command("docker-registry")]).is_some() {
        return;
    }
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    let registry = DockerRegistry::start();
    // The config promises another tar than the layer is.
    let mut image = PlatformImage::new("linux/amd64", hello_rootfs("amd64", "x"), &["/bin/hello"]);
    image.layers.push(b"no tar archive".to_vec());
    registry.push("damaged", "1", &Image::new(vec![image]));
    environment
        .write("Dockerfile", format!("FROM {}\nCOPY --from={0} /bin/hello /x\n", registry.name("damaged:1")));
    let output = build(&environment, &["--platform", "linux/amd64", "-o", "type=local,dest=out"]);
    assert_ne!(output.code, 0, "{}", output.stderr);
    output.assert_stderr("ERROR: ").assert_no_stderr("internal error");
    assert!(!environment.work().join("out").join("x").exists());
}

#[test]
fn a_full_disk_is_told_and_leaves_the_store_whole_needs_root() {
    if requires(&[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox"), Need::Command("mount")])
        .is_some()
    {
        return;
    }
    let environment = with_base();
    let store = environment.store();
    fs::create_dir_all(&store).unwrap();
    let mount = |arguments: &[&str]| {
        let status = std::process::Command::new("mount").args(arguments).arg(&store).status().unwrap();
        assert!(status.success());
    };
    mount(&["-t", "tmpfs", "-o", "size=12m,mode=700", "none"]);
    struct Unmount(std::path::PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(store.clone());
    environment.write("big", vec![7; 16 << 20]);
    dockerfile(&environment, "COPY big /big\n");
    let output = build(&environment, &["-t", "local/full"]);
    output.assert_code(6).assert_stderr("No space left on device");
    assert!(!environment.run(["images"]).assert_success().stdout.contains("full"));
    dockerfile(&environment, "RUN true\n");
    build(&environment, &["-t", "local/fits"]).assert_success();
}

#[test]
fn ignore_rules_that_cannot_be_read_let_nothing_through_needs_root() {
    if requires(ROOT).is_some() {
        return;
    }
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("Dockerfile", "FROM scratch\nCOPY . /\n");
    std::os::unix::fs::symlink("../outside", environment.work().join(".dockerignore")).unwrap();
    build(&environment, &[]).assert_code(3).assert_stderr(".dockerignore");
}
