// SPDX-License-Identifier: Apache-2.0
//! Typed instructions. Their words are as written; [`Instruction::expand`] replaces the variables.

pub mod command;
pub mod copy;
pub mod mount;
pub mod pairs;
pub mod run;

mod parse;

pub use command::{Command, Expose, Healthcheck, Onbuild, Volume};
pub use copy::{Add, Copy, Source};
pub use mount::{Mount, MountError, MountOwner, MountSpec, Sharing};
pub use pairs::{Arg, ArgDefinition, Env, Label};
pub use run::{Device, Network, Program, Run, Security};

pub(crate) use parse::dockerfile;

use crate::{ExpandError, Expander, ParseError, Span};

/// The names of the instructions, as errors and suggestions spell them.
pub const NAMES: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// One instruction other than FROM, with where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// What it says.
    pub kind: InstructionKind,
    /// The keyword in the casing of the file.
    pub keyword: String,
    /// The text for step names and history: continuations joined, heredoc bodies left out.
    pub original: String,
    /// Where it stands, heredocs included.
    pub span: Span,
    /// The comments above it, without `#`.
    pub comments: Vec<String>,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the variants are the instructions and are told by their types")]
pub enum InstructionKind {
    Add(Add),
    Arg(Arg),
    Cmd(Command),
    Copy(Copy),
    Entrypoint(Command),
    Env(Env),
    Expose(Expose),
    Healthcheck(Healthcheck),
    Label(Label),
    Maintainer(String),
    Onbuild(Onbuild),
    Run(Run),
    /// The shell and its arguments, not empty.
    Shell(Vec<String>),
    Stopsignal(String),
    User(String),
    Volume(Volume),
    Workdir(String),
}

impl Instruction {
    /// Returns the instruction's name in capitals.
    pub fn name(&self) -> &'static str {
        match self.kind {
            InstructionKind::Add(_) => "ADD",
            InstructionKind::Arg(_) => "ARG",
            InstructionKind::Cmd(_) => "CMD",
            InstructionKind::Copy(_) => "COPY",
            InstructionKind::Entrypoint(_) => "ENTRYPOINT",
            InstructionKind::Env(_) => "ENV",
            InstructionKind::Expose(_) => "EXPOSE",
            InstructionKind::Healthcheck(_) => "HEALTHCHECK",
            InstructionKind::Label(_) => "LABEL",
            InstructionKind::Maintainer(_) => "MAINTAINER",
            InstructionKind::Onbuild(_) => "ONBUILD",
            InstructionKind::Run(_) => "RUN",
            InstructionKind::Shell(_) => "SHELL",
            InstructionKind::Stopsignal(_) => "STOPSIGNAL",
            InstructionKind::User(_) => "USER",
            InstructionKind::Volume(_) => "VOLUME",
            InstructionKind::Workdir(_) => "WORKDIR",
        }
    }

    /// Returns the same instruction with the variables replaced in the fields where the builder does it:
    /// ADD, COPY, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR, and the mounts of RUN.
    ///
    /// ARG is returned as it is: its defaults are expanded one by one, and only when no build argument
    /// overrides them, see [`ArgDefinition`]. Values that all stand in one instruction see the variables
    /// as they were before it. The text of RUN, CMD, ENTRYPOINT, HEALTHCHECK, SHELL, ONBUILD and
    /// MAINTAINER is left alone, and so are `--from` and `--exclude`.
    ///
    /// # Errors
    /// The first word that can't be expanded.
    pub fn expand(&self, expander: &mut Expander<'_>) -> Result<Instruction, ExpandError> {
        let kind = match &self.kind {
            InstructionKind::Add(add) => InstructionKind::Add(add.expand(expander)?),
            InstructionKind::Copy(copy) => InstructionKind::Copy(copy.expand(expander)?),
            InstructionKind::Env(env) => {
                InstructionKind::Env(Env { pairs: pairs::expand(&env.pairs, expander)? })
            }
            InstructionKind::Expose(expose) => InstructionKind::Expose(expose.expand(expander)?),
            InstructionKind::Label(label) => {
                InstructionKind::Label(Label { pairs: pairs::expand(&label.pairs, expander)? })
            }
            InstructionKind::Run(run) => InstructionKind::Run(run.expand(expander)?),
            InstructionKind::Stopsignal(signal) => InstructionKind::Stopsignal(expander.word(signal)?),
            InstructionKind::User(user) => InstructionKind::User(expander.word(user)?),
            InstructionKind::Volume(volume) => InstructionKind::Volume(volume.expand(expander)?),
            InstructionKind::Workdir(path) => InstructionKind::Workdir(expander.word(path)?),
            InstructionKind::Arg(_)
            | InstructionKind::Cmd(_)
            | InstructionKind::Entrypoint(_)
            | InstructionKind::Healthcheck(_)
            | InstructionKind::Maintainer(_)
            | InstructionKind::Onbuild(_)
            | InstructionKind::Shell(_) => self.kind.clone(),
        };
        Ok(Instruction { kind, ..self.clone() })
    }

    /// Reads an ONBUILD trigger, as it stands in a base image's config.
    ///
    /// `span` is given to the instruction and to errors: that of the FROM which brought the trigger.
    ///
    /// # Errors
    /// The trigger is not exactly one instruction, or one that ONBUILD may not hold.
    pub fn parse_trigger(text: &str, span: Span) -> Result<Instruction, ParseError> {
        parse::trigger(text, span)
    }
}
