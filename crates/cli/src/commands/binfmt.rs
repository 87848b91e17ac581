// SPDX-License-Identifier: Apache-2.0
//! `polyarch binfmt`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Show or install emulators for the whole machine
#[derive(Debug, Args)]
pub struct BinfmtArgs {}

/// Runs the command.
pub fn run(_args: &BinfmtArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
