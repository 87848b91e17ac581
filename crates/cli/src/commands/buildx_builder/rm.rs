// SPDX-License-Identifier: Apache-2.0
//! `buildx rm`: removes builders. Their nodes and caches stay where they are, but for pods that we made.

use std::time::Duration;

use clap::Args;

use super::examine::examine;
use super::{TIMEOUT, find, go_duration, named, open};
use crate::CommandError;
use crate::builders::files::BuilderFiles;
use crate::builders::{Builder, DEFAULT, pods};
use crate::session::Session;
use crate::terminal_prompt::ask;
use crate::visible_text::visible_line;

/// Remove builders
///
/// Nodes run on and keep their caches; the cache of this machine belongs to no builder. Pods of a cluster that were
/// made for a builder go with it.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Remove all builders none of whose nodes answers
    #[arg(long, conflicts_with = "names")]
    all_inactive: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Accepted for compatibility: caches are kept in any case
    #[arg(long, hide_short_help = true)]
    keep_state: bool,
    /// Leave the pods of a cluster; other daemons are never stopped
    #[arg(long, hide_short_help = true)]
    keep_daemon: bool,
    /// How long to wait for nodes
    #[arg(long, value_name = "DURATION", default_value = TIMEOUT, value_parser = go_duration, hide_short_help = true)]
    timeout: Duration,
    /// The builders; the current one when absent
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Runs the command.
pub fn run(args: &RmArgs, flag: Option<&str>, session: &Session) -> Result<(), CommandError> {
    if args.all_inactive {
        return remove_inactive(args, session);
    }
    let files = open(session)?;
    let names = match args.names.as_slice() {
        [] => vec![find(&files, named(None, flag, &session.environment))?.name],
        names => names.to_vec(),
    };
    let mut first_error = None;
    for name in names {
        match remove(&files, &name, args, session) {
            Ok(()) => session.printer.message(&format!("{} removed\n", visible_line(name.as_bytes()))),
            Err(error) => {
                let text = visible_line(error.error.message.as_bytes());
                session
                    .printer
                    .message(&format!("failed to remove {}: {text}\n", visible_line(name.as_bytes())));
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        None => Ok(()),
        Some(error) => Err(CommandError { error: error.error, ..CommandError::usage("") }),
    }
}

fn remove(files: &BuilderFiles, name: &str, args: &RmArgs, session: &Session) -> Result<(), CommandError> {
    if let Ok(Some(builder)) = files.get(name) {
        remove_pods(&builder, args, session)?;
    }
    // A file that is no builder can be removed as well; its name must be one.
    if files.remove(name)? {
        return Ok(());
    }
    match name {
        DEFAULT => {
            Err(CommandError::usage("the builder default can't be removed: it is this program itself"))
        }
        _ => Err(super::no_builder(files, name)),
    }
}

/// Removes what was made for a builder elsewhere.
fn remove_pods(builder: &Builder, args: &RmArgs, session: &Session) -> Result<(), CommandError> {
    if args.keep_daemon {
        return Ok(());
    }
    pods::remove_builder(builder, &session.environment)
        .map_err(|error| error.with_hint("remove the builder alone: polyarch buildx rm --keep-daemon"))
}

fn remove_inactive(args: &RmArgs, session: &Session) -> Result<(), CommandError> {
    if !args.force {
        let answer = ask(
            "WARNING! This will remove all builders that are not in running state. Are you sure you want to \
             continue? [y/N] ",
        )?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
    }
    let (builders, _) = open(session)?.list()?;
    let statuses = examine(session, &session.settings()?, &builders, args.timeout)?;
    let files = open(session)?;
    for (builder, nodes) in builders.iter().zip(statuses) {
        let is_inactive = nodes.iter().all(|node| node.state != "running");
        if is_inactive && files.get(&builder.name)?.as_ref() == Some(builder) {
            remove_pods(builder, args, session)?;
            files.remove(&builder.name)?;
            session.printer.message(&format!("{} removed\n", builder.name));
        }
    }
    Ok(())
}
