// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest annotate`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Say more about an image of a list
#[derive(Debug, Args)]
pub struct AnnotateArgs {}

/// Runs the command.
pub fn run(_args: &AnnotateArgs, _session: &Session) -> Result<(), CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
