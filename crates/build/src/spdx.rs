// SPDX-License-Identifier: Apache-2.0
//! A bill of materials without a scanner: what the package databases of a tree say is installed, as SPDX.
//!
//! It is a function of the tree alone, so that the same tree has the same bill. It knows dpkg and apk; of rpm's
//! database it says that it was not read. Programs and libraries that no package manager put there are not told: a
//! scanner is for those.
//!
//! SPDX 2.3, <https://spdx.github.io/spdx-spec/v2.3/>.

mod apk;
mod dpkg;

use packageurl::PackageUrl;
use polyarch_oci::Digest;
use polyarch_snapshot::{Kind, SnapshotError, TreeRoot};
use serde_json::{Value, json};

/// The largest database that is read, in bytes.
const MAX_DATABASE_BYTES: u64 = 256 << 20;

/// The largest `os-release`, in bytes.
const MAX_RELEASE_BYTES: u64 = 1 << 20;

/// The most packages that are told.
const MAX_PACKAGES: usize = 200_000;

/// The most files in a directory that holds a part of a database each.
const MAX_PARTS: usize = 50_000;

/// The databases of rpm, in its three forms.
const RPM: [&str; 4] = [
    "/var/lib/rpm/rpmdb.sqlite",
    "/usr/lib/sysimage/rpm/rpmdb.sqlite",
    "/var/lib/rpm/Packages.db",
    "/var/lib/rpm/Packages",
];

/// What a tree has installed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Bill {
    packages: Vec<Package>,
    release: Release,
    /// Databases that are there and were not read.
    pub(crate) unread: Vec<&'static str>,
}

/// A package that is installed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    /// The type of its package URL, `deb` or `apk`.
    kind: &'static str,
    name: String,
    version: String,
    architecture: String,
    /// Who made it, as the database says it.
    supplier: String,
    homepage: String,
    description: String,
}

/// The distribution (os-release(5)).
#[derive(Debug, Default, PartialEq, Eq)]
struct Release {
    id: String,
    version: String,
}

impl Bill {
    /// Reads the databases of a tree. What makes no sense in them is left out: it is not for a bill of materials
    /// to fail a build.
    ///
    /// # Errors
    /// When the tree can't be read.
    pub(crate) fn read(tree: &TreeRoot) -> Result<Bill, SnapshotError> {
        let mut bill = Bill::default();
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            if let Some(text) = read(tree, path, MAX_RELEASE_BYTES)? {
                bill.release = Release::parse(&text);
                break;
            }
        }
        if let Some(text) = read(tree, "/var/lib/dpkg/status", MAX_DATABASE_BYTES)? {
            dpkg::parse(&text, &mut bill.packages);
        }
        // Images without dpkg have a file for each package.
        let parts = "/var/lib/dpkg/status.d";
        if tree.metadata(parts)?.is_some_and(|it| it.kind == Kind::Directory) {
            for (name, kind) in tree.read_dir(parts)?.into_iter().take(MAX_PARTS) {
                let name = name.to_string_lossy().into_owned();
                if kind == Kind::File
                    && !name.ends_with(".md5sums")
                    && let Some(text) = read(tree, &format!("{parts}/{name}"), MAX_RELEASE_BYTES)?
                {
                    dpkg::parse(&text, &mut bill.packages);
                }
            }
        }
        for path in ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"] {
            if let Some(text) = read(tree, path, MAX_DATABASE_BYTES)? {
                apk::parse(&text, &mut bill.packages);
                break;
            }
        }
        for path in RPM {
            if tree.metadata(path)?.is_some() {
                bill.unread.push(path);
            }
        }
        bill.packages.sort();
        bill.packages.dedup();
        bill.packages.truncate(MAX_PACKAGES);
        Ok(bill)
    }

    /// Writes the document; `created` is its time, in the form of RFC 3339.
    pub(crate) fn document(&self, name: &str, created: &str) -> Value {
        let packages: Vec<Value> = self.packages.iter().enumerate().map(|it| self.entry(it)).collect();
        let mut told = vec![json!({
            "SPDXID": "SPDXRef-DocumentRoot",
            "name": name,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
            "primaryPackagePurpose": "CONTAINER",
        })];
        told.extend(packages);
        let related = told.iter().skip(1).map(|package| {
            json!({
                "spdxElementId": "SPDXRef-DocumentRoot",
                "relationshipType": "CONTAINS",
                "relatedSpdxElement": package["SPDXID"],
            })
        });
        let described = json!({
            "spdxElementId": "SPDXRef-DOCUMENT",
            "relationshipType": "DESCRIBES",
            "relatedSpdxElement": "SPDXRef-DocumentRoot",
        });
        let relationships: Vec<Value> = std::iter::once(described).chain(related).collect();
        // Two documents of one name are of one namespace only where they say the same.
        let digest = Digest::of(Value::from(told.clone()).to_string());
        let mut document = json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": name,
            "documentNamespace": format!("https://spdx.org/spdxdocs/polyarch-{}", digest.hex()),
            "creationInfo": {
                "created": created,
                "creators": [format!("Tool: polyarch-{}", env!("CARGO_PKG_VERSION"))],
            },
            "packages": told,
            "relationships": relationships,
        });
        if !self.unread.is_empty() {
            let comment = format!("not read, so that its packages are missing: {}", self.unread.join(", "));
            document["comment"] = comment.into();
        }
        document
    }

    fn entry(&self, (number, package): (usize, &Package)) -> Value {
        let or_none = |text: &str| match text.is_empty() {
            true => "NOASSERTION".to_owned(),
            false => text.to_owned(),
        };
        let supplier = match package.supplier.is_empty() {
            true => "NOASSERTION".to_owned(),
            false => format!("Person: {}", package.supplier),
        };
        let mut entry = json!({
            "SPDXID": format!("SPDXRef-Package-{}-{}", package.kind, number + 1),
            "name": package.name,
            "versionInfo": or_none(&package.version),
            "supplier": supplier,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "copyrightText": "NOASSERTION",
        });
        if package.homepage.starts_with("http://") || package.homepage.starts_with("https://") {
            entry["homepage"] = package.homepage.clone().into();
        }
        if !package.description.is_empty() {
            entry["summary"] = package.description.clone().into();
        }
        if let Some(locator) = self.package_url(package) {
            entry["externalRefs"] = json!([{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": locator,
            }]);
        }
        entry
    }

    /// Returns the package URL (purl-spec, types `deb` and `apk`); `None` for a name that can't have one.
    fn package_url(&self, package: &Package) -> Option<String> {
        let Release { id, version } = &self.release;
        let mut url = PackageUrl::new(package.kind, package.name.as_str()).ok()?;
        let namespace = match (id.as_str(), package.kind) {
            ("", "apk") => "alpine",
            ("", _) => "debian",
            (id, _) => id,
        };
        url.with_namespace(namespace).ok()?;
        if !package.version.is_empty() {
            url.with_version(package.version.as_str()).ok()?;
        }
        if !package.architecture.is_empty() {
            url.add_qualifier("arch", package.architecture.as_str()).ok()?;
        }
        if !id.is_empty() && !version.is_empty() {
            url.add_qualifier("distro", format!("{id}-{version}")).ok()?;
        }
        Some(url.to_string())
    }
}

impl Release {
    fn parse(text: &str) -> Release {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
        };
        Release { id: value("ID"), version: value("VERSION_ID") }
    }
}

/// Reads a file of a tree, be its bytes text or not; `None` when it is not there or no file.
fn read(tree: &TreeRoot, path: &str, max_bytes: u64) -> Result<Option<String>, SnapshotError> {
    if tree.metadata(path)?.is_none_or(|found| found.kind != Kind::File) {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&tree.read(path, max_bytes)?).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, TreeRoot) {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let tree = TreeRoot::open(directory.path()).unwrap();
        (directory, tree)
    }

    #[test]
    fn packages_of_dpkg_are_told_with_their_distribution() {
        let status = "Package: libc6\nStatus: install ok installed\nMaintainer: A B <a@b.example>\n\
                      Architecture: amd64\nVersion: 2.36-9+deb12u4\nHomepage: https://e.example/\n\
                      Description: GNU C Library\n more of it\n\nPackage: gone\n\
                      Status: deinstall ok config-files\nVersion: 1\n";
        let part = "Package: tzdata\nVersion: 2024a\nArchitecture: all\n";
        let (_directory, tree) = tree(&[
            ("etc/os-release", "NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n"),
            ("var/lib/dpkg/status", status),
            ("var/lib/dpkg/status.d/tzdata", part),
        ]);
        let bill = Bill::read(&tree).unwrap();
        let document = bill.document("r.example/a:1", "2001-09-09T01:46:40Z");
        let packages = document["packages"].as_array().unwrap();
        let names: Vec<&Value> = packages.iter().map(|it| &it["name"]).collect();
        assert_eq!(names, ["r.example/a:1", "libc6", "tzdata"]);
        let locators: Vec<&Value> =
            packages[1..].iter().map(|it| &it["externalRefs"][0]["referenceLocator"]).collect();
        let expected = [
            "pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12",
            "pkg:deb/debian/tzdata@2024a?arch=all&distro=debian-12",
        ];
        assert_eq!(locators, expected);
        assert_eq!(packages[1]["summary"], "GNU C Library");
        assert_eq!(document["relationships"].as_array().unwrap().len(), 3);
        // The same tree has the same bill.
        assert_eq!(Bill::read(&tree).unwrap(), bill);
    }

    #[test]
    fn packages_of_apk_are_told() {
        let installed = "C:Q1x=\nP:musl\nV:1.2.5-r0\nA:aarch64\nT:the musl c library\nU:https://musl.libc.org/\n\
                         m:N N <n@e.example>\nF:lib\nR:ld-musl.so.1\n\nP:nothing\n";
        let (_directory, tree) = tree(&[("lib/apk/db/installed", installed)]);
        let document = Bill::read(&tree).unwrap().document("image", "2001-09-09T01:46:40Z");
        assert_eq!(document["packages"].as_array().unwrap().len(), 3);
        let locator = &document["packages"][1]["externalRefs"][0]["referenceLocator"];
        assert_eq!(locator, "pkg:apk/alpine/musl@1.2.5-r0?arch=aarch64");
    }

    #[test]
    fn an_empty_tree_has_no_packages_and_what_is_not_read_is_said() {
        let (_directory, empty) = tree(&[]);
        let bill = Bill::read(&empty).unwrap();
        assert_eq!(bill, Bill::default());
        assert_eq!(bill.document("x", "t")["packages"].as_array().unwrap().len(), 1);
        let (_directory, rpm) = tree(&[("var/lib/rpm/rpmdb.sqlite", "x")]);
        let document = Bill::read(&rpm).unwrap().document("x", "t");
        assert!(document["comment"].as_str().unwrap().contains("/var/lib/rpm/rpmdb.sqlite"));
    }
}
