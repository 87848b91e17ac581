// SPDX-License-Identifier: Apache-2.0
//! `polyarch imagetools create`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Compose an image of other images
#[derive(Debug, Args)]
pub struct CreateArgs {}

/// Runs the command.
pub fn run(_args: &CreateArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
