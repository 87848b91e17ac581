// SPDX-License-Identifier: Apache-2.0
//! A test file that `main.rs` doesn't name would never run.

use std::path::Path;

#[test]
fn every_test_file_is_part_of_the_test_binary() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runner");
    let main = std::fs::read_to_string(directory.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") {
            assert!(main.contains(&format!("mod {module};")), "{name} is not in main.rs");
        }
    }
}
