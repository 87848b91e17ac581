// SPDX-License-Identifier: Apache-2.0
//! Builds on several nodes: unmodified daemons, where there is one to start.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use polyarch_testkit::{Buildkitd, Output, TestEnvironment, busybox_rootfs};

const BASE: &str = "FROM scratch\nADD rootfs.tar /\nARG TARGETARCH\n";

/// An environment with a builder of two nodes, `far0` and `far1`.
fn environment(nodes: [(&Buildkitd, &str); 2]) -> TestEnvironment {
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

const BUILD: [&str; 7] =
    ["build", "--builder", "far", "--platform", "linux/amd64,linux/386", "--progress", "plain"];

fn build(environment: &TestEnvironment, arguments: &[&str]) -> Output {
    environment.run(BUILD.iter().chain(arguments).chain(&["."]))
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

#[test]
#[cfg(target_arch = "x86_64")]
fn a_node_that_dies_is_left_out_and_its_platform_built_elsewhere() {
    let (Some(one), Some(mut two)) = (Buildkitd::start(), Buildkitd::start()) else { return };
    let environment = environment([(&one, ""), (&two, "")]);
    environment.write(
        "Dockerfile",
        format!("{BASE}RUN echo begun $TARGETARCH && sleep 4 && echo $TARGETARCH > /for\n"),
    );
    let mut command = environment.command(BUILD.iter().chain(&["-o", "out", "."]));
    let mut building = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(building.stderr.take().unwrap());
    // Both nodes have begun their step.
    while !(said.contains(" begun amd64") && said.contains(" begun 386")) {
        assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
    }
    two.kill();
    while lines.read_line(&mut said).unwrap() > 0 {}
    assert!(building.wait().unwrap().success(), "{said}");
    assert!(said.contains("the node far1 failed and is left out"), "{said}");
    for (directory, text) in [("linux_amd64", "amd64\n"), ("linux_386", "386\n")] {
        let file = environment.work().join("out").join(directory).join("for");
        assert_eq!(std::fs::read_to_string(file).unwrap(), text);
    }
}

#[test]
fn a_builder_that_is_not_there_is_an_error() {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("Dockerfile", "FROM scratch\n");
    let failed = environment.run(["build", "--builder", "nowhere", "."]);
    failed.assert_code(2).assert_stderr("no builder \"nowhere\" found");
    environment.run(["build", "--builder", "default", "-o", "type=cacheonly", "."]).assert_success();
}
