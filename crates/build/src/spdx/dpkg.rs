// SPDX-License-Identifier: Apache-2.0
//! The database of dpkg: paragraphs of fields (deb822(5), dpkg(1)).

use super::{MAX_PACKAGES, Package};

/// Adds the packages that a database says are installed.
pub(super) fn parse(text: &str, packages: &mut Vec<Package>) {
    for paragraph in text.split("\n\n") {
        let mut package = Package { kind: "deb", ..Package::default() };
        // A file for one package has no such field.
        let mut is_installed = true;
        for line in paragraph.lines() {
            // What begins with a space goes on with the field before it.
            let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with([' ', '\t'])) else {
                continue;
            };
            let value = value.trim();
            match key {
                "Package" => value.clone_into(&mut package.name),
                "Version" => value.clone_into(&mut package.version),
                "Architecture" => value.clone_into(&mut package.architecture),
                "Maintainer" => value.clone_into(&mut package.supplier),
                "Homepage" => value.clone_into(&mut package.homepage),
                "Description" => value.clone_into(&mut package.description),
                "Status" => is_installed = value.split(' ').next_back() == Some("installed"),
                _ => {}
            }
        }
        if is_installed && !package.name.is_empty() && packages.len() < MAX_PACKAGES {
            packages.push(package);
        }
    }
}
