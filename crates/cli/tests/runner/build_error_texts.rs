// SPDX-License-Identifier: Apache-2.0
//! The whole text of each error, as people see it: a Dockerfile for each, one snapshot for all.

use std::fmt::Write;

use polyarch_testkit::{DockerRegistry, Image, Need, Output, PlatformImage, hello_rootfs, requires};

use super::build_steps::{build, with_base};

const NEEDS: &[Need] =
    &[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox"), Need::Command("docker-registry")];

/// Dockerfiles that are wrong by themselves; `BASE` stands for a stage with a shell.
const WRONG: &[&str] = &[
    "# only a comment\n",
    "FROM scratch\nCOYP file /\n",
    "FROM scratch\nCOPY --form=x file /\n",
    "FROM scratch\nCOPY file\n",
    "FROM scratch\nRUN <<EOF\necho never ended\n",
    "RUN true\nFROM scratch\n",
    "FROM scratch\nCOPY flie /\n",
    "FROM scratch AS builder\nFROM scratch\nCOPY --from=7 /x /\n",
    "FROM --platform=linux/amd64/v1/x scratch\n",
    "ARG base\nFROM $base\n",
    "FROM Upper/Case\n",
    "FROM scratch\nEXPOSE 99999\n",
    "FROM scratch\nENV a=\"${b:?must be set}\"\n",
    "FROM scratch\nSTOPSIGNAL SIGNONE\n",
    "FROM scratch\nCOPY --chown=nobody file /\n",
    "FROM scratch\nRUN --mount=type=cache,target=/ true\n",
    "BASE\nRUN echo working && echo failed >&2 && exit 3\n",
    "BASE\nRUN [\"/no/such/program\"]\n",
    "BASE\nUSER nobody\nRUN true\n",
];

#[test]
fn every_error_says_what_where_why_and_what_to_do_needs_registry() {
    if requires(NEEDS).is_some() {
        return;
    }
    let mut environment = with_base();
    environment.write("file", "content");
    let (registry, guarded) = (DockerRegistry::start(), guarded_registry(&environment));
    let mut texts = String::new();
    let mut show = |title: &str, output: &Output| {
        let text = plain_end(&output.stderr);
        writeln!(texts, "=== {title}\nexit code {}\n{text}", output.code).unwrap();
    };
    for text in WRONG {
        environment.write("Dockerfile", text.replace("BASE", "FROM scratch\nADD rootfs.tar /"));
        show(text.trim_end(), &build(&environment, &[]));
    }
    environment.write("Dockerfile", "FROM scratch AS builder\nFROM scratch AS final\n");
    show("--target bulder", &build(&environment, &["--target", "bulder"]));
    show("a context that is not there", &environment.run(["build", "nowhere"]));
    show("no tag to push", &build(&environment, &["--push"]));

    let image = PlatformImage::new("linux/amd64", hello_rootfs("amd64", "hello"), &["/bin/hello"]);
    let mut damaged = image.clone();
    damaged.layers.push(b"no tar archive".to_vec());
    registry.push("base", "1", &Image::new(vec![image]));
    registry.push("damaged", "1", &Image::new(vec![damaged]));
    let from = |name: &str| {
        environment.write("Dockerfile", format!("FROM {name}\nCOPY --from={name} /bin/hello /x\n"))
    };
    from(&registry.name("base:1"));
    show("a base without the platform", &build(&environment, &["--platform", "linux/riscv64"]));
    from(&registry.name("absent:1"));
    show("a base that the registry does not have", &build(&environment, &[]));
    from("127.0.0.1:1/base");
    show("a registry that is not there", &build(&environment, &[]));
    from(&guarded.name("base:1"));
    show("a registry that wants credentials", &build(&environment, &[]));
    from(&registry.name("damaged:1"));
    show("a layer that is no archive", &build(&environment, &["--platform", "linux/amd64", "-o", "out"]));

    environment.set("PATH", "/nonexistent");
    environment.write("Dockerfile", "FROM scratch\nADD rootfs.tar /\nRUN true\n");
    show("no emulator", &build(&environment, &["--platform", "linux/s390x"]));

    insta::with_settings!({ filters => vec![
        (r"127\.0\.0\.1:\d{3,}", "REGISTRY"),
        (r"sha256:[0-9a-f]{64}", "DIGEST"),
        (r"/\S*polyarch-test-[^/\s]+", "ENVIRONMENT"),
    ]}, { insta::assert_snapshot!("build_errors", texts) });
}

fn guarded_registry(environment: &polyarch_testkit::TestEnvironment) -> DockerRegistry {
    let htpasswd =
        environment.write("htpasswd", "user:$2y$05$Aq9JcSXHpaAcYmq8GQbCyOFpPOSXAEXm2Dz9nVTSbMJWaLXxTqeMe\n");
    DockerRegistry::start_with(&format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}",
        htpasswd.display()
    ))
}

/// Leaves out the progress of steps: times and order of it are not what is looked at here.
fn plain_end(stderr: &str) -> String {
    let is_progress = |line: &&str| line.starts_with('#') || line.trim().is_empty();
    stderr.lines().filter(|line| !is_progress(line)).map(|line| format!("  {line}\n")).collect()
}
