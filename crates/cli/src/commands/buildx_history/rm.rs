// SPDX-License-Identifier: Apache-2.0
//! `buildx history rm`: builds are forgotten.

use clap::Args;

use super::with_history;
use crate::CommandError;
use crate::session::Session;

/// Forget builds
///
/// Images and the cache stay as they are.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Forget all builds, pinned ones too
    #[arg(long, conflicts_with = "builds", required_unless_present = "builds")]
    all: bool,
    /// Builds, as `ls` shows them
    #[arg(value_name = "REF")]
    builds: Vec<String>,
}

/// Runs the command.
pub(super) fn run(args: &RmArgs, session: &Session) -> Result<(), CommandError> {
    with_history(session, |history| {
        let mut names = Vec::new();
        // All of them are looked up before one goes: `^1` means the same for each.
        for build in &args.builds {
            names.push(history.find(build)?.r#ref);
        }
        if args.all {
            names.extend(history.list()?.into_iter().map(|record| record.r#ref));
        }
        for name in names {
            history.remove(&name)?;
        }
        Ok(())
    })
}
