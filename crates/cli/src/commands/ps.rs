// SPDX-License-Identifier: Apache-2.0
//! `polyarch ps`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// List the programs that polyarch is running
#[derive(Debug, Args)]
pub struct PsArgs {}

/// Runs the command.
pub fn run(_args: &PsArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
