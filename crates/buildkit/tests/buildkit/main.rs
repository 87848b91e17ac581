// SPDX-License-Identifier: Apache-2.0
//! The client against an unmodified buildkitd.
//!
//! No distribution has that program, so these tests run only where `POLYARCH_TEST_BUILDKITD` names it (and
//! `POLYARCH_TEST_BUILDCTL` its client, for connections through a program).

#![recursion_limit = "256"]
#![expect(clippy::unwrap_used, reason = "everything in this binary is a test")]

mod connections;
mod definition;
mod foreign;
mod isolation;
mod server;
mod solve;

/// A file that nobody declares would silently not be tested.
#[test]
fn every_file_here_is_part_of_the_binary() {
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/buildkit")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").unwrap();
        assert!(module == "main" || main.contains(&format!("mod {module};")), "{name} is not declared");
    }
}
