// SPDX-License-Identifier: Apache-2.0
//! Tests of the store from outside: several processes, and programs that no one here wrote.

#[cfg(test)]
mod images;
#[cfg(test)]
mod loaders;
#[cfg(test)]
mod processes;

#[test]
fn no_test_file_is_forgotten() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir(here).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").unwrap();
        assert!(module == "main" || main.contains(&format!("mod {module};")), "{name} is not compiled");
    }
}
