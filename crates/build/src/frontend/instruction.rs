// SPDX-License-Identifier: Apache-2.0
//! What each instruction does to a stage: a step on its tree, a change of its config, or both.

use std::sync::Mutex;

use polyarch_dockerfile::instruction::Command;
use polyarch_dockerfile::{Instruction, InstructionKind, Span};
use polyarch_oci::config::Empty;

use super::Lowering;
use super::stage::StageState;
use crate::error::{BuildError, ErrorKind};
use crate::image::WINDOWS;
use crate::ops::OpKind;
use crate::ops::file::{FileAction, FileOp};

/// The shell of shell-form commands.
pub(crate) const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];
/// That of Windows.
const WINDOWS_SHELL: [&str; 3] = ["cmd", "/S", "/C"];

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
            InstructionKind::Run(run) => self.run(state, instruction, &run).await?,
            InstructionKind::Copy(copy) => self.copy(state, instruction, &copy).await?,
            InstructionKind::Add(add) => self.add(state, instruction, &add).await?,
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

    pub(super) fn file_op(&self, action: FileAction) -> FileOp {
        FileOp {
            services: self.frontend.services.clone(),
            stats: self.frontend.stats.clone(),
            action,
            looked_up: Mutex::default(),
        }
    }

    fn workdir(&mut self, state: &mut StageState, instruction: &Instruction, path: &str) {
        let path = absolute(&state.draft.config.config.working_dir, path);
        state.config().working_dir = path.clone();
        state.record(format!("WORKDIR {path}"), true);
        let time =
            self.frontend.request.source_date_epoch.map(|seconds| seconds.saturating_mul(1_000_000_000));
        let action = FileAction::Mkdir { path, user: state.draft.config.config.user.clone(), time };
        let op = self.file_op(action);
        self.add_step(state, instruction, &instruction.original, OpKind::File(op), Vec::new());
    }

    pub(super) fn not_yet(&self, what: &str, span: Span) -> BuildError {
        BuildError::new(ErrorKind::Dockerfile, format!("{what} is not supported yet"))
            .at(self.frontend.location(span))
    }

    pub(super) fn value_error(
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
    let default = if state.draft.platform.os == WINDOWS { &WINDOWS_SHELL[..] } else { &DEFAULT_SHELL[..] };
    if shell.is_empty() { default.iter().map(|&word| word.to_owned()).collect() } else { shell.clone() }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_never_leave_the_root() {
        assert_eq!(absolute("/app", "x/../y"), "/app/y");
        assert_eq!(absolute("", "x"), "/x");
        assert_eq!(absolute("/app", "../../../etc"), "/etc");
    }

    #[test]
    fn env_keeps_the_place_of_its_first_value() {
        let mut env = vec!["A=1".to_owned(), "B=2".to_owned()];
        set_env(&mut env, "A", "3");
        set_env(&mut env, "C", "x=y");
        assert_eq!(env, ["A=3", "B=2", "C=x=y"]);
    }
}
