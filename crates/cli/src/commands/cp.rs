// SPDX-License-Identifier: Apache-2.0
//! `polyarch cp`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Copy files out of an image
#[derive(Debug, Args)]
pub struct CpArgs {}

/// Runs the command.
pub fn run(_args: &CpArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
