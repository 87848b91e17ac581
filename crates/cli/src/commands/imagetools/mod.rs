// SPDX-License-Identifier: Apache-2.0
//! `polyarch imagetools`: its subcommands.

mod create;
mod inspect;

use clap::{Args, Subcommand};

use crate::CommandError;
use crate::session::Session;

/// Read and compose images in registries
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct ImagetoolsArgs {
    #[command(subcommand)]
    command: ImagetoolsCommand,
}

#[derive(Debug, Subcommand)]
enum ImagetoolsCommand {
    Create(create::CreateArgs),
    Inspect(inspect::InspectArgs),
}

impl ImagetoolsArgs {
    /// Runs the subcommand.
    pub fn run(&self, session: &Session) -> Result<(), CommandError> {
        match &self.command {
            ImagetoolsCommand::Create(args) => create::run(args, session),
            ImagetoolsCommand::Inspect(args) => inspect::run(args, session),
        }
    }
}
