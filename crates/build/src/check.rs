// SPDX-License-Identifier: Apache-2.0
//! The check at the end of a build: are the programs that its own steps brought those of the platform?
//!
//! Only the layers of the Dockerfile's steps are judged (`docs/verify.md`, "In a build"), and a verdict that
//! was good is remembered, so that an unchanged build pays one look at a record.

use std::sync::Arc;

use polyarch_contents::{Finding, ImageContents, Scope, Severity, judge};
use polyarch_oci::{ContainerConfig, Platform};
use polyarch_solver::KeyHasher;

use crate::error::{BuildError, ErrorKind, SourceLocation, chain_of};
use crate::exporter::PlatformTree;
use crate::image::{LayerBlob, PlatformImage};
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
    finish(failure)
}

/// Judges images that nodes have built: the layers that their history says a Dockerfile's steps made.
///
/// # Errors
/// When a platform got files of another.
pub(crate) async fn check_finished(
    services: &Arc<Services>,
    images: &[PlatformImage],
) -> Result<(), BuildError> {
    let mut failure: Option<BuildError> = None;
    for image in images {
        let steps = layers_of_steps(&image.config.value.history, image.layers.len());
        let own: Vec<&LayerBlob> = image.layers.iter().skip(image.layers.len() - steps).collect();
        let runtime = &image.config.value.config;
        let Some(foreign) = find_foreign(services, &image.platform, runtime, &own).await? else { continue };
        match &mut failure {
            None => failure = Some(BuildError::new(ErrorKind::Platform, foreign.message)),
            Some(failure) => failure.message = format!("{}; {}", failure.message, foreign.message),
        }
    }
    finish(failure)
}

/// Counts the topmost layers that a node's history names as made by a Dockerfile; at most `layers`.
fn layers_of_steps(history: &[polyarch_oci::History], layers: usize) -> usize {
    let is_step = |entry: &&polyarch_oci::History| {
        entry.comment == crate::image::HISTORY_COMMENT || entry.comment.starts_with("buildkit.")
    };
    let own = history.iter().rev().take_while(is_step);
    own.filter(|entry| !entry.empty_layer).count().min(layers)
}

fn finish(failure: Option<BuildError>) -> Result<(), BuildError> {
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
    let draft = &platform.draft;
    let found = find_foreign(services, &draft.platform, &draft.config.config, &own).await?;
    Ok(found.map(|foreign| {
        let error = BuildError::new(ErrorKind::Platform, foreign.message);
        match foreign.layer.and_then(|layer| location_of(platform, layer)) {
            Some(location) => error.at(location),
            None => error,
        }
    }))
}

/// Files of another platform.
struct Foreign {
    message: String,
    /// Where the first of them is, counted among the layers that were judged.
    layer: Option<usize>,
}

/// Judges layers, unless the same ones were found good before.
async fn find_foreign(
    services: &Arc<Services>,
    platform: &Platform,
    runtime: &ContainerConfig,
    own: &[&LayerBlob],
) -> Result<Option<Foreign>, BuildError> {
    if own.is_empty() {
        return Ok(None);
    }
    let key = verdict_key(platform, runtime, own);
    if matches!(services.store.get_record(GOOD_PROGRAMS, &key), Ok(Some(_))) {
        return Ok(None);
    }
    let mut image = ImageContents::default();
    for blob in own {
        let layer = services.layer_contents(&blob.descriptor, Reading::Remembered).await?;
        image.add(&layer.contents).map_err(|error| {
            let message = format!("the layers can't be checked together: {}", chain_of(&error));
            BuildError::new(ErrorKind::Platform, message)
        })?;
    }
    let judgement = judge(&image, platform, runtime, Scope::Part);
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
    Ok(Some(Foreign { message: format!("{path} {}{more}", first.message), layer: first.layer }))
}

/// Returns the line that made a layer, counted among the layers of steps.
fn location_of(platform: &PlatformTree, layer: usize) -> Option<SourceLocation> {
    let steps = platform.draft.history.iter().filter(|entry| entry.is_step);
    let made = steps.zip(&platform.tree.steps).filter(|(_, step)| step.made_layer);
    made.map(|(entry, _)| entry.location.clone()).nth(layer)?
}

fn verdict_key(platform: &Platform, runtime: &ContainerConfig, layers: &[&LayerBlob]) -> String {
    let mut hasher = KeyHasher::new("good programs");
    hasher
        .part(RULES_VERSION)
        .part(platform.to_string())
        .part(polyarch_contents::search_path(runtime))
        .part(&runtime.working_dir)
        .parts(runtime.entrypoint.iter().flatten())
        .part("CMD")
        .parts(runtime.cmd.iter().flatten())
        .part("layers")
        .parts(layers.iter().map(|layer| layer.descriptor.digest.to_string()));
    hasher.finish().hex()
}
