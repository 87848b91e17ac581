// SPDX-License-Identifier: Apache-2.0
//! `polyarch resolve`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Say which image and which platform a name or digest is
#[derive(Debug, Args)]
pub struct ResolveArgs {}

/// Runs the command.
pub fn run(_args: &ResolveArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
