// SPDX-License-Identifier: Apache-2.0
//! What is said about an image beside it: attestations, as asked for.
//!
//! Nothing is attested unless somebody asks: then the result is an index, also of one platform, with one
//! attestation manifest per image.

use std::collections::BTreeMap;

use polyarch_oci::Reference;
use polyarch_oci::platform::did_you_mean;

use crate::csv::split_csv;
use crate::error::{BuildError, ErrorKind};

/// The attestations that a build makes; none by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attestations {
    /// How it was built.
    pub provenance: Option<ProvenanceOptions>,
    /// What is in it.
    pub sbom: Option<SbomOptions>,
    /// What the client asked for in its own words, the attributes of its frontend: provenance tells them.
    /// `None` lets them be made of the request.
    pub frontend_attributes: Option<BTreeMap<String, String>>,
    /// What was asked of the builds whose results this one takes in, by the names of the inputs.
    pub inputs: BTreeMap<String, ToldRequest>,
    /// What the client asked for, where its own frontend then asked for this build.
    pub root: Option<AskedRequest>,
    /// What the builder's operator wants told of its machine, beside the platform (`provenanceEnvDir`).
    pub environment: BTreeMap<String, serde_json::Value>,
}

/// What was asked of a frontend.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AskedRequest {
    /// The frontend; empty where it runs in the client.
    pub frontend: String,
    /// Its attributes, in the client's own words.
    pub attributes: BTreeMap<String, String>,
    /// What was asked of the builds whose results it takes in, by the names of the inputs.
    pub inputs: BTreeMap<String, ToldRequest>,
}

/// What was asked of a frontend, as provenance tells it: without what is nobody's business.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldRequest(pub(crate) serde_json::Value);

/// The version of the Dockerfile language that this builder has, as BuildKit counts it.
pub const DOCKERFILE_VERSION: &str = "1.26.0";

/// How provenance is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenanceOptions {
    /// How much it tells.
    pub mode: ProvenanceMode,
    /// The form of the predicate.
    pub version: SlsaVersion,
    /// Only beside images in a registry or the store, not in archives and directories.
    pub inline_only: bool,
    /// Who built it, a URL; may be empty.
    pub builder_id: String,
    /// The name of the file in outputs that are directories or archives of files.
    pub filename: String,
    /// Whether the user says that the build gives the same bytes each time.
    pub reproducible: bool,
    /// Fail when an input of the build can't be named by a digest.
    pub complete_materials: bool,
}

/// How much provenance tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProvenanceMode {
    /// Nothing that could be private: no values of arguments and labels, no steps.
    Min,
    /// Arguments, labels, names of secrets, every step, the Dockerfile.
    #[default]
    Max,
}

/// The version of the SLSA provenance predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlsaVersion {
    /// `https://slsa.dev/provenance/v0.2`.
    V02,
    /// `https://slsa.dev/provenance/v1`.
    #[default]
    V1,
}

/// How a bill of materials is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SbomOptions {
    /// The image of the scanner that is run over each result.
    pub generator: Option<Reference>,
    /// What the scanner is told, as `BUILDKIT_SCAN_<KEY>=<value>` in its environment.
    pub parameters: Vec<(String, String)>,
}

impl Default for ProvenanceOptions {
    fn default() -> ProvenanceOptions {
        ProvenanceOptions {
            mode: ProvenanceMode::Max,
            version: SlsaVersion::V1,
            inline_only: false,
            builder_id: String::new(),
            filename: "provenance.json".to_owned(),
            reproducible: false,
            complete_materials: false,
        }
    }
}

impl Attestations {
    /// Tells whether nothing is attested.
    pub fn is_empty(&self) -> bool {
        self.provenance.is_none() && self.sbom.is_none()
    }

    /// Reads the attributes `attest:TYPE` and `build-arg:BUILDKIT_ATTEST_TYPE` of a frontend; others are
    /// left alone.
    ///
    /// # Errors
    /// When a type, a key or a value is not known.
    pub fn from_attributes<'a>(
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Attestations, BuildError> {
        let mut attestations = Attestations::default();
        for (key, value) in attributes {
            let kind = key.strip_prefix("attest:").or_else(|| key.strip_prefix("build-arg:BUILDKIT_ATTEST_"));
            if let Some(kind) = kind {
                attestations.set(&kind.to_lowercase(), value)?;
            }
        }
        Ok(attestations)
    }

    /// Asks for an attestation of a type, `provenance` or `sbom`, by its attributes as CSV: `mode=max`.
    /// `disabled=true` takes it back.
    ///
    /// # Errors
    /// When the type, a key or a value is not known.
    pub fn set(&mut self, kind: &str, attributes: &str) -> Result<(), BuildError> {
        let wrong = |problem: String| {
            BuildError::new(ErrorKind::Usage, format!("attestation {kind}={attributes}: {problem}"))
        };
        let mut pairs = Vec::new();
        let fields = if attributes.is_empty() { Vec::new() } else { split_csv(attributes).map_err(wrong)? };
        for field in &fields {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            if key != "type" {
                pairs.push((key, value));
            }
        }
        let disabled = pairs.iter().rev().find(|(key, _)| *key == "disabled");
        let is_off = disabled.map_or(Ok(false), |(key, value)| boolean(key, value)).map_err(wrong)?;
        pairs.retain(|(key, _)| *key != "disabled");
        match kind {
            "provenance" if is_off => self.provenance = None,
            "sbom" if is_off => self.sbom = None,
            "provenance" => self.provenance = Some(provenance(&pairs).map_err(wrong)?),
            "sbom" => self.sbom = Some(sbom(&pairs).map_err(wrong)?),
            _ => {
                let near = did_you_mean(kind, &["provenance", "sbom"]);
                return Err(BuildError::new(
                    ErrorKind::Usage,
                    format!("unknown attestation type {kind:?}{near}"),
                )
                .with_hint("there are provenance and sbom"));
            }
        }
        Ok(())
    }
}

fn provenance(pairs: &[(&str, &str)]) -> Result<ProvenanceOptions, String> {
    let mut options = ProvenanceOptions::default();
    for (key, value) in pairs {
        match *key {
            "mode" => {
                options.mode = match *value {
                    "min" => ProvenanceMode::Min,
                    "max" | "full" => ProvenanceMode::Max,
                    _ => return Err(format!("invalid mode {value:?}: there are min and max")),
                }
            }
            "version" => {
                options.version = match *value {
                    "v1" => SlsaVersion::V1,
                    "v0.2" => SlsaVersion::V02,
                    _ => {
                        return Err(format!(
                            "invalid provenance SLSA version: {value}: there are v1 and v0.2"
                        ));
                    }
                }
            }
            "inline-only" => options.inline_only = boolean(key, value)?,
            "reproducible" => options.reproducible = boolean(key, value)?,
            "complete-materials" => options.complete_materials = boolean(key, value)?,
            // How much of the machine a step took is not measured.
            "capture-usage" => {
                boolean(key, value)?;
            }
            "builder-id" => (*value).clone_into(&mut options.builder_id),
            "filename" => {
                if value.is_empty() || value.contains('/') || matches!(*value, "." | "..") {
                    return Err(format!("filename {value:?} is not the name of a file"));
                }
                (*value).clone_into(&mut options.filename);
            }
            _ => {
                let known = ["mode", "version", "inline-only", "builder-id", "filename", "reproducible"];
                return Err(format!("unknown key {key:?}{}", did_you_mean(key, &known)));
            }
        }
    }
    Ok(options)
}

fn sbom(pairs: &[(&str, &str)]) -> Result<SbomOptions, String> {
    let mut options = SbomOptions::default();
    for (key, value) in pairs {
        if *key == "generator" {
            if value.is_empty() {
                return Err("sbom generator cannot be empty".to_owned());
            }
            let reference: Reference =
                value.parse().map_err(|error| format!("failed to parse sbom generator {value}: {error}"))?;
            options.generator = Some(reference.with_default_tag());
        } else if key.is_empty() || key.contains('\0') || value.contains('\0') {
            return Err(format!("{key:?} is not the name of a variable"));
        } else {
            options.parameters.push(((*key).to_owned(), (*value).to_owned()));
        }
    }
    options.parameters.sort();
    Ok(options)
}

/// Reads a boolean in any of the forms that Go's `strconv` accepts.
fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("failed to parse {key} flag {value:?}: write true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_a_frontend_ask_for_attestations() {
        let asked = Attestations::from_attributes([
            ("attest:provenance", "mode=min,inline-only=true"),
            ("build-arg:BUILDKIT_ATTEST_SBOM", "generator=r.example/scanner,NAME=\"a,b\""),
            ("target", "out"),
        ]);
        // A quote inside a field is no CSV.
        assert!(asked.unwrap_err().message.contains("a quote stands inside a field"));
        let asked = Attestations::from_attributes([
            ("attest:provenance", "type=provenance,mode=min,inline-only=true,builder-id=https://b.example/1"),
            ("build-arg:BUILDKIT_ATTEST_SBOM", "generator=r.example/scanner,\"NAME=a,b\""),
            ("target", "out"),
        ])
        .unwrap();
        let provenance = asked.provenance.unwrap();
        assert_eq!((provenance.mode, provenance.version), (ProvenanceMode::Min, SlsaVersion::V1));
        assert!(provenance.inline_only);
        assert_eq!(provenance.builder_id, "https://b.example/1");
        let sbom = asked.sbom.unwrap();
        assert_eq!(sbom.generator.unwrap().to_string(), "r.example/scanner:latest");
        assert_eq!(sbom.parameters, [("NAME".to_owned(), "a,b".to_owned())]);
    }

    #[test]
    fn disabled_takes_back_and_what_is_not_known_is_refused() {
        let mut asked = Attestations::default();
        asked.set("provenance", "").unwrap();
        assert_eq!(asked.provenance.as_ref().unwrap().mode, ProvenanceMode::Max);
        asked.set("provenance", "disabled=true").unwrap();
        assert!(asked.is_empty());
        let table = [
            ("provenance", "mode=most", "invalid mode \"most\""),
            ("provenance", "version=v2", "invalid provenance SLSA version: v2"),
            ("provenance", "reproducible=perhaps", "failed to parse reproducible flag"),
            ("provenance", "filename=../x", "is not the name of a file"),
            ("provenance", "builderid=x", "unknown key \"builderid\""),
            ("sbom", "generator=", "sbom generator cannot be empty"),
            ("sbom", "generator=A B", "failed to parse sbom generator A B"),
            ("provenanc", "", "unknown attestation type \"provenanc\""),
        ];
        for (kind, attributes, expected) in table {
            let error = asked.set(kind, attributes).unwrap_err();
            assert!(error.message.contains(expected), "{} lacks {expected}", error.message);
            assert_eq!(error.kind, ErrorKind::Usage);
        }
    }
}
