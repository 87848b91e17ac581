// SPDX-License-Identifier: Apache-2.0
//! The client against registries: a fake one that misbehaves on request, Debian's `docker-registry`, and our own server.

#![expect(clippy::unwrap_used, reason = "everything in this binary is a test")]

mod auth;
mod debian;
mod downgrade;
mod download;
mod fake;
mod lend;
mod lists;
mod manifest;
mod page;
mod proxy;
mod push;
mod server;
#[cfg(feature = "s3")]
mod server_bucket;
mod server_full;
mod server_input;
mod server_mirror;
mod serving;
mod tls;

/// A file that nobody declares would silently not be tested.
#[test]
fn every_file_here_is_part_of_the_binary() {
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/registry")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").unwrap();
        assert!(module == "main" || main.contains(&format!("mod {module};")), "{name} is not declared");
    }
}
