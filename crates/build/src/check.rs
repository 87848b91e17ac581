// SPDX-License-Identifier: Apache-2.0
//! The check at the end of a build: are the programs that its own steps brought those of the platform?
//!
//! Only the layers of the Dockerfile's steps are judged (`docs/verify.md`, "In a build"), and a verdict that
//! was good is remembered, so that an unchanged build pays one look at a record.

use std::sync::Arc;

use polyarch_contents::{Finding, ImageContents, Scope, Severity, judge};
use polyarch_solver::KeyHasher;

use crate::error::{BuildError, ErrorKind, SourceLocation, chain_of};
use crate::exporter::PlatformTree;
use crate::image::LayerBlob;
use crate::layer_contents::Reading;
use crate::services::Services;
use crate::tree::Layer;

/// The namespace of records of good verdicts.
pub(crate) const GOOD_PROGRAMS: &str = "good-programs";

/// Changes when the rules do.
const RULES_VERSION: &str = "1";

/// The rules that end a build; others need the whole image to be judged.
const FATAL: [&str; 3] = ["entry-foreign", "library-foreign", "program-foreign"];

/// Judges every platform; `layers` has the blobs of each one's layers.
///
/// # Errors
/// When a platform got files of another, naming the line that brought the first of them.
pub(crate) async fn check_programs(
    services: &Arc<Services>,
    platforms: &[PlatformTree],
    layers: &[Vec<LayerBlob>],
) -> Result<(), BuildError> {
    let mut failure: Option<BuildError> = None;
    for (platform, layers) in platforms.iter().zip(layers) {
        let Some(error) = check_platform(services, platform, layers).await? else { continue };
        match &mut failure {
            None => failure = Some(error),
            Some(failure) => failure.message = format!("{}; {}", failure.message, error.message),
        }
    }
    match failure {
        None => Ok(()),
        Some(error) => Err(error
            .with_hint(
                "bring a file for each platform: COPY bin/app-$TARGETARCH /usr/local/bin/app after ARG TARGETARCH, or \
                 compile in a stage of the target platform",
            )
            .with_hint("if the file is meant to be there: --no-verify")),
    }
}

async fn check_platform(
    services: &Arc<Services>,
    platform: &PlatformTree,
    layers: &[LayerBlob],
) -> Result<Option<BuildError>, BuildError> {
    let own: Vec<&LayerBlob> = platform
        .tree
        .layers
        .iter()
        .zip(layers)
        .filter(|(layer, _)| matches!(layer, Layer::Step { .. }))
        .map(|(_, blob)| blob)
        .collect();
    if own.is_empty() {
        return Ok(None);
    }
    let key = verdict_key(platform, &own);
    if matches!(services.store.get_record(GOOD_PROGRAMS, &key), Ok(Some(_))) {
        return Ok(None);
    }
    let mut image = ImageContents::default();
    for blob in &own {
        let layer = services.layer_contents(&blob.descriptor, Reading::Remembered).await?;
        image.add(&layer.contents).map_err(|error| {
            let message = format!("the layers can't be checked together: {}", chain_of(&error));
            BuildError::new(ErrorKind::Platform, message)
        })?;
    }
    let draft = &platform.draft;
    let judgement = judge(&image, &draft.platform, &draft.config.config, Scope::Part);
    let is_fatal = |finding: &&Finding| finding.severity == Severity::Error && FATAL.contains(&finding.rule);
    let fatal: Vec<&Finding> = judgement.findings.iter().filter(is_fatal).collect();
    let Some(first) = fatal.first() else {
        // Without the record the layers are judged again.
        let _ = services.store.put_record(GOOD_PROGRAMS, &key, b"");
        return Ok(None);
    };
    let path = first.path.as_ref().map(ToString::to_string).unwrap_or_default();
    let more = match fatal.len() - 1 {
        0 => String::new(),
        1 => " (and one more file)".to_owned(),
        count => format!(" (and {count} more files)"),
    };
    let error = BuildError::new(ErrorKind::Platform, format!("{path} {}{more}", first.message));
    Ok(Some(match first.layer.and_then(|layer| location_of(platform, layer)) {
        Some(location) => error.at(location),
        None => error,
    }))
}

/// Returns the line that made a layer, counted among the layers of steps.
fn location_of(platform: &PlatformTree, layer: usize) -> Option<SourceLocation> {
    let steps = platform.draft.history.iter().filter(|entry| entry.is_step);
    let made = steps.zip(&platform.tree.steps).filter(|(_, step)| step.made_layer);
    made.map(|(entry, _)| entry.location.clone()).nth(layer)?
}

fn verdict_key(platform: &PlatformTree, layers: &[&LayerBlob]) -> String {
    let config = &platform.draft.config.config;
    let mut hasher = KeyHasher::new("good programs");
    hasher
        .part(RULES_VERSION)
        .part(platform.draft.platform.to_string())
        .part(polyarch_contents::search_path(config))
        .part(&config.working_dir)
        .parts(config.entrypoint.iter().flatten())
        .part("CMD")
        .parts(config.cmd.iter().flatten())
        .part("layers")
        .parts(layers.iter().map(|layer| layer.descriptor.digest.to_string()));
    hasher.finish().hex()
}
