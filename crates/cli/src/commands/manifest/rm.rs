// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest rm`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Remove lists
#[derive(Debug, Args)]
pub struct RmArgs {}

/// Runs the command.
pub fn run(_args: &RmArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
