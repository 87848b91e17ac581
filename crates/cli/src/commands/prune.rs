// SPDX-License-Identifier: Apache-2.0
//! `polyarch prune`: frees disk space.

use std::io::{BufRead, Write as _};

use clap::{ArgAction, Args};

use super::flag_values::go_bool;
use polyarch_build::PruneReport;

use crate::CommandError;
use crate::progress::format::size;
use crate::session::Session;

/// Remove what builds have left in the store
///
/// Images that have a name stay. Without --all, so does what recent builds may use again.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Remove everything that no named image needs
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    all: bool,
    /// Do not ask
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    force: bool,
}

/// Runs the command.
pub fn run(args: &PruneArgs, session: &Session) -> Result<(), CommandError> {
    let settings = session.settings()?;
    if !args.force && !confirm(args.all)? {
        return Err(CommandError::usage("nothing was removed").with_hint("--force removes without asking"));
    }
    let report = session.open(&settings)?.prune(args.all)?;
    session.printer.data(&render(&report))
}

/// Asks on standard error, reads the answer from standard input.
fn confirm(all: bool) -> Result<bool, CommandError> {
    let what = if all { "everything that no named image needs" } else { "all dangling build cache" };
    let mut stderr = std::io::stderr().lock();
    // A question that nobody can read still gets its answer, usually none, from standard input.
    let _ = write!(stderr, "WARNING! This will remove {what}. Are you sure you want to continue? [y/N] ")
        .and_then(|()| stderr.flush());
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| CommandError::io("can't read", "standard input", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn render(report: &PruneReport) -> String {
    format!(
        "Removed {} records, {} file trees ({}), {} blobs ({})\nTotal:\t{}\n",
        report.records,
        report.layers.0,
        size(report.layers.1),
        report.blobs.0,
        size(report.blobs.1),
        size(report.layers.1 + report.blobs.1)
    )
}
