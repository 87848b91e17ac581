// SPDX-License-Identifier: Apache-2.0
//! `polyarch df`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Show what the store holds and what could be removed
#[derive(Debug, Args)]
pub struct DfArgs {}

/// Runs the command.
pub fn run(_args: &DfArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
