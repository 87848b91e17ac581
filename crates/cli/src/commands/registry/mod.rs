// SPDX-License-Identifier: Apache-2.0
//! `polyarch registry`: a registry of one's own, and looking after what it is kept in.

mod gc;
mod mirrors;
mod request_log;
mod root;
mod scrub;
mod serve;

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::CommandError;
use crate::session::Session;

use self::root::{RootArg, storage_error};

/// Serve a registry from a directory or a bucket, and look after it
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

/// Reads a duration as Go writes it: `24h`, `1m30s`; `0` is none.
fn duration(text: &str) -> Result<Duration, String> {
    match text {
        "0" | "0s" | "0m" | "0h" => Ok(Duration::ZERO),
        _ => super::buildx_builder::go_duration(text),
    }
}
