// SPDX-License-Identifier: Apache-2.0
//! What a build gives.

use std::time::Duration;

use polyarch_oci::{Descriptor, Digest, Platform, Reference};

use crate::attest::ProvenanceOptions;
use crate::provenance::Capture;

/// The result of a build.
#[derive(Debug, Clone)]
pub struct BuildResult {
    /// The index, or the manifest of the only platform; `None` when no image was asked for.
    pub root: Option<Descriptor>,
    /// One entry per platform, in the order asked for.
    pub platforms: Vec<PlatformResult>,
    /// The names under which the store has the image.
    pub names: Vec<Reference>,
    /// The names that were pushed.
    pub pushed: Vec<Reference>,
    /// How each platform was built, in the order asked for; empty when it was built elsewhere.
    pub provenance: Vec<Provenance>,
}

/// How a platform was built.
#[derive(Debug, Clone)]
pub struct Provenance {
    capture: Box<Capture>,
    layers: Vec<Descriptor>,
}

impl Provenance {
    pub(crate) fn new(capture: Capture, layers: Vec<Descriptor>) -> Provenance {
        Provenance { capture: Box::new(capture), layers }
    }

    /// Writes the predicate of SLSA.
    pub fn predicate(&self, options: &ProvenanceOptions) -> serde_json::Value {
        self.capture.predicate(options, &self.layers)
    }
}

/// One platform's part of a result.
#[derive(Debug, Clone)]
pub struct PlatformResult {
    /// The platform.
    pub platform: Platform,
    /// The manifest; `None` when no image was asked for.
    pub manifest: Option<Descriptor>,
    /// The digest of the config.
    pub config: Option<Digest>,
    /// The sum of the sizes of config and layers, in bytes, as stored.
    pub size_bytes: u64,
    /// How its steps ran.
    pub execution: Execution,
    /// How long its steps took, from the first to the last.
    pub duration: Duration,
}

/// How the steps of a platform ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Execution {
    /// No step of this platform ran at all (cached, or nothing to run).
    None,
    /// By the CPU itself.
    Native,
    /// By an emulator; its name and version.
    Emulated(String),
}
