// SPDX-License-Identifier: Apache-2.0
//! `polyarch login`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Log in to a registry
#[derive(Debug, Args)]
pub struct LoginArgs {}

/// Runs the command.
pub fn run(_args: &LoginArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
