// SPDX-License-Identifier: Apache-2.0
//! `polyarch import`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Make an image of a file tree in an archive
#[derive(Debug, Args)]
pub struct ImportArgs {}

/// Runs the command.
pub fn run(_args: &ImportArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
