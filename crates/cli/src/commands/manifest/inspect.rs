// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest inspect`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Print a manifest or a list
#[derive(Debug, Args)]
pub struct InspectArgs {}

/// Runs the command.
pub fn run(_args: &InspectArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
