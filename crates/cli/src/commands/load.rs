// SPDX-License-Identifier: Apache-2.0
//! `polyarch load`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Read images from an archive into the store
#[derive(Debug, Args)]
pub struct LoadArgs {}

/// Runs the command.
pub fn run(_args: &LoadArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
