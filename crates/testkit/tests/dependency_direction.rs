// SPDX-License-Identifier: Apache-2.0
//! Dependencies between the rooms point one way: the table of `ARCHITECTURE.md`, as a test.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Each room and the rooms that it may know.
const MAY_KNOW: [(&str, &[&str]); 15] = [
    ("oci", &[]),
    ("solver", &[]),
    ("dockerfile", &["oci"]),
    // Neither knows the other: a layer passes between them as a stream of bytes.
    ("store", &["oci"]),
    ("snapshot", &["oci"]),
    ("sandbox", &["oci"]),
    ("registry", &["oci"]),
    ("contents", &["oci", "snapshot"]),
    ("bake", &["oci"]),
    ("kubernetes", &[]),
    ("build", &["oci", "dockerfile", "solver", "sandbox", "snapshot", "contents", "registry", "store"]),
    ("images", &["oci", "solver", "snapshot", "contents", "registry", "store", "build"]),
    ("buildkit", &["oci", "dockerfile", "solver", "snapshot", "registry", "store", "build"]),
    (
        "cli",
        &[
            "oci",
            "dockerfile",
            "solver",
            "sandbox",
            "snapshot",
            "contents",
            "registry",
            "store",
            "build",
            "images",
            "buildkit",
            "bake",
            "kubernetes",
        ],
    ),
    // The tests' room may look at what it makes images from; no room needs it outside of tests.
    ("testkit", &["oci"]),
];

#[test]
fn rooms_depend_in_one_direction() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_KNOW.into();
    let rooms = dependencies_of_rooms();
    assert!(!rooms.is_empty(), "cargo metadata listed no package");
    let mut wrong = Vec::new();
    for (room, dependencies) in &rooms {
        let Some(may_know) = allowed.get(room.as_str()) else {
            wrong.push(format!(
                "{room} is a new room: say in this test and in ARCHITECTURE.md what it may know"
            ));
            continue;
        };
        for dependency in dependencies {
            if !may_know.contains(&dependency.as_str()) {
                wrong.push(format!("{room} depends on {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "against the direction of ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

#[test]
fn only_the_sandbox_may_have_unsafe_code() {
    for package in packages() {
        let manifest = package["manifest_path"].as_str().expect("cargo metadata gives each package a path");
        let source = std::fs::read_to_string(manifest).expect("cargo has just read it");
        let toml = source.split("\n[lints]").nth(1);
        let inherits = toml.is_some_and(|lints| lints.trim_start().starts_with("workspace = true"));
        let name = package["name"].as_str().unwrap_or_default();
        assert!(
            inherits || name == "polyarch-sandbox",
            "{name} does not take the workspace's lints, which deny unsafe code"
        );
    }
}

/// Returns each room with the rooms that it depends on outside of tests, by folder names.
fn dependencies_of_rooms() -> BTreeMap<String, BTreeSet<String>> {
    let room_of = |name: &serde_json::Value| Some(name.as_str()?.strip_prefix("polyarch-")?.to_owned());
    let mut rooms = BTreeMap::new();
    for package in packages() {
        let Some(room) = room_of(&package["name"]) else { continue };
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let ours = dependencies
            .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
            .filter_map(|dependency| room_of(&dependency["name"]))
            .collect();
        rooms.insert(room, ours);
    }
    rooms
}

/// Asks cargo for the packages of this workspace; needs neither a registry nor the network.
fn packages() -> Vec<serde_json::Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs, it has started this test");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    metadata["packages"].as_array().cloned().unwrap_or_default()
}
