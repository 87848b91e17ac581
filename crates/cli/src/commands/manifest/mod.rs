// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest`: its subcommands.

mod annotate;
mod create;
mod inspect;
mod ls;
mod push;
mod rm;

use clap::{Args, Subcommand};

use crate::CommandError;
use crate::session::Session;

/// Join images of several platforms under one name
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct ManifestArgs {
    #[command(subcommand)]
    command: ManifestCommand,
}

#[derive(Debug, Subcommand)]
enum ManifestCommand {
    Create(create::CreateArgs),
    Annotate(annotate::AnnotateArgs),
    Inspect(inspect::InspectArgs),
    Push(push::PushArgs),
    Rm(rm::RmArgs),
    Ls(ls::LsArgs),
}

impl ManifestArgs {
    /// Runs the subcommand.
    pub fn run(&self, session: &Session) -> Result<(), CommandError> {
        match &self.command {
            ManifestCommand::Create(args) => create::run(args, session),
            ManifestCommand::Annotate(args) => annotate::run(args, session),
            ManifestCommand::Inspect(args) => inspect::run(args, session),
            ManifestCommand::Push(args) => push::run(args, session),
            ManifestCommand::Rm(args) => rm::run(args, session),
            ManifestCommand::Ls(args) => ls::run(args, session),
        }
    }
}
