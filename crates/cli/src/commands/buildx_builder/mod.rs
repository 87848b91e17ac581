// SPDX-License-Identifier: Apache-2.0
//! `polyarch buildx create|use|ls|inspect|stop|rm|import`: builders and their nodes.

pub mod create;
pub mod examine;
pub mod import;
pub mod inspect;
pub mod ls;
pub mod node_cache;
pub mod rm;
pub mod stop;
pub mod use_builder;

use std::time::Duration;

use crate::builders::driver;
use crate::builders::files::BuilderFiles;
use crate::builders::{Builder, DEFAULT};
use crate::session::Session;
use crate::{CommandError, Environment};

/// How long nodes are waited for when nothing else is said.
const TIMEOUT: &str = "20s";

/// Finds a builder by name, or the current one.
fn find(files: &BuilderFiles, name: Option<&str>) -> Result<Builder, CommandError> {
    match name {
        None => Ok(files.current()?.unwrap_or_else(Builder::default_local)),
        Some(name) => match files.get(name)? {
            Some(builder) => Ok(builder),
            None if name == DEFAULT => Ok(Builder::default_local()),
            None => Err(no_builder(files, name)),
        },
    }
}

/// Says that there is no such builder, and which there are.
fn no_builder(files: &BuilderFiles, name: &str) -> CommandError {
    let mut names: Vec<String> = files
        .list()
        .map(|(builders, _)| builders.into_iter().map(|it| it.name).collect())
        .unwrap_or_default();
    names.push(DEFAULT.to_owned());
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let hint = polyarch_oci::platform::did_you_mean(name, &known);
    CommandError::usage(format!("no builder {name:?} found{hint}")).with_hint(
        "see them with `polyarch buildx ls`, or make one with `polyarch buildx create --name NAME`",
    )
}

/// Returns the builder that a build uses; `None` stands for this program itself.
///
/// # Errors
/// When the builder that is named is not there.
pub fn of_build(flag: Option<&str>, session: &Session) -> Result<Option<Builder>, CommandError> {
    let name = named(None, flag, &session.environment);
    let is_ours = |name: &str| matches!(name, DEFAULT | "local" | "polyarch");
    let root = session.settings()?.root;
    if name.is_some_and(is_ours) || name.is_none() && !BuilderFiles::exist(&session.environment, &root) {
        return Ok(None);
    }
    let files = BuilderFiles::open(&session.environment, &root)?;
    let builder = find(&files, name)?;
    if builder.name == DEFAULT {
        return Ok(None);
    }
    files.touch(&builder.name)?;
    Ok(Some(builder))
}

/// The builder that nodes are added to when none is named.
const FLEET: &str = "fleet";

/// Returns the builder that a node is to be added to, and whether it is there.
///
/// # Errors
/// When the builders can't be read.
pub fn name_for_nodes(flag: Option<&str>, session: &Session) -> Result<(String, bool), CommandError> {
    let files = open(session)?;
    if let Some(name) = named(None, flag, &session.environment) {
        return Ok((name.to_owned(), files.get(name)?.is_some()));
    }
    match files.current()? {
        Some(builder) if builder.driver == driver::REMOTE => Ok((builder.name, true)),
        _ => Ok((FLEET.to_owned(), files.get(FLEET)?.is_some())),
    }
}

/// Returns a line for each node of a builder: its name and what it runs.
///
/// # Errors
/// When the builder is not there.
pub fn versions(flag: Option<&str>, session: &Session) -> Result<String, CommandError> {
    let builder = find(&open(session)?, named(None, flag, &session.environment))?;
    let timeout = go_duration(TIMEOUT).map_err(CommandError::usage)?;
    let builders = [builder];
    let statuses = examine::examine(session, &session.settings()?, &builders, timeout)?;
    let mut text = String::new();
    for (node, status) in builders[0].nodes.iter().zip(statuses.iter().flatten()) {
        let version = status.error.as_ref().map_or(&status.version, |error| error);
        text.push_str(&format!("{}: {}\n", node.name, crate::visible_text::visible_line(version.as_bytes())));
    }
    Ok(text)
}

/// Opens the builders of this invocation.
fn open(session: &Session) -> Result<BuilderFiles, CommandError> {
    BuilderFiles::open(&session.environment, &session.settings()?.root)
}

/// Returns the builder that a flag or `BUILDX_BUILDER` names.
fn named<'a>(
    argument: Option<&'a str>,
    flag: Option<&'a str>,
    environment: &'a Environment,
) -> Option<&'a str> {
    argument.or(flag).or_else(|| environment.text("BUILDX_BUILDER")).filter(|name| !name.is_empty())
}

/// Reads a duration as Go writes it: `20s`, `1m30s`, `500ms`; `0` waits for as long as it takes.
pub(super) fn go_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::from_secs(24 * 60 * 60));
    }
    let wrong = || format!("{text:?} is not a duration (write for example 20s or 1m30s)");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let seconds = match &rest[digits..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        total = Duration::try_from_secs_f64(number * seconds)
            .ok()
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
        rest = &rest[unit_end..];
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(go_duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(go_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(go_duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(go_duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "20", "s", "1x", "-1s", "0s", "1e400h"] {
            assert!(go_duration(wrong).is_err(), "{wrong}");
        }
    }
}
