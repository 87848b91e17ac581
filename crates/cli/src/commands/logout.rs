// SPDX-License-Identifier: Apache-2.0
//! `polyarch logout`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Log out from a registry
#[derive(Debug, Args)]
pub struct LogoutArgs {}

/// Runs the command.
pub fn run(_args: &LogoutArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
