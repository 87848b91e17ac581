// SPDX-License-Identifier: Apache-2.0
//! Manifests and indexes as a registry sees them: what they are, what they need, what they are about.
//!
//! Only what matters here is read; the bytes are kept as they came.

use std::collections::BTreeMap;

use polyarch_oci::media_type::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use polyarch_oci::{Descriptor, Digest};
use serde::Deserialize;

/// The type of documents that were artifacts for a while (image-spec 1.1, release candidates).
const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

/// A manifest that was looked at.
#[derive(Debug)]
pub(super) struct Inspected {
    /// What it is.
    pub(super) media_type: String,
    /// What it is about.
    pub(super) subject: Option<Digest>,
    /// The blobs that it needs: config and layers, not those that are had from elsewhere.
    pub(super) blobs: Vec<Digest>,
    /// The manifests of an index.
    pub(super) manifests: Vec<Digest>,
    /// The type and the annotations that a list of referrers shows.
    artifact_type: Option<String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default)]
    schema_version: Option<u32>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Reference>,
    #[serde(default)]
    layers: Option<Vec<Reference>>,
    #[serde(default)]
    blobs: Option<Vec<Reference>>,
    #[serde(default)]
    manifests: Option<Vec<Reference>>,
    #[serde(default)]
    subject: Option<Reference>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl Reference {
    /// Tells whether it is to be had from elsewhere (image-spec, layer.md, non-distributable layers).
    fn is_foreign(&self) -> bool {
        self.media_type.contains("nondistributable")
            || self.media_type.contains(".foreign.")
            || self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

/// Looks at a manifest; `declared` is what the client says that it is. The error is a sentence.
pub(super) fn inspect(bytes: &[u8], declared: Option<&str>) -> Result<Inspected, String> {
    let probe: Probe =
        serde_json::from_slice(bytes).map_err(|error| format!("this is not a manifest: {error}"))?;
    let own = probe.media_type.as_deref().filter(|own| !own.is_empty());
    if let (Some(own), Some(declared)) = (own, declared)
        && own != declared
    {
        return Err(format!("the manifest says that it is {own:?}, and the request says {declared:?}"));
    }
    let guessed = if probe.manifests.is_some() { OCI_INDEX } else { OCI_MANIFEST };
    let media_type = own.or(declared).unwrap_or(guessed);
    let is_index = matches!(media_type, OCI_INDEX | DOCKER_INDEX);
    if !is_index && !matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST | OCI_ARTIFACT) {
        return Err(format!(
            "{media_type:?} is not a type of manifest that this registry takes; it takes OCI's and Docker's manifests \
             and indexes, of which schema 1 is none"
        ));
    }
    if media_type != OCI_ARTIFACT && probe.schema_version != Some(2) {
        return Err("`schemaVersion` is not 2".to_owned());
    }
    if probe.manifests.is_some() && (probe.layers.is_some() || probe.config.is_some()) {
        return Err(
            "it has fields of an index and of an image's manifest: it could be read as either".to_owned()
        );
    }
    if is_index && probe.manifests.is_none() {
        return Err("an index needs `manifests`".to_owned());
    }
    if matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
        && (probe.layers.is_none() || probe.config.is_none())
    {
        return Err("a manifest needs `config` and `layers`".to_owned());
    }
    let config_type = probe.config.as_ref().map(|config| config.media_type.clone());
    let artifact_type = probe.artifact_type.filter(|name| !name.is_empty()).or(config_type);
    let lists = [probe.layers, probe.blobs].into_iter().flatten().flatten();
    let blobs = probe.config.into_iter().chain(lists).filter(|blob| !blob.is_foreign());
    Ok(Inspected {
        media_type: media_type.to_owned(),
        subject: probe.subject.map(|subject| subject.digest),
        blobs: blobs.map(|blob| blob.digest).collect(),
        manifests: probe.manifests.into_iter().flatten().map(|entry| entry.digest).collect(),
        artifact_type,
        annotations: probe.annotations.unwrap_or_default(),
    })
}

impl Inspected {
    /// Makes the entry of a list of referrers (distribution-spec, "Listing Referrers").
    pub(super) fn into_referrer(self, digest: Digest, size: u64) -> Descriptor {
        let mut descriptor = Descriptor::new(self.media_type, digest, size);
        descriptor.artifact_type = self.artifact_type;
        descriptor.annotations = self.annotations;
        descriptor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(extra: &str) -> String {
        let digest = Digest::of("x");
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"c","digest":"{digest}","size":1}},"layers":[{extra}]}}"#
        )
    }

    #[test]
    fn blobs_from_elsewhere_are_not_needed() {
        let digest = Digest::of("y");
        let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar";
        let text = manifest(&format!(
            r#"{{"mediaType":"{foreign}","digest":"{digest}","size":1}},{{"mediaType":"l","digest":"{digest}","size":1,"urls":["http://a"]}}"#
        ));
        let inspected = inspect(text.as_bytes(), None).unwrap();
        assert_eq!(inspected.blobs, [Digest::of("x")]);
        let referrer = inspected.into_referrer(digest, 1);
        assert_eq!(referrer.artifact_type.as_deref(), Some("c"), "an image's type is its config's");
    }

    #[test]
    fn what_is_ambiguous_or_unknown_is_refused() {
        let digest = Digest::of("x");
        for (text, declared) in [
            ("{}".to_owned(), None),
            ("[]".to_owned(), None),
            ("{\"schemaVersion\":2".to_owned(), None),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), None),
            (r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.to_owned(), None),
            (r#"{"schemaVersion":2,"manifests":[]}"#.to_owned(), Some(OCI_MANIFEST)),
            (manifest(""), Some(OCI_INDEX)),
            (manifest(""), Some("text/plain")),
            (manifest(&format!(r#"{{"digest":"{digest}/../x"}}"#)), None),
        ] {
            assert!(inspect(text.as_bytes(), declared).is_err(), "{text}");
        }
        assert!(inspect(manifest("").as_bytes(), Some(DOCKER_MANIFEST)).is_ok());
    }
}
