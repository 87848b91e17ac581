// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest ls`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Show the lists that were created here
#[derive(Debug, Args)]
pub struct LsArgs {}

/// Runs the command.
pub fn run(_args: &LsArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
