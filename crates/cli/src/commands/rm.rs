// SPDX-License-Identifier: Apache-2.0
//! `polyarch rm`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Remove a container; polyarch keeps none
#[derive(Debug, Args)]
pub struct RmArgs {}

/// Runs the command.
pub fn run(_args: &RmArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
