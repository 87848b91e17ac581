// SPDX-License-Identifier: Apache-2.0
//! `polyarch save`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Write images of the store to an archive
#[derive(Debug, Args)]
pub struct SaveArgs {}

/// Runs the command.
pub fn run(_args: &SaveArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
