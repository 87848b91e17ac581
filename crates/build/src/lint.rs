// SPDX-License-Identifier: Apache-2.0
//! Findings about a Dockerfile: the bases are looked up as the build would, and what the rules find becomes
//! warnings of the step that loaded the file.
//!
//! As in BuildKit the platform that is named first is the one whose findings are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use polyarch_dockerfile::{BaseImage, Environment, Finding, Survey, SurveyRequest, survey};
use polyarch_oci::{ManifestOrIndex, Platform, Reference};
use polyarch_solver::progress::{Event, Progress, VertexWarning, WarningSource};

use crate::context::DockerfileText;
use crate::error::{BuildError, ErrorKind, SourceLocation};
use crate::frontend::Frontend;
use crate::image_source::platforms_of;
use crate::platform_args::platform_args;
use crate::request::BuildRequest;
use crate::services::Services;

/// How important a finding is, as BuildKit counts.
const LEVEL: i32 = 1;

impl Services {
    /// Tells what the rules find in a text that is no Dockerfile, up to the place where that is so.
    ///
    /// # Errors
    /// The settings of the checks make no sense.
    pub(crate) fn warn_about_text(
        &self,
        request: &BuildRequest,
        text: &DockerfileText,
        definition: &Arc<str>,
        progress: &Progress,
    ) -> Result<(), BuildError> {
        let survey = survey_text(request, text)?;
        let source = Arc::new(WarningSource {
            file: text.name.clone(),
            text: String::from_utf8_lossy(&text.bytes).into(),
        });
        survey.findings.iter().for_each(|finding| send(finding, &source, definition, progress));
        Ok(())
    }
}

/// Looks at a text without its bases.
pub(crate) fn survey_text(request: &BuildRequest, text: &DockerfileText) -> Result<Survey, BuildError> {
    let host = Platform::host();
    let platforms = [request.platforms.first().cloned().unwrap_or_else(|| host.clone())];
    let request = SurveyRequest {
        target: request.target.as_deref(),
        all_stages: true,
        build_args: &request.build_args,
        platform_args: Environment::new(),
        build_platform: &host,
        platforms: &platforms,
        bases: &BTreeMap::new(),
        replaced: &BTreeSet::new(),
        ignored: None,
        with_own_rules: false,
    };
    survey(&String::from_utf8_lossy(&text.bytes), &request).map_err(|error| settings_error(&error))
}

impl Frontend<'_> {
    /// Sends what the rules find as warnings; returns the error of a build that findings shall fail.
    ///
    /// # Errors
    /// The settings of the checks make no sense.
    pub(crate) async fn warn(&self, definition: &Arc<str>) -> Result<Option<BuildError>, BuildError> {
        let survey = self.survey(false, false).await?;
        let source = Arc::new(WarningSource { file: self.file_name.clone(), text: self.text.clone() });
        survey.findings.iter().for_each(|finding| send(finding, &source, definition, &self.progress));
        Ok(self.violation(&survey))
    }

    /// Returns the error of a build that findings shall fail, at the first of them.
    pub(crate) fn violation(&self, survey: &Survey) -> Option<BuildError> {
        let error = BuildError::new(ErrorKind::Dockerfile, survey.violation.clone()?)
            .with_hint("mend them, or leave rules out: # check=skip=RULE,… on the first line");
        Some(match survey.findings.first() {
            Some(finding) => error.at(SourceLocation {
                file: self.file_name.clone(),
                text: self.text.clone(),
                lines: finding.lines.clone(),
            }),
            None => error,
        })
    }

    /// Looks at the stages that are needed, or at all.
    ///
    /// A base that can't be had is left unknown; lowering tells why it can't.
    ///
    /// # Errors
    /// The settings of the checks make no sense.
    pub(crate) async fn survey(&self, all_stages: bool, with_own_rules: bool) -> Result<Survey, BuildError> {
        let host = self.host.clone();
        let platforms = match self.request.platforms.as_slice() {
            [] => vec![host],
            platforms => platforms.to_vec(),
        };
        let bases = self.bases(&platforms, all_stages, with_own_rules).await;
        let args = platform_args(&self.host, &platforms[0], self.target_stage()).into_iter();
        let args = args.map(|(name, value)| {
            let given = self.build_arg(&name).map(str::to_owned);
            (name, given.unwrap_or(value))
        });
        let stages = self.dockerfile.stages.iter();
        let replaced = stages.filter(|stage| self.context_of_stage(stage, &platforms[0]).is_some());
        let replaced = replaced.map(|stage| stage.index).collect();
        let request = SurveyRequest {
            target: self.request.target.as_deref(),
            all_stages,
            build_args: &self.request.build_args,
            platform_args: args.collect(),
            build_platform: &self.host,
            platforms: &platforms,
            bases: &bases,
            replaced: &replaced,
            ignored: self.context.ignored(),
            with_own_rules,
        };
        survey(&self.text, &request).map_err(|error| settings_error(&error))
    }

    /// Looks up the images that stages are built on, as far as they can be had.
    async fn bases(
        &self,
        platforms: &[Platform],
        all_stages: bool,
        with_platforms: bool,
    ) -> BTreeMap<usize, BaseImage> {
        let none = BTreeMap::new();
        let Ok(global) = self.global_scope(&platforms[0]) else { return none };
        let count = self.dockerfile.stages.len();
        // What can't be expanded is an error before any base is asked for.
        if (0..count).any(|index| self.expand_from(index, &global).is_err()) {
            return none;
        }
        let needed = match all_stages {
            true => (0..count).collect(),
            false => {
                match self.target_index().and_then(|it| self.needed_stages(it, &global, &platforms[0])) {
                    Ok(needed) => needed,
                    Err(_) => return none,
                }
            }
        };
        let lookups = needed.into_iter().map(|index| {
            let global = &global;
            async move {
                let base = self.base(index, &platforms[0], global, with_platforms).await?;
                Some((index, base))
            }
        });
        futures_util::future::join_all(lookups).await.into_iter().flatten().collect()
    }

    async fn base(
        &self,
        index: usize,
        target: &Platform,
        global: &Environment,
        with_platforms: bool,
    ) -> Option<BaseImage> {
        let stage = &self.dockerfile.stages[index];
        let from = self.expand_from(index, global).ok()?;
        // What a named context gives is not looked up for this.
        if self.named_context(&from.image, target).is_some() {
            return None;
        }
        if from.image == "scratch" || self.dockerfile.stage_before(&from.image, index).is_some() {
            return None;
        }
        let platform = match &from.platform {
            Some(text) => self.parse_platform(text, stage.span).ok()?,
            None => target.clone(),
        };
        let resolved = self.resolve(&from.image, &platform, stage.span).await.ok();
        let mut base = BaseImage::default();
        if let Some(image) = &resolved {
            let config = &image.config.value.config;
            base.env = Some(config.env.clone());
            base.has_shell = !config.shell.is_empty();
            base.on_build.clone_from(&config.on_build);
            base.platform = Some(image.platform.clone());
        }
        if with_platforms {
            let reference: Reference = from.image.parse().ok()?;
            let pull = self.request.pull;
            let root = self.services.resolve_root(&reference, None, pull, &self.progress).await;
            match root.map(|root| root.document) {
                Ok(ManifestOrIndex::Index(index)) => base.platforms = Some(platforms_of(&index.value)),
                Ok(ManifestOrIndex::Manifest(_)) => base.is_one_manifest = true,
                Err(_) => {}
            }
        }
        (resolved.is_some() || with_platforms).then_some(base)
    }
}

pub(crate) fn settings_error(error: &(dyn std::error::Error + 'static)) -> BuildError {
    BuildError::from_source(ErrorKind::Dockerfile, "failed to parse check options", error).with_hint(
        "write # check=skip=RULE,RULE;error=true or # check=skip=all; polyarch build --check shows what rules find",
    )
}

fn send(finding: &Finding, source: &Arc<WarningSource>, definition: &Arc<str>, progress: &Progress) {
    progress.send(Event::Warning(VertexWarning {
        vertex: definition.clone(),
        level: LEVEL,
        message: finding.short(),
        detail: vec![finding.rule.description.to_owned()],
        url: finding.rule.url.to_owned(),
        source: Some(source.clone()),
        lines: vec![finding.lines.clone()],
    }));
}
