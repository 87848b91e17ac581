// SPDX-License-Identifier: Apache-2.0
//! `polyarch registry gc`: removes what nothing in a registry leads to.

use std::time::Duration;

use clap::Args;
use polyarch_registry::server::CollectOptions;

use super::{Format, RootArg, duration, storage_error};
use crate::progress::format::short_size;
use crate::session::Session;
use crate::{CommandError, ExitCode};

/// Remove blobs that no manifest leads to, and uploads that were left
///
/// A server may run meanwhile; one collects every hour by itself. What is younger than --grace stays, so that pushes
/// that are under way lose nothing.
#[derive(Debug, Args)]
pub struct GcArgs {
    #[command(flatten)]
    root: RootArg,
    /// What is younger stays
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    grace: Duration,
    /// Also remove manifests that have no tag, unless an index or a subject that stays leads to them
    #[arg(long, visible_alias = "untagged")]
    delete_untagged: bool,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// How to say it
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Runs the command.
pub fn run(args: &GcArgs, session: &Session) -> Result<u8, CommandError> {
    let storage = args.root.open_existing(session)?;
    let options = CollectOptions {
        grace: args.grace,
        // A file of `incoming` may be in use however short the grace period is.
        uploads: args.grace.max(Duration::from_secs(60 * 60)),
        deletes_untagged: args.delete_untagged,
        is_dry_run: args.dry_run,
        ..CollectOptions::default()
    };
    let collected = storage.collect(&options).map_err(|error| storage_error(&error))?;
    for (repository, reason) in &collected.left_alone {
        session.printer.warning(&format!("{repository} was left alone: {reason}"));
    }
    if !collected.left_alone.is_empty() {
        session.printer.message("hint: `polyarch registry scrub` says what is damaged\n");
    }
    let text = match args.format {
        Format::Json => {
            let text = serde_json::to_string(&collected).expect("texts and numbers can be written as JSON");
            format!("{text}\n")
        }
        Format::Text => format!(
            "{} {} blobs, {} manifests and {} unfinished uploads: {}\n",
            if args.dry_run { "would remove" } else { "removed" },
            collected.blobs,
            collected.manifests,
            collected.unfinished,
            short_size(collected.bytes),
        ),
    };
    session.printer.data(&text)?;
    let is_whole = collected.left_alone.is_empty();
    Ok(if is_whole { ExitCode::Done } else { ExitCode::Storage }.number())
}
