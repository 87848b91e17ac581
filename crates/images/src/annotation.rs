// SPDX-License-Identifier: Apache-2.0
//! Annotations as the flag writes them: `[TYPE[,TYPE]:]KEY=VALUE`, with a platform in brackets.

use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::Platform;
use polyarch_oci::platform::did_you_mean;

/// What an annotation is set on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationKind {
    /// The manifest of a platform.
    Manifest,
    /// The index.
    Index,
    /// A platform's entry in the index.
    ManifestDescriptor,
    /// The entry of the index in a layout.
    IndexDescriptor,
}

/// An annotation to be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// What it is set on.
    pub kind: AnnotationKind,
    /// Of which platform; of all when `None`.
    pub platform: Option<Platform>,
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

impl Annotation {
    /// Reads one flag's value, which may name several types; without a type it is the manifest's.
    ///
    /// # Errors
    /// When it has another form, an unknown type or a malformed platform.
    pub fn parse(text: &str) -> Result<Vec<Annotation>, BuildError> {
        let wrong =
            |problem: String| BuildError::new(ErrorKind::Usage, format!("annotation {text:?}: {problem}"));
        let (left, value) = text.split_once('=').ok_or_else(|| wrong("write [TYPE:]KEY=VALUE".to_owned()))?;
        let (types, key) = left.split_once(':').unwrap_or(("manifest", left));
        if key.is_empty() {
            return Err(wrong("the key is empty".to_owned()));
        }
        let one = |word: &str| {
            let (name, platform) = match word.split_once('[') {
                Some((name, rest)) => {
                    let platform = rest.strip_suffix(']').ok_or_else(|| {
                        wrong(format!("{word:?} is not a type with a platform in square brackets"))
                    })?;
                    (name, Some(platform))
                }
                None => (word, None),
            };
            let kind = match name {
                "manifest" => AnnotationKind::Manifest,
                "index" => AnnotationKind::Index,
                "manifest-descriptor" => AnnotationKind::ManifestDescriptor,
                "index-descriptor" => AnnotationKind::IndexDescriptor,
                _ => {
                    let known = ["manifest", "index", "manifest-descriptor", "index-descriptor"];
                    let near = did_you_mean(name, &known);
                    return Err(wrong(format!("unknown type {name:?}{near} ({})", known.join(", "))));
                }
            };
            let platform =
                platform.map(str::parse).transpose().map_err(|error: polyarch_oci::PlatformError| {
                    wrong(polyarch_build::error::chain_of(&error))
                })?;
            Ok(Annotation { kind, platform, key: key.to_owned(), value: value.to_owned() })
        };
        types.split(',').map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_have_types_and_platforms() {
        let read = |text: &str| {
            Annotation::parse(text).map(|list| {
                list.iter()
                    .map(|it| {
                        let platform = it.platform.as_ref().map(Platform::to_string).unwrap_or_default();
                        format!("{:?}[{platform}] {}={}", it.kind, it.key, it.value)
                    })
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(read("a=b").unwrap(), ["Manifest[] a=b"]);
        assert_eq!(read("index:a.b=c=d").unwrap(), ["Index[] a.b=c=d"]);
        assert_eq!(
            read("index,manifest-descriptor[linux/arm64]:a=").unwrap(),
            ["Index[] a=", "ManifestDescriptor[linux/arm64] a="]
        );
        for wrong in ["a", "indx:a=b", "index[linux/arm64:a=b", "index[x/y/z/w]:a=b", "index:=b"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read("indx:a=b").unwrap_err().message.contains("did you mean index?"));
    }
}
