// SPDX-License-Identifier: Apache-2.0
//! `polyarch registry`: a registry of one's own, and looking after its directory.

mod gc;
mod mirrors;
mod request_log;
mod scrub;
mod serve;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use polyarch_build::{BuildError, ErrorKind};
use polyarch_registry::server::StorageError;

use crate::CommandError;
use crate::session::Session;

/// Serve a registry from a directory, and look after it
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct RegistryArgs {
    #[command(subcommand)]
    command: RegistryCommand,
}

#[derive(Debug, Subcommand)]
enum RegistryCommand {
    Serve(Box<serve::ServeArgs>),
    Gc(gc::GcArgs),
    Scrub(scrub::ScrubArgs),
}

impl RegistryArgs {
    /// Runs the subcommand; returns the exit code.
    pub fn run(&self, session: &Session) -> Result<u8, CommandError> {
        match &self.command {
            RegistryCommand::Serve(args) => serve::run(args, session),
            RegistryCommand::Gc(args) => gc::run(args, session),
            RegistryCommand::Scrub(args) => scrub::run(args, session),
        }
    }
}

/// How a result is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// The directory of a registry.
#[derive(Debug, Args)]
struct RootArg {
    /// Directory of the registry [default: `registry` in the store's: /var/lib/polyarch for root, else
    /// ~/.local/share/polyarch]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

impl RootArg {
    fn directory(&self, session: &Session) -> Result<PathBuf, CommandError> {
        match &self.root {
            Some(root) => Ok(session.environment.resolve(root)),
            None => Ok(session.settings()?.root.join("registry")),
        }
    }
}

/// Reads a duration as Go writes it: `24h`, `1m30s`; `0` is none.
fn duration(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" | "0m" | "0h" => Ok(Duration::ZERO),
        _ => super::buildx_builder::go_duration(text),
    }
}

/// Says what is wrong with the directory.
fn storage_error(error: &StorageError) -> CommandError {
    let text = polyarch_build::error::chain_of(error);
    let error = match error {
        StorageError::Format { .. } | StorageError::Foreign { .. } | StorageError::Missing { .. } => {
            BuildError::new(ErrorKind::Usage, text).with_hint("name another directory with --root DIR")
        }
        StorageError::Index { .. } => BuildError::new(ErrorKind::Storage, text).with_hint(
            "`polyarch registry scrub` says what is damaged; images of that repository can be pushed again",
        ),
        _ => BuildError::new(ErrorKind::Storage, text),
    };
    error.into()
}
