// SPDX-License-Identifier: Apache-2.0
//! `polyarch node`: machines that build for others.

mod add;
mod authority;
mod certs;
mod remote_machine;
pub(super) mod serve;

use std::ffi::OsString;

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
    Add(add::AddArgs),
    Certs(certs::CertsArgs),
    Serve(serve::ServeArgs),
    /// Builds for the client at the other end of standard input and output, as `buildctl dial-stdio` does.
    #[command(hide = true, disable_help_flag = true)]
    DialStdio {
        /// The arguments of `buildctl` in front of it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

impl NodeArgs {
    /// Runs the subcommand; `builder` is the one that a flag names.
    pub fn run(&self, builder: Option<&str>, session: &Session) -> Result<(), CommandError> {
        match &self.command {
            NodeCommand::Add(args) => add::run(args, builder, session),
            NodeCommand::Certs(args) => certs::run(args, session),
            NodeCommand::Serve(args) => serve::run(args, session),
            NodeCommand::DialStdio { arguments } => {
                super::buildctl::run(arguments, session.environment.clone())
            }
        }
    }
}
