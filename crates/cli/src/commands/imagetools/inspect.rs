// SPDX-License-Identifier: Apache-2.0
//! `polyarch imagetools inspect`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Show an image of a registry
#[derive(Debug, Args)]
pub struct InspectArgs {}

/// Runs the command.
pub fn run(_args: &InspectArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
