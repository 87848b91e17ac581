// SPDX-License-Identifier: Apache-2.0
//! What is said about images beside them: in-toto statements in a manifest of their own, or in files.
//!
//! The form is BuildKit's (docs/attestations/attestation-storage.md there): the index has an entry of the
//! platform `unknown/unknown` per image, whose annotations name the image; its layers are the statements.

use std::collections::BTreeMap;

use polyarch_oci::media_type::{self, Flavour};
use polyarch_oci::{Descriptor, DiffId, Digest, Document, ImageConfig, Manifest, Platform, json};
use polyarch_solver::progress::ActiveVertex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PlatformTree, put_document};
use crate::attest::Attestations;
use crate::error::{BuildError, ErrorKind};
use crate::image::PlatformImage;
use crate::image_source::storage_error;
use crate::provenance::{package_url, predicate_type};
use crate::request::{BuildRequest, Output};
use crate::sbom::Scanned;
use crate::services::Services;

/// The media type of an in-toto statement (in-toto attestation framework).
const STATEMENT: &str = "application/vnd.in-toto+json";

/// The type of manifests of attestations that are artifacts.
const ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";

/// An empty object, the config of artifacts (image-spec, manifest.md, guidance for an empty descriptor).
const EMPTY: &[u8] = b"{}";

/// What is said about one platform's result.
#[derive(Debug, Clone)]
pub(super) struct Attestation {
    predicate_type: String,
    predicate: Value,
    /// The name of its file.
    pub(super) file_name: String,
    /// What it is about, where it says so itself.
    subjects: Vec<Subject>,
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subject {
    /// Its name, a package URL or a path.
    pub(crate) name: String,
    /// Its digests, by algorithm.
    digest: BTreeMap<String, String>,
}

/// in-toto attestation framework, spec v1, statement.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    predicate_type: &'a str,
    subject: &'a [Subject],
    predicate: &'a Value,
}

/// Tells which attestations a request wants of an image: in archives, those that are for registries and the
/// store alone are left out, unless there is an index in any case.
pub(super) fn of_images(request: &BuildRequest) -> Attestations {
    let is_inline = request.outputs.is_empty()
        || request.platforms.len() > 1
        || request.outputs.iter().any(|output| matches!(output, Output::Image { .. }));
    wanted(&request.attestations, is_inline)
}

/// Tells which attestations a request wants beside files.
pub(super) fn of_files(request: &BuildRequest) -> Attestations {
    wanted(&request.attestations, false)
}

fn wanted(attestations: &Attestations, is_inline: bool) -> Attestations {
    let mut wanted = attestations.clone();
    wanted.provenance = wanted.provenance.filter(|provenance| is_inline || !provenance.inline_only);
    wanted
}

/// Makes what is said about a platform's result: what is in it, and how it was made.
pub(super) fn attest(
    attestations: &Attestations,
    tree: &PlatformTree,
    layers: &[Descriptor],
    bills: Vec<Scanned>,
) -> Vec<Attestation> {
    let of_bill = |bill: Scanned| Attestation {
        predicate_type: bill.predicate_type,
        predicate: bill.predicate,
        file_name: bill.file_name,
        subjects: bill.subjects,
    };
    let mut attested: Vec<Attestation> = bills.into_iter().map(of_bill).collect();
    if let (Some(options), Some(capture)) = (&attestations.provenance, &tree.capture) {
        attested.push(Attestation {
            predicate_type: predicate_type(options.version).to_owned(),
            predicate: capture.predicate(options, layers),
            file_name: options.filename.clone(),
            subjects: Vec::new(),
        });
    }
    attested
}

impl Attestation {
    /// Returns the statement for a file.
    pub(super) fn indented(&self, subjects: &[Subject]) -> Vec<u8> {
        json::to_indented(&self.statement(subjects), "  ")
    }

    fn statement<'a>(&'a self, subjects: &'a [Subject]) -> Statement<'a> {
        let subjects = if self.subjects.is_empty() { subjects } else { &self.subjects };
        Statement {
            kind: "https://in-toto.io/Statement/v1",
            predicate_type: &self.predicate_type,
            subject: subjects,
            predicate: &self.predicate,
        }
    }
}

impl Subject {
    /// Names something by its digest.
    pub(super) fn new(name: String, digest: &Digest) -> Subject {
        Subject {
            name,
            digest: BTreeMap::from([(digest.algorithm().as_str().to_owned(), digest.hex().to_owned())]),
        }
    }
}

/// Puts what is said about an image into the store; returns the entry of the index.
pub(super) fn put_manifest(
    services: &Services,
    request: &BuildRequest,
    image: &PlatformImage,
    attested: &[Attestation],
    vertex: &ActiveVertex,
) -> Result<Descriptor, BuildError> {
    if request.image.flavour != Flavour::Oci {
        let message = "cannot export attestations with \"oci-mediatypes=false\"";
        return Err(BuildError::new(ErrorKind::Usage, message).with_hint(
            "leave out oci-mediatypes=false, or the attestations: --provenance=false --sbom=false",
        ));
    }
    let about = image.descriptor();
    let subjects: Vec<Subject> = request
        .names
        .iter()
        .map(|name| Subject::new(package_url("docker", name, Some(&image.platform)), &about.digest))
        .collect();
    let mut layers = Vec::new();
    for attestation in attested {
        let bytes = json::to_compact(&attestation.statement(&subjects));
        let digest = services.store.put(&bytes).map_err(|error| storage_error(&error))?;
        let mut layer = Descriptor::new(STATEMENT, digest, bytes.len() as u64);
        layer.annotations.insert("in-toto.io/predicate-type".to_owned(), attestation.predicate_type.clone());
        layers.push(layer);
    }
    let mut manifest = if request.image.attestations_as_artifacts {
        let mut config = Descriptor::new(media_type::OCI_EMPTY, Digest::of(EMPTY), EMPTY.len() as u64);
        config.data = Some("e30=".to_owned());
        services.store.put(EMPTY).map_err(|error| storage_error(&error))?;
        Manifest::new(Flavour::Oci, config, layers)
    } else {
        let config = Document::compact(config_of(&layers));
        services.store.put(&config.bytes).map_err(|error| storage_error(&error))?;
        let config = Descriptor::new(Flavour::Oci.config(), config.digest.clone(), config.size());
        Manifest::new(Flavour::Oci, config, layers)
    };
    if request.image.attestations_as_artifacts {
        manifest.artifact_type = Some(ARTIFACT.to_owned());
        manifest.subject = Some(Descriptor { platform: None, ..about.clone() });
    }
    let manifest = Document::indented(manifest);
    put_document(services, &manifest, "attestation manifest", vertex)?;
    let mut entry = Descriptor::new(Flavour::Oci.manifest(), manifest.digest.clone(), manifest.size())
        .with_platform(unknown());
    entry.annotations = BTreeMap::from([
        ("vnd.docker.reference.digest".to_owned(), about.digest.to_string()),
        ("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned()),
    ]);
    Ok(entry)
}

fn unknown() -> Platform {
    Platform::new("unknown", "unknown", "")
}

/// Returns a config for those who take the manifest for an image's.
fn config_of(layers: &[Descriptor]) -> ImageConfig {
    let mut config = ImageConfig::default();
    config.set_platform(&unknown());
    config.rootfs.kind = "layers".to_owned();
    config.rootfs.diff_ids = layers.iter().map(|layer| DiffId(layer.digest.clone())).collect();
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_the_algorithm_of_its_digest() {
        let hex = "a".repeat(128);
        let digest: Digest = format!("sha512:{hex}").parse().unwrap();
        let subject = Subject::new("file".to_owned(), &digest);
        assert_eq!(subject.digest, BTreeMap::from([("sha512".to_owned(), hex)]));
    }
}
