// SPDX-License-Identifier: Apache-2.0
//! The instructions of a stage, one after the other: what they do to the variables, and what they ask for.

use super::arguments::{ArgumentInfo, Globals, given_value};
use super::ports::check_port;
use super::stages::{Asked, StageSurvey};
use super::{BaseImage, Stopped, SurveyRequest};
use crate::instruction::{Arg, ArgDefinition, Command, Copy, Env, Label, MountSpec, Run, Source};
use crate::lint::{Linter, rule};
use crate::suggest::nearest_exact;
use crate::{Environment, Expander, IgnoreRules, Instruction, InstructionKind, Span, path};

/// The search path of images that set none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Arguments that speak to the builder and never become variables.
const BUILDER_ARGS: &[&str] = &["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// The words of names that are secrets, and those that make a name none.
const SECRET_WORDS: &[&str] =
    &["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const HARMLESS_WORDS: &[&str] = &["public", "file", "version"];

/// What a stage knows at some point.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    environment: Environment,
    /// Whether all variables of the base are known.
    is_known: bool,
    /// The arguments declared, with a value or without.
    declared: Vec<String>,
    has_workdir: bool,
    has_shell: bool,
    /// What ONBUILD leaves to the stages that are built on this one.
    pub(super) on_build: Vec<String>,
    /// Where the instructions of which only the last one counts stood before.
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    healthcheck: Option<Span>,
}

impl Scope {
    /// Begins a stage on an image; `is_empty` when that is known to be nothing.
    pub(super) fn of_image(image: Option<&BaseImage>, is_empty: bool) -> Scope {
        let env = image.and_then(|image| image.env.as_ref());
        let mut scope = Scope { is_known: is_empty || env.is_some(), ..Scope::default() };
        if let Some(image) = image {
            for entry in env.into_iter().flatten() {
                let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
                scope.environment.set(name, value);
            }
            scope.has_shell = image.has_shell;
            scope.on_build.clone_from(&image.on_build);
        }
        if !scope.environment.iter().any(|(name, _)| name == "PATH") {
            scope.environment.set("PATH", DEFAULT_PATH);
        }
        scope
    }

    /// Begins a stage on this one.
    pub(super) fn derived(&self) -> Scope {
        Scope { cmd: None, entrypoint: None, healthcheck: None, ..self.clone() }
    }

    /// Applies an instruction.
    pub(super) fn apply(
        &mut self,
        instruction: &Instruction,
        globals: &Globals,
        escape: char,
        request: &SurveyRequest<'_>,
        stage: &mut StageSurvey,
        linter: &mut Linter,
    ) -> Result<(), Stopped> {
        let span = instruction.span;
        let report = |linter: &mut Linter, rule, detail| {
            linter.report(rule, &instruction.comments, span, detail);
        };
        let expanded = self.expand(instruction, escape, linter)?;
        match &expanded.kind {
            InstructionKind::Arg(Arg { definitions }) => {
                for definition in definitions {
                    check_secret("ARG", &definition.name, instruction, linter);
                    self.declare(definition, instruction, globals, escape, request, stage, linter)?;
                }
            }
            InstructionKind::Env(env) => {
                for pair in &env.pairs {
                    check_legacy(pair.has_equals, instruction, linter);
                    check_secret("ENV", &pair.name, instruction, linter);
                    self.environment.set(&pair.name, &pair.value);
                }
            }
            InstructionKind::Label(label) => {
                label.pairs.iter().for_each(|pair| check_legacy(pair.has_equals, instruction, linter));
            }
            InstructionKind::Cmd(command) => {
                check_once(&mut self.cmd, instruction, linter);
                self.check_form(command, instruction, linter);
            }
            InstructionKind::Entrypoint(command) => {
                check_once(&mut self.entrypoint, instruction, linter);
                self.check_form(command, instruction, linter);
            }
            InstructionKind::Healthcheck(_) => check_once(&mut self.healthcheck, instruction, linter),
            InstructionKind::Shell(_) => self.has_shell = true,
            InstructionKind::Workdir(path) => {
                if !self.has_workdir && !path.starts_with('/') {
                    let detail = format!(
                        "Relative workdir {path:?} can have unexpected results if the base image changes"
                    );
                    report(linter, &rule::WORKDIR_RELATIVE_PATH, detail);
                }
                self.has_workdir = true;
            }
            InstructionKind::Expose(expose) => {
                expose.ports.iter().for_each(|port| check_port(port, instruction, linter));
            }
            InstructionKind::Copy(Copy { from: None, sources, .. }) => {
                check_ignored("Copy", sources, instruction, request.ignored, linter);
            }
            InstructionKind::Add(add) => {
                check_ignored("Add", &add.sources, instruction, request.ignored, linter)
            }
            InstructionKind::Run(run) => ask(run, span, stage)?,
            InstructionKind::Onbuild(onbuild) => self.on_build.push(onbuild.trigger.clone()),
            _ => {}
        }
        Ok(())
    }

    /// Expands the words of an instruction one by one, because each is told about by itself.
    fn expand(
        &self,
        instruction: &Instruction,
        escape: char,
        linter: &mut Linter,
    ) -> Result<Instruction, Stopped> {
        // Ports are expanded without a word about what is not set.
        if !matches!(instruction.kind, InstructionKind::Expose(_)) {
            for (word, is_text) in words_of(&instruction.kind) {
                let mut expander = Expander::new(&self.environment, escape);
                // What can't be expanded is told below.
                let _ = if is_text { expander.text(word) } else { expander.word(word) };
                self.check_undefined(&expander, instruction, linter);
            }
        }
        instruction
            .expand(&mut Expander::new(&self.environment, escape))
            .map_err(|error| Stopped { message: error.to_string(), span: instruction.span })
    }

    fn check_undefined(&self, expander: &Expander<'_>, instruction: &Instruction, linter: &mut Linter) {
        let is_missing =
            |name: &&String| !self.declared.contains(*name) && !BUILDER_ARGS.contains(&name.as_str());
        for name in expander.undefined().iter().filter(is_missing).filter(|_| self.is_known) {
            let hint = nearest_exact(name, self.environment.iter().map(|(name, _)| name));
            let hint = hint.map(|near| format!(" (did you mean ${near}?)")).unwrap_or_default();
            let detail = format!("Usage of undefined variable '${name}'{hint}");
            linter.report(&rule::UNDEFINED_VAR, &instruction.comments, instruction.span, detail);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that an argument's value depends on")]
    fn declare(
        &mut self,
        definition: &ArgDefinition,
        instruction: &Instruction,
        globals: &Globals,
        escape: char,
        request: &SurveyRequest<'_>,
        stage: &mut StageSurvey,
        linter: &mut Linter,
    ) -> Result<(), Stopped> {
        let (name, span) = (&definition.name, instruction.span);
        let mut is_inherited = false;
        let value = match (given_value(request.build_args, name), &definition.default) {
            (Some(given), _) => Some(given.to_owned()),
            (None, Some(default)) => {
                let mut expander = Expander::new(&self.environment, escape);
                let value = expander.word(default);
                self.check_undefined(&expander, instruction, linter);
                Some(value.map_err(|error| Stopped { message: error.to_string(), span })?)
            }
            (None, None) => {
                let global = globals.environment.iter().find(|(known, _)| known == name);
                is_inherited = global.is_some();
                global.map(|(_, value)| value.to_owned())
            }
        };
        if let Some(value) = value.as_ref().filter(|_| !BUILDER_ARGS.contains(&name.as_str())) {
            self.environment.set(name, value);
        }
        if !is_inherited {
            let description = definition.description.clone();
            let info = ArgumentInfo { value, description, span, ..ArgumentInfo::default() };
            stage.arguments.insert(name.clone(), info);
        }
        stage.used.insert(name.clone());
        self.declared.push(name.clone());
        Ok(())
    }

    fn check_form(&self, command: &Command, instruction: &Instruction, linter: &mut Linter) {
        if matches!(command, Command::Shell(_)) && !self.has_shell {
            let detail = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                instruction.keyword
            );
            linter.report(&rule::JSON_ARGS_RECOMMENDED, &instruction.comments, instruction.span, detail);
        }
    }
}

/// Returns the words that are expanded, in order, and whether each is the text of a heredoc.
fn words_of(kind: &InstructionKind) -> Vec<(&str, bool)> {
    let mut words: Vec<Option<&str>> = Vec::new();
    let mut texts: Vec<&str> = Vec::new();
    match kind {
        InstructionKind::Env(Env { pairs }) | InstructionKind::Label(Label { pairs }) => {
            words.extend(pairs.iter().flat_map(|pair| [Some(pair.name.as_str()), Some(pair.value.as_str())]));
        }
        InstructionKind::Copy(copy) => {
            words.extend([copy.chown.as_deref(), copy.chmod.as_deref()]);
            words.extend(copy.sources.iter().map(path_of));
            words.push(Some(&copy.destination));
            texts.extend(copy.sources.iter().filter_map(text_of));
        }
        InstructionKind::Add(add) => {
            words.extend([add.chown.as_deref(), add.chmod.as_deref(), add.checksum.as_deref()]);
            words.extend(add.sources.iter().map(path_of));
            words.push(Some(&add.destination));
            texts.extend(add.sources.iter().filter_map(text_of));
        }
        InstructionKind::Workdir(text) | InstructionKind::User(text) | InstructionKind::Stopsignal(text) => {
            words.push(Some(text));
        }
        InstructionKind::Volume(volume) => words.extend(volume.paths.iter().map(|path| Some(path.as_str()))),
        InstructionKind::Run(run) => {
            words
                .extend(run.mounts.iter().flat_map(|mount| &mount.fields).map(|(_, value)| value.as_deref()));
        }
        _ => {}
    }
    let words = words.into_iter().flatten().map(|word| (word, false));
    words.chain(texts.into_iter().map(|text| (text, true))).collect()
}

fn path_of(source: &Source) -> Option<&str> {
    match source {
        Source::Path(path) => Some(path),
        Source::Heredoc(_) => None,
    }
}

fn text_of(source: &Source) -> Option<&str> {
    match source {
        Source::Heredoc(heredoc) if heredoc.expand => Some(&heredoc.content),
        _ => None,
    }
}

/// Notes what RUN asks of the user.
fn ask(run: &Run, span: Span, stage: &mut StageSurvey) -> Result<(), Stopped> {
    for mount in &run.mounts {
        let spec = mount.spec().map_err(|error| Stopped { message: error.to_string(), span })?;
        let (list, id, is_required) = match spec {
            MountSpec::Secret { id, required, .. } => (&mut stage.secrets, id, required),
            MountSpec::Ssh { id, required, .. } => (&mut stage.agents, id, required),
            MountSpec::Cache { id, .. } => (&mut stage.caches, id, false),
            _ => continue,
        };
        list.entry(id).or_insert(Asked { is_required, span });
    }
    Ok(())
}

/// The one before is the one that does not count.
fn check_once(before: &mut Option<Span>, instruction: &Instruction, linter: &mut Linter) {
    if let Some(span) = before.replace(instruction.span) {
        let detail = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            instruction.keyword
        );
        linter.report(&rule::MULTIPLE_INSTRUCTIONS_DISALLOWED, &instruction.comments, span, detail);
    }
}

fn check_legacy(has_equals: bool, instruction: &Instruction, linter: &mut Linter) {
    if !has_equals {
        let name = &instruction.keyword;
        let detail =
            format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
        linter.report(&rule::LEGACY_KEY_VALUE_FORMAT, &instruction.comments, instruction.span, detail);
    }
}

fn check_secret(kind: &str, name: &str, instruction: &Instruction, linter: &mut Linter) {
    let words: Vec<String> = name.split('_').map(str::to_ascii_lowercase).collect();
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    if has(SECRET_WORDS) && !has(HARMLESS_WORDS) {
        let detail = format!("Do not use ARG or ENV instructions for sensitive data ({kind} {name:?})");
        linter.report(&rule::SECRETS_USED_IN_ARG_OR_ENV, &instruction.comments, instruction.span, detail);
    }
}

fn check_ignored(
    verb: &str,
    sources: &[Source],
    instruction: &Instruction,
    rules: Option<&IgnoreRules>,
    linter: &mut Linter,
) {
    // With exceptions it can't be told without the files.
    let Some(rules) = rules.filter(|rules| !rules.has_exceptions()) else { return };
    for source in sources.iter().filter_map(path_of).filter(|source| !is_remote(source)) {
        let source = path::clean(source);
        let is_ignored = match source.as_str() {
            "." | "/" => rules.ignores_everything(),
            source => rules.is_ignored(source),
        };
        if is_ignored {
            let detail = format!("Attempting to {verb} file {source:?} that is excluded by .dockerignore");
            linter.report(&rule::COPY_IGNORED_FILE, &instruction.comments, instruction.span, detail);
        }
    }
}

fn is_remote(source: &str) -> bool {
    ["http://", "https://", "git://", "git@", "ssh://"].iter().any(|scheme| source.starts_with(scheme))
}
