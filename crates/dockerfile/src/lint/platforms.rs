// SPDX-License-Identifier: Apache-2.0
//! Our own rules, for those who build for many platforms: what runs emulated without need, and what fits one
//! platform only.

mod compilers;
mod downloads;

use polyarch_oci::Platform;

use super::{Linter, rule};
use crate::survey::BaseImage;
use crate::{Instruction, InstructionKind, Stage};

/// What a stage is looked at with.
pub(crate) struct Surroundings<'a> {
    /// The text of the Dockerfile.
    pub(crate) source: &'a str,
    /// The platforms that would be built.
    pub(crate) platforms: &'a [Platform],
    pub(crate) build_platform: &'a Platform,
    /// Whether the stage runs on the platform that is built, and not on one that it names.
    pub(crate) is_for_target: bool,
    /// Whether another stage copies from it.
    pub(crate) is_copied_from: bool,
    /// Whether another stage is built on it.
    pub(crate) is_base: bool,
}

/// Looks at a stage.
pub(crate) fn check_stage(stage: &Stage, surroundings: &Surroundings<'_>, linter: &mut Linter) {
    if surroundings.is_for_target {
        compilers::check(stage, surroundings, linter);
        downloads::check(stage, surroundings, linter);
    }
}

/// Looks at the image that a stage is built on.
pub(crate) fn check_base(
    stage: &Stage,
    image: &str,
    base: &BaseImage,
    platforms: &[Platform],
    linter: &mut Linter,
) {
    if platforms.len() > 1 && base.is_one_manifest && image.contains('@') {
        let of = base.platform.as_ref().map(|platform| format!(" for {platform}")).unwrap_or_default();
        let name = image.split('@').next().unwrap_or(image);
        let detail = format!(
            "the digest of {image} is that of one image{of}, and {} platforms are built: pin the index instead, \
             its digest is told by: polyarch imagetools inspect {name}",
            platforms.len()
        );
        linter.report(&rule::PINNED_PLATFORM_DIGEST, &stage.comments, stage.span, detail);
        return;
    }
    let Some(available) = &base.platforms else { return };
    let is_there = |wanted: &&Platform| {
        available.iter().any(|it| it.os == wanted.os && it.architecture == wanted.architecture)
    };
    let missing: Vec<String> = platforms.iter().filter(|it| !is_there(it)).map(ToString::to_string).collect();
    if !missing.is_empty() && !available.is_empty() {
        let names: Vec<String> = available.iter().map(ToString::to_string).collect();
        let detail = format!("{image} has no image for {}; it has {}", missing.join(", "), names.join(", "));
        linter.report(&rule::MISSING_BASE_PLATFORM, &stage.comments, stage.span, detail);
    }
}

/// Tells whether a machine of one platform runs programs of another by itself.
fn runs(machine: &Platform, platform: &Platform) -> bool {
    let pair = (machine.architecture.as_str(), platform.architecture.as_str());
    machine.os == platform.os && (pair.0 == pair.1 || matches!(pair, ("amd64", "386") | ("arm64", "arm")))
}

/// Returns the names among some that no ARG of the stage declares before an instruction.
fn undeclared<'a>(stage: &Stage, before: &Instruction, names: &[&'a str]) -> Vec<&'a str> {
    let earlier = stage.instructions.iter().take_while(|it| it.span.start < before.span.start);
    let declared: Vec<&str> = earlier
        .filter_map(|instruction| match &instruction.kind {
            InstructionKind::Arg(arg) => Some(arg.definitions.iter().map(|it| it.name.as_str())),
            _ => None,
        })
        .flatten()
        .collect();
    names.iter().filter(|name| !declared.contains(name)).copied().collect()
}
