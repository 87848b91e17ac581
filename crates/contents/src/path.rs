// SPDX-License-Identifier: Apache-2.0
//! Paths of an image, beneath its root.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path beneath an image's root: no empty part, no `.`, no `..`; the root itself has no parts.
///
/// Any byte but NUL may stand in it. What is beneath a directory follows it without a gap in the order of
/// `range_beneath`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ImagePath(Box<[u8]>);

impl ImagePath {
    /// Returns the root.
    pub fn root() -> ImagePath {
        ImagePath::default()
    }

    /// Cleans a path by its text alone; `..` stops at the root.
    pub fn clean(text: impl AsRef<[u8]>) -> ImagePath {
        let mut path = Vec::new();
        for part in text.as_ref().split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    let parent = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    path.truncate(parent);
                }
                part => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(part);
                }
            }
        }
        ImagePath(path.into())
    }

    /// Cleans a path of the disk or of an archive.
    pub fn of(path: &Path) -> ImagePath {
        ImagePath::clean(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))
    }

    /// Returns the bytes, without a slash at the beginning.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Tells whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a name in this directory.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> ImagePath {
        if self.is_root() { ImagePath(name.into()) } else { ImagePath([&self.0, name].join(&b'/').into()) }
    }

    /// Returns the directory and the name in it; `None` for the root.
    pub fn split(&self) -> Option<(ImagePath, &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (ImagePath(self.0[..at].into()), &self.0[at + 1..]),
            None => (ImagePath::root(), &self.0),
        })
    }

    /// Returns the names from the root on.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
    }

    /// Tells whether this is beneath a directory, and not the directory itself.
    pub fn is_beneath(&self, directory: &ImagePath) -> bool {
        let len = directory.0.len();
        if directory.is_root() {
            return !self.is_root();
        }
        self.0.len() > len && self.0.starts_with(&directory.0) && self.0[len] == b'/'
    }

    /// Returns the bounds, both excluded, of everything beneath a directory in byte order; the root, which
    /// has no end, is not asked for.
    pub(crate) fn range_beneath(&self) -> (ImagePath, ImagePath) {
        let with = |byte: u8| ImagePath([&self.0[..], &[byte]].concat().into());
        // The slash is followed by the digit zero.
        (with(b'/'), with(b'0'))
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// As text; bytes that are no UTF-8, and the percent sign, as `%` and two digits.
impl Serialize for ImagePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape(&self.0))
    }
}

impl<'de> Deserialize<'de> for ImagePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ImagePath, D::Error> {
        let text = String::deserialize(deserializer)?;
        let path = ImagePath::clean(unescape(&text).ok_or_else(|| serde::de::Error::custom("not a path"))?);
        Ok(path)
    }
}

/// Writes bytes as text.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02x}"));
        }
    }
    text
}

/// Reads what [`escape`] wrote.
pub(crate) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        bytes.push(u8::from_str_radix(after.get(..2)?, 16).ok()?);
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_never_leave_the_root() {
        for (text, clean) in [
            ("", "/"),
            ("/", "/"),
            ("./a//b/.", "/a/b"),
            ("../../etc", "/etc"),
            ("a/../../b/c/..", "/b"),
            ("a/b/../c", "/a/c"),
        ] {
            assert_eq!(ImagePath::clean(text).to_string(), clean, "{text:?}");
        }
        let path = ImagePath::clean("usr/bin/env");
        let (directory, name) = path.split().unwrap();
        assert_eq!((directory.to_string().as_str(), name), ("/usr/bin", &b"env"[..]));
        assert_eq!(directory.join(name), path);
        assert!(path.is_beneath(&directory) && !directory.is_beneath(&directory));
        assert!(!ImagePath::clean("usr/bin2").is_beneath(&directory));
    }

    #[test]
    fn strange_bytes_survive_as_text() {
        for bytes in [&b"plain"[..], b"100%", b"\xff\xfe/x", b"%\xc3\x28"] {
            assert_eq!(unescape(&escape(bytes)).unwrap(), bytes);
        }
        assert_eq!(unescape("%"), None);
        assert_eq!(unescape("%zz"), None);
    }
}
