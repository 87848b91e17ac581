// SPDX-License-Identifier: Apache-2.0
//! How a build fails.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use polyarch_oci::Platform;

/// What the kernel says of a full disk; errors of other rooms carry its words.
const FULL: &str = "No space left on device";

/// Which kind of failure it is; the command's exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// What was asked for makes no sense.
    Usage,
    /// The Dockerfile or the context is wrong.
    Dockerfile,
    /// A step's process failed.
    Step,
    /// A platform can't be executed, or a base image lacks it.
    Platform,
    /// A registry refused or could not be reached.
    Registry,
    /// The disk or the store failed.
    Storage,
    /// The machine can't do what is needed (namespaces).
    Sandbox,
    /// It was interrupted.
    Cancelled,
}

/// Where in a Dockerfile something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLocation {
    /// The name of the file as the user gave it.
    pub file: String,
    /// The whole text.
    pub text: std::sync::Arc<str>,
    /// The lines, from 1.
    pub lines: RangeInclusive<u32>,
}

/// The last output of a step that failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepLog {
    /// The step's name, `[linux/arm64 2/3] RUN make`.
    pub step: String,
    /// Its last lines, at most ten.
    pub last_lines: Vec<String>,
}

/// A failure: one sentence, its place, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct BuildError {
    /// The kind.
    pub kind: ErrorKind,
    /// What went wrong, one sentence, with its causes.
    pub message: String,
    /// What to do about it, complete sentences or commands.
    pub hints: Vec<String>,
    /// Where in the Dockerfile.
    pub location: Option<Box<SourceLocation>>,
    /// What the step wrote before it failed.
    pub log: Option<Box<StepLog>>,
    /// The exit code of the step's process, when it had one.
    pub exit_code: Option<i32>,
    /// Whether a network, a refusal or a disk was in the way: then nothing is known of what was asked for.
    pub is_obstacle: bool,
    /// The step that failed, by its digest in the progress.
    pub vertex: Option<std::sync::Arc<str>>,
}

impl BuildError {
    /// Makes an error of a kind and a sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> BuildError {
        let message = message.into();
        let mut hints = Vec::new();
        if kind == ErrorKind::Storage && message.contains(FULL) {
            hints.push(
                "make room (polyarch prune -a -f), or keep the store on a larger disk (--root DIR)"
                    .to_owned(),
            );
        }
        BuildError {
            kind,
            message,
            hints,
            location: None,
            log: None,
            exit_code: None,
            is_obstacle: false,
            vertex: None,
        }
    }

    /// Makes an error of another error, with the whole chain of its causes in the sentence.
    pub fn from_source(
        kind: ErrorKind,
        context: impl std::fmt::Display,
        source: &(dyn std::error::Error + 'static),
    ) -> BuildError {
        BuildError::new(kind, format!("{context}: {}", chain_of(source)))
    }

    /// Adds something to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> BuildError {
        self.hints.push(hint.into());
        self
    }

    /// Adds the place in the Dockerfile, unless one is known already.
    #[must_use]
    pub fn at(mut self, location: SourceLocation) -> BuildError {
        self.location.get_or_insert_with(|| Box::new(location));
        self
    }

    /// Makes the error of a step that reads several trees where there must be one; a defect of this builder.
    pub(crate) fn several_trees() -> BuildError {
        BuildError::new(ErrorKind::Usage, "a step got several trees where it reads one")
    }

    /// Makes the error of a build that was interrupted.
    pub fn cancelled() -> BuildError {
        BuildError::new(ErrorKind::Cancelled, "canceled")
    }

    /// Makes the error of a platform that can't run here.
    pub fn platform_unsupported(platform: &Platform, reason: &str, fix: &str) -> BuildError {
        BuildError::new(
            ErrorKind::Platform,
            format!("can't run programs of {platform} on this machine: {reason}"),
        )
        .with_hint(fix)
    }

    /// Makes the error of a file of the user's that can't be read or written.
    pub fn io(action: &str, path: impl Into<PathBuf>, source: &std::io::Error) -> BuildError {
        let path = path.into();
        let kind = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Storage,
            _ => ErrorKind::Usage,
        };
        BuildError::of_output(kind, format!("{action} {}: {source}", path.display()))
    }

    /// Makes the error of a file or a stream of the user's, which may be on another disk than the store.
    pub fn of_output(kind: ErrorKind, message: String) -> BuildError {
        let is_full = kind == ErrorKind::Storage && message.contains(FULL);
        let mut error = BuildError { hints: Vec::new(), ..BuildError::new(kind, message) };
        if is_full {
            error.hints.push("make room where it is written, or write to another disk".to_owned());
        }
        error
    }
}

/// Joins an error and its causes, leaving out those that the text above them already says.
pub fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}
