// SPDX-License-Identifier: Apache-2.0
//! A walk over the stages as a build would do it, with nothing built: what variables are worth in each
//! place, which arguments, secrets, agents and caches a stage asks for, and what the rules find on the way.
//!
//! A build follows the same scopes with what it executes; here an instruction costs nothing, so all stages
//! can be looked at. Bases are known as far as the caller has resolved them: in a stage whose base is not
//! known, nothing is said about variables, because the base may set them.

mod arguments;
mod instructions;
mod ports;
mod stages;

use std::collections::{BTreeMap, BTreeSet};

use polyarch_oci::Platform;

use crate::lint::{self, Finding, Linter, SettingsError};
use crate::{Ast, Dockerfile, Environment, IgnoreRules, Span};

pub(crate) use stages::{Asked, StageSurvey};

/// What is looked at, and by which values.
#[derive(Debug, Clone)]
pub struct SurveyRequest<'a> {
    /// The stage that would be built, by name or number; the last one when absent.
    pub target: Option<&'a str>,
    /// Look at all stages and not only at those that the target needs.
    pub all_stages: bool,
    /// The values that the user gave.
    pub build_args: &'a [(String, String)],
    /// The platform arguments, as the user may have overridden them.
    pub platform_args: Environment,
    /// The platform that builds.
    pub build_platform: &'a Platform,
    /// The platforms that would be built; the first is the one whose values are used.
    pub platforms: &'a [Platform],
    /// What is known of the images that stages are built on, by the stage's index.
    pub bases: &'a BTreeMap<usize, BaseImage>,
    /// The stages that something else stands for, such as a named context.
    pub replaced: &'a BTreeSet<usize>,
    /// The ignore rules of the context.
    pub ignored: Option<&'a IgnoreRules>,
    /// Whether our own rules apply, and not only BuildKit's.
    pub with_own_rules: bool,
}

/// What a survey wants to know of an image that a stage is built on.
#[derive(Debug, Clone, Default)]
pub struct BaseImage {
    /// Its variables, `NAME=value`; none when they are not known.
    pub env: Option<Vec<String>>,
    /// Whether it sets a shell.
    pub has_shell: bool,
    /// Its triggers.
    pub on_build: Vec<String>,
    /// The platform that it says it is for.
    pub platform: Option<Platform>,
    /// The platforms that there are under the name; none when that is not known.
    pub platforms: Option<Vec<Platform>>,
    /// Whether the name means the image of one platform and not an index.
    pub is_one_manifest: bool,
}

/// What a survey saw.
#[derive(Debug)]
pub struct Survey {
    /// What the rules found, in the order of the walk.
    pub findings: Vec<Finding>,
    /// The sentence that fails a build, when findings shall and there are some.
    pub violation: Option<String>,
    /// Why the walk ended before its end.
    pub stopped: Option<Stopped>,
    /// The stages, in order, as far as the walk came.
    pub(crate) stages: Vec<StageSurvey>,
    /// The stage that would be built.
    pub(crate) target: usize,
}

/// What can't be read on, in the words of the expansion.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Stopped {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub span: Span,
}

/// Looks at a Dockerfile.
///
/// A text that can't be parsed is looked at up to the line where that is so; the error itself is told by
/// [`Dockerfile::parse_bytes`], which a build calls in any case.
///
/// # Errors
/// The settings of the checks make no sense.
pub fn survey(source: &str, request: &SurveyRequest<'_>) -> Result<Survey, SettingsError> {
    let argument = request.build_args.iter().rev().find(|(name, _)| name == lint::CHECK_ARG);
    let argument = argument.map(|(_, value)| value.as_str());
    let ast = Ast::parse(source).ok();
    let directives = ast.as_ref().map_or(&[][..], |ast| &ast.directives);
    let mut linter = Linter::new(directives, argument, request.with_own_rules)?;
    let mut walk = None;
    if let Some(ast) = &ast {
        let parsed = Dockerfile::parse(source);
        lint::check_lines(ast, parsed.as_ref().err().map(|error| error.span), &mut linter);
        if let Ok(dockerfile) = &parsed {
            lint::check_names(dockerfile, &mut linter);
            walk = Some(stages::walk(source, dockerfile, request, &mut linter));
        }
    }
    let (findings, violation) = linter.finish();
    let walk = walk.unwrap_or_default();
    Ok(Survey { findings, violation, stopped: walk.stopped, stages: walk.stages, target: walk.target })
}
