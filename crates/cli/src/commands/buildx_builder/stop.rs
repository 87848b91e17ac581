// SPDX-License-Identifier: Apache-2.0
//! `buildx stop`: there is nothing to stop, but a builder must be there.

use clap::Args;

use super::{find, named, open};
use crate::CommandError;
use crate::session::Session;

/// Stop a builder
///
/// Nothing of this program runs between two commands, and the daemons of remote nodes are not ours to stop.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// The builder; the current one when absent
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Runs the command.
pub fn run(args: &StopArgs, flag: Option<&str>, session: &Session) -> Result<(), CommandError> {
    find(&open(session)?, named(args.name.as_deref(), flag, &session.environment)).map(drop)
}
