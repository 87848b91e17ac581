// SPDX-License-Identifier: Apache-2.0
//! `polyarch tag`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Give an image of the store another name
#[derive(Debug, Args)]
pub struct TagArgs {}

/// Runs the command.
pub fn run(_args: &TagArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
