// SPDX-License-Identifier: Apache-2.0
//! The integration tests of the room, as one program.

mod differential;
mod expansion;
mod golden;
mod instructions;
mod lint;
mod lint_platforms;
mod outline;
mod properties;

/// A file that is not a module above would never run.
#[test]
fn no_file_is_forgotten() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runner");
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").unwrap_or_else(|| panic!("{name} is not a module"));
        assert!(module == "main" || main.contains(&format!("mod {module};")), "{name} is not in main.rs");
    }
}
