// SPDX-License-Identifier: Apache-2.0
//! `polyarch build --check` and `--call`: an answer about the Dockerfile, on standard output, and no build.

use polyarch_build::request::Context;
use polyarch_build::{Subrequest, SubrequestOptions, SubrequestResult};

use super::request::BuildPlan;
use super::{BuildArgs, show_progress};
use crate::config::Settings;
use crate::progress::ProgressMode;
use crate::session::Session;
use crate::{CommandError, ExitCode};

/// The methods that can be called, besides `build`.
const METHODS: &[(&str, Subrequest)] = &[
    ("check", Subrequest::Lint),
    ("lint", Subrequest::Lint),
    ("outline", Subrequest::Outline),
    ("targets", Subrequest::Targets),
    ("subrequests.describe", Subrequest::Describe),
];

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    subrequest: Subrequest,
    is_json: bool,
    ignores_status: bool,
}

impl Call {
    /// Reads the flags; none when a build is asked for.
    ///
    /// # Errors
    /// A method or a field that does not exist.
    pub(super) fn of(args: &BuildArgs) -> Result<Option<Call>, CommandError> {
        match args.call.as_deref().or(args.print.as_deref()) {
            Some(text) => Call::parse(text),
            None if args.check => Call::parse("check"),
            None => Ok(None),
        }
    }

    fn parse(text: &str) -> Result<Option<Call>, CommandError> {
        let error = |what: String| CommandError::usage(format!("--call={text}: {what}"));
        let invalid = |what| Err(error(what));
        let (mut method, mut is_json, mut ignores_status) = (None, false, false);
        for field in text.split(',').filter(|field| !field.is_empty()) {
            match field.split_once('=') {
                Some(("format", "json")) => is_json = true,
                Some(("format", "text" | "")) => is_json = false,
                Some(("format", other)) => {
                    return invalid(format!("the format is json or text, not {other:?}"));
                }
                Some(("ignorestatus", value)) => {
                    ignores_status = super::go_bool(value)
                        .map_err(|_| error(format!("ignorestatus is true or false, not {value:?}")))?;
                }
                Some(_) => {
                    return invalid(format!("invalid field {field:?}, there are format and ignorestatus"));
                }
                None if method.is_some() => return invalid("one method can be called".to_owned()),
                None => method = Some(field),
            }
        }
        let method = method.unwrap_or("build");
        if method == "build" {
            return Ok(None);
        }
        let Some((_, subrequest)) = METHODS.iter().find(|(name, _)| *name == method) else {
            let names: Vec<&str> = METHODS.iter().map(|(name, _)| *name).chain(["build"]).collect();
            let hint = polyarch_oci::platform::did_you_mean(method, &names);
            return Err(error(format!("there is no method {method:?}{hint}"))
                .with_hint("methods: build, check, outline, targets, subrequests.describe"));
        };
        Ok(Some(Call { subrequest: *subrequest, is_json, ignores_status }))
    }
}

/// Asks, and prints the answer; returns the exit code.
pub(super) fn run(
    call: &Call,
    plan: &BuildPlan,
    session: &Session,
    settings: &Settings,
) -> Result<u8, CommandError> {
    // Only an archive is unpacked, which needs a tree of files.
    let engine = match plan.request.context {
        Context::Directory(_) | Context::Distant(_) | Context::Empty => {
            session.open_for_documents(settings)?
        }
        _ => session.open(settings)?,
    };
    let mode = if plan.is_quiet { ProgressMode::Quiet } else { plan.progress };
    let (progress, display) = show_progress(session, mode, &plan.description());
    let options = SubrequestOptions { with_own_rules: true };
    let answer = engine.perform(|services| {
        let progress = progress.clone();
        async move { services.subrequest(call.subrequest, &plan.request, options, &progress).await }
    });
    display.finish();
    let answer = answer.map_err(|error| CommandError::from(error).of_build())?;
    session.printer.data(&session.shown_template(shown(call, &answer)))?;
    if let Some(error) = answer.build_error {
        return Err(CommandError::from(error).of_build());
    }
    match answer.status_code {
        Some(code) if !call.ignores_status => Ok(code),
        _ => Ok(ExitCode::Done.number()),
    }
}

/// Returns what is printed, in buildx's words.
fn shown(call: &Call, answer: &SubrequestResult) -> String {
    if call.is_json {
        return format!("{}\n", answer.json);
    }
    if call.subrequest != Subrequest::Lint {
        return answer.text.clone();
    }
    match answer.finding_count {
        0 if answer.build_error.is_some() => String::new(),
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => format!("Check complete, 1 warning has been found!\n{}", answer.text),
        count => format!("Check complete, {count} warnings have been found!\n{}", answer.text),
    }
}
