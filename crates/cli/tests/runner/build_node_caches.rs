// SPDX-License-Identifier: Apache-2.0
//! Caches of builds on several nodes: what each of them knows, in one place.

use std::path::Path;

use polyarch_testkit::{Buildkitd, DockerRegistry, Need, Output, TestEnvironment, requires};

use crate::build_cache::steps;
use crate::build_nodes::{BASE, build, environment};
use crate::build_remote_cache::{config_of, read_json};

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox")];

/// A builder of two new nodes.
fn builder(one: &Buildkitd, two: &Buildkitd) -> TestEnvironment {
    let environment = environment([(one, "linux/amd64"), (two, "linux/386")]);
    let dockerfile =
        format!("{BASE}RUN echo $TARGETARCH > /for && cat /proc/sys/kernel/random/uuid > /unique\n");
    environment.write("Dockerfile", dockerfile);
    environment
}

fn own() -> Buildkitd {
    Buildkitd::of(Path::new(env!("CARGO_BIN_EXE_polyarch")))
}

fn index_of(output: &Output) -> String {
    output.stderr.lines().find(|line| line.starts_with("index ")).expect("an index was made").to_owned()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn both_nodes_send_what_they_know_to_one_directory_and_new_ones_take_it_from_there_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let (one, two) = (own(), own());
    let here = builder(&one, &two);
    let made = build(&here, &["--cache-to=type=local,dest=cache", "-t", "example.com/app:1"]);
    let (executed, _) = steps(made.assert_success());
    assert!(executed.iter().filter(|name| name.contains("RUN ")).count() == 2, "{executed:?}");
    let cache = here.work().join("cache");
    assert_eq!(read_json(&cache.join("index.json"))["manifests"].as_array().map(Vec::len), Some(1));
    let records = read_json(&config_of(&cache))["records"].as_array().map_or(0, Vec::len);
    assert!(records >= 4, "two steps of two platforms: {records}");

    let (three, four) = (own(), own());
    let there = builder(&three, &four);
    let from = format!("--cache-from=type=local,src={}", cache.display());
    let again = build(&there, &[&from, "-t", "example.com/app:1"]);
    let (executed, cached) = steps(again.assert_success());
    assert_eq!((executed, cached.is_empty()), (Vec::<String>::new(), false));
    assert_eq!(index_of(&again), index_of(&made));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn nodes_of_two_kinds_have_one_cache_in_a_registry_needs_root() {
    if requires(NEEDS).is_some() || requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let registry = DockerRegistry::start();
    let name = registry.name("cache");
    let Some(one) = Buildkitd::start() else { return };
    let two = own();
    let made = build(&builder(&one, &two), &[&format!("--cache-to={name}:1")]);
    made.assert_success();
    let Some(three) = Buildkitd::start() else { return };
    let four = own();
    let again = build(&builder(&three, &four), &[&format!("--cache-from={name}:1")]);
    let (executed, cached) = steps(again.assert_success());
    assert_eq!((executed, cached.is_empty()), (Vec::<String>::new(), false));
    assert_eq!(index_of(&again), index_of(&made));
}
