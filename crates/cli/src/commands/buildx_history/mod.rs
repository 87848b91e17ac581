// SPDX-License-Identifier: Apache-2.0
//! `polyarch buildx history ls|inspect|logs|rm`: builds of this machine that are remembered, be they of this command
//! or of clients of `polyarch node serve` on the same store.

mod inspect;
mod logs;
mod ls;
mod rm;

use clap::{Args, Subcommand};
use polyarch_build::BuildError;
use polyarch_buildkit::api::control::BuildHistoryRecord;
use polyarch_buildkit::history::{History, LOCAL_CONTEXT};

use crate::CommandError;
use crate::session::Session;

/// See what is remembered of builds
///
/// The last 50 builds are remembered. REF is the name of a build as `ls` shows it, its beginning, or `^N` for the Nth
/// build before the last one; without it the last one is meant.
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct HistoryArgs {
    #[command(subcommand)]
    command: HistoryCommand,
}

#[derive(Debug, Subcommand)]
enum HistoryCommand {
    Ls(ls::LsArgs),
    Inspect(inspect::InspectArgs),
    Logs(logs::LogsArgs),
    Rm(rm::RmArgs),
}

/// Runs the command.
pub fn run(args: &HistoryArgs, session: &Session) -> Result<(), CommandError> {
    match &args.command {
        HistoryCommand::Ls(args) => ls::run(args, session),
        HistoryCommand::Inspect(args) => inspect::run(args, session),
        HistoryCommand::Logs(args) => logs::run(args, session),
        HistoryCommand::Rm(args) => rm::run(args, session),
    }
}

/// Works with the history of the store.
fn with_history<T>(
    session: &Session,
    work: impl FnOnce(&History) -> Result<T, BuildError>,
) -> Result<T, CommandError> {
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    Ok(engine.perform(|services| async move { work(&History::new(services.store())) })?)
}

/// Returns what people call a build: its context, and the target in brackets.
fn name_of(record: &BuildHistoryRecord) -> String {
    let attribute =
        |key: &str| record.frontend_attrs.get(key).map(String::as_str).filter(|it| !it.is_empty());
    let place = attribute("context").or_else(|| attribute("vcs:source")).or_else(|| attribute(LOCAL_CONTEXT));
    let place = place.unwrap_or_default().trim_end_matches('/');
    let place = place.rsplit('/').next().unwrap_or(place);
    let file = attribute("filename").filter(|name| *name != "Dockerfile");
    let name = match (place, file) {
        ("", None) => String::new(),
        ("", Some(file)) => file.to_owned(),
        (place, None) => place.to_owned(),
        (place, Some(file)) => format!("{place}/{file}"),
    };
    match attribute("target") {
        Some(target) => format!("{name} ({target})").trim().to_owned(),
        None => name,
    }
}

/// Returns a time of a record.
fn time_of(time: Option<&prost_types::Timestamp>) -> Option<jiff::Timestamp> {
    time.and_then(|time| jiff::Timestamp::new(time.seconds, time.nanos).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_called_by_their_context_and_target() {
        let name = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            name_of(&BuildHistoryRecord { frontend_attrs: pairs.collect(), ..Default::default() })
        };
        assert_eq!(name(&[]), "");
        assert_eq!(name(&[(LOCAL_CONTEXT, "/home/me/app/"), ("filename", "Dockerfile")]), "app");
        let remote = [("context", "https://e.example/r.git#v1"), ("target", "out"), (LOCAL_CONTEXT, "/x")];
        assert_eq!(name(&remote), "r.git#v1 (out)");
        assert_eq!(name(&[("filename", "My.Dockerfile"), ("target", "t")]), "My.Dockerfile (t)");
    }
}
