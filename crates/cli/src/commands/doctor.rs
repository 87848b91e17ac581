// SPDX-License-Identifier: Apache-2.0
//! `polyarch doctor`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Check this machine, and say what mends what is missing
#[derive(Debug, Args)]
pub struct DoctorArgs {}

/// Runs the command.
pub fn run(_args: &DoctorArgs, _session: &Session) -> Result<u8, CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
