// SPDX-License-Identifier: Apache-2.0
//! `polyarch doctor`: checks this machine, and says what mends what is missing.
//!
//! Each check looks at what the other commands really use: the user namespace is entered, an overlay mounted,
//! emulators execute a program, registries are asked. A file of settings that makes no sense is a line like others.

mod files;
mod machine;
mod registries;

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::config::Settings;
use crate::session::Session;
use crate::visible_text::visible_line;
use crate::{CommandError, ExitCode};

/// Check this machine, and say what mends what is missing
///
/// Each line is `ok`, a `note`, a `warning` (polyarch works, with less) or a `problem`; below it stands what mends
/// it. The exit code is 0 without problems, and 1 with any.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// How to print the checks
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Ask no registry
    #[arg(long)]
    offline: bool,
    /// How long a registry may take to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 5, hide_short_help = true,
        value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each check
    Text,
    /// One JSON object
    Json,
}

/// How a check came out, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// As it should be.
    Ok,
    /// Something to know.
    Note,
    /// It works, with less.
    Warning,
    /// Something doesn't work.
    Problem,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    /// What was checked.
    check: String,
    status: Outcome,
    /// What was found.
    text: String,
    /// What mends it: a command, or advice where no command does.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Check {
    fn new(check: impl Into<String>, status: Outcome, text: impl Into<String>) -> Check {
        Check { check: check.into(), status, text: text.into(), fix: None }
    }

    fn ok(check: impl Into<String>, text: impl Into<String>) -> Check {
        Check::new(check, Outcome::Ok, text)
    }

    fn with_fix(mut self, fix: impl Into<String>) -> Check {
        self.fix = Some(fix.into());
        self
    }
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Only when the result can't be written.
pub fn run(args: &DoctorArgs, session: &Session) -> Result<u8, CommandError> {
    let environment = &session.environment;
    let (settings, broken) = Settings::load_as_far_as_possible(environment, session.root.as_deref());
    let mut checks = files::settings(&broken);
    // This enters the user namespace; what follows sees files as builds do.
    checks.extend(machine::check(&settings, environment));
    checks.push(files::network());
    checks.extend(files::credentials(environment));
    checks.extend(files::store(&settings.root));
    if args.offline {
        checks.push(Check::new("registries", Outcome::Note, "not asked (--offline)"));
    } else {
        checks.extend(registries::check(&settings, environment, Duration::from_secs(args.timeout)));
    }
    session.printer.data(&match args.format {
        Format::Text => render(&checks),
        Format::Json => render_json(&checks),
    })?;
    let is_well = checks.iter().all(|check| check.status != Outcome::Problem);
    Ok(if is_well { ExitCode::Done } else { ExitCode::Step }.number())
}

fn render(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let status = match check.status {
            Outcome::Ok => "ok",
            Outcome::Note => "note",
            Outcome::Warning => "warning",
            Outcome::Problem => "problem",
        };
        text.push_str(&format!("{status:<8} {}: {}\n", check.check, visible_line(check.text.as_bytes())));
        if let Some(fix) = &check.fix {
            text.push_str(&format!("{:<8} mend: {}\n", "", visible_line(fix.as_bytes())));
        }
    }
    text
}

#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    checks: &'a [Check],
}

fn render_json(checks: &[Check]) -> String {
    let ok = checks.iter().all(|check| check.status != Outcome::Problem);
    serde_json::to_string_pretty(&Report { ok, checks }).expect("texts are always JSON") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_a_line_and_its_remedy_another() {
        let checks = [
            Check::ok("store", "/s, 1GB"),
            Check::new("registry r", Outcome::Problem, "no\x1b[2J answer").with_fix("polyarch login r"),
        ];
        let text = render(&checks);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "ok       store: /s, 1GB");
        assert!(lines[1].starts_with("problem  registry r: no") && !lines[1].contains('\x1b'), "{text}");
        assert_eq!(lines[2], "         mend: polyarch login r");
        let json: serde_json::Value = serde_json::from_str(&render_json(&checks)).unwrap();
        assert_eq!((&json["ok"], &json["checks"][1]["status"]), (&false.into(), &"problem".into()));
    }
}
