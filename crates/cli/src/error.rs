// SPDX-License-Identifier: Apache-2.0
//! How a command fails: text on standard error and an exit code.
//!
//! The table of exit codes stands here and, for users, in `docs/exit-codes.md`.

use std::fmt::Write as _;

use polyarch_build::{BuildError, ErrorKind};

use crate::visible_text::{visible_line, visible_text};

/// The exit codes of every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// It was done.
    Done = 0,
    /// A step of the build failed; also what `verify` and `diff` end with when they have found something.
    Step = 1,
    /// What was asked for makes no sense: unknown flags, missing files, an invalid configuration.
    Usage = 2,
    /// The Dockerfile or the context is wrong.
    Dockerfile = 3,
    /// A platform can't be executed here, or a base image lacks it.
    Platform = 4,
    /// A registry refused or could not be reached.
    Registry = 5,
    /// The disk or the store failed.
    Storage = 6,
    /// The machine doesn't permit what is needed (namespaces, mounts).
    Sandbox = 7,
    /// A mistake in polyarch itself.
    Internal = 70,
    /// `polyarch run`: the program was not started.
    NotStarted = 125,
    /// `polyarch run`: the program can't be executed.
    NotExecutable = 126,
    /// `polyarch run`: there is no such program.
    NotFound = 127,
    /// It was interrupted (Ctrl-C, SIGTERM).
    Interrupted = 130,
}

impl ExitCode {
    /// Returns the code for a kind of failure.
    pub fn of(kind: ErrorKind) -> ExitCode {
        match kind {
            ErrorKind::Usage => ExitCode::Usage,
            ErrorKind::Dockerfile => ExitCode::Dockerfile,
            ErrorKind::Step => ExitCode::Step,
            ErrorKind::Platform => ExitCode::Platform,
            ErrorKind::Registry => ExitCode::Registry,
            ErrorKind::Storage => ExitCode::Storage,
            ErrorKind::Sandbox => ExitCode::Sandbox,
            ErrorKind::Cancelled => ExitCode::Interrupted,
        }
    }

    /// Returns the number that the process exits with.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// A failure as the user gets it.
#[derive(Debug)]
pub struct CommandError {
    /// What failed, where, and what to do.
    pub error: Box<BuildError>,
    /// What goes before the sentence: `failed to build: `.
    pub context: &'static str,
    /// How the command is used, when it was used wrongly.
    pub usage: Option<String>,
    /// The exit code.
    pub exit_code: ExitCode,
}

impl From<BuildError> for CommandError {
    fn from(error: BuildError) -> CommandError {
        let exit_code = ExitCode::of(error.kind);
        CommandError { error: Box::new(error), context: "", usage: None, exit_code }
    }
}

impl CommandError {
    /// Makes the error of arguments or settings that make no sense.
    pub fn usage(message: impl Into<String>) -> CommandError {
        BuildError::new(ErrorKind::Usage, message).into()
    }

    /// Makes the error of a file that can't be read or written.
    pub fn io(action: &str, path: impl Into<std::path::PathBuf>, source: &std::io::Error) -> CommandError {
        BuildError::io(action, path, source).into()
    }

    /// Adds something to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> CommandError {
        self.error.hints.push(hint.into());
        self
    }

    /// Adds how the command is used.
    #[must_use]
    pub fn with_usage(mut self, usage: impl Into<String>) -> CommandError {
        self.usage = Some(usage.into());
        self
    }

    /// Says that it was a build that failed, in the words of buildx.
    #[must_use]
    pub fn of_build(mut self) -> CommandError {
        self.context = match self.error.kind {
            ErrorKind::Usage | ErrorKind::Cancelled => "",
            ErrorKind::Dockerfile | ErrorKind::Step => "failed to build: failed to solve: ",
            _ => "failed to build: ",
        };
        self
    }

    /// Gives the exit code of `polyarch run`: 126 and 127 for programs that could not be executed, 125
    /// for everything else that kept the program from running.
    #[must_use]
    pub fn of_run(mut self) -> CommandError {
        self.exit_code = match (self.error.kind, self.error.exit_code) {
            (ErrorKind::Cancelled, _) => ExitCode::Interrupted,
            (_, Some(126)) => ExitCode::NotExecutable,
            (_, Some(127)) => ExitCode::NotFound,
            _ => ExitCode::NotStarted,
        };
        self
    }

    /// Returns the text for standard error, in BuildKit's form: the step's last output, the lines of the
    /// Dockerfile, the sentence, hints.
    pub fn render(&self) -> String {
        let error = &*self.error;
        let mut out = String::new();
        if let Some(log) = &error.log {
            // Writing to a String can't fail, here and below.
            let _ = writeln!(out, "------\n > {}:", visible_line(log.step.as_bytes()));
            for line in &log.last_lines {
                let _ = writeln!(out, "{}", visible_line(line.as_bytes()));
            }
            out.push_str("------\n");
        }
        if let Some(location) = &error.location {
            let lines = location.lines.clone();
            let excerpt = polyarch_dockerfile::render_excerpt(&location.file, &location.text, lines);
            out.push_str(&visible_text(&excerpt));
        }
        let _ = writeln!(out, "ERROR: {}{}", self.context, visible_text(&error.message));
        for hint in &error.hints {
            let _ = writeln!(out, "hint: {}", visible_text(hint));
        }
        if let Some(usage) = &self.usage {
            let _ = write!(out, "\n{usage}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_documentation_and_no_other() {
        let page = include_str!("../../../docs/exit-codes.md");
        let documented: Vec<u8> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok())
            .collect();
        let codes = [
            ExitCode::Done,
            ExitCode::Step,
            ExitCode::Usage,
            ExitCode::Dockerfile,
            ExitCode::Platform,
            ExitCode::Registry,
            ExitCode::Storage,
            ExitCode::Sandbox,
            ExitCode::Internal,
            ExitCode::NotStarted,
            ExitCode::NotExecutable,
            ExitCode::NotFound,
            ExitCode::Interrupted,
        ];
        assert_eq!(documented, codes.map(ExitCode::number));
    }

    #[test]
    fn run_tells_why_a_program_did_not_start() {
        let code = |kind, exit_code| {
            let mut error = BuildError::new(kind, "x");
            error.exit_code = exit_code;
            CommandError::from(error).of_run().exit_code
        };
        assert_eq!(code(ErrorKind::Step, Some(127)), ExitCode::NotFound);
        assert_eq!(code(ErrorKind::Step, Some(126)), ExitCode::NotExecutable);
        assert_eq!(code(ErrorKind::Registry, None), ExitCode::NotStarted);
        assert_eq!(code(ErrorKind::Cancelled, None), ExitCode::Interrupted);
    }
}
