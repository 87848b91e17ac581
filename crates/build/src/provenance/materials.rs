// SPDX-License-Identifier: Apache-2.0
//! Materials: what a build took in from elsewhere, by name and digest.

use std::collections::{BTreeMap, BTreeSet};

use packageurl::PackageUrl;
use polyarch_oci::{Digest, Platform, Reference};
use serde::Serialize;

use crate::remote::{GitReference, redacted};

/// Something that a build took in and that has a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Material {
    /// An image.
    Image {
        /// The name that it was asked by.
        reference: Reference,
        /// The platform that it was asked for.
        platform: Platform,
        /// What the name meant: an index, or a manifest.
        digest: Digest,
        /// Whether it came from a layout and not from a registry.
        is_layout: bool,
    },
    /// A commit of a git repository.
    Git {
        /// The repository, with `#REF` where one was named.
        url: String,
        /// The commit.
        commit: String,
    },
    /// What a URL gave.
    Http {
        /// The URL.
        url: String,
        /// What it gave.
        digest: Digest,
    },
}

/// A material as a predicate names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct NamedMaterial {
    pub(super) uri: String,
    pub(super) digest: BTreeMap<&'static str, String>,
}

/// Puts materials into the order of BuildKit, each once: images, repositories, downloads.
pub(super) fn name_materials(materials: &[Material]) -> Vec<NamedMaterial> {
    let tagged: BTreeSet<(String, &str)> = materials
        .iter()
        .filter_map(|material| match material {
            Material::Image { reference, .. } if reference.digest().is_none() => {
                Some(name_and_tag(reference))
            }
            _ => None,
        })
        .collect();
    let mut named: Vec<(u8, String, NamedMaterial)> = Vec::new();
    for material in materials {
        let (kind, key) = match material {
            // One image under its tag and under tag and digest is one material.
            Material::Image { reference, .. }
                if reference.digest().is_some() && tagged.contains(&name_and_tag(reference)) =>
            {
                continue;
            }
            Material::Image { reference, platform, .. } => (0, format!("{reference} {platform}")),
            Material::Git { url, .. } => (1, redacted(url)),
            Material::Http { url, .. } => (2, redacted(url)),
        };
        if !named.iter().any(|(known, text, _)| (*known, text) == (kind, &key)) {
            named.push((kind, key, material.named()));
        }
    }
    named.sort_by(|left, right| (left.0, &left.1).cmp(&(right.0, &right.1)));
    named.into_iter().map(|(_, _, material)| material).collect()
}

impl Material {
    fn named(&self) -> NamedMaterial {
        match self {
            Material::Image { reference, platform, digest, is_layout } => NamedMaterial {
                uri: package_url(if *is_layout { "oci" } else { "docker" }, reference, Some(platform)),
                digest: BTreeMap::from([(digest.algorithm().as_str(), digest.hex().to_owned())]),
            },
            Material::Git { url, commit } => NamedMaterial {
                uri: redacted(url),
                digest: BTreeMap::from([(commit_algorithm(commit), commit.clone())]),
            },
            Material::Http { url, digest } => NamedMaterial {
                uri: redacted(url),
                digest: BTreeMap::from([(digest.algorithm().as_str(), digest.hex().to_owned())]),
            },
        }
    }

    /// Returns the digest of the repository or download at a URL, where this is it.
    pub(super) fn digest_at(&self, url: &str) -> Option<BTreeMap<&'static str, String>> {
        let is_it = match self {
            Material::Image { .. } => false,
            // The directory within the repository is no part of it.
            Material::Git { url: own, .. } => {
                let asked = GitReference::parse(url).ok().flatten();
                asked.is_some_and(|asked| redacted(&asked.with_fragment(false)) == redacted(own))
            }
            Material::Http { url: own, .. } => redacted(own) == redacted(url),
        };
        is_it.then(|| self.named().digest)
    }
}

fn commit_algorithm(commit: &str) -> &'static str {
    if commit.len() == 64 { "sha256" } else { "sha1" }
}

fn name_and_tag(reference: &Reference) -> (String, &str) {
    (reference.name(), reference.tag().unwrap_or("latest"))
}

/// Returns the package URL of an image (purl-spec, types `docker` and `oci`), with BuildKit's qualifiers.
pub(crate) fn package_url(kind: &str, reference: &Reference, platform: Option<&Platform>) -> String {
    let name = reference.name();
    let name = name.strip_prefix("docker.io/").map_or(&*name, |it| it.strip_prefix("library/").unwrap_or(it));
    let (namespace, last) = match name.rsplit_once('/') {
        Some((namespace, last)) => (Some(namespace), last),
        None => (None, name),
    };
    let version = match reference.digest() {
        Some(_) => reference.tag(),
        None => Some(reference.tag().unwrap_or("latest")),
    };
    let make = || {
        let mut url = PackageUrl::new(kind, last)?;
        if let Some(namespace) = namespace {
            url.with_namespace(namespace)?;
        }
        if let Some(version) = version {
            url.with_version(version)?;
        }
        if let Some(digest) = reference.digest() {
            url.add_qualifier("digest", digest.to_string())?;
        }
        if let Some(platform) = platform {
            url.add_qualifier("platform", platform.to_string())?;
        }
        Ok::<String, packageurl::Error>(url.to_string())
    };
    // A reference has no name that a package URL could not have.
    make().unwrap_or_else(|_| format!("pkg:{kind}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(reference: &str) -> Material {
        Material::Image {
            reference: reference.parse().unwrap(),
            platform: Platform::new("linux", "arm", "v7"),
            digest: Digest::of("index"),
            is_layout: false,
        }
    }

    #[test]
    fn images_have_package_urls() {
        let table = [
            ("busybox:1.36", "pkg:docker/busybox@1.36?platform=linux%2Farm%2Fv7"),
            ("busybox", "pkg:docker/busybox@latest?platform=linux%2Farm%2Fv7"),
            ("user/app:1", "pkg:docker/user/app@1?platform=linux%2Farm%2Fv7"),
            ("r.example/a/b/c:1", "pkg:docker/r.example/a/b/c@1?platform=linux%2Farm%2Fv7"),
        ];
        for (reference, expected) in table {
            assert_eq!(image(reference).named().uri, expected);
        }
        let digest = Digest::of("index");
        let uri = image(&format!("busybox@{digest}")).named().uri;
        assert_eq!(uri, format!("pkg:docker/busybox?digest={digest}&platform=linux%2Farm%2Fv7"));
    }

    #[test]
    fn digests_have_the_names_of_their_algorithms() {
        let hex = "a".repeat(128);
        let digest: Digest = format!("sha512:{hex}").parse().unwrap();
        let mut image = image("busybox:1");
        if let Material::Image { digest: own, .. } = &mut image {
            *own = digest.clone();
        }
        let url = Material::Http { url: "https://e.example/f".to_owned(), digest };
        for named in [image.named(), url.named()] {
            assert_eq!(named.digest, BTreeMap::from([("sha512", hex.clone())]));
        }
    }

    #[test]
    fn materials_are_sorted_and_each_is_there_once() {
        let digest = Digest::of("index");
        let materials = [
            Material::Http { url: "https://u:p@e.example/f".to_owned(), digest: digest.clone() },
            Material::Git { url: "https://e.example/r.git#v1".to_owned(), commit: "a".repeat(40) },
            image("busybox:1"),
            image("alpine"),
            image("busybox:1"),
            image(&format!("busybox:1@{digest}")),
        ];
        let named = name_materials(&materials);
        let uris: Vec<&str> = named.iter().map(|it| it.uri.as_str()).collect();
        assert_eq!(
            uris,
            [
                "pkg:docker/alpine@latest?platform=linux%2Farm%2Fv7",
                "pkg:docker/busybox@1?platform=linux%2Farm%2Fv7",
                "https://e.example/r.git#v1",
                "https://xxxxx:xxxxx@e.example/f",
            ]
        );
        assert_eq!(named[2].digest, BTreeMap::from([("sha1", "a".repeat(40))]));
        let at = materials[1].digest_at("https://e.example/r.git#v1:sub/dir");
        assert_eq!(at, Some(named[2].digest.clone()));
        assert_eq!(materials[1].digest_at("https://e.example/r.git#v2"), None);
    }
}
