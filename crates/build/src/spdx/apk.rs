// SPDX-License-Identifier: Apache-2.0
//! The database of apk: paragraphs of one-letter fields (apk-tools, `installed`).

use super::{MAX_PACKAGES, Package};

/// Adds the packages of a database.
pub(super) fn parse(text: &str, packages: &mut Vec<Package>) {
    for paragraph in text.split("\n\n") {
        let mut package = Package { kind: "apk", ..Package::default() };
        for line in paragraph.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            match key {
                "P" => value.clone_into(&mut package.name),
                "V" => value.clone_into(&mut package.version),
                "A" => value.clone_into(&mut package.architecture),
                "m" => value.clone_into(&mut package.supplier),
                "U" => value.clone_into(&mut package.homepage),
                "T" => value.clone_into(&mut package.description),
                _ => {}
            }
        }
        if !package.name.is_empty() && packages.len() < MAX_PACKAGES {
            packages.push(package);
        }
    }
}
