// SPDX-License-Identifier: Apache-2.0
//! Results of steps that travel between machines: `--cache-to` here, `--cache-from` there.

use std::fs;
use std::path::Path;

use polyarch_testkit::{DockerRegistry, Need, TestEnvironment, requires};
use serde_json::Value;

use crate::build_cache::steps;
use crate::build_steps::{build, dockerfile, with_base};

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox")];

/// A machine of its own, with the same files as every other one.
fn machine() -> TestEnvironment {
    let environment = with_base();
    environment.write("file", "1");
    dockerfile(
        &environment,
        "FROM base AS tool\nRUN echo tool > /tool\nFROM base\nCOPY file /\nRUN echo one > /one\n\
         COPY --from=tool /tool /\nRUN echo two > /two\n",
    );
    environment
}

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Returns where the list of records is in a directory of `type=local`.
pub(crate) fn config_of(cache: &Path) -> std::path::PathBuf {
    let blob = |entry: &Value| cache.join("blobs").join(entry["digest"].as_str().unwrap().replace(':', "/"));
    let index = read_json(&cache.join("index.json"));
    blob(&read_json(&blob(&index["manifests"][0]))["config"])
}

#[test]
fn a_directory_carries_all_steps_or_those_of_the_result_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let here = machine();
    let digest = |environment: &TestEnvironment, argument: &str| {
        let output = environment.run(["build", "-q", argument, "."]);
        output.assert_success();
        output.stdout.trim().to_owned()
    };
    let made = digest(&here, "--cache-to=type=local,dest=cache,mode=max");
    let cache = here.work().join("cache");
    let from = format!("--cache-from=type=local,src={}", cache.display());

    let there = machine();
    let (executed, cached) = steps(build(&there, &[&from]).assert_success());
    assert_eq!((executed, cached.is_empty()), (Vec::<String>::new(), false));
    // A cached step keeps its time: the image is the same to the byte.
    assert_eq!(digest(&there, &from), made);
    // What was brought serves only builds that name it.
    let (executed, _) = steps(build(&there, &[]).assert_success());
    assert_eq!(executed.len(), 6, "{executed:?}");

    let few = machine();
    build(&few, &[&from, "--cache-to=type=local,dest=few"]).assert_success();
    let records = |cache: &Path| read_json(&config_of(cache))["records"].as_array().unwrap().len();
    assert!(records(&few.work().join("few")) < records(&cache));
    few.write("file", "2");
    let (executed, cached) = steps(build(&few, &[&from]).assert_success());
    assert!(executed.iter().any(|name| name.contains("RUN echo two")), "{executed:?}");
    assert!(cached.iter().any(|name| name.contains("RUN echo tool")), "{cached:?}");
}

#[test]
fn what_is_made_of_records_from_elsewhere_serves_only_who_names_them_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let here = machine();
    build(&here, &["--cache-to=type=local,dest=cache,mode=max"]).assert_success();
    let from = format!("--cache-from=type=local,src={}", here.work().join("cache").display());

    let there = machine();
    let text = fs::read_to_string(there.work().join("Dockerfile")).unwrap();
    there.write(
        "Dockerfile",
        format!("{text}RUN echo three > /three\nFROM base\nCOPY --from=2 /three /tool /\n"),
    );
    let (executed, _) = steps(build(&there, &[&from]).assert_success());
    assert_eq!(executed.len(), 2, "{executed:?}");
    let (executed, _) = steps(build(&there, &[&from]).assert_success());
    assert_eq!(executed, Vec::<String>::new());
    // Whoever doesn't name the place gets nothing of it, be it a mere copy of its files.
    let (executed, _) = steps(build(&there, &[]).assert_success());
    assert_eq!(executed.len(), 8, "{executed:?}");
}

#[test]
fn a_registry_carries_steps_and_is_asked_for_layers_only_when_needed_needs_root() {
    if requires(NEEDS).is_some() || requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let registry = DockerRegistry::start();
    let cache = registry.name("cache");
    let to = format!("--cache-to=type=registry,ref={cache}:main,mode=max");
    build(&machine(), &[&to]).assert_success();
    let there = machine();
    let from = format!("--cache-from={cache}:main");
    let (executed, _) = steps(build(&there, &[&from, "-o", "type=local,dest=out"]).assert_success());
    assert_eq!(executed, Vec::<String>::new());
    assert_eq!(fs::read_to_string(there.work().join("out/two")).unwrap(), "two\n");
    let (executed, _) = steps(build(&machine(), &["--no-cache", &from]).assert_success());
    assert_eq!(executed.len(), 6, "{executed:?}");
}

#[test]
fn a_cache_that_is_not_there_or_was_tampered_with_is_told_and_not_used_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let here = machine();
    let missing = build(&here, &["--cache-from=type=local,src=nowhere", "--cache-to=type=local,dest=cache"]);
    missing.assert_success();
    assert!(missing.stderr.contains("importing cache manifest from"), "{}", missing.stderr);
    assert!(missing.stderr.contains("so it is not used"), "{}", missing.stderr);

    let cache = here.work().join("cache");
    let config = config_of(&cache);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("blake3:", "blake4:")).unwrap();
    let there = machine();
    let output = build(&there, &[&format!("--cache-from=type=local,src={}", cache.display())]);
    let (executed, _) = steps(output.assert_success());
    assert_eq!(executed.len(), 6, "{executed:?}");
    assert!(output.stderr.contains("so it is not used"), "{}", output.stderr);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_built() {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("Dockerfile", "FROM scratch\n");
    for (flag, problem) in [
        ("--cache-to=type=local", "--cache-to type=local: dest= is missing"),
        ("--cache-to=type=gha", "--cache-to type=gha: caches are not kept with this service"),
        ("--cache-to=type=local,dest=a,compresion=x", "--cache-to type=local: compresion is unknown"),
        ("--cache-from=type=registry", "--cache-from type=registry: ref= is missing"),
        ("--cache-from=ref=a", "type required"),
    ] {
        let output = environment.run(["build", flag, "."]);
        assert_eq!(output.code, 2, "{}", output.stderr);
        assert!(output.stderr.contains(problem), "{flag}: {}", output.stderr);
    }
}

#[test]
fn an_image_carries_its_own_steps_for_all_platforms_needs_root() {
    if requires(NEEDS).is_some() || requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let registry = DockerRegistry::start();
    let name = registry.name("app");
    let machine = || {
        let environment = machine();
        // The stage in the middle gives something else each time; its records are not in the image.
        dockerfile(
            &environment,
            "FROM --platform=$BUILDPLATFORM base AS tool\nCOPY file /\nARG TARGETARCH\n\
             RUN echo $TARGETARCH > /arch && cat /proc/sys/kernel/random/uuid > /unique\n\
             FROM scratch\nCOPY --from=tool /unique /\nCOPY --from=tool /arch /\n",
        );
        environment
    };
    let push = |environment: &TestEnvironment, flags: &[&str]| {
        let platforms = "--platform=linux/amd64,linux/arm/v7";
        let tag = format!("-t{name}:1");
        let output = environment
            .run([&["build", "-q", platforms, tag.as_str(), "--push"][..], flags, &["."]].concat());
        output.assert_success();
        output.stdout.trim().to_owned()
    };
    let made = push(&machine(), &["--cache-to=type=inline"]);
    let from = format!("--cache-from={name}:1");
    let again = push(&machine(), &[&from, "--cache-to=type=inline"]);
    assert_eq!(again, made);
    assert_ne!(push(&machine(), &["--cache-to=type=inline"]), made);
}
