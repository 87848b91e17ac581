// SPDX-License-Identifier: Apache-2.0
//! Named contexts: file trees that FROM, COPY `--from` and RUN `--mount=from=` may name.
//!
//! A named context stands before a stage and before an image of the same name. What it is looked up by is
//! the familiar form of an image's name without `:latest`, so that `docker.io/library/alpine:latest` and
//! `alpine` are one context. The context of this platform (`name::linux/arm64`) stands before the one for
//! all platforms.

use std::path::PathBuf;

use polyarch_oci::{Digest, Platform, Reference, ReferenceError};

use crate::distant::Distant;
use crate::evaluated::BuiltTree;
use crate::remote::{GitReference, is_http, redacted};

/// A context by a name.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedContext {
    /// The name, as [`NamedContext::canonical_name`] returns it.
    pub name: String,
    /// The platform that it is for; all of them when absent.
    pub platform: Option<Platform>,
    /// Where its files are.
    pub source: ContextSource,
}

/// Where the files of a named context are.
#[derive(Debug, Clone, PartialEq)]
pub enum ContextSource {
    /// A directory, read where it lies; its `.dockerignore` hides files.
    Directory(PathBuf),
    /// A directory of somebody else's; its `.dockerignore` hides files.
    Distant(Distant),
    /// No files: `docker-image://scratch`.
    Scratch,
    /// An image, `docker-image://NAME`; FROM takes its config, too.
    Image(Reference),
    /// An image of an OCI layout directory, `oci-layout://PATH[:TAG][@DIGEST]`.
    OciLayout {
        /// The directory.
        directory: PathBuf,
        /// The image's `org.opencontainers.image.ref.name`; without a tag and a digest it is `latest`.
        tag: Option<String>,
        /// The digest of its manifest or index, which stands before the tag.
        digest: Option<Digest>,
    },
    /// An image that came from a layout into the store, under no name of a registry. Messages call it by this
    /// reference, which has its digest.
    StoredLayout(Reference),
    /// A git repository, in any form that ADD takes, with `#REF:DIRECTORY` or a query.
    Git(String),
    /// What a URL leads to: one file with the name `context`.
    Http(String),
    /// What another build has made; FROM takes its config, too.
    Built(Box<BuiltTree>),
}

/// Says why a text names no context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamedContextError {
    /// The name is not one that an image could have.
    #[error("invalid context name {name}: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// What stands after the scheme makes no sense.
    #[error("invalid context {value}: {reason}")]
    Value {
        /// The value.
        value: String,
        /// What is wrong.
        reason: String,
    },
}

impl NamedContext {
    /// Returns the form of a name by which contexts are looked up.
    ///
    /// # Errors
    /// When it is not a name that an image could have.
    pub fn canonical_name(name: &str) -> Result<String, NamedContextError> {
        let reference: Reference = name.parse().map_err(|error: ReferenceError| NamedContextError::Name {
            name: name.to_owned(),
            reason: error.to_string(),
        })?;
        let name = reference.familiar();
        Ok(name.strip_suffix(":latest").unwrap_or(&name).to_owned())
    }

    /// Returns what tells it from the others of a build.
    pub(crate) fn identity(&self) -> String {
        match &self.platform {
            Some(platform) => format!("{}::{platform}", self.name),
            None => self.name.clone(),
        }
    }

    /// Finds the context that a name means for a platform.
    pub fn find<'a>(
        contexts: &'a [NamedContext],
        name: &str,
        platform: &Platform,
    ) -> Option<&'a NamedContext> {
        // These two are never looked up, as in BuildKit: they mean nothing and the main context.
        if contexts.is_empty() || name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context")
        {
            return None;
        }
        let name = NamedContext::canonical_name(name).ok()?;
        let named = || contexts.iter().filter(|context| context.name == name);
        named()
            .find(|context| context.platform.as_ref() == Some(platform))
            .or_else(|| named().find(|context| context.platform.is_none()))
    }
}

impl ContextSource {
    /// Tells whether it is an image of a layout, which no registry has.
    pub(crate) fn is_layout(&self) -> bool {
        matches!(self, ContextSource::OciLayout { .. } | ContextSource::StoredLayout(_))
    }

    /// Reads a value with a scheme that says what it is; `None` for any other, which is a path.
    ///
    /// # Errors
    /// When what follows the scheme makes no sense.
    pub fn parse(value: &str) -> Result<Option<ContextSource>, NamedContextError> {
        let wrong = |reason: String| NamedContextError::Value { value: redacted(value), reason };
        if let Some(name) = value.strip_prefix("docker-image://") {
            if name == "scratch" {
                return Ok(Some(ContextSource::Scratch));
            }
            let reference: Reference =
                name.parse().map_err(|error: ReferenceError| wrong(error.to_string()))?;
            return Ok(Some(ContextSource::Image(reference.with_default_tag())));
        }
        if let Some(rest) = value.strip_prefix("oci-layout://") {
            return parse_layout(rest).map(Some).map_err(wrong);
        }
        match GitReference::parse(value) {
            // A directory may have such a name.
            Ok(Some(reference)) if reference.is_like_a_path => Ok(None),
            Ok(Some(_)) => Ok(Some(ContextSource::Git(value.to_owned()))),
            Ok(None) if is_http(value) => Ok(Some(ContextSource::Http(value.to_owned()))),
            Ok(None) => Ok(None),
            Err(error) => Err(wrong(error.to_string())),
        }
    }
}

/// Reads `PATH[:TAG][@DIGEST]`.
fn parse_layout(text: &str) -> Result<ContextSource, String> {
    let (text, digest) = match text.rsplit_once('@') {
        Some((before, digest)) if digest.contains(':') => {
            (before, Some(digest.parse::<Digest>().map_err(|error| error.to_string())?))
        }
        _ => (text, None),
    };
    // A colon within a directory's name is none of a tag's.
    let (path, tag) = match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') && !tag.is_empty() => (path, Some(tag.to_owned())),
        _ => (text, None),
    };
    if path.is_empty() {
        return Err("there is no path".to_owned());
    }
    Ok(ContextSource::OciLayout { directory: path.into(), tag, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(name: &str, platform: Option<&str>) -> NamedContext {
        NamedContext {
            name: NamedContext::canonical_name(name).unwrap(),
            platform: platform.map(|it| it.parse().unwrap()),
            source: ContextSource::Scratch,
        }
    }

    #[test]
    fn names_are_those_of_images_without_what_is_usual() {
        for (name, canonical) in [
            ("alpine", "alpine"),
            ("docker.io/library/alpine:latest", "alpine"),
            ("alpine:3", "alpine:3"),
            ("example.com/a:latest", "example.com/a"),
        ] {
            assert_eq!(NamedContext::canonical_name(name).unwrap(), canonical, "{name}");
        }
        assert!(NamedContext::canonical_name("not a name").is_err());
    }

    #[test]
    fn a_platforms_own_context_stands_first() {
        let arm64: Platform = "linux/arm64".parse().unwrap();
        let amd64: Platform = "linux/amd64".parse().unwrap();
        let contexts = [context("base", None), context("base", Some("linux/arm64"))];
        let find = |name, platform| NamedContext::find(&contexts, name, platform).map(|it| &it.platform);
        assert_eq!(find("base:latest", &arm64), Some(&Some(arm64.clone())));
        assert_eq!(find("base", &amd64), Some(&None));
        assert_eq!(find("other", &amd64), None);
        assert_eq!(NamedContext::find(&[context("context", None)], "context", &amd64), None);
    }

    #[test]
    fn values_say_what_they_are() {
        let parse = |text: &str| ContextSource::parse(text).unwrap();
        assert_eq!(parse("docker-image://scratch"), Some(ContextSource::Scratch));
        let Some(ContextSource::Image(image)) = parse("docker-image://alpine") else { panic!() };
        assert_eq!(image.familiar(), "alpine:latest");
        let layout = |directory: &str, tag: Option<&str>, digest: Option<Digest>| {
            Some(ContextSource::OciLayout {
                directory: directory.into(),
                tag: tag.map(str::to_owned),
                digest,
            })
        };
        let digest = Digest::of("x");
        assert_eq!(parse("oci-layout://a/b"), layout("a/b", None, None));
        assert_eq!(parse("oci-layout:///a:1/b:v2"), layout("/a:1/b", Some("v2"), None));
        assert_eq!(parse(&format!("oci-layout://a@{digest}")), layout("a", None, Some(digest.clone())));
        assert_eq!(parse(&format!("oci-layout://a:t@{digest}")), layout("a", Some("t"), Some(digest)));
        assert_eq!(parse("../directory"), None);
        assert!(ContextSource::parse("docker-image://Not A Name").is_err());
        assert!(ContextSource::parse("oci-layout://").is_err());
    }
}
