// SPDX-License-Identifier: Apache-2.0
//! `polyarch verify`.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Prove that each platform of an image is what it claims to be
#[derive(Debug, Args)]
pub struct VerifyArgs {}

/// Runs the command.
pub fn run(_args: &VerifyArgs, _session: &Session) -> Result<u8, CommandError> {
    Err(CommandError::usage("this command is not there yet"))
}
