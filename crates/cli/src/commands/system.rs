// SPDX-License-Identifier: Apache-2.0
//! `polyarch system`: the same commands under the names of docker.

use clap::{Args, Subcommand};

use super::{df, prune};
use crate::CommandError;
use crate::session::Session;

/// Look after the store
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct SystemArgs {
    #[command(subcommand)]
    command: SystemCommand,
}

#[derive(Debug, Subcommand)]
enum SystemCommand {
    Df(df::DfArgs),
    Prune(prune::PruneArgs),
}

impl SystemArgs {
    /// Runs the subcommand.
    pub fn run(&self, session: &Session) -> Result<(), CommandError> {
        match &self.command {
            SystemCommand::Df(args) => df::run(args, session),
            SystemCommand::Prune(args) => prune::run(args, session),
        }
    }
}
