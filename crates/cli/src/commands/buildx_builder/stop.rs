// SPDX-License-Identifier: Apache-2.0
//! `buildx stop`: there is nothing to stop, which is said; but a builder must be there.

use clap::Args;

use super::node_cache::remote_nodes;
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
    let builder = find(&open(session)?, named(args.name.as_deref(), flag, &session.environment))?;
    let whose = match remote_nodes(&builder)?.is_empty() {
        true => "it is this program itself",
        false => "its nodes are others' programs, and stay as they are",
    };
    session.printer.message(&format!("{}: nothing of it runs here: {whose}\n", builder.name));
    Ok(())
}
