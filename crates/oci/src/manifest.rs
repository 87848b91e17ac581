// SPDX-License-Identifier: Apache-2.0
//! Manifests and indexes (image-spec, manifest.md and image-index.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Descriptor, Document, DocumentError, media_type};

/// The largest manifest or index that is read, in bytes (distribution-spec asks for at least 4 MiB).
pub const MAX_MANIFEST_BYTES: u64 = 8 << 20;

/// One platform's image: a config and layers, lowest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The media type of this document.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The type of an artifact that is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations of the image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// One name's images: a manifest per platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    /// Always 2.
    pub schema_version: u32,
    /// The media type of this document.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The type of an artifact that is not an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The entries, in order.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations of the index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

impl ImageIndex {
    /// Makes an index of entries.
    pub fn new(flavour: media_type::Flavour, manifests: Vec<Descriptor>) -> ImageIndex {
        ImageIndex {
            schema_version: 2,
            media_type: flavour.index().to_owned(),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
            rest: BTreeMap::new(),
        }
    }

    /// Returns the entries that are images, attestations left out.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| !entry.is_attestation())
    }
}

impl Manifest {
    /// Makes an image manifest.
    pub fn new(flavour: media_type::Flavour, config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: flavour.manifest().to_owned(),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            rest: BTreeMap::new(),
        }
    }
}

/// What a tag may point at.
#[expect(clippy::large_enum_variant, reason = "few exist at a time, and both hold their bytes elsewhere")]
#[derive(Debug, Clone, PartialEq)]
pub enum ManifestOrIndex {
    /// One image.
    Manifest(Document<Manifest>),
    /// Several images.
    Index(Document<ImageIndex>),
}

impl ManifestOrIndex {
    /// Reads a document whose media type is known or, when `declared` is empty, found from its fields.
    ///
    /// # Errors
    /// When the bytes are too many, are not JSON, or are neither a manifest nor an index. Docker's
    /// schema 1 is refused by name.
    pub fn parse(bytes: Vec<u8>, declared: &str) -> Result<ManifestOrIndex, DocumentError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            #[serde(default)]
            schema_version: u32,
            #[serde(default)]
            media_type: String,
            manifests: Option<serde::de::IgnoredAny>,
            layers: Option<serde::de::IgnoredAny>,
        }
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(DocumentError::TooLarge { limit: MAX_MANIFEST_BYTES });
        }
        let probe: Probe = serde_json::from_slice(&bytes)
            .map_err(|source| DocumentError::Json { what: "manifest", source })?;
        if probe.schema_version != 2 {
            return Err(DocumentError::SchemaVersion { version: probe.schema_version });
        }
        let declared = if probe.media_type.is_empty() { declared } else { &probe.media_type };
        // image-spec, manifest.md: a document is what its fields are, also against its declared type,
        // because a document with both `manifests` and `layers` could be read two ways.
        match (probe.manifests.is_some(), probe.layers.is_some()) {
            (true, true) => Err(DocumentError::Ambiguous),
            (true, false) if !media_type::is_manifest(declared) => {
                Document::parse(bytes, "index").map(ManifestOrIndex::Index)
            }
            (false, true) if !media_type::is_index(declared) => {
                Document::parse(bytes, "manifest").map(ManifestOrIndex::Manifest)
            }
            _ => Err(DocumentError::Unknown { media_type: declared.to_owned() }),
        }
    }

    /// Returns the digest of the document.
    pub fn digest(&self) -> &crate::Digest {
        match self {
            ManifestOrIndex::Manifest(document) => &document.digest,
            ManifestOrIndex::Index(document) => &document.digest,
        }
    }

    /// Returns the bytes of the document.
    pub fn bytes(&self) -> &[u8] {
        match self {
            ManifestOrIndex::Manifest(document) => &document.bytes,
            ManifestOrIndex::Index(document) => &document.bytes,
        }
    }

    /// Returns the media type that the document declares, or the OCI one of its kind.
    pub fn media_type(&self) -> &str {
        let (declared, default) = match self {
            ManifestOrIndex::Manifest(document) => (&document.value.media_type, media_type::OCI_MANIFEST),
            ManifestOrIndex::Index(document) => (&document.value.media_type, media_type::OCI_INDEX),
        };
        if declared.is_empty() { default } else { declared }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_with_manifests_and_layers_is_refused() {
        let bytes = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.to_vec();
        assert!(matches!(ManifestOrIndex::parse(bytes, ""), Err(DocumentError::Ambiguous)));
    }

    #[test]
    fn schema_one_is_refused_by_its_number() {
        let bytes = br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec();
        let error = ManifestOrIndex::parse(bytes, "").unwrap_err();
        assert!(matches!(error, DocumentError::SchemaVersion { version: 1 }));
    }

    #[test]
    fn a_declared_type_that_contradicts_the_fields_is_refused() {
        let bytes = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
        assert!(ManifestOrIndex::parse(bytes, media_type::OCI_MANIFEST).is_err());
    }
}
