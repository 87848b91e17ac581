// SPDX-License-Identifier: Apache-2.0
//! `polyarch diff`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Compare two images, or two platforms of one
#[derive(Debug, Args)]
pub struct DiffArgs {}

/// Runs the command.
pub fn run(_args: &DiffArgs, _session: &Session) -> Result<u8, CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
