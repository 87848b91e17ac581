// SPDX-License-Identifier: Apache-2.0
//! `polyarch image`: the same commands under the names of `docker image`.

use clap::{Args, Subcommand};

use super::{history, images, import, inspect, load, prune, pull, push, rmi, save, tag};
use crate::CommandError;
use crate::session::Session;

/// Work with the images of the store
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    #[command(visible_alias = "list")]
    Ls(images::ImagesArgs),
    Inspect(inspect::InspectArgs),
    History(history::HistoryArgs),
    Tag(tag::TagArgs),
    #[command(visible_alias = "remove")]
    Rm(rmi::RmiArgs),
    Pull(pull::PullArgs),
    Push(push::PushArgs),
    Save(save::SaveArgs),
    Load(load::LoadArgs),
    Import(import::ImportArgs),
    Prune(prune::PruneArgs),
}

impl ImageArgs {
    /// Runs the subcommand.
    pub fn run(&self, session: &Session) -> Result<(), CommandError> {
        match &self.command {
            ImageCommand::Ls(args) => images::run(args, session),
            ImageCommand::Inspect(args) => inspect::run(args, session),
            ImageCommand::History(args) => history::run(args, session),
            ImageCommand::Tag(args) => tag::run(args, session),
            ImageCommand::Rm(args) => rmi::run(args, session),
            ImageCommand::Pull(args) => pull::run(args, session),
            ImageCommand::Push(args) => push::run(args, session),
            ImageCommand::Save(args) => save::run(args, session),
            ImageCommand::Load(args) => load::run(args, session),
            ImageCommand::Import(args) => import::run(args, session),
            ImageCommand::Prune(args) => prune::run_images(args, session),
        }
    }
}
