// SPDX-License-Identifier: Apache-2.0
//! `polyarch node`: machines that build for others.

mod authority;
mod certs;
pub(super) mod serve;

use clap::{Args, Subcommand};

use crate::CommandError;
use crate::session::Session;

/// Offer this machine to others as a node, or add other machines as nodes
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    Serve(serve::ServeArgs),
    Certs(certs::CertsArgs),
}

impl NodeArgs {
    /// Runs the subcommand.
    pub fn run(&self, session: &Session) -> Result<(), CommandError> {
        match &self.command {
            NodeCommand::Serve(args) => serve::run(args, session),
            NodeCommand::Certs(args) => certs::run(args, session),
        }
    }
}
