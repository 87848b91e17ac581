// SPDX-License-Identifier: Apache-2.0
//! The instructions that only change the image's config: CMD, ENTRYPOINT, EXPOSE, VOLUME, HEALTHCHECK,
//! ONBUILD.

use crate::value::{ValueError, port};
use crate::{ExpandError, Expander};

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A text for the shell; may be empty.
    Shell(String),
    /// A program and its arguments, from a JSON array; may be empty.
    Exec(Vec<String>),
}

impl Command {
    /// Returns the full argument list, with the shell in front of the shell form.
    pub fn arguments(&self, shell: &[String]) -> Vec<String> {
        match self {
            Command::Shell(text) => shell.iter().cloned().chain([text.clone()]).collect(),
            Command::Exec(arguments) => arguments.clone(),
        }
    }
}

/// EXPOSE: ports, as written, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expose {
    /// `80`, `8000-8010/udp`, …
    pub ports: Vec<String>,
}

impl Expose {
    /// Returns each port by itself, `80/tcp`. To be called on the expanded instruction.
    ///
    /// # Errors
    /// The first word that is not a port or a range.
    pub fn exposed_ports(&self) -> Result<Vec<String>, ValueError> {
        let mut ports = Vec::new();
        for word in &self.ports {
            ports.extend(port::parse(word)?);
        }
        Ok(ports)
    }

    pub(super) fn expand(&self, expander: &mut Expander<'_>) -> Result<Expose, ExpandError> {
        let mut ports = Vec::with_capacity(self.ports.len());
        for word in &self.ports {
            ports.extend(expander.words(word)?);
        }
        Ok(Expose { ports })
    }
}

/// VOLUME: paths whose content lives outside the image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Volume {
    /// The paths.
    pub paths: Vec<String>,
}

impl Volume {
    pub(super) fn expand(&self, expander: &mut Expander<'_>) -> Result<Volume, ExpandError> {
        Ok(Volume { paths: expander.each(&self.paths)? })
    }
}

/// HEALTHCHECK: how to find out whether the container is well.
#[derive(Debug, Clone, PartialEq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`: not at all.
    None,
    /// `HEALTHCHECK CMD`: with this command. Times are nanoseconds, 0 means inherited.
    Command {
        /// The command.
        command: Command,
        /// Time between two checks.
        interval_nanoseconds: i64,
        /// Time after which a check has failed.
        timeout_nanoseconds: i64,
        /// Time in which failures do not count.
        start_period_nanoseconds: i64,
        /// Time between two checks while starting.
        start_interval_nanoseconds: i64,
        /// Failures in a row that make the container unhealthy.
        retries: u32,
    },
}

impl Healthcheck {
    /// Returns it as image configs hold it.
    pub fn config(&self) -> polyarch_oci::Healthcheck {
        match self {
            Healthcheck::None => {
                polyarch_oci::Healthcheck { test: vec!["NONE".to_owned()], ..Default::default() }
            }
            Healthcheck::Command {
                command,
                interval_nanoseconds,
                timeout_nanoseconds,
                start_period_nanoseconds,
                start_interval_nanoseconds,
                retries,
            } => {
                let mut test = vec![];
                match command {
                    Command::Shell(text) => test.extend(["CMD-SHELL".to_owned(), text.clone()]),
                    Command::Exec(arguments) => {
                        test.push("CMD".to_owned());
                        test.extend(arguments.iter().cloned());
                    }
                }
                polyarch_oci::Healthcheck {
                    test,
                    interval: *interval_nanoseconds,
                    timeout: *timeout_nanoseconds,
                    start_period: *start_period_nanoseconds,
                    start_interval: *start_interval_nanoseconds,
                    retries: i64::from(*retries),
                }
            }
        }
    }
}

/// ONBUILD: an instruction for images built on this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// The instruction as the image config keeps it, heredocs included;
    /// [`crate::Instruction::parse_trigger`] reads it.
    pub trigger: String,
}
