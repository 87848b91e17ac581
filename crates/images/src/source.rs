// SPDX-License-Identifier: Apache-2.0
//! One way to name an image that exists: a reference, a digest, an OCI layout, an archive, a descriptor.
//!
//! [`ImageSource::parse`] reads the words; `found` reads what they name.

use std::path::{Path, PathBuf};

use polyarch_build::error::chain_of;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::{Descriptor, Digest, Reference};
use serde::Deserialize;

/// The prefix of OCI layouts, as buildx writes it.
const LAYOUT: &str = "oci-layout://";

/// Where an existing image is.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageSource {
    /// A name, of the local store or of a registry.
    Reference(Reference),
    /// A document by its digest, of the local store or of the one repository that is known otherwise.
    Digest(Digest),
    /// `oci-layout://PATH[:TAG][@DIGEST]`.
    Layout(LayoutLocation),
    /// `docker-archive:PATH[:NAME]`, `oci-archive:PATH[:NAME]`, or a path that ends in `.tar`.
    Archive {
        /// The file.
        path: PathBuf,
        /// Which of its images; may be left out when it has one.
        name: Option<String>,
    },
    /// A descriptor, as JSON, of a document in the one repository that is known otherwise.
    Descriptor(Box<Descriptor>),
}

/// A place in an OCI layout directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayoutLocation {
    /// The directory.
    pub path: PathBuf,
    /// The name of an entry of its `index.json`; `latest` when neither name nor digest was given.
    pub tag: Option<String>,
    /// A document by its digest.
    pub digest: Option<Digest>,
}

impl ImageSource {
    /// Reads the name of an image.
    ///
    /// # Errors
    /// When the text is none of the forms.
    pub fn parse(text: &str) -> Result<ImageSource, BuildError> {
        let text = text.trim();
        if let Some(location) = LayoutLocation::parse(text)? {
            return Ok(ImageSource::Layout(location));
        }
        for prefix in ["docker-archive:", "oci-archive:"] {
            if let Some(rest) = text.strip_prefix(prefix) {
                return archive(text, rest);
            }
        }
        if text.starts_with('{') {
            return descriptor(text).map(|descriptor| ImageSource::Descriptor(Box::new(descriptor)));
        }
        if text.starts_with("sha256:") || text.starts_with("sha512:") {
            let digest = text.parse().map_err(|error| unreadable(text, &error))?;
            return Ok(ImageSource::Digest(digest));
        }
        if [".tar", ".tar.gz", ".tgz", ".tar.zst"].iter().any(|end| text.ends_with(end))
            && Path::new(text).is_file()
        {
            return Ok(ImageSource::Archive { path: text.into(), name: None });
        }
        let reference: Reference = text.parse().map_err(|error| unreadable(text, &error))?;
        Ok(ImageSource::Reference(reference.with_default_tag()))
    }

    /// Reads the content of a descriptor file: the JSON of a descriptor, a digest or a name.
    ///
    /// # Errors
    /// As [`ImageSource::parse`], with the path.
    pub fn from_file(path: &Path) -> Result<ImageSource, BuildError> {
        use std::io::Read as _;
        const MAX_BYTES: u64 = 1 << 20;
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
            .map_err(|error| BuildError::io("can't read", path, &error))?;
        ImageSource::parse(&text).map_err(|mut error| {
            error.message = format!("{}: {}", path.display(), error.message);
            error
        })
    }
}

impl std::fmt::Display for ImageSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ImageSource::Reference(reference) => f.write_str(&reference.familiar()),
            ImageSource::Digest(digest) => digest.fmt(f),
            ImageSource::Layout(location) => location.fmt(f),
            ImageSource::Archive { path, name: None } => path.display().fmt(f),
            ImageSource::Archive { path, name: Some(name) } => write!(f, "{}:{name}", path.display()),
            ImageSource::Descriptor(descriptor) => descriptor.digest.fmt(f),
        }
    }
}

impl LayoutLocation {
    /// Reads `oci-layout://PATH[:TAG][@DIGEST]`; `None` when the text has not that prefix.
    ///
    /// # Errors
    /// When the path is empty or the digest malformed.
    pub fn parse(text: &str) -> Result<Option<LayoutLocation>, BuildError> {
        let Some(mut rest) = text.strip_prefix(LAYOUT) else { return Ok(None) };
        let mut digest = None;
        if let Some((before, after)) = rest.rsplit_once('@')
            && (after.starts_with("sha256:") || after.starts_with("sha512:"))
        {
            digest = Some(after.parse().map_err(|error| unreadable(text, &error))?);
            rest = before;
        }
        let mut tag = None;
        if let Some((before, after)) = rest.rsplit_once(':')
            && is_tag(after)
        {
            tag = Some(after.to_owned());
            rest = before;
        }
        if rest.is_empty() {
            let message = format!("{text:?} names no directory");
            return Err(BuildError::new(ErrorKind::Usage, message)
                .with_hint("write oci-layout://DIRECTORY:TAG or oci-layout://DIRECTORY@DIGEST"));
        }
        if tag.is_none() && digest.is_none() {
            tag = Some("latest".to_owned());
        }
        Ok(Some(LayoutLocation { path: rest.into(), tag, digest }))
    }

    /// Returns the place of another document of the same layout.
    pub fn with_digest(&self, digest: Digest) -> LayoutLocation {
        LayoutLocation { path: self.path.clone(), tag: None, digest: Some(digest) }
    }
}

impl std::fmt::Display for LayoutLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{LAYOUT}{}", self.path.display())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn is_tag(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=128).contains(&text.len())
        && text.starts_with(is_word)
        && text.chars().all(|c| is_word(c) || matches!(c, '.' | '-'))
}

/// Reads `PATH[:NAME]`; a path that exists wins, because paths may have colons.
fn archive(text: &str, rest: &str) -> Result<ImageSource, BuildError> {
    if rest.is_empty() {
        return Err(BuildError::new(ErrorKind::Usage, format!("{text:?} names no file")));
    }
    let colons = rest.match_indices(':').map(|(at, _)| at);
    let splits = std::iter::once(rest.len()).chain(colons);
    let (mut path, mut name) = (rest, None);
    for at in splits {
        if Path::new(&rest[..at]).is_file() {
            path = &rest[..at];
            name = rest.get(at + 1..).map(str::to_owned);
            break;
        }
    }
    Ok(ImageSource::Archive { path: path.into(), name })
}

/// Reads a descriptor; a manifest or index in its place is told apart.
fn descriptor(text: &str) -> Result<Descriptor, BuildError> {
    #[derive(Deserialize)]
    struct Probe {
        #[serde(rename = "schemaVersion")]
        schema_version: Option<u32>,
        digest: Option<serde::de::IgnoredAny>,
    }
    let usage = |message: String| BuildError::new(ErrorKind::Usage, message);
    let hint = r#"write for example {"mediaType": "…", "digest": "sha256:…", "size": 1234}"#;
    let probe: Probe =
        serde_json::from_str(text).map_err(|error| usage(format!("not a descriptor: {error}")))?;
    if let Some(version) = probe.schema_version {
        return Err(usage(format!(
            "expected a descriptor, got a manifest or index (schemaVersion {version})"
        ))
        .with_hint(hint));
    }
    if probe.digest.is_none() {
        return Err(usage("the descriptor has no digest".to_owned()).with_hint(hint));
    }
    // Go's names of fields have any case, and a size may be left out; ours is then read from the document.
    let mut value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| usage(format!("not a descriptor: {error}")))?;
    if let Some(object) = value.as_object_mut() {
        object.entry("size").or_insert(0.into());
    }
    let mut descriptor: Descriptor = serde_json::from_value(value)
        .map_err(|error| usage(format!("not a descriptor: {error}")).with_hint(hint))?;
    descriptor.rest.clear();
    Ok(descriptor)
}

fn unreadable(text: &str, error: &(dyn std::error::Error + 'static)) -> BuildError {
    let shown: String = text.chars().take(150).collect();
    BuildError::new(ErrorKind::Usage, format!("{shown:?} names no image: {}", chain_of(error))).with_hint(
        "write NAME[:TAG|@DIGEST], sha256:…, oci-layout://DIR:TAG, docker-archive:FILE or oci-archive:FILE",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6";

    #[test]
    fn every_form_of_a_name_is_read() {
        let shown = |text: &str| ImageSource::parse(text).map(|source| format!("{source:?}"));
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a:b.tar");
        std::fs::write(&file, b"").unwrap();
        let path = file.display();
        for (text, expected) in [
            ("app".to_owned(), ImageSource::Reference("docker.io/library/app:latest".parse().unwrap())),
            (DIGEST.to_owned(), ImageSource::Digest(DIGEST.parse().unwrap())),
            (format!("{path}"), ImageSource::Archive { path: file.clone(), name: None }),
            (format!("oci-archive:{path}"), ImageSource::Archive { path: file.clone(), name: None }),
            (
                format!("docker-archive:{path}:user/app:v1"),
                ImageSource::Archive { path: file.clone(), name: Some("user/app:v1".to_owned()) },
            ),
        ] {
            assert_eq!(ImageSource::parse(&text).unwrap(), expected, "{text}");
        }
        assert!(shown("Bad Name").is_err());
        assert!(shown("sha256:abc").is_err());
        assert!(shown("{}").is_err());
    }

    #[test]
    fn layouts_have_a_tag_a_digest_or_latest() {
        let table = [
            ("oci-layout://dir", "oci-layout://dir:latest"),
            ("oci-layout:///a/b:v1", "oci-layout:///a/b:v1"),
            ("oci-layout://./a:b/c", "oci-layout://./a:b/c:latest"),
        ];
        for (text, expected) in table {
            assert_eq!(ImageSource::parse(text).unwrap().to_string(), expected);
        }
        let both = ImageSource::parse(&format!("oci-layout://dir:v1@{DIGEST}")).unwrap();
        assert_eq!(both.to_string(), format!("oci-layout://dir:v1@{DIGEST}"));
        let only_digest = ImageSource::parse(&format!("oci-layout://dir@{DIGEST}")).unwrap();
        assert_eq!(only_digest.to_string(), format!("oci-layout://dir@{DIGEST}"));
        assert!(ImageSource::parse("oci-layout://").is_err());
    }

    #[test]
    fn a_descriptor_is_not_a_manifest() {
        let descriptor = ImageSource::parse(&format!(r#"{{"digest":"{DIGEST}","size":3,"x":1}}"#)).unwrap();
        let ImageSource::Descriptor(descriptor) = descriptor else { panic!("{descriptor:?}") };
        assert_eq!((descriptor.size, descriptor.rest.len()), (3, 0));
        let error = ImageSource::parse(r#"{"schemaVersion":2,"manifests":[]}"#).unwrap_err();
        assert!(error.message.contains("got a manifest or index"), "{error}");
        assert!(ImageSource::parse(r#"{"mediaType":"x"}"#).unwrap_err().message.contains("no digest"));
    }
}
