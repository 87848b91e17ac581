// SPDX-License-Identifier: Apache-2.0
//! RUN.

use super::{Command, Mount};
use crate::{ExpandError, Expander, Heredoc};

/// RUN: a command in a container on top of what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command as written; see [`Run::program`] for what is executed.
    pub command: Command,
    /// The heredocs of the command.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, in order.
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: Network,
    /// `--security`.
    pub security: Security,
    /// `--device`, in order.
    pub devices: Vec<Device>,
}

/// Which network a step sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Network {
    /// What the build says.
    #[default]
    Default,
    /// None.
    None,
    /// The host's.
    Host,
}

/// How far a step is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Security {
    /// As usual.
    #[default]
    Sandbox,
    /// Not at all, where the build allows it.
    Insecure,
}

/// A device of the container device interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// True when the step fails without it.
    pub required: bool,
}

/// What a RUN executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// The shell with this text as its last argument.
    Shell(String),
    /// These arguments.
    Exec(Vec<String>),
    /// A file of this name and content (mode 0755, in a directory of its own), without arguments.
    Script {
        /// The file's name.
        file_name: String,
        /// The file's content, beginning with `#!`.
        content: String,
    },
}

impl Run {
    /// Returns what is executed, with the heredocs put in their place.
    ///
    /// A command that is a heredoc and nothing else is the heredoc's text: a script of its own when it
    /// begins with `#!`, else for the shell. Any other heredoc is left for the shell to read.
    pub fn program(&self) -> Program {
        let text = match &self.command {
            Command::Exec(arguments) => return Program::Exec(arguments.clone()),
            Command::Shell(text) => text,
        };
        match self.heredocs.as_slice() {
            [] => Program::Shell(text.clone()),
            [heredoc, ..] if crate::heredoc::is_only_heredoc(text) => {
                let content = heredoc.text();
                if content.starts_with("#!") {
                    Program::Script { file_name: heredoc.name.clone(), content }
                } else {
                    Program::Shell(content)
                }
            }
            heredocs => {
                let mut text = text.clone();
                for heredoc in heredocs {
                    text.push('\n');
                    text.push_str(&heredoc.content);
                    text.push_str(&heredoc.name);
                }
                Program::Shell(text)
            }
        }
    }

    pub(super) fn expand(&self, expander: &mut Expander<'_>) -> Result<Run, ExpandError> {
        let mounts = self.mounts.iter().map(|mount| mount.expand(expander)).collect::<Result<_, _>>()?;
        Ok(Run { mounts, ..self.clone() })
    }
}
