// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest create`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Start a list of images, before anything is pushed
#[derive(Debug, Args)]
pub struct CreateArgs {}

/// Runs the command.
pub fn run(_args: &CreateArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
