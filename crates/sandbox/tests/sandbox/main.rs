// SPDX-License-Identifier: Apache-2.0
//! Containers run for real: as root and as ordinary users, driven through `polyarch-sandbox-probe`.
//!
//! All of them need the kernel's namespaces and overlayfs and Debian's busybox-static; where one is missing, a test
//! says so and passes.
#![expect(clippy::print_stderr, reason = "a skipped test says why, a measurement says what it found")]

mod endings;
mod isolation;
mod mounts;
mod namespaces;
mod processes;
mod support;
mod upper_directory;

#[test]
fn no_test_file_is_forgotten() {
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sandbox")).expect("read") {
        let name = entry.expect("entry").file_name().into_string().expect("UTF-8");
        let module = name.trim_end_matches(".rs");
        assert!(module == "main" || main.contains(&format!("mod {module};")), "{name}");
    }
}
