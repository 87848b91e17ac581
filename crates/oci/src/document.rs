// SPDX-License-Identifier: Apache-2.0
//! A document is its bytes: the parsed value never replaces them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Digest, json};

/// Says why bytes are not the document that was expected.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The document exceeds the cap.
    #[error("document is larger than {limit} bytes")]
    TooLarge {
        /// The cap, in bytes.
        limit: u64,
    },
    /// The bytes are not the JSON of this type.
    #[error("{what} is not valid JSON of its type")]
    Json {
        /// What was read.
        what: &'static str,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// The schema version is not 2.
    #[error(
        "manifest has schema version {version}, only version 2 is supported (push the image again with a current tool)"
    )]
    SchemaVersion {
        /// The version found, 0 when absent.
        version: u32,
    },
    /// The document has fields of a manifest as well as of an index.
    #[error("document has both `manifests` and `layers`: it could be read as an index and as a manifest")]
    Ambiguous,
    /// The document is neither a manifest nor an index.
    #[error("document of type {media_type:?} is neither an image manifest nor an index")]
    Unknown {
        /// The declared media type.
        media_type: String,
    },
}

/// A parsed document together with the bytes it was parsed from.
#[derive(Debug, Clone, PartialEq)]
pub struct Document<T> {
    /// The exact bytes.
    pub bytes: Vec<u8>,
    /// The SHA-256 digest of the bytes.
    pub digest: Digest,
    /// The parsed value.
    pub value: T,
}

impl<T: DeserializeOwned> Document<T> {
    /// Parses bytes that came from outside.
    ///
    /// # Errors
    /// When the bytes are not JSON of the type; `what` names it in the error.
    pub fn parse(bytes: Vec<u8>, what: &'static str) -> Result<Document<T>, DocumentError> {
        let value = serde_json::from_slice(&bytes).map_err(|source| DocumentError::Json { what, source })?;
        let digest = Digest::of(&bytes);
        Ok(Document { bytes, digest, value })
    }
}

impl<T: Serialize> Document<T> {
    /// Writes a value of ours the way BuildKit writes manifests and indexes: two spaces of indent.
    pub fn indented(value: T) -> Document<T> {
        let bytes = json::to_indented(&value, "  ");
        Document { digest: Digest::of(&bytes), bytes, value }
    }

    /// Writes a value of ours without white space, the way BuildKit writes configs.
    pub fn compact(value: T) -> Document<T> {
        let bytes = json::to_compact(&value);
        Document { digest: Digest::of(&bytes), bytes, value }
    }
}

impl<T> Document<T> {
    /// Returns the size of the bytes.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}
