// SPDX-License-Identifier: Apache-2.0
//! Tests of the room as its users see it; those named `kernel_` need root and overlayfs.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail where it stands")]

mod apply;
mod copy_choice;
mod copying;
mod hostile;
mod single_id;
mod support;
mod trees;

/// Every file of this folder is part of the suite.
#[test]
fn no_test_file_is_forgotten() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite");
    let listed = std::fs::read_to_string(folder.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stem = name.strip_suffix(".rs").unwrap();
        assert!(stem == "main" || listed.contains(&format!("mod {stem};")), "{name} is not listed");
    }
}
