// SPDX-License-Identifier: Apache-2.0
//! The stages: what FROM is worth, which stages are needed, and what one takes over from another.

use std::collections::{BTreeMap, BTreeSet};

use polyarch_oci::{Platform, Reference};

use super::arguments::{ArgumentInfo, Globals};
use super::instructions::Scope;
use super::{BaseImage, Stopped, SurveyRequest};
use crate::lint::{Linter, Surroundings, check_base, check_stage, rule};
use crate::suggest::nearest_exact;
use crate::{Dockerfile, Expander, Instruction, Span, Stage};

/// What the walk saw.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) stages: Vec<StageSurvey>,
    pub(super) target: usize,
    pub(super) stopped: Option<Stopped>,
}

/// What a stage asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct StageSurvey {
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    /// The stage that it is built on.
    pub(crate) base: Option<usize>,
    /// The stages that it copies or mounts from.
    pub(crate) sources: BTreeSet<usize>,
    /// All arguments that are defined where the stage stands.
    pub(crate) arguments: BTreeMap<String, ArgumentInfo>,
    /// The names of those that it uses.
    pub(crate) used: BTreeSet<String>,
    pub(crate) secrets: BTreeMap<String, Asked>,
    pub(crate) agents: BTreeMap<String, Asked>,
    pub(crate) caches: BTreeMap<String, Asked>,
}

/// Where something is asked for first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) is_required: bool,
    pub(crate) span: Span,
}

/// FROM, expanded.
#[derive(Debug, Clone)]
struct ExpandedFrom {
    image: String,
    /// The platform that it names, unless it depends on the one that is built.
    platform: Option<Platform>,
    /// The stage that the image means.
    base: Option<usize>,
}

/// Walks over the stages that are needed.
pub(super) fn walk(
    source: &str,
    dockerfile: &Dockerfile,
    request: &SurveyRequest<'_>,
    linter: &mut Linter,
) -> Walk {
    let mut walk = Walk::default();
    let result = walk_stages(source, dockerfile, request, linter, &mut walk);
    walk.stopped = result.err();
    walk
}

fn walk_stages(
    source: &str,
    dockerfile: &Dockerfile,
    request: &SurveyRequest<'_>,
    linter: &mut Linter,
    walk: &mut Walk,
) -> Result<(), Stopped> {
    check_defaults(dockerfile, request, linter);
    let globals = Globals::evaluate(dockerfile, &request.platform_args, request.build_args)?;
    let mut froms = Vec::with_capacity(dockerfile.stages.len());
    for stage in &dockerfile.stages {
        let (from, used) = expand_from(dockerfile, stage, &globals, linter)?;
        walk.stages.push(StageSurvey {
            name: stage.name.clone(),
            description: stage.description.clone(),
            base: from.base,
            sources: sources_of(dockerfile, stage, request.bases.get(&stage.index)),
            arguments: globals.infos.clone(),
            used,
            ..StageSurvey::default()
        });
        froms.push(from);
    }
    let Some(target) = dockerfile.target(request.target) else {
        let message = format!("target stage {:?} could not be found", request.target.unwrap_or_default());
        return Err(Stopped { message, span: Span::default() });
    };
    walk.target = target.index;
    let needed = match request.all_stages {
        true => (0..dockerfile.stages.len()).collect(),
        false => needed_by(target.index, &walk.stages, request.replaced),
    };
    check_bases(dockerfile, request, &froms, &needed, linter);
    let mut scopes: BTreeMap<usize, Scope> = BTreeMap::new();
    for index in needed.iter().copied().filter(|index| !request.replaced.contains(index)) {
        let (stage, from) = (&dockerfile.stages[index], &froms[index]);
        let mut scope = match from.base.and_then(|base| scopes.get(&base)) {
            Some(base) => base.derived(),
            None => {
                Scope::of_image(request.bases.get(&index), from.base.is_none() && from.image == "scratch")
            }
        };
        let triggers = triggers(&mut scope, stage)?;
        for instruction in triggers.iter().chain(&stage.instructions) {
            scope.apply(
                instruction,
                &globals,
                dockerfile.escape,
                request,
                &mut walk.stages[index],
                linter,
            )?;
        }
        scopes.insert(index, scope);
    }
    for index in needed {
        let surroundings = Surroundings {
            source,
            platforms: request.platforms,
            build_platform: request.build_platform,
            is_for_target: is_for_target(&froms, index),
            is_copied_from: walk.stages.iter().any(|other| other.sources.contains(&index)),
            is_base: walk.stages.iter().any(|other| other.base == Some(index)),
        };
        check_stage(&dockerfile.stages[index], &surroundings, linter);
    }
    Ok(())
}

/// Tells whether a stage has the platform that is built, and not one that it or its base names.
fn is_for_target(froms: &[ExpandedFrom], index: usize) -> bool {
    let mut from = &froms[index];
    // A base is an earlier stage, so this ends.
    while let Some(base) = from.base {
        from = &froms[base];
    }
    from.platform.is_none()
}

/// Says where the base would be none if the user gave no arguments.
fn check_defaults(dockerfile: &Dockerfile, request: &SurveyRequest<'_>, linter: &mut Linter) {
    let Ok(globals) = Globals::evaluate(dockerfile, &request.platform_args, &[]) else { return };
    for stage in &dockerfile.stages {
        let image = &stage.from.image;
        // A name without variables has no default value to blame; if it is wrong, the build says so.
        if !image.contains('$') {
            continue;
        }
        let Ok(name) = Expander::new(&globals.environment, dockerfile.escape).word(image) else { return };
        if name.parse::<Reference>().is_err() {
            let detail = format!("Default value for ARG {image} results in empty or invalid base image name");
            linter.report(&rule::INVALID_DEFAULT_ARG_IN_FROM, &[], stage.span, detail);
        }
    }
}

fn expand_from(
    dockerfile: &Dockerfile,
    stage: &Stage,
    globals: &Globals,
    linter: &mut Linter,
) -> Result<(ExpandedFrom, BTreeSet<String>), Stopped> {
    let stop = |message: String| Stopped { message, span: stage.span };
    let mut expander = Expander::new(&globals.environment, dockerfile.escape);
    let image = expander.word(&stage.from.image);
    check_undefined(stage, expander.undefined(), globals, linter);
    let mut used = expander.used().clone();
    let image = image.map_err(|error| stop(error.to_string()))?;
    if image.is_empty() {
        return Err(stop(format!("base name ({}) should not be blank", stage.from.image)));
    }
    let mut from = ExpandedFrom {
        base: dockerfile.stage_before(&image, stage.index).map(|base| base.index),
        image,
        platform: None,
    };
    let Some(text) = &stage.from.platform else { return Ok((from, used)) };
    let mut expander = Expander::new(&globals.environment, dockerfile.escape);
    let platform = expander.word(text);
    check_undefined(stage, expander.undefined(), globals, linter);
    let platform = platform.map_err(|error| stop(error.to_string()))?;
    let names: Vec<&str> = expander.used().iter().map(String::as_str).collect();
    let is_constant = names.is_empty() && expander.undefined().is_empty();
    let is_target = names == ["TARGETPLATFORM"]
        && expander.undefined().is_empty()
        && globals.environment.iter().any(|(name, value)| name == "TARGETPLATFORM" && value == platform);
    if is_target {
        let detail = format!(
            "Setting platform to predefined {text} in FROM is redundant as this is the default behavior"
        );
        linter.report(&rule::REDUNDANT_TARGET_PLATFORM, &stage.comments, stage.span, detail);
    }
    let parsed = platform.parse::<Platform>();
    if let (true, Ok(parsed)) = (is_constant, &parsed) {
        let name = stage.name.as_deref().unwrap_or_default();
        if !name.contains(&parsed.os) && !name.contains(&parsed.architecture) {
            let detail = format!("FROM --platform flag should not use constant value {platform:?}");
            linter.report(&rule::FROM_PLATFORM_FLAG_CONST_DISALLOWED, &stage.comments, stage.span, detail);
        }
    }
    let depends_on_target = names.iter().any(|name| name.starts_with("TARGET"));
    let parsed = parsed.map_err(|error| stop(error.to_string()))?;
    from.platform = Some(parsed).filter(|_| !depends_on_target);
    used.extend(expander.used().iter().cloned());
    Ok((from, used))
}

fn check_undefined(stage: &Stage, undefined: &BTreeSet<String>, globals: &Globals, linter: &mut Linter) {
    for name in undefined.iter().filter(|name| !globals.has(name)) {
        let hint = nearest_exact(name, globals.names());
        let hint = hint.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        let detail = format!("FROM argument '{name}' is not declared{hint}");
        linter.report(&rule::UNDEFINED_ARG_IN_FROM, &stage.comments, stage.span, detail);
    }
}

/// Returns the stages that one copies or mounts from, its base's triggers included.
fn sources_of(dockerfile: &Dockerfile, stage: &Stage, base: Option<&BaseImage>) -> BTreeSet<usize> {
    let triggers: Vec<Instruction> = base
        .map(|base| base.on_build.as_slice())
        .unwrap_or_default()
        .iter()
        .filter_map(|text| Instruction::parse_trigger(text, stage.span).ok())
        .collect();
    let references = triggers.iter().flat_map(Instruction::references);
    let all = stage.references().into_iter().chain(references);
    let sources = all.filter_map(|reference| dockerfile.referenced_stage(reference.text));
    // What is not before the stage is an error of the build.
    sources.map(|source| source.index).filter(|source| *source < stage.index).collect()
}

fn needed_by(target: usize, stages: &[StageSurvey], replaced: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut needed = BTreeSet::from([target]);
    for index in (0..=target).rev() {
        if needed.contains(&index) && !replaced.contains(&index) {
            needed.extend(stages[index].base);
            needed.extend(stages[index].sources.iter().copied());
        }
    }
    needed
}

fn check_bases(
    dockerfile: &Dockerfile,
    request: &SurveyRequest<'_>,
    froms: &[ExpandedFrom],
    needed: &BTreeSet<usize>,
    linter: &mut Linter,
) {
    for index in needed {
        let (stage, from) = (&dockerfile.stages[*index], &froms[*index]);
        let Some(base) = request.bases.get(index) else { continue };
        let Some(expected) = from.platform.as_ref().or(request.platforms.first()) else { continue };
        if let Some(actual) = &base.platform
            && !actual.architecture.is_empty()
            && (&actual.os, &actual.architecture) != (&expected.os, &expected.architecture)
        {
            let detail = format!(
                "Base image {} was pulled with platform \"{actual}\", expected \"{expected}\" for current build",
                from.image
            );
            linter.report(&rule::INVALID_BASE_IMAGE_PLATFORM, &[], stage.span, detail);
        }
        if from.platform.is_none() {
            check_base(stage, &from.image, base, request.platforms, linter);
        }
    }
}

/// Takes the triggers of what a stage is built on; they are for this stage only.
fn triggers(scope: &mut Scope, stage: &Stage) -> Result<Vec<Instruction>, Stopped> {
    let parse = |text: &String| {
        Instruction::parse_trigger(text, stage.span)
            .map_err(|error| Stopped { message: error.to_string(), span: stage.span })
    };
    std::mem::take(&mut scope.on_build).iter().map(parse).collect()
}
