// SPDX-License-Identifier: Apache-2.0
//! Manifests and configs as the page shows them: a few fields, and nothing kept of the rest.
//!
//! Whatever was pushed may stand in them. Fields that the page doesn't show are skipped while parsing, so that a document
//! costs little more memory than its bytes.

use std::collections::BTreeMap;

use polyarch_oci::{Digest, Platform};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A manifest or an index.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ManifestDocument {
    pub(super) artifact_type: Option<String>,
    pub(super) config: Option<Entry>,
    pub(super) layers: Option<Vec<Entry>>,
    /// What the artifact manifests of image-spec 1.1's release candidates have instead of layers.
    pub(super) blobs: Option<Vec<Entry>>,
    pub(super) manifests: Option<Vec<Entry>>,
    pub(super) subject: Option<Entry>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// A descriptor.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    pub(super) urls: Option<Vec<String>>,
    #[serde(default)]
    pub(super) platform: Option<Platform>,
    #[serde(default)]
    pub(super) artifact_type: Option<String>,
    #[serde(default)]
    pub(super) annotations: Option<BTreeMap<String, String>>,
}

/// An image config.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ConfigDocument {
    pub(super) architecture: String,
    pub(super) os: String,
    pub(super) variant: String,
    #[serde(rename = "os.version")]
    pub(super) os_version: String,
    #[serde(rename = "os.features")]
    pub(super) os_features: Option<Vec<String>>,
    pub(super) author: String,
    pub(super) created: Option<String>,
    pub(super) config: Option<Settings>,
    pub(super) history: Option<Vec<Step>>,
}

/// How the image runs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Settings {
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) cmd: Option<Vec<String>>,
    pub(super) env: Option<Vec<String>>,
    pub(super) exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    pub(super) volumes: Option<BTreeMap<String, IgnoredAny>>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) working_dir: String,
    pub(super) user: String,
    pub(super) stop_signal: String,
    pub(super) shell: Option<Vec<String>>,
    pub(super) on_build: Option<Vec<String>>,
    pub(super) healthcheck: Option<Health>,
}

/// How to find out whether the container is well.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Health {
    pub(super) test: Option<Vec<String>>,
}

/// An entry of the history.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Step {
    pub(super) created_by: String,
    pub(super) comment: String,
    pub(super) empty_layer: bool,
}

impl ManifestDocument {
    /// Returns the blobs of the manifest but its config, in order.
    pub(super) fn blobs(&self) -> &[Entry] {
        self.layers.as_deref().or(self.blobs.as_deref()).unwrap_or_default()
    }

    /// Tells whether the manifest is an image's, and not another artifact's.
    pub(super) fn is_image(&self) -> bool {
        let config = self.config.as_ref().map_or("", |config| config.media_type.as_str());
        self.artifact_type.is_none()
            && (config.is_empty()
                || matches!(
                    config,
                    polyarch_oci::media_type::OCI_CONFIG | polyarch_oci::media_type::DOCKER_CONFIG
                ))
    }

    /// Returns what the artifact is (image-spec, manifest.md, "Guidelines for Artifact Usage").
    pub(super) fn kind(&self) -> &str {
        let config = self.config.as_ref().map_or("", |config| config.media_type.as_str());
        self.artifact_type.as_deref().filter(|kind| !kind.is_empty()).unwrap_or(config)
    }
}

impl Entry {
    /// Returns an annotation.
    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        Some(self.annotations.as_ref()?.get(key)?.as_str())
    }

    /// Tells whether an index's entry is BuildKit's attestation of another entry.
    pub(super) fn is_attestation(&self) -> bool {
        self.annotation("vnd.docker.reference.type") == Some("attestation-manifest")
    }

    /// Returns the platform of an index's entry; `None` for none, and for the one that isn't any.
    pub(super) fn known_platform(&self) -> Option<Platform> {
        let platform = self.platform.clone()?.normalized();
        let is_known = |part: &str| !part.is_empty() && part != "unknown";
        (is_known(&platform.os) || is_known(&platform.architecture)).then_some(platform)
    }

    /// Tells whether the bytes are to be had from elsewhere (image-spec, layer.md, non-distributable layers).
    pub(super) fn is_foreign(&self) -> bool {
        self.media_type.contains("nondistributable")
            || self.media_type.contains(".foreign.")
            || self.urls.as_ref().is_some_and(|urls| !urls.is_empty())
    }
}

impl ConfigDocument {
    /// Returns the platform that the config declares; `None` when it declares none.
    pub(super) fn platform(&self) -> Option<Platform> {
        let platform = Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone().unwrap_or_default(),
        };
        (!self.os.is_empty() || !self.architecture.is_empty()).then(|| platform.normalized())
    }
}
