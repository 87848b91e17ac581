// SPDX-License-Identifier: Apache-2.0
//! `polyarch rmi`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Remove names of images from the store
#[derive(Debug, Args)]
pub struct RmiArgs {}

/// Runs the command.
pub fn run(_args: &RmiArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
