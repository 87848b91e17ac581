// SPDX-License-Identifier: Apache-2.0
//! Where files come from besides the build's own directory: named contexts and remote ones.

use std::fs;
use std::path::Path;

use polyarch_testkit::{Need, TestEnvironment, requires};

use crate::build_steps::build;

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces];

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// Builds into a directory, with more arguments, and returns it.
fn build_files(environment: &TestEnvironment, arguments: &[&str]) -> std::path::PathBuf {
    let _ = fs::remove_dir_all(environment.work().join("out"));
    build(environment, &[&["-o", "type=local,dest=out"], arguments].concat()).assert_success();
    environment.work().join("out")
}

#[test]
fn a_directory_is_copied_from_and_built_on_without_what_it_ignores_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    environment.write("elsewhere/a", "a");
    environment.write("elsewhere/hidden", "hidden");
    environment.write("elsewhere/.dockerignore", "hidden\n");
    environment.write(
        "Dockerfile",
        "FROM elsewhere\nCOPY Dockerfile /\nFROM scratch\nCOPY --from=0 / /stage\nCOPY --from=elsewhere a /\n",
    );
    let out = build_files(&environment, &["--build-context", "elsewhere=elsewhere"]);
    assert_eq!(text(out.join("a")), "a");
    assert_eq!(text(out.join("stage/a")), "a");
    assert!(out.join("stage/Dockerfile").exists());
    assert!(!out.join("stage/hidden").exists());

    environment.write("elsewhere/a", "changed");
    let out = build_files(&environment, &["--build-context", "elsewhere=elsewhere"]);
    assert_eq!(text(out.join("a")), "changed");
    assert_eq!(text(out.join("stage/a")), "changed");
}

#[test]
fn a_context_stands_before_stages_and_images_of_its_name_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    environment.write("instead/file", "instead");
    environment.write(
        "Dockerfile",
        "FROM never.invalid/resolved AS tools\nRUN never\nFROM scratch\nCOPY --from=tools file /of-stage\n\
         COPY --from=busybox file /of-image\n",
    );
    let out = build_files(
        &environment,
        &["--build-context", "tools=instead", "--build-context", "docker.io/library/busybox:latest=instead"],
    );
    assert_eq!(
        (text(out.join("of-stage")), text(out.join("of-image"))),
        ("instead".into(), "instead".into())
    );
    // What nobody names is not looked at.
    build_files(
        &environment,
        &[
            "--build-context=tools=instead",
            "--build-context=busybox=instead",
            "--build-context=no=docker-image://never.invalid/x",
        ],
    );
}

#[test]
fn an_image_of_a_layout_brings_its_files_and_its_config_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    environment.write("file", "of the layout");
    environment.write("Dockerfile", "FROM scratch\nENV origin=layout\nCOPY file /\n");
    build(&environment, &["-t", "example.com/made:v1", "-o", "type=oci,tar=false,dest=layout"])
        .assert_success();
    environment.write("Dockerfile", "FROM base\nCOPY Dockerfile /from-$origin\n");
    for value in ["base=oci-layout://layout", "base=oci-layout://layout:v1"] {
        let out = build_files(&environment, &["--build-context", value]);
        assert_eq!(text(out.join("file")), "of the layout");
        assert!(out.join("from-layout").exists());
    }
    let refused = build(&environment, &["--build-context", "base=oci-layout://layout:v2"]);
    assert!(refused.stderr.contains("has no image v2"), "{}", refused.stderr);
    assert!(refused.stderr.contains("it has: v1"), "{}", refused.stderr);
}

#[test]
fn contexts_that_make_no_sense_are_refused_before_anything_is_done() {
    let environment = environment();
    environment.write("Dockerfile", "FROM scratch\n");
    for (value, expected) in [
        ("a", "there is no \"=\""),
        ("A B=.", "invalid context name A B"),
        ("a=missing", "can't read"),
        ("a=Dockerfile", "is not a directory"),
        ("a=", "the value is empty"),
        ("a=docker-image://A B", "invalid context docker-image://A B"),
        ("a=oci-layout://.", "is not an OCI layout"),
    ] {
        let refused = build(&environment, &["--build-context", value]);
        refused.assert_code(2);
        assert!(refused.stderr.contains(expected), "{value}: {}", refused.stderr);
    }
}
