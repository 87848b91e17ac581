// SPDX-License-Identifier: Apache-2.0
//! What client and server agree on: paths, header names, error bodies and limits (distribution-spec 1.1).

use std::fmt;

use serde::{Deserialize, Serialize};

/// The header that carries the digest of the content.
pub const DOCKER_CONTENT_DIGEST: &str = "docker-content-digest";
/// The header by which a registry asks for upload pieces of at least this many bytes.
pub const OCI_CHUNK_MIN_LENGTH: &str = "oci-chunk-min-length";
/// The header by which a registry says that it has entered a manifest among the referrers of its subject.
pub const OCI_SUBJECT: &str = "oci-subject";
/// The header that names a tag which a push by digest has set.
pub const OCI_TAG: &str = "oci-tag";
/// The header that names the filters which a list of referrers has passed.
pub const OCI_FILTERS_APPLIED: &str = "oci-filters-applied";
/// The header that names an upload session.
pub const DOCKER_UPLOAD_UUID: &str = "docker-upload-uuid";

/// The largest error body that is read, in bytes.
pub const MAX_ERROR_BYTES: usize = 4 << 10;
/// The largest answer of a token server that is read, in bytes.
pub const MAX_TOKEN_BYTES: usize = 256 << 10;

/// Returns the path of a manifest, below the registry's root; `reference` is a tag or a digest.
pub fn manifest_path(repository: &str, reference: &str) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}

/// Returns the path of a blob.
pub fn blob_path(repository: &str, digest: &polyarch_oci::Digest) -> String {
    format!("/v2/{repository}/blobs/{digest}")
}

/// Returns the path that lists what refers to a document.
pub fn referrers_path(repository: &str, digest: &polyarch_oci::Digest) -> String {
    format!("/v2/{repository}/referrers/{digest}")
}

/// Returns the path that lists the tags of a repository.
pub fn tags_path(repository: &str) -> String {
    format!("/v2/{repository}/tags/list")
}

/// Returns the path that starts uploads.
pub fn uploads_path(repository: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/")
}

/// One error of an error body (distribution-spec, "Error Codes").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorEntry {
    /// The code, for example `MANIFEST_UNKNOWN`.
    #[serde(default)]
    pub code: String,
    /// The text for people.
    #[serde(default)]
    pub message: String,
}

/// What a registry says about a failed request: its error entries, or the text it sent instead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorBody {
    /// The error entries.
    pub errors: Vec<ErrorEntry>,
    /// The body, on one line, where it had no error entries.
    pub text: String,
}

impl ErrorBody {
    /// Reads the (already capped) bytes of a body; never fails.
    pub fn parse(bytes: &[u8]) -> ErrorBody {
        #[derive(Deserialize)]
        struct Wire {
            errors: Vec<ErrorEntry>,
        }
        let bytes = &bytes[..bytes.len().min(MAX_ERROR_BYTES)];
        match serde_json::from_slice::<Wire>(bytes) {
            Ok(wire) if !wire.errors.is_empty() => {
                let errors = wire.errors.into_iter().take(8).map(|entry| ErrorEntry {
                    code: one_line(&entry.code, 100),
                    message: one_line(&entry.message, 500),
                });
                ErrorBody { errors: errors.collect(), text: String::new() }
            }
            _ => ErrorBody { errors: Vec::new(), text: one_line(&String::from_utf8_lossy(bytes), 500) },
        }
    }

    /// Tells whether one of the entries has this code.
    pub fn has_code(&self, code: &str) -> bool {
        self.errors.iter().any(|entry| entry.code == code)
    }
}

/// Makes hostile text fit for a message: one line, no control characters, at most `limit` characters.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(limit).collect()
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.errors.is_empty() {
            return f.write_str(if self.text.is_empty() { "no explanation" } else { &self.text });
        }
        for (index, entry) in self.errors.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            match (entry.code.is_empty(), entry.message.is_empty()) {
                (false, false) => write!(f, "{separator}{}: {}", entry.code, entry.message)?,
                (false, true) => write!(f, "{separator}{}", entry.code)?,
                _ => write!(f, "{separator}{}", entry.message)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_bodies_show_code_and_message() {
        let body =
            ErrorBody::parse(br#"{"errors":[{"code":"DENIED","message":"no\n access","detail":{"a":1}}]}"#);
        assert_eq!(body.to_string(), "DENIED: no access");
        assert!(body.has_code("DENIED"));
    }

    #[test]
    fn hostile_bodies_become_one_short_line() {
        let body = ErrorBody::parse("<html>\x1b[31m\n".repeat(5000).as_bytes());
        assert!(body.text.len() <= 500 && !body.text.contains(['\x1b', '\n']), "{}", body.text);
        assert_eq!(ErrorBody::parse(b"").to_string(), "no explanation");
        assert!(ErrorBody::parse(br#"{"errors":[]}"#).errors.is_empty());
    }
}
