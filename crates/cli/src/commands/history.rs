// SPDX-License-Identifier: Apache-2.0
//! `polyarch history`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Show how the layers of an image came to be
#[derive(Debug, Args)]
pub struct HistoryArgs {}

/// Runs the command.
pub fn run(_args: &HistoryArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
