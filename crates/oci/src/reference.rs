// SPDX-License-Identifier: Apache-2.0
//! Image references: `[host/]repository[:tag][@digest]` (distribution's reference grammar).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Digest, DigestError};

/// The registry of names that have no host.
pub const DEFAULT_HOST: &str = "docker.io";

/// Says why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The text is empty.
    #[error("image reference is empty")]
    Empty,
    /// The host part is malformed.
    #[error("image reference {text:?}: {host:?} is not a registry host")]
    Host {
        /// The rejected text.
        text: String,
        /// The rejected host.
        host: String,
    },
    /// The repository has upper-case letters.
    #[error("image reference {text:?}: repository name must be lowercase")]
    Uppercase {
        /// The rejected text.
        text: String,
    },
    /// The repository is malformed.
    #[error("image reference {text:?}: {repository:?} is not a repository name")]
    Repository {
        /// The rejected text.
        text: String,
        /// The rejected repository.
        repository: String,
    },
    /// The tag is malformed.
    #[error("image reference {text:?}: {tag:?} is not a tag (letters, digits, `_`, `.`, `-`; at most 128)")]
    Tag {
        /// The rejected text.
        text: String,
        /// The rejected tag.
        tag: String,
    },
    /// The digest is malformed.
    #[error("image reference {text:?}")]
    Digest {
        /// The rejected text.
        text: String,
        /// What is wrong with the digest.
        #[source]
        source: DigestError,
    },
}

/// A name of an image, in its full form: the host is never empty, `library/` is spelled out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns the registry host, with its port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the repository, without the host.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag, when there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, when there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Returns the same reference, tagged `latest` when it had neither tag nor digest.
    pub fn with_default_tag(mut self) -> Reference {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// Returns the reference of another document in the same repository.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Returns `host/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// Returns the short form that people type: no `docker.io/`, no `library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let short = full.strip_prefix("docker.io/").unwrap_or(&full);
        if self.host == DEFAULT_HOST {
            short.strip_prefix("library/").unwrap_or(short).to_owned()
        } else {
            full
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let shown: String = text.chars().take(300).collect();
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|source| ReferenceError::Digest { text: shown.clone(), source })?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash starts the tag; one before it belongs to the host's port.
        let after_slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (rest, tag) = match rest[after_slash..].find(':') {
            Some(at) => (&rest[..after_slash + at], Some(&rest[after_slash + at + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag { text: shown, tag: tag.chars().take(150).collect() });
        }
        let (host, repository) = split_host(rest);
        if !is_host(&host) {
            return Err(ReferenceError::Host { text: shown, host });
        }
        if repository.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase { text: shown });
        }
        if !is_repository(&repository) {
            return Err(ReferenceError::Repository { text: shown, repository });
        }
        Ok(Reference { host, repository, tag: tag.map(str::to_owned), digest })
    }
}

/// Splits off the host by Docker's rule: it has a dot, a colon, an upper-case letter or is `localhost`.
fn split_host(rest: &str) -> (String, String) {
    let looks_like_host = |word: &str| {
        word.contains(['.', ':', '[']) || word == "localhost" || word.chars().any(|c| c.is_ascii_uppercase())
    };
    let (host, repository) = match rest.split_once('/') {
        Some((host, repository)) if looks_like_host(host) => (host, repository),
        _ => (DEFAULT_HOST, rest),
    };
    let host = if host == "index.docker.io" { DEFAULT_HOST } else { host };
    let repository = if host == DEFAULT_HOST && !repository.contains('/') {
        format!("library/{repository}")
    } else {
        repository.to_owned()
    };
    (host.to_owned(), repository)
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (1..=128).contains(&tag.len())
        && tag.starts_with(word)
        && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return is_port && address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    is_port && name.len() <= 253 && name.split('.').all(is_label)
}

/// Checks path components: lower-case words joined by one `.`, one or two `_`, or any number of `-`.
fn is_repository(repository: &str) -> bool {
    let is_component = |component: &str| {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        component.starts_with(edge)
            && component.ends_with(edge)
            && component.chars().all(|c| edge(c) || matches!(c, '.' | '_' | '-'))
            && !["..", "___", "._", "_.", ".-", "-.", "_-", "-_"].iter().any(|bad| component.contains(bad))
    };
    repository.len() <= 255 && repository.split('/').all(is_component)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl Serialize for Reference {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_their_full_form() {
        let table = [
            ("alpine", "docker.io/library/alpine"),
            ("alpine:3", "docker.io/library/alpine:3"),
            ("user/app", "docker.io/user/app"),
            ("index.docker.io/user/app", "docker.io/user/app"),
            ("localhost/app", "localhost/app"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("127.0.0.1:5000/a/b_c/d-e:latest", "127.0.0.1:5000/a/b_c/d-e:latest"),
            ("[::1]:5000/app", "[::1]:5000/app"),
            (
                "hub.c.163.com/kubecube/cube:v1.0.0-multi-arch",
                "hub.c.163.com/kubecube/cube:v1.0.0-multi-arch",
            ),
        ];
        for (text, full) in table {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), full, "{text}");
        }
        assert_eq!("docker.io/library/alpine:3".parse::<Reference>().unwrap().familiar(), "alpine:3");
    }

    #[test]
    fn tag_and_digest_may_both_be_there() {
        let digest = Digest::of("x");
        let reference: Reference = format!("a/b:c@{digest}").parse().unwrap();
        assert_eq!((reference.tag(), reference.digest()), (Some("c"), Some(&digest)));
    }

    #[test]
    fn malformed_references_are_refused() {
        for text in [
            "",
            "Alpine",
            "a//b",
            "a/../b",
            "a:",
            "a:b:c",
            "-a",
            "a@sha256:00",
            "ho st/a",
            "h.com:99999/a",
            "a/b_",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
