// SPDX-License-Identifier: Apache-2.0
//! One stage for one platform: FROM, then its instructions in order.

use std::sync::Arc;

use polyarch_dockerfile::instruction::Run;
use polyarch_dockerfile::{Environment, Expander, Instruction, InstructionKind, Span, Stage};
use polyarch_oci::{ContainerConfig, Platform};
use polyarch_solver::VertexId;

use super::Lowering;
use super::instruction::absolute;
use super::run::secret_variables;
use super::sources::Named;
use crate::error::BuildError;
use crate::image::{DEFAULT_PATH, HistoryEntry, ImageDraft, WINDOWS};
use crate::image_source::ResolvedImage;
use crate::named_context::NamedContext;
use crate::ops::image::ImageOp;
use crate::ops::{BuildOp, OpKind};

/// A stage, lowered.
#[derive(Debug, Clone)]
pub(crate) struct LoweredStage {
    /// Its last vertex.
    pub(crate) vertex: VertexId,
    /// Where a context of files stands in for it, those files: who copies from it needs no more than it reads.
    files: Option<VertexId>,
    /// The draft of its image.
    pub(crate) draft: ImageDraft,
    /// The platform of its programs; another than the image's where the base is one of another.
    programs: Platform,
    /// What ENV and ARG have set, in order; a stage built on this one begins with it.
    env: Vec<(String, String)>,
    /// The arguments among that, for the history.
    pub(super) arguments: Vec<(String, String)>,
}

/// What a stage begins with.
struct Base {
    vertex: VertexId,
    files: Option<VertexId>,
    draft: ImageDraft,
    programs: Platform,
}

/// A stage on its way.
pub(super) struct StageState {
    pub(super) vertex: VertexId,
    pub(super) draft: ImageDraft,
    /// The platform of its programs.
    pub(super) programs: Platform,
    /// What ENV and ARG have set so far, in order; the later one wins. RUN and variables see this, the
    /// image's config only what ENV has set.
    env: Vec<(String, String)>,
    /// Arguments declared so far, in order, for the history.
    pub(super) arguments: Vec<(String, String)>,
    /// The label of step names, `linux/arm64 build`.
    label: String,
    step: usize,
    steps: usize,
    /// Whether every step is executed, whatever is recorded.
    no_cache: bool,
    /// Whether CMD stands in this stage: ENTRYPOINT drops only an inherited one.
    pub(super) has_cmd: bool,
}

impl Lowering<'_, '_> {
    /// Lowers a stage whose bases are lowered already.
    pub(super) async fn lower_stage(&mut self, index: usize) -> Result<LoweredStage, BuildError> {
        let frontend = self.frontend;
        let stage = &frontend.dockerfile.stages[index];
        let from = frontend.expand_from(index, &self.global)?;
        let own = from.platform.as_ref().map(|text| frontend.parse_platform(text, stage.span)).transpose()?;
        let platform = own.clone().unwrap_or_else(|| self.target.clone());
        if let Some(context) = frontend.context_of_stage(stage, &platform) {
            let Base { vertex, files, draft, programs } =
                self.base_of_context(context, &platform, stage).await?;
            let env = draft.config.config.env.iter();
            let env = env.map(|entry| entry.split_once('=').unwrap_or((entry, "")));
            let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            return Ok(LoweredStage { vertex, files, draft, programs, env, arguments: Vec::new() });
        }
        let base = frontend.dockerfile.stage_before(&from.image, index);
        let base = base.and_then(|base| self.stages.get(&base.index)).cloned();
        let inherited = base.as_ref().map(|base| (base.env.clone(), base.arguments.clone()));
        let is_image = base.is_none() && from.image != "scratch";
        let Base { vertex, draft, programs, .. } = match base {
            Some(base) => {
                Base { vertex: base.vertex, files: None, draft: base.draft, programs: base.programs }
            }
            None => {
                if from.image == "scratch" {
                    let vertex = self.graph.add(hidden(OpKind::Image(ImageOp::default())), Vec::new());
                    let draft = ImageDraft::scratch(&self.target);
                    Base { vertex, files: None, draft, programs: self.target.clone() }
                } else if let Some(context) = frontend.named_context(&from.image, &platform) {
                    self.base_of_context(context, &platform, stage).await?
                } else {
                    let image = frontend.resolve(&from.image, &platform, stage.span).await?;
                    self.base_of_image(&image, platform, stage, false)
                }
            }
        };
        let triggers = frontend.parse_triggers(&draft.config.config.on_build, stage.span)?;
        let mut state = self.start(stage, vertex, draft, is_image, &triggers);
        state.programs = programs;
        match inherited {
            Some((env, arguments)) => (state.env, state.arguments) = (env, arguments),
            None => {
                for entry in state.config().env.clone() {
                    let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
                    state.set_variable(name, value);
                }
            }
        }
        for instruction in triggers.iter().chain(&stage.instructions) {
            self.lower_instruction(&mut state, instruction).await?;
        }
        let StageState { vertex, draft, programs, env, arguments, .. } = state;
        Ok(LoweredStage { vertex, files: None, draft, programs, env, arguments })
    }

    /// Begins a stage with an image.
    fn base_of_image(
        &mut self,
        image: &ResolvedImage,
        platform: Platform,
        stage: &Stage,
        is_layout: bool,
    ) -> Base {
        let programs = image.platform_of_programs(&platform);
        let mut config = image.config.value.clone();
        // The base's own platform is that of an older variant at most: the image is what was asked for.
        config.set_platform(&platform);
        let draft = ImageDraft { platform, config, history: Vec::new() };
        let digest = image.reference.digest().unwrap_or(&image.root.digest);
        let name = format!("FROM {}@{digest}", image.reference);
        let image = self.take_image(image, &draft.platform, is_layout);
        let vertex = self.add_image(image, stage, &draft.platform, &name);
        Base { vertex, files: None, draft, programs }
    }

    /// Begins a stage with a named context, or stands one in for the whole stage.
    async fn base_of_context(
        &mut self,
        context: &NamedContext,
        platform: &Platform,
        stage: &Stage,
    ) -> Result<Base, BuildError> {
        let programs = platform.clone();
        match self.named(context, platform, stage.span).await? {
            Named::Built(vertex, mut draft) => {
                draft.platform = platform.clone();
                draft.config.set_platform(platform);
                Ok(Base { vertex, files: None, draft: *draft, programs })
            }
            Named::Image(image) => {
                let is_layout = context.source.is_layout();
                Ok(self.base_of_image(&image, platform.clone(), stage, is_layout))
            }
            Named::Files(files) => {
                let vertex = self.tree_of(files, &context.name, stage.span);
                let mut draft = ImageDraft::scratch(platform);
                let created_by = format!("FROM {}", context.name);
                draft.history.push(HistoryEntry { location: None, created_by, is_step: true });
                Ok(Base { vertex, files: Some(files), draft, programs })
            }
        }
    }

    /// Adds the layers of an image as the first step of a stage.
    fn add_image(&mut self, image: ImageOp, stage: &Stage, platform: &Platform, name: &str) -> VertexId {
        let steps = 1 + step_count(&stage.instructions);
        let label = self.label(stage, platform);
        let op = BuildOp {
            kind: OpKind::Image(image),
            name: format!("{} {name}", prefix(&label, 1, steps)).into(),
            location: Some(self.frontend.location(stage.span)),
            no_cache: false,
        };
        self.graph.add(op, Vec::new())
    }

    fn start(
        &self,
        stage: &Stage,
        vertex: VertexId,
        mut draft: ImageDraft,
        is_image: bool,
        triggers: &[Instruction],
    ) -> StageState {
        draft.config.config.on_build.clear();
        let is_windows = draft.platform.os == WINDOWS;
        if !is_windows && !draft.config.config.env.iter().any(|entry| entry.starts_with("PATH=")) {
            draft.config.config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        let working_dir = &mut draft.config.config.working_dir;
        if !working_dir.is_empty() {
            *working_dir = absolute("/", working_dir);
        }
        let label = self.label(stage, &draft.platform);
        let steps = usize::from(is_image) + step_count(triggers) + step_count(&stage.instructions);
        let has_cmd = false;
        let (env, arguments) = (Vec::new(), Vec::new());
        let step = usize::from(is_image);
        let no_cache = self.frontend.request.steps.no_cache_stages.iter().any(|asked| {
            *asked == stage.index.to_string()
                || stage.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(asked))
        });
        let programs = draft.platform.clone();
        StageState { vertex, draft, programs, env, arguments, label, step, steps, no_cache, has_cmd }
    }

    /// Returns the label of a stage's steps: platforms when there are several, and the stage's name.
    fn label(&self, stage: &Stage, platform: &Platform) -> String {
        let mut label = String::new();
        if self.frontend.shows_platform(platform) || self.frontend.shows_platform(&self.target) {
            label = platform.to_string();
            if *platform != self.target && uses_target(stage) {
                label = format!("{label}->{}", self.target.architecture_and_variant());
            }
        }
        let name = match &stage.name {
            Some(name) => Some(name.clone()),
            None if self.frontend.dockerfile.stages.len() > 1 => Some(format!("stage-{}", stage.index)),
            None => None,
        };
        if let Some(name) = name {
            label = if label.is_empty() { name } else { format!("{label} {name}") };
        }
        label
    }

    /// Adds a step on top of a stage.
    pub(super) fn add_step(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        shown: &str,
        kind: OpKind,
        further_inputs: Vec<VertexId>,
    ) {
        state.step += 1;
        let op = BuildOp {
            kind,
            name: format!("{} {shown}", prefix(&state.label, state.step, state.steps)).into(),
            location: Some(self.frontend.location(instruction.span)),
            no_cache: self.frontend.request.no_cache || state.no_cache,
        };
        if let Some(entry) = state.draft.history.last_mut().filter(|entry| entry.is_step) {
            entry.location = op.location.clone();
        }
        let inputs = std::iter::once(state.vertex).chain(further_inputs).collect();
        state.vertex = self.graph.add(op, inputs);
    }

    /// Expands the variables of an instruction by what the stage has at this point.
    pub(super) fn expand(
        &self,
        state: &StageState,
        instruction: &Instruction,
    ) -> Result<Instruction, BuildError> {
        let scope = state.scope();
        let mut expander = Expander::new(&scope, self.frontend.dockerfile.escape);
        instruction
            .expand(&mut expander)
            .map_err(|error| self.frontend.expand_error(&error, instruction.span))
    }

    /// Returns an instruction as it is shown.
    pub(super) fn display(&self, state: &StageState, instruction: &Instruction) -> String {
        let mut scope = state.scope();
        for name in secret_variables(&instruction.kind) {
            scope.set(name, "****");
        }
        Expander::new(&scope, self.frontend.dockerfile.escape).display(&instruction.original)
    }

    /// Declares the arguments of an ARG instruction.
    pub(super) fn declare(
        &self,
        state: &mut StageState,
        definitions: &[polyarch_dockerfile::instruction::ArgDefinition],
        span: Span,
    ) -> Result<(), BuildError> {
        for definition in definitions {
            let value = self.frontend.arg_value(definition, &state.scope(), Some(&self.global), span)?;
            if let Some(value) = value {
                state.set_variable(&definition.name, &value);
                // Declared again, it keeps its place.
                match state.arguments.iter_mut().find(|(name, _)| *name == definition.name) {
                    Some((_, existing)) => *existing = value,
                    None => state.arguments.push((definition.name.clone(), value)),
                }
            }
        }
        Ok(())
    }
}

impl LoweredStage {
    /// Returns the vertex that others copy from.
    pub(super) fn source(&self) -> VertexId {
        self.files.unwrap_or(self.vertex)
    }
}

impl StageState {
    /// Sets a variable for what follows; it keeps its place when it has one.
    pub(super) fn set_variable(&mut self, name: &str, value: &str) {
        match self.env.iter_mut().find(|(existing, _)| existing == name) {
            Some((_, existing)) => value.clone_into(existing),
            None => self.env.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Returns what variables mean at this point.
    pub(super) fn scope(&self) -> Environment {
        let mut scope = Environment::new();
        for (name, value) in &self.env {
            scope.set(name, value);
        }
        scope
    }

    /// Returns the environment of a RUN.
    pub(super) fn run_env(&self) -> Vec<String> {
        self.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Adds a line to the history.
    pub(super) fn record(&mut self, created_by: impl Into<String>, is_step: bool) {
        self.draft.history.push(HistoryEntry { location: None, created_by: created_by.into(), is_step });
    }

    /// Returns the config that instructions change.
    pub(super) fn config(&mut self) -> &mut ContainerConfig {
        &mut self.draft.config.config
    }
}

/// Makes an operation that is not shown.
pub(super) fn hidden(kind: OpKind) -> BuildOp {
    BuildOp { kind, name: Arc::from(""), location: None, no_cache: false }
}

fn prefix(label: &str, step: usize, steps: usize) -> String {
    if label.is_empty() { format!("[{step}/{steps}]") } else { format!("[{label} {step}/{steps}]") }
}

/// Counts the instructions that become vertices.
fn step_count(instructions: &[Instruction]) -> usize {
    let is_step = |instruction: &&Instruction| {
        matches!(
            instruction.kind,
            InstructionKind::Run(Run { .. })
                | InstructionKind::Copy(_)
                | InstructionKind::Add(_)
                | InstructionKind::Workdir(_)
        )
    };
    instructions.iter().filter(is_step).count()
}

/// Tells whether a stage looks at the target platform, so that its steps differ from target to target.
fn uses_target(stage: &Stage) -> bool {
    stage.instructions.iter().any(|instruction| match &instruction.kind {
        InstructionKind::Arg(arg) => {
            arg.definitions.iter().any(|it| crate::platform_args::is_target_arg(&it.name))
        }
        _ => false,
    })
}
