// SPDX-License-Identifier: Apache-2.0
//! Names from outside, checked: repositories, tags, and what a manifest is asked for by.

use std::fmt;

use polyarch_oci::Digest;

/// The longest name of a repository, in bytes; it is also that of a directory.
const MAX_NAME_BYTES: usize = 255;
/// The longest tag, in bytes (distribution-spec, "Pulling manifests").
const MAX_TAG_BYTES: usize = 128;

/// The name of a repository, such as `library/alpine` (distribution-spec, "Pulling manifests").
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Box<str>);

impl RepositoryName {
    /// Checks a name; `None` when it is none.
    pub fn new(text: &str) -> Option<RepositoryName> {
        let is_name = text.len() <= MAX_NAME_BYTES && text.split('/').all(is_component);
        is_name.then(|| RepositoryName(text.into()))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the repository's directory; no name has a `+`.
    pub(super) fn directory(&self) -> String {
        self.0.replace('/', "+")
    }

    /// Returns the name that belongs to a directory; `None` for one that is not a repository's.
    pub(super) fn of_directory(directory: &str) -> Option<RepositoryName> {
        RepositoryName::new(&directory.replace('+', "/"))
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks one part of a name: words of lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().copied().is_some_and(is_word) || !bytes.last().copied().is_some_and(is_word) {
        return false;
    }
    bytes
        .split(|byte| is_word(*byte))
        .filter(|joint| !joint.is_empty())
        .all(|joint| matches!(joint, b"." | b"_" | b"__") || joint.iter().all(|byte| *byte == b'-'))
}

/// A tag (distribution-spec, "Pulling manifests").
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

impl Tag {
    /// Checks a tag; `None` when it is none.
    pub fn new(text: &str) -> Option<Tag> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let bytes = text.as_bytes();
        let is_tag = (1..=MAX_TAG_BYTES).contains(&bytes.len())
            && is_word(bytes[0])
            && bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b'.' | b'-'));
        is_tag.then(|| Tag(text.into()))
    }

    /// Returns the tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestName {
    /// A tag.
    Tag(Tag),
    /// A digest.
    Digest(Digest),
}

impl fmt::Display for ManifestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestName::Tag(tag) => tag.fmt(f),
            ManifestName::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_follow_the_grammar() {
        let long = "a".repeat(255);
        for good in ["a", "a/b/c", "docker.io/library/alpine", "a_b__c.d---e/0", "blobs/uploads", &long] {
            let name = RepositoryName::new(good).unwrap_or_else(|| panic!("{good}"));
            assert_eq!(RepositoryName::of_directory(&name.directory()), Some(name));
        }
        let long = "a".repeat(256);
        for bad in [
            "", "/", "a/", "/a", "a//b", "..", "a/../b", "a/.", "A", "a___b", "a..b", "a._b", "-a", "a-",
            "a+b", "a b", "a%2fb", "a\0", "ä", &long,
        ] {
            assert!(RepositoryName::new(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn tags_follow_the_grammar() {
        let long = "a".repeat(128);
        for good in ["latest", "_", "1.2-3", "A", &long] {
            assert!(Tag::new(good).is_some(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in ["", ".a", "-a", "a/b", "a:b", "a b", "a\n", &long] {
            assert!(Tag::new(bad).is_none(), "{bad:?}");
        }
    }
}
