// SPDX-License-Identifier: Apache-2.0
//! Builds on several nodes: unmodified daemons, where there is one to start.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use polyarch_testkit::{Buildkitd, Output, TestEnvironment, busybox_rootfs};

pub(crate) const BASE: &str = "FROM scratch\nADD rootfs.tar /\nARG TARGETARCH\n";

/// An environment with a builder of two nodes, `far0` and `far1`.
pub(crate) fn environment(nodes: [(&Buildkitd, &str); 2]) -> TestEnvironment {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("rootfs.tar", busybox_rootfs());
    for (number, (daemon, platforms)) in nodes.into_iter().enumerate() {
        let endpoint = format!("unix://{}", daemon.socket().display());
        let mut arguments =
            vec!["buildx", "create", "--name", "far", "--driver", "remote", "--bootstrap", &endpoint];
        if number > 0 {
            arguments.push("--append");
        }
        if !platforms.is_empty() {
            arguments.extend(["--platform", platforms]);
        }
        environment.run(arguments).assert_success();
    }
    environment
}

/// The base's programs are of one platform, whatever the image's is.
const BUILD: [&str; 6] = ["build", "--builder", "far", "--platform", "linux/amd64,linux/386", "--no-verify"];

pub(crate) fn build(environment: &TestEnvironment, arguments: &[&str]) -> Output {
    environment.run(BUILD.iter().chain(&["--progress", "plain"]).chain(arguments).chain(&["."]))
}

#[test]
#[cfg(target_arch = "x86_64")]
fn each_platform_is_built_on_its_node_and_one_index_comes_home() {
    let (Some(one), Some(two)) = (Buildkitd::start(), Buildkitd::start()) else { return };
    let environment = environment([(&one, "linux/amd64"), (&two, "linux/386")]);
    environment.write("Dockerfile", format!("{BASE}RUN echo built for $TARGETARCH > /for\n"));
    let built =
        build(&environment, &["-t", "example.com/app:1", "-o", "type=image", "-o", "type=local,dest=out"]);
    built.assert_success();
    for name in ["[far0 2/2] RUN", "[far1 2/2] RUN", "naming to example.com/app:1"] {
        built.assert_stderr(name);
    }
    for (directory, text) in [("linux_amd64", "built for amd64\n"), ("linux_386", "built for 386\n")] {
        let file = environment.work().join("out").join(directory).join("for");
        assert_eq!(std::fs::read_to_string(file).unwrap(), text);
    }
    let images = environment.run(["images", "--tree"]);
    assert!(
        images.stdout.contains("linux/amd64") && images.stdout.contains("linux/386"),
        "{}",
        images.stdout
    );
    // The same again is the same image.
    let digest =
        |output: &Output| output.stderr.lines().find(|line| line.starts_with("index ")).unwrap().to_owned();
    let again = build(&environment, &["-t", "example.com/app:2"]);
    assert_eq!(digest(again.assert_success()), digest(&built));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_step_that_fails_on_a_node_publishes_nothing() {
    let (Some(one), Some(two)) = (Buildkitd::start(), Buildkitd::start()) else { return };
    let environment = environment([(&one, "linux/amd64"), (&two, "linux/386")]);
    environment.write("Dockerfile", format!("{BASE}RUN [ $TARGETARCH = amd64 ] || exit 7\n"));
    let failed = build(&environment, &["-t", "example.com/app:1"]);
    failed.assert_code(1).assert_stderr("Dockerfile:4").assert_stderr("exit code: 7");
    assert!(!environment.run(["images"]).stdout.contains("example.com/app"));
}

/// Returns the warnings among the events of a build, which stand there in base64.
fn warnings(events: &str) -> String {
    let events = events.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let texts = events.flat_map(|event| event["warnings"].as_array().cloned().unwrap_or_default());
    let decoded = texts.filter_map(|warning| STANDARD.decode(warning["short"].as_str()?).ok());
    decoded.map(|text| String::from_utf8_lossy(&text).into_owned() + "\n").collect()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_node_that_dies_is_left_out_and_its_platform_built_elsewhere() {
    let (Some(one), Some(mut two)) = (Buildkitd::start(), Buildkitd::start()) else { return };
    let environment = environment([(&one, ""), (&two, "")]);
    environment.write(
        "Dockerfile",
        format!("{BASE}RUN echo begun $TARGETARCH && sleep 4 && echo $TARGETARCH > /for\n"),
    );
    // Every event is a line at once.
    let arguments = BUILD.iter().chain(&["--progress", "rawjson", "-o", "out", "."]);
    let mut command = environment.command(arguments);
    let mut building = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(building.stderr.take().unwrap());
    // Both nodes have begun their step.
    while !(said.contains("[far0 2/2] RUN") && said.contains("[far1 2/2] RUN")) {
        assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
    }
    two.kill();
    while lines.read_line(&mut said).unwrap() > 0 {}
    assert!(building.wait().unwrap().success(), "{said}");
    let warnings = warnings(&said);
    assert!(warnings.contains("the node far1 failed and is left out"), "{warnings}");
    assert!(warnings.contains("building linux/386 on far0 instead"), "{warnings}");
    // What the lost node was at does not stay open.
    let is_closed = |line: &str| line.contains("[far1 ") && line.contains("canceled");
    assert!(said.lines().any(is_closed), "{said}");
    for (directory, text) in [("linux_amd64", "amd64\n"), ("linux_386", "386\n")] {
        let file = environment.work().join("out").join(directory).join("for");
        assert_eq!(std::fs::read_to_string(file).unwrap(), text);
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_node_that_does_not_answer_is_left_out_or_ends_the_build() {
    let (Some(one), Some(mut two)) = (Buildkitd::start(), Buildkitd::start()) else { return };
    let environment = environment([(&one, ""), (&two, "linux/386")]);
    environment.write("Dockerfile", format!("{BASE}RUN echo $TARGETARCH > /for\n"));
    two.kill();
    let alone = ["build", "--builder", "far", "--platform", "linux/amd64", "--progress", "plain", "."];
    let built = environment.run(alone);
    built
        .assert_success()
        .assert_stderr("the node far1 does not answer and is left out: can't connect to unix://");
    // What was fixed for it is built nowhere else.
    let failed = build(&environment, &[]);
    failed.assert_code(4).assert_stderr("no node builds for linux/386").assert_stderr("far1 does not answer");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn programs_of_another_platform_are_found_in_what_nodes_send() {
    let (Some(one), Some(two)) = (Buildkitd::start(), Buildkitd::start()) else { return };
    let environment = environment([(&one, "linux/amd64"), (&two, "linux/386")]);
    environment.write("hello-arm64", polyarch_testkit::hello_program("arm64", "hello", 0).unwrap());
    environment
        .write("Dockerfile", "FROM scratch\nCOPY hello-arm64 /bin/hello\nENTRYPOINT [\"/bin/hello\"]\n");
    let failed = environment.run(BUILD[..5].iter().chain(&["-t", "example.com/app:1", "."]));
    failed.assert_code(4);
    for platform in ["linux/amd64", "linux/386"] {
        failed.assert_stderr(&format!(
            "/bin/hello is the program of ENTRYPOINT and of arm64, and the image is for {platform}"
        ));
    }
    assert!(!environment.run(["images"]).stdout.contains("example.com/app"));
    build(&environment, &[]).assert_success();
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_caches_of_nodes_are_shown_and_removed() {
    let (Some(one), Some(two)) = (Buildkitd::start(), Buildkitd::start()) else { return };
    let environment = environment([(&one, "linux/amd64"), (&two, "linux/386")]);
    environment.write("Dockerfile", format!("{BASE}RUN echo $TARGETARCH > /for\n"));
    build(&environment, &[]).assert_success();
    let shown = environment.run(["--builder", "far", "buildx", "du", "--format", "json"]);
    let of = |node: &str| {
        let lines = shown.assert_success().stdout.lines();
        lines.filter(|line| line.contains(&format!("\"Node\":\"{node}\""))).count()
    };
    assert!(of("far0") > 0 && of("far1") > 0, "{}", shown.stdout);
    let regular = environment.run(["--builder", "far", "buildx", "du", "--filter", "type=source.local"]);
    assert!(regular.assert_success().stdout.contains("source.local"), "{}", regular.stdout);
    let versions = environment.run(["--builder", "far", "buildx", "version"]);
    assert_eq!(versions.assert_success().stdout.lines().filter(|line| line.starts_with("far")).count(), 2);
    environment.run(["--builder", "far", "buildx", "prune", "--dry-run"]).assert_code(2);
    let pruned = environment.run(["--builder", "far", "buildx", "prune", "--all", "--force"]);
    assert!(pruned.assert_success().stdout.contains("Total:"), "{}", pruned.stdout);
    let left = environment.run(["--builder", "far", "buildx", "du", "--format", "json"]);
    left.assert_success().assert_stdout("");
}

#[test]
fn a_builder_that_is_not_there_is_an_error() {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("Dockerfile", "FROM scratch\n");
    let failed = environment.run(["build", "--builder", "nowhere", "."]);
    failed.assert_code(2).assert_stderr("no builder \"nowhere\" found");
    environment.run(["build", "--builder", "default", "-o", "type=cacheonly", "."]).assert_success();
}
