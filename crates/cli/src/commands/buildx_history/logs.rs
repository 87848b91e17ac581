// SPDX-License-Identifier: Apache-2.0
//! `buildx history logs`: what a build said, again.

use clap::Args;

use super::with_history;
use crate::CommandError;
use crate::commands::build::show_progress;
use crate::progress::ProgressMode;
use crate::session::Session;

/// Show again what a build said
///
/// On standard error, as a build does.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// `plain` or `rawjson`
    #[arg(long, value_name = "HOW", default_value = "plain", value_parser = ["plain", "rawjson"])]
    progress: String,
    /// Build, as `ls` shows it [default: the last one]
    #[arg(value_name = "REF", default_value = "", hide_default_value = true)]
    build: String,
}

/// Runs the command.
pub(super) fn run(args: &LogsArgs, session: &Session) -> Result<(), CommandError> {
    let (name, bytes) = with_history(session, |history| {
        let record = history.find(&args.build)?;
        let logs = record.logs.as_ref().map_or("", |logs| &logs.digest);
        Ok((record.r#ref.clone(), history.attachment(&record.r#ref, logs)?))
    })?;
    let Some(bytes) = bytes else {
        return Err(CommandError::usage(format!("nothing is kept of what the build {name} said")));
    };
    let mode = ProgressMode::parse(&args.progress).unwrap_or(ProgressMode::Plain);
    let (progress, display) = show_progress(session, mode, &name);
    for event in polyarch_buildkit::history::events_of(&bytes) {
        progress.send(event);
    }
    display.finish();
    Ok(())
}
