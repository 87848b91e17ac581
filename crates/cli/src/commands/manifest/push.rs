// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest push`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Push a list, and the images that its registry lacks
#[derive(Debug, Args)]
pub struct PushArgs {}

/// Runs the command.
pub fn run(_args: &PushArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
