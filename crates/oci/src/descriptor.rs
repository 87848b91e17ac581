// SPDX-License-Identifier: Apache-2.0
//! Descriptors: typed, sized references to bytes (image-spec, descriptor.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Platform};

/// A reference to bytes: what they are, their digest and their size.
///
/// Fields are in the order in which BuildKit and Docker write them; unknown fields are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The media type of the bytes; empty only in very old documents.
    #[serde(default)]
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
    /// The size of the bytes.
    pub size: u64,
    /// Where else the bytes can be had (foreign layers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Annotations of the reference, not of the bytes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The bytes themselves, base64, when small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The platform of a manifest within an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl Descriptor {
    /// Makes a descriptor of the three fields that all have.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
            rest: BTreeMap::new(),
        }
    }

    /// Returns the same descriptor with a platform.
    pub fn with_platform(mut self, platform: Platform) -> Descriptor {
        self.platform = Some(platform);
        self
    }

    /// Tells whether this layer is to be had from its URLs, and not from registries (image-spec, layer.md,
    /// non-distributable layers).
    pub fn is_foreign(&self) -> bool {
        !self.urls.is_empty()
            && (self.media_type == crate::media_type::DOCKER_FOREIGN_LAYER_GZIP
                || self.media_type.contains("nondistributable"))
    }

    /// Tells whether this index entry is a BuildKit attestation and not an image.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get("vnd.docker.reference.type").is_some_and(|kind| kind == "attestation-manifest")
    }
}
