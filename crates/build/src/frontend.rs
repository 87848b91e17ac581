// SPDX-License-Identifier: Apache-2.0
//! The Dockerfile frontend: per platform, stages become vertices of one graph and drafts of images.

mod add;
mod args;
mod copy;
mod instruction;
mod needed;
pub(crate) mod permitted;
mod run;
mod scan;
mod source_date_epoch;
mod sources;
mod stage;

use std::collections::HashMap;
use std::sync::Arc;

use polyarch_dockerfile::{Dockerfile, Environment, Expander, Span, nearest_exact};
use polyarch_oci::{Platform, Reference};
use polyarch_solver::progress::Progress;
use polyarch_solver::{Graph, VertexId};

use crate::attest::SbomOptions;
use crate::context::{DockerfileText, LocalContext};
use crate::error::{BuildError, ErrorKind, SourceLocation};
use crate::fetch::Shown;
use crate::image::ImageDraft;
use crate::image_source::ResolvedImage;
use crate::once_map::OnceMap;
use crate::ops::BuildOp;
use crate::provenance::Material;
use crate::request::{BuildRequest, PullPolicy};
use crate::services::Services;
use crate::stats::Stats;

pub(crate) use instruction::{DEFAULT_SHELL, absolute, set_env};
pub(crate) use source_date_epoch::{SOURCE_DATE_EPOCH, SourceDateEpoch};
pub(crate) use stage::LoweredStage;

/// What lowering works with; one for all platforms of a build.
pub(crate) struct Frontend<'a> {
    pub(crate) services: Arc<Services>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) request: &'a BuildRequest,
    pub(crate) context: Arc<LocalContext>,
    pub(crate) dockerfile: Dockerfile,
    pub(crate) file_name: String,
    pub(crate) text: Arc<str>,
    pub(crate) host: Platform,
    pub(crate) progress: Progress,
    /// What `SOURCE_DATE_EPOCH` came to, once that is known.
    pub(crate) source_date_epoch: Option<SourceDateEpoch>,
    /// Named contexts of somebody else's that were opened, by their identity.
    pub(crate) distant: OnceMap<Arc<LocalContext>, BuildError>,
    /// Images already resolved, by reference and platform.
    pub(crate) images: OnceMap<Arc<ResolvedImage>, BuildError>,
}

/// A platform's target: its vertex and the draft of its image.
pub(crate) struct LoweredPlatform {
    pub(crate) vertex: VertexId,
    pub(crate) draft: ImageDraft,
    /// What it takes in from elsewhere.
    pub(crate) materials: Vec<Material>,
    /// The scan of the result, where one was asked for.
    pub(crate) scan: Option<VertexId>,
}

impl<'a> Frontend<'a> {
    /// Makes what lowering a request needs; nothing is resolved yet.
    pub(crate) fn new(
        services: &Arc<Services>,
        request: &'a BuildRequest,
        context: LocalContext,
        text: &DockerfileText,
        dockerfile: Dockerfile,
        progress: &Progress,
    ) -> Frontend<'a> {
        Frontend {
            services: services.clone(),
            stats: Arc::new(Stats::default()),
            request,
            context: Arc::new(context),
            dockerfile,
            file_name: text.name.clone(),
            text: String::from_utf8_lossy(&text.bytes).into(),
            host: Platform::host(),
            progress: progress.clone(),
            source_date_epoch: None,
            distant: OnceMap::default(),
            images: OnceMap::default(),
        }
    }

    async fn lowering<'f>(
        &'f self,
        graph: &'f mut Graph<BuildOp>,
        platform: &Platform,
        indices: &[usize],
    ) -> Result<Lowering<'f, 'a>, BuildError> {
        let mut lowering = Lowering {
            frontend: self,
            graph,
            global: self.global_scope(platform)?,
            target: platform.clone(),
            stages: HashMap::new(),
            current: 0,
            materials: Vec::new(),
        };
        // Stages refer to earlier ones, so lowering what is needed from the first on never has to recurse.
        for index in indices {
            lowering.current = *index;
            let lowered = lowering.lower_stage(*index).await?;
            lowering.stages.insert(*index, lowered);
        }
        Ok(lowering)
    }
}

impl Frontend<'_> {
    /// Lowers the target stage for one platform into the graph.
    pub(crate) async fn lower(
        &self,
        graph: &mut Graph<BuildOp>,
        platform: &Platform,
    ) -> Result<LoweredPlatform, BuildError> {
        let target = self.target_index()?;
        let needed = self.needed_with_triggers(target, &self.global_scope(platform)?, platform).await?;
        let mut lowering = self.lowering(graph, platform, &needed).await?;
        let stage = lowering.stages.remove(&target).ok_or_else(|| {
            BuildError::new(ErrorKind::Dockerfile, "the target stage was not lowered".to_owned())
        })?;
        let scan = match &self.request.attestations.sbom {
            Some(SbomOptions { generator: Some(generator), parameters }) => {
                Some(lowering.scan(generator, parameters, target, &stage, platform).await?)
            }
            Some(SbomOptions { generator: None, .. }) | None => None,
        };
        let mut draft = stage.draft;
        if draft.platform != *platform {
            self.progress.warn(format!(
                "the last stage is {}, and the image will say {platform}: its FROM names a platform of its own",
                draft.platform
            ));
        }
        draft.platform = platform.clone();
        draft.config.set_platform(platform);
        for (name, value) in &self.request.labels {
            draft.config.config.labels.insert(name.clone(), value.clone());
        }
        Ok(LoweredPlatform { vertex: stage.vertex, draft, materials: lowering.materials, scan })
    }

    /// Lowers stages for one platform into the graph; `indices` are in the order of the file, and a stage that
    /// another one needs is among them.
    pub(crate) async fn lower_stages(
        &self,
        graph: &mut Graph<BuildOp>,
        platform: &Platform,
        indices: &[usize],
    ) -> Result<HashMap<usize, LoweredStage>, BuildError> {
        Ok(self.lowering(graph, platform, indices).await?.stages)
    }

    /// Returns the platforms whose programs the stages needed for `platform` execute.
    pub(crate) async fn executing_platforms(&self, platform: &Platform) -> Result<Vec<Platform>, BuildError> {
        let global = self.global_scope(platform)?;
        let mut platforms = Vec::new();
        let mut of_stage: HashMap<usize, Platform> = HashMap::new();
        for index in self.needed_stages(self.target_index()?, &global, platform)? {
            let stage = &self.dockerfile.stages[index];
            let from = self.expand_from(index, &global)?;
            let own = match (&from.platform, self.dockerfile.stage_before(&from.image, index)) {
                (_, None) if from.image == "scratch" => platform.clone(),
                (Some(text), None) => self.parse_platform(text, stage.span)?,
                (_, Some(base)) => of_stage.get(&base.index).cloned().unwrap_or_else(|| platform.clone()),
                (None, None) => platform.clone(),
            };
            let own = match self.dockerfile.stage_before(&from.image, index) {
                None if !self.request.verify && from.image != "scratch" => {
                    self.platform_of_programs(&from.image, own, stage.span).await
                }
                _ => own,
            };
            let executes = self.context_of_stage(stage, &own).is_none()
                && stage.instructions.iter().any(|instruction| {
                    matches!(instruction.kind, polyarch_dockerfile::InstructionKind::Run(_))
                });
            if executes && !platforms.contains(&own) {
                platforms.push(own.clone());
            }
            of_stage.insert(index, own);
        }
        Ok(platforms)
    }

    /// Returns the platform of the programs of a base, which may be another than the one it was asked for.
    async fn platform_of_programs(&self, base: &str, platform: Platform, span: Span) -> Platform {
        if self.named_context(base, &platform).is_some() {
            return platform;
        }
        // One that can't be had is told by lowering.
        let image = self.resolve(base, &platform, span).await.ok();
        image.map(|image| image.platform_of_programs(&platform)).unwrap_or(platform)
    }

    pub(crate) fn target_index(&self) -> Result<usize, BuildError> {
        let target = self.request.target.as_deref();
        self.dockerfile.target(target).map(|stage| stage.index).ok_or_else(|| {
            let names: Vec<&str> =
                self.dockerfile.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
            let wanted = target.unwrap_or_default();
            let hint = polyarch_oci::platform::did_you_mean(wanted, &names);
            let stages = if names.is_empty() { "none has a name".to_owned() } else { names.join(", ") };
            BuildError::new(
                ErrorKind::Dockerfile,
                format!("target stage \"{wanted}\" could not be found{hint}"),
            )
            .with_hint(format!("stages of {}: {stages}", self.file_name))
        })
    }

    /// Expands FROM by the global arguments.
    pub(crate) fn expand_from(
        &self,
        index: usize,
        global: &Environment,
    ) -> Result<polyarch_dockerfile::From, BuildError> {
        let stage = &self.dockerfile.stages[index];
        let mut expander = Expander::new(global, self.dockerfile.escape);
        let from = stage.from.expand(&mut expander).map_err(|error| {
            BuildError::from_source(ErrorKind::Dockerfile, "can't expand FROM", &error)
                .at(self.location(stage.span))
        })?;
        if from.image.is_empty() {
            return Err(BuildError::new(
                ErrorKind::Dockerfile,
                format!("base name ({}) should not be blank", stage.from.image),
            )
            .with_hint("give the variable a value: ARG NAME=default before the first FROM, or --build-arg NAME=value")
            .at(self.location(stage.span)));
        }
        if let (Some(written), Some(platform)) = (&stage.from.platform, &from.platform) {
            self.check_platform(written, platform, global, stage.span)?;
        }
        Ok(from)
    }

    /// Makes sure that the value of a `--platform` has the form of a platform; a part that is not there is
    /// most often a variable that was mistyped.
    fn check_platform(
        &self,
        written: &str,
        platform: &str,
        global: &Environment,
        span: Span,
    ) -> Result<(), BuildError> {
        let is_part = |part: &str| {
            !part.is_empty() && part.chars().all(|it| it.is_ascii_alphanumeric() || "_.-".contains(it))
        };
        let message = if platform.is_empty() {
            format!("empty platform value from expression {written}")
        } else if let Some(part) = platform.split('/').find(|part| !is_part(part)) {
            format!(
                "failed to parse platform {written}: {part:?} is an invalid component of {platform:?}: platform \
                 specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument"
            )
        } else {
            return Ok(());
        };
        let mut expander = Expander::new(global, self.dockerfile.escape);
        // It was expanded before, and can be.
        let _ = expander.word(written);
        let near = |name: &String| nearest_exact(name, global.iter().map(|(name, _)| name));
        let hint = expander.undefined().iter().find_map(near);
        let hint = hint.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
        Err(BuildError::new(ErrorKind::Dockerfile, format!("{message}{hint}")).at(self.location(span)))
    }

    pub(crate) fn parse_platform(&self, text: &str, span: Span) -> Result<Platform, BuildError> {
        Platform::parse_known(text).map_err(|error| {
            BuildError::from_source(ErrorKind::Dockerfile, format!("--platform={text}"), &error)
                .at(self.location(span))
        })
    }

    /// Resolves an image for a platform; asked twice, it is resolved once.
    pub(crate) async fn resolve(
        &self,
        text: &str,
        platform: &Platform,
        span: Span,
    ) -> Result<Arc<ResolvedImage>, BuildError> {
        let reference: Reference = text.parse().map_err(|error| {
            BuildError::from_source(ErrorKind::Dockerfile, "not an image", &error).at(self.location(span))
        })?;
        let label = if self.shows_platform(platform) {
            format!("[{platform} internal] load metadata for")
        } else {
            "[internal] load metadata for".to_owned()
        };
        self.resolve_reference(&reference.with_default_tag(), &label, platform, span).await
    }

    /// Resolves an image for a platform; `label` is shown in front of its name.
    pub(crate) async fn resolve_reference(
        &self,
        reference: &Reference,
        label: &str,
        platform: &Platform,
        span: Span,
    ) -> Result<Arc<ResolvedImage>, BuildError> {
        self.resolve_of(reference, label, platform, span, false).await
    }

    /// Finds an image of a layout that is in the store, and nowhere else; source policies are about names.
    pub(crate) async fn resolve_stored_layout(
        &self,
        reference: &Reference,
        label: &str,
        platform: &Platform,
        span: Span,
    ) -> Result<Arc<ResolvedImage>, BuildError> {
        self.resolve_of(reference, label, platform, span, true).await
    }

    async fn resolve_of(
        &self,
        reference: &Reference,
        label: &str,
        platform: &Platform,
        span: Span,
        is_layout: bool,
    ) -> Result<Arc<ResolvedImage>, BuildError> {
        let key = format!("{platform}{} {reference}", if is_layout { " layout" } else { "" });
        self.images
            .get(&key, || async {
                let shown_progress = self.progress();
                let vertex = shown_progress.begin(&format!("metadata {key}"), format!("{label} {reference}"));
                let shown = Shown { progress: shown_progress, vertex: vertex.digest() };
                match self.base_image(reference, platform, &shown, is_layout).await {
                    Ok(image) => {
                        vertex.done();
                        Ok(Arc::new(image))
                    }
                    Err(error) => {
                        vertex.failed(&error);
                        Err(error.at(self.location(span)))
                    }
                }
            })
            .await
    }

    /// Finds an image for a platform. Where programs are not judged, a name that means one image and no index
    /// serves every platform, as in BuildKit; rules warn of it.
    async fn base_image(
        &self,
        reference: &Reference,
        platform: &Platform,
        shown: &Shown,
        is_layout: bool,
    ) -> Result<ResolvedImage, BuildError> {
        let services = &self.services;
        let (reference, pull) = match is_layout {
            true => (reference.clone(), PullPolicy::Never),
            false => (self.permitted_image(reference)?, self.request.pull),
        };
        let reference = &reference;
        if self.request.verify {
            return services.resolve_image(reference, platform, pull, shown).await;
        }
        let root = services.resolve_root(reference, Some(platform), pull, &shown.progress).await?;
        services.select_any(reference, &root, platform, shown).await
    }

    /// Tells whether step names say the platform.
    pub(crate) fn shows_platform(&self, platform: &Platform) -> bool {
        self.request.platforms.len() > 1 || *platform != self.host
    }

    pub(crate) fn location(&self, span: Span) -> SourceLocation {
        SourceLocation { file: self.file_name.clone(), text: self.text.clone(), lines: span.lines() }
    }
}

/// The lowering of one platform.
pub(crate) struct Lowering<'f, 'a> {
    pub(crate) frontend: &'f Frontend<'a>,
    pub(crate) graph: &'f mut Graph<BuildOp>,
    /// Global arguments and platform arguments.
    pub(crate) global: Environment,
    pub(crate) target: Platform,
    pub(crate) stages: HashMap<usize, LoweredStage>,
    /// The number of the stage that is lowered.
    current: usize,
    /// What is taken in from elsewhere, as it is found; provenance tells it.
    pub(crate) materials: Vec<Material>,
}
