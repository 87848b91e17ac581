// SPDX-License-Identifier: Apache-2.0
//! Images proved: each platform of an image is what it claims to be (`docs/verify.md`).
//!
//! What is wrong with an image is a finding and no error: whoever asks learns all of it at once. Errors are
//! what keeps from looking.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use polyarch_build::layer_contents::Reading;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_contents::{Finding, ImageContents, ReadLayer, Scope, Severity, judge};
use polyarch_oci::media_type::Compression;
use polyarch_oci::{Descriptor, Document, ImageConfig, Manifest, ManifestOrIndex, Platform, media_type};
use serde::Serialize;

use crate::entries::{images_of, is_wanted, lacks, verdict};
use crate::found::FoundImage;

/// How many layers are read at a time.
const PARALLEL_LAYERS: usize = 4;

/// How to verify.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Only these platforms; all when empty.
    pub platforms: Vec<Platform>,
    /// Whether layers that were read before are read again.
    pub reading: Reading,
}

/// What was found about an image.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The name it was asked by.
    pub name: String,
    /// The digest of the document that the name means.
    pub digest: polyarch_oci::Digest,
    /// Its media type.
    pub media_type: String,
    /// Whether nothing is wrong.
    pub ok: bool,
    /// What was found about the index as a whole.
    pub findings: Vec<Finding>,
    /// Each platform, in the order of the index.
    pub platforms: Vec<PlatformReport>,
}

/// What was found about one platform.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlatformReport {
    /// The platform that the image claims to be for; `unknown` where nothing says one.
    pub platform: String,
    /// The digest of the manifest.
    pub digest: polyarch_oci::Digest,
    /// Whether nothing is wrong.
    pub ok: bool,
    /// What was found: errors first.
    pub findings: Vec<Finding>,
    /// How many layers there are.
    pub layers: usize,
    /// How many files the image has.
    pub files: usize,
    /// How many of them are programs and libraries that fit the platform.
    pub programs: usize,
    /// What was declared, for whoever goes on from here.
    #[serde(skip)]
    pub declared: Option<Platform>,
    /// The config, when it could be read.
    #[serde(skip)]
    pub config: Option<ImageConfig>,
}

/// Makes a finding about documents.
pub(crate) fn finding(severity: Severity, rule: &'static str, message: impl Into<String>) -> Finding {
    Finding { severity, rule, path: None, layer: None, message: message.into() }
}

/// Verifies an image; layers that the store lacks are fetched into it.
///
/// # Errors
/// When the image has none of the platforms asked for, and when a registry or a disk keeps from looking.
pub async fn verify(image: &FoundImage, options: &VerifyOptions) -> Result<Report, BuildError> {
    let is_index = matches!(image.document, ManifestOrIndex::Index(_));
    let (mut entries, problems) = images_of(image).await?;
    let damaged = |problem| finding(Severity::Error, "document-damaged", problem);
    let mut findings: Vec<Finding> = problems.into_iter().map(damaged).collect();
    if is_index {
        findings.extend(duplicates(&entries));
    }
    let known: Vec<Platform> = entries.iter().filter_map(|entry| entry.platform.clone()).collect();
    if is_index && !options.platforms.is_empty() {
        for platform in &options.platforms {
            if !known.iter().any(|known| is_wanted(platform, known)) {
                return Err(lacks(image, platform, &known));
            }
        }
        entries.retain(|entry| {
            let own = entry.platform.as_ref();
            own.is_some_and(|own| options.platforms.iter().any(|platform| is_wanted(platform, own)))
        });
    }
    let mut platforms = Vec::new();
    for entry in &entries {
        platforms.push(Prover { image, entry, is_index, findings: Vec::new() }.prove(options).await?);
    }
    if let ([only], [platform]) = (platforms.as_slice(), options.platforms.as_slice())
        && !is_index
        && let Some(declared) = &only.declared
        && !is_wanted(platform, declared)
    {
        return Err(lacks(image, platform, std::slice::from_ref(declared)));
    }
    if entries.is_empty() && findings.is_empty() {
        findings.push(finding(Severity::Error, "no-image", "the index has no images"));
    }
    let mut report = Report {
        name: image.name.clone(),
        digest: image.descriptor.digest.clone(),
        media_type: image.document.media_type().to_owned(),
        ok: false,
        findings,
        platforms,
    };
    report.settle();
    Ok(report)
}

impl Report {
    /// Sorts what was found and says whether it is all right.
    pub fn settle(&mut self) {
        for platform in &mut self.platforms {
            platform.findings.sort_by_key(|finding| finding.severity);
            platform.ok = !has_error(&platform.findings);
        }
        self.ok = !has_error(&self.findings) && self.platforms.iter().all(|platform| platform.ok);
    }
}

fn has_error(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

/// Finds platforms that several entries have.
fn duplicates(entries: &[Descriptor]) -> Vec<Finding> {
    let mut of_platform: BTreeMap<Platform, Vec<&Descriptor>> = BTreeMap::new();
    for entry in entries {
        if let Some(platform) = &entry.platform {
            of_platform.entry(platform.clone().normalized()).or_default().push(entry);
        }
    }
    let several = of_platform.into_iter().filter(|(_, entries)| entries.len() > 1);
    several
        .map(|(platform, entries)| {
            let digests: Vec<String> = entries.iter().map(|entry| entry.digest.to_string()).collect();
            let message = format!("{} entries are for {platform}: {}", entries.len(), digests.join(", "));
            finding(Severity::Error, "platform-duplicate", message)
        })
        .collect()
}

/// The proof of one platform.
struct Prover<'a> {
    image: &'a FoundImage,
    entry: &'a Descriptor,
    is_index: bool,
    findings: Vec<Finding>,
}

impl Prover<'_> {
    fn add(&mut self, severity: Severity, rule: &'static str, message: impl Into<String>) {
        self.findings.push(finding(severity, rule, message));
    }

    async fn prove(mut self, options: &VerifyOptions) -> Result<PlatformReport, BuildError> {
        let mut report = PlatformReport {
            platform: "unknown".to_owned(),
            digest: self.entry.digest.clone(),
            ok: false,
            findings: Vec::new(),
            layers: 0,
            files: 0,
            programs: 0,
            declared: self.entry.platform.clone().map(Platform::normalized),
            config: None,
        };
        if let Some((manifest, config)) = self.documents().await? {
            report.layers = manifest.layers.len();
            report.declared = self.platform(&config);
            let platform = report.declared.clone().unwrap_or_default();
            let (contents, scope) = self.layers(&manifest, &config, options).await?;
            let judgement = judge(&contents, &platform, &config.config, scope);
            self.findings.extend(judgement.findings);
            report.programs = judgement.fitting;
            // The root is no file of anybody's.
            report.files = contents.entries().count() - 1;
            report.config = Some(config);
        }
        if let Some(platform) = &report.declared {
            report.platform = platform.to_string();
        }
        report.findings = self.findings;
        Ok(report)
    }

    /// Reads manifest and config.
    async fn documents(&mut self) -> Result<Option<(Manifest, ImageConfig)>, BuildError> {
        let manifest: Document<Manifest> = match self.image.read_manifest(self.entry).await {
            Ok(manifest) => manifest,
            Err(error) => {
                self.add(Severity::Error, "document-damaged", verdict(error)?);
                return Ok(None);
            }
        };
        let kind = manifest.value.config.media_type.as_str();
        if !matches!(kind, "" | media_type::OCI_CONFIG | media_type::DOCKER_CONFIG) {
            self.add(Severity::Note, "no-image", format!("is no image but an artifact of type {kind}"));
            return Ok(None);
        }
        match self.image.config(&manifest.value).await {
            Ok(config) => Ok(Some((manifest.value, config.value))),
            Err(error) => {
                self.add(Severity::Error, "document-damaged", verdict(error)?);
                Ok(None)
            }
        }
    }

    /// Compares what the index and the config say; returns what the image claims to be for.
    fn platform(&mut self, config: &ImageConfig) -> Option<Platform> {
        let own = config.platform();
        if own.os.is_empty() || own.architecture.is_empty() {
            self.add(Severity::Error, "platform-unnamed", "the config names no os or no architecture");
        }
        let listed = self.entry.platform.as_ref().filter(|listed| !listed.architecture.is_empty());
        let Some(listed) = listed else {
            if self.is_index {
                let message = format!("the index names no platform; the config says {own}");
                self.add(Severity::Warning, "platform-unnamed", message);
            }
            if own.architecture == "arm" && config.variant.is_empty() {
                let message = "the config says arm without a variant, which readers take for v7";
                self.add(Severity::Warning, "variant-missing", message);
            }
            return Some(own).filter(|own| !own.architecture.is_empty());
        };
        let normal = listed.clone().normalized();
        if listed.architecture == "arm" && listed.variant.is_empty() {
            let message = format!(
                "the index says {}/arm without a variant, which readers take for v7; the config says {own}",
                listed.os
            );
            self.add(Severity::Warning, "variant-missing", message);
        }
        let differs = |a: &str, b: &str| a != b;
        let has_variant = !config.variant.is_empty() || normal.variant.is_empty();
        let is_contradicted = differs(&normal.os, &own.os)
            || differs(&normal.architecture, &own.architecture)
            || (has_variant && differs(&normal.variant, &own.variant))
            || (!own.os_version.is_empty()
                && !normal.os_version.is_empty()
                && differs(&normal.os_version, &own.os_version));
        if is_contradicted {
            let message = format!("the index says {normal}, the config says {own}");
            self.add(Severity::Error, "platform-contradicts", message);
        } else if !has_variant && differs(&normal.variant, &own.variant) {
            let message = format!("the index says {normal}, the config names no variant");
            self.add(Severity::Warning, "variant-missing", message);
        }
        Some(normal)
    }

    /// Fetches and reads all layers; tells whether all could be read.
    async fn layers(
        &mut self,
        manifest: &Manifest,
        config: &ImageConfig,
        options: &VerifyOptions,
    ) -> Result<(ImageContents, Scope), BuildError> {
        let diff_ids = &config.rootfs.diff_ids;
        let mut scope = Scope::Whole;
        if diff_ids.len() != manifest.layers.len() {
            let message = format!(
                "the config {} has {} diff ids, the manifest {} layers",
                manifest.config.digest,
                diff_ids.len(),
                manifest.layers.len()
            );
            self.add(Severity::Error, "layer-count", message);
        }
        let image = self.image;
        let mut layers = futures_util::stream::iter(&manifest.layers)
            .map(|layer| read_layer(image, layer, options.reading))
            .buffered(PARALLEL_LAYERS)
            .enumerate();
        let mut contents = ImageContents::default();
        while let Some((at, layer)) = layers.next().await {
            match layer {
                Ok(layer) => {
                    let digest = &manifest.layers[at].digest;
                    if let Some(expected) = diff_ids.get(at)
                        && *expected != layer.diff_id
                    {
                        let message = format!(
                            "layer {digest} is uncompressed {}, the config says {expected}",
                            layer.diff_id
                        );
                        let finding =
                            Finding { layer: Some(at), ..finding(Severity::Error, "diff-id", message) };
                        self.findings.push(finding);
                    }
                    if let Err(error) = contents.add(&layer.contents) {
                        scope = Scope::Part;
                        let message = polyarch_build::error::chain_of(&error);
                        let finding =
                            Finding { layer: Some(at), ..finding(Severity::Error, "layer-damaged", message) };
                        self.findings.push(finding);
                    }
                }
                Err(error) => {
                    scope = Scope::Part;
                    contents.skip_layer();
                    let finding = Finding {
                        layer: Some(at),
                        ..finding(Severity::Error, "layer-damaged", verdict(error)?)
                    };
                    self.findings.push(finding);
                }
            }
        }
        Ok((contents, scope))
    }
}

/// Brings one layer here and reads what is in it; its diff id is compared by the caller.
pub(crate) async fn read_layer(
    image: &FoundImage,
    layer: &Descriptor,
    reading: Reading,
) -> Result<ReadLayer, BuildError> {
    if Compression::of_layer(&layer.media_type).is_none() {
        let message = format!("layer {} has the unknown media type {:?}", layer.digest, layer.media_type);
        return Err(BuildError::new(ErrorKind::Registry, message));
    }
    image.ensure_blob(layer).await?;
    image.services.layer_contents(layer, reading).await
}
