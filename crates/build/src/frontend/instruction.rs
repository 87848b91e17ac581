// SPDX-License-Identifier: Apache-2.0
//! What each instruction does to a stage: a step on its tree, a change of its config, or both.

use std::sync::OnceLock;

use polyarch_dockerfile::instruction::{Add, Command, Copy, Source};
use polyarch_dockerfile::value::chmod::Chmod;
use polyarch_dockerfile::{Instruction, InstructionKind, Span};
use polyarch_oci::config::Empty;
use polyarch_solver::VertexId;

use super::Lowering;
use super::stage::{StageState, hidden};
use crate::error::{BuildError, ErrorKind};
use crate::ops::OpKind;
use crate::ops::context_op::ContextOp;
use crate::ops::file::{CopyAction, FileAction, FileOp};
use crate::ops::image::ImageOp;

/// The shell of shell-form commands.
pub(crate) const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

impl Lowering<'_, '_> {
    /// Applies one instruction to a stage.
    pub(super) async fn lower_instruction(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
    ) -> Result<(), BuildError> {
        let span = instruction.span;
        let expanded = self.expand(state, instruction)?;
        // What people read of a step has its variables replaced, as in BuildKit.
        let instruction = &Instruction { original: self.display(state, instruction), ..instruction.clone() };
        match expanded.kind {
            InstructionKind::Run(run) => self.run(state, instruction, &run)?,
            InstructionKind::Copy(copy) => self.copy(state, instruction, &copy).await?,
            InstructionKind::Add(add) => self.add(state, instruction, &add)?,
            InstructionKind::Workdir(path) => self.workdir(state, instruction, &path),
            InstructionKind::Arg(arg) => {
                self.declare(state, &arg.definitions, span)?;
                let shown: Vec<String> = arg
                    .definitions
                    .iter()
                    .map(|it| match state.arguments.iter().find(|(name, _)| *name == it.name) {
                        Some((name, value)) => format!("{name}={value}"),
                        None => it.name.clone(),
                    })
                    .collect();
                state.record(format!("ARG {}", shown.join(" ")), false);
            }
            InstructionKind::Env(env) => {
                for pair in &env.pairs {
                    set_env(&mut state.config().env, &pair.name, &pair.value);
                    state.set_variable(&pair.name, &pair.value);
                }
                let shown: Vec<String> =
                    env.pairs.iter().map(|it| format!("{}={}", it.name, it.value)).collect();
                state.record(format!("ENV {}", shown.join(" ")), false);
            }
            InstructionKind::Label(label) => {
                let shown: Vec<String> =
                    label.pairs.iter().map(|it| format!("{}={}", it.name, it.value)).collect();
                for pair in label.pairs {
                    state.config().labels.insert(pair.name, pair.value);
                }
                state.record(format!("LABEL {}", shown.join(" ")), false);
            }
            InstructionKind::Cmd(command) => {
                let arguments = command_arguments(state, &command);
                state.record(format!("CMD {}", shown_json(&arguments)), false);
                state.config().cmd = Some(arguments);
                state.config().args_escaped = false;
                state.has_cmd = true;
            }
            InstructionKind::Entrypoint(command) => {
                let arguments = command_arguments(state, &command);
                state.record(format!("ENTRYPOINT {}", shown_json(&arguments)), false);
                state.config().entrypoint = Some(arguments);
                if !state.has_cmd {
                    state.config().cmd = None;
                }
            }
            InstructionKind::Expose(expose) => {
                let ports =
                    expose.exposed_ports().map_err(|error| self.value_error("EXPOSE", &error, span))?;
                state.record(format!("EXPOSE {}", shown_set(&ports)), false);
                state.config().exposed_ports.extend(ports.into_iter().map(|port| (port, Empty {})));
            }
            InstructionKind::Volume(volume) => {
                if let Some(empty) = volume.paths.iter().find(|path| path.trim().is_empty()) {
                    let message = format!("VOLUME specified can not be an empty string: {empty:?}");
                    return Err(
                        BuildError::new(ErrorKind::Dockerfile, message).at(self.frontend.location(span))
                    );
                }
                state.record(format!("VOLUME {}", shown_set(&volume.paths)), false);
                state.config().volumes.extend(volume.paths.into_iter().map(|path| (path, Empty {})));
            }
            InstructionKind::User(user) => {
                state.record(format!("USER {user}"), false);
                state.config().user = user;
            }
            InstructionKind::Stopsignal(signal) => {
                polyarch_dockerfile::value::signal::validate(&signal)
                    .map_err(|error| self.value_error("STOPSIGNAL", &error, span))?;
                state.record(format!("STOPSIGNAL {signal}"), false);
                state.config().stop_signal = signal;
            }
            InstructionKind::Shell(shell) => {
                state.record(format!("SHELL {}", shown_json(&shell)), false);
                state.config().shell = shell;
            }
            InstructionKind::Healthcheck(healthcheck) => {
                state.record(instruction.original.clone(), false);
                state.config().healthcheck = Some(healthcheck.config());
            }
            InstructionKind::Maintainer(author) => {
                state.record(format!("MAINTAINER {author}"), false);
                state.draft.config.author = author;
            }
            InstructionKind::Onbuild(onbuild) => {
                state.config().on_build.push(onbuild.trigger);
            }
        }
        Ok(())
    }

    async fn copy(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        copy: &Copy,
    ) -> Result<(), BuildError> {
        if copy.parents {
            return Err(self.not_yet("COPY --parents", instruction.span));
        }
        self.check_mode(copy.chmod.as_deref(), instruction.span)?;
        let mut action = CopyAction {
            destination: destination(state, &copy.destination),
            owner: copy.chown.clone(),
            mode: copy.chmod.clone(),
            exclude: copy.exclude.clone(),
            from_context: copy.from.is_none(),
            has_unknown_times: copy.from.is_none() && self.frontend.request.source_date_epoch.is_some(),
            ..CopyAction::default()
        };
        self.sources(&copy.sources, &mut action, instruction.span)?;
        let input = match (&copy.from, action.sources.is_empty()) {
            (_, true) => None,
            (Some(from), false) => Some(self.copy_source(from, instruction.span).await?),
            (None, false) => Some(self.context_vertex()),
        };
        self.add_copy(state, instruction, action, input);
        Ok(())
    }

    fn add(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        add: &Add,
    ) -> Result<(), BuildError> {
        let span = instruction.span;
        for source in &add.sources {
            if let Source::Path(path) = source
                && is_remote(path)
            {
                return Err(self.not_yet("ADD of a URL or a git repository", span));
            }
        }
        if add.checksum.is_some() {
            return Err(self.not_yet("ADD --checksum", span));
        }
        self.check_mode(add.chmod.as_deref(), span)?;
        let mut action = CopyAction {
            destination: destination(state, &add.destination),
            owner: add.chown.clone(),
            mode: add.chmod.clone(),
            exclude: add.exclude.clone(),
            unpack: add.unpack.unwrap_or(true),
            from_context: true,
            has_unknown_times: self.frontend.request.source_date_epoch.is_some(),
            ..CopyAction::default()
        };
        self.sources(&add.sources, &mut action, span)?;
        let input = (!action.sources.is_empty()).then(|| self.context_vertex());
        self.add_copy(state, instruction, action, input);
        Ok(())
    }

    fn check_mode(&self, mode: Option<&str>, span: Span) -> Result<(), BuildError> {
        match mode.map(Chmod::parse) {
            None | Some(Ok(Chmod::Absolute { .. })) => Ok(()),
            Some(Ok(Chmod::Symbolic { .. })) => Err(self.not_yet("--chmod with symbols", span)),
            Some(Err(error)) => Err(self.value_error("--chmod", &error, span)),
        }
    }

    fn add_copy(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        action: CopyAction,
        input: Option<VertexId>,
    ) {
        state.record(instruction.original.clone(), true);
        let op = self.file_op(FileAction::Copy(Box::new(action)));
        self.add_step(
            state,
            instruction,
            &instruction.original,
            OpKind::File(op),
            input.into_iter().collect(),
        );
    }

    fn file_op(&self, action: FileAction) -> FileOp {
        FileOp {
            services: self.frontend.services.clone(),
            stats: self.frontend.stats.clone(),
            action,
            looked_up: OnceLock::new(),
        }
    }

    /// Sorts the sources into paths and heredocs.
    fn sources(&self, sources: &[Source], action: &mut CopyAction, span: Span) -> Result<(), BuildError> {
        for source in sources {
            match source {
                Source::Path(path) => {
                    polyarch_dockerfile::Pattern::new(path).map_err(|error| {
                        BuildError::from_source(ErrorKind::Dockerfile, "source", &error)
                            .at(self.frontend.location(span))
                    })?;
                    action.sources.push(clean_source(path));
                }
                Source::Heredoc(heredoc) => {
                    // Its variables were replaced with those of the rest of the instruction.
                    action.heredocs.push((heredoc.name.clone(), heredoc.text()));
                }
            }
        }
        Ok(())
    }

    /// Returns the vertex that a `--from` names: a stage, or else an image.
    async fn copy_source(&mut self, from: &str, span: Span) -> Result<VertexId, BuildError> {
        let frontend = self.frontend;
        if let Some(stage) = frontend.dockerfile.referenced_stage(from) {
            // Only a trigger of the base can name a stage that was not known to be needed.
            return self.stages.get(&stage.index).map(|stage| stage.vertex).ok_or_else(|| {
                let message =
                    format!("an ONBUILD trigger copies from the stage {from}, which nothing else here needs");
                BuildError::new(ErrorKind::Dockerfile, message)
                    .with_hint(format!("let this stage name it too, for example COPY --from={from} …"))
                    .at(frontend.location(span))
            });
        }
        if from.parse::<usize>().is_ok() {
            let error = BuildError::new(ErrorKind::Dockerfile, format!("there is no stage number {from}"));
            return Err(error.at(frontend.location(span)));
        }
        let names: Vec<&str> =
            frontend.dockerfile.stages.iter().filter_map(|it| it.name.as_deref()).collect();
        let hint = polyarch_oci::platform::did_you_mean(from, &names);
        let image = frontend.resolve(from, &self.target, span).await.map_err(|error| {
            if hint.is_empty() {
                error
            } else {
                error.with_hint(format!("no stage has the name {from}{hint}"))
            }
        })?;
        let mut op = hidden(OpKind::Image(ImageOp { layers: image.layers.clone() }));
        op.name = format!("FROM {}", image.reference).into();
        Ok(self.graph.add(op, Vec::new()))
    }

    fn context_vertex(&mut self) -> VertexId {
        let mut op = hidden(OpKind::Context(ContextOp { context: self.frontend.context.clone() }));
        op.name = "[internal] load build context".into();
        self.graph.add(op, Vec::new())
    }

    fn workdir(&mut self, state: &mut StageState, instruction: &Instruction, path: &str) {
        let path = absolute(&state.draft.config.config.working_dir, path);
        state.config().working_dir = path.clone();
        state.record(format!("WORKDIR {path}"), true);
        let action = FileAction::Mkdir { path, user: state.draft.config.config.user.clone() };
        let op = self.file_op(action);
        self.add_step(state, instruction, &instruction.original, OpKind::File(op), Vec::new());
    }

    pub(super) fn not_yet(&self, what: &str, span: Span) -> BuildError {
        BuildError::new(ErrorKind::Dockerfile, format!("{what} is not supported yet"))
            .at(self.frontend.location(span))
    }

    fn value_error(
        &self,
        what: &str,
        error: &polyarch_dockerfile::value::ValueError,
        span: Span,
    ) -> BuildError {
        BuildError::from_source(ErrorKind::Dockerfile, what, error).at(self.frontend.location(span))
    }
}

pub(super) fn shell_of(state: &StageState) -> Vec<String> {
    let shell = &state.draft.config.config.shell;
    if shell.is_empty() { DEFAULT_SHELL.map(str::to_owned).to_vec() } else { shell.clone() }
}

fn command_arguments(state: &StageState, command: &Command) -> Vec<String> {
    match command {
        Command::Shell(text) if text.is_empty() => Vec::new(),
        _ => command.arguments(&shell_of(state)),
    }
}

/// Sets a variable; one that is set already keeps its place.
pub(crate) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match env.iter_mut().find(|it| it.split('=').next() == Some(name)) {
        Some(existing) => *existing = entry,
        None => env.push(entry),
    }
}

fn shown_json(arguments: &[String]) -> String {
    let quoted: Vec<String> = arguments.iter().map(|it| format!("{it:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// Shows a set the way Docker's history does.
fn shown_set(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// Joins a path to a working directory and removes `.`, `..` and repeated slashes.
pub(crate) fn absolute(working_dir: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{working_dir}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Returns the absolute destination of a copy; that it is a directory is kept as a trailing slash.
fn destination(state: &StageState, path: &str) -> String {
    let is_directory =
        path.ends_with('/') || path == "." || path == ".." || path.ends_with("/.") || path.ends_with("/..");
    let path = absolute(&state.draft.config.config.working_dir, path);
    if is_directory && path != "/" { format!("{path}/") } else { path }
}

/// Returns a source relative to the root of its tree: nothing above the root can be named.
fn clean_source(path: &str) -> String {
    let cleaned = absolute("/", path);
    let relative = cleaned.trim_start_matches('/');
    if relative.is_empty() { ".".to_owned() } else { relative.to_owned() }
}

fn is_remote(path: &str) -> bool {
    ["http://", "https://", "git://", "git@", "ssh://"].iter().any(|scheme| path.starts_with(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_never_leave_the_root() {
        assert_eq!(absolute("/app", "x/../y"), "/app/y");
        assert_eq!(absolute("", "x"), "/x");
        assert_eq!(absolute("/app", "../../../etc"), "/etc");
        assert_eq!(clean_source("/../../etc/passwd"), "etc/passwd");
        assert_eq!(clean_source("./"), ".");
    }

    #[test]
    fn env_keeps_the_place_of_its_first_value() {
        let mut env = vec!["A=1".to_owned(), "B=2".to_owned()];
        set_env(&mut env, "A", "3");
        set_env(&mut env, "C", "x=y");
        assert_eq!(env, ["A=3", "B=2", "C=x=y"]);
    }
}
