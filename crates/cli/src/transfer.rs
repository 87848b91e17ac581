// SPDX-License-Identifier: Apache-2.0
//! What is said while layers come and go: docker's lines, or a live view on a terminal.

use polyarch_solver::progress::{Event, Progress, VertexStatus};

use crate::commands::build::show_progress;
use crate::progress::{Display, ProgressMode};
use crate::session::Session;

/// Which way layers go, which decides the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a registry.
    Pull,
    /// To a registry.
    Push,
}

/// Shows a transfer on standard error until it is dropped.
pub struct TransferDisplay {
    live: Option<Display>,
}

impl TransferDisplay {
    /// Starts showing: nothing when quiet, a live view on a terminal, a line per layer elsewhere.
    pub fn start(session: &Session, direction: Direction, is_quiet: bool) -> (Progress, TransferDisplay) {
        if is_quiet || session.environment.stderr_is_terminal {
            let mode = if is_quiet { ProgressMode::Quiet } else { ProgressMode::Auto };
            let (progress, display) = show_progress(session, mode, "");
            return (progress, TransferDisplay { live: Some(display) });
        }
        TransferDisplay::lines(session, direction)
    }

    /// Starts showing a line per layer, for commands whose terminal belongs to a program afterwards.
    pub fn lines(session: &Session, direction: Direction) -> (Progress, TransferDisplay) {
        let printer = session.printer;
        let progress = Progress::new(move |event| match event {
            Event::Status(status) => {
                if let Some(line) = line_of(&status, direction) {
                    printer.message(&line);
                }
            }
            Event::Warning(warning) => printer.warning(&warning.message),
            Event::Vertex(_) | Event::Log(_) => {}
        });
        (progress, TransferDisplay { live: None })
    }

    /// Ends showing.
    pub fn finish(self) {
        if let Some(display) = self.live {
            display.finish();
        }
    }
}

/// Returns docker's line for a part that is finished, `0362ad1dd800: Pull complete`.
fn line_of(status: &VertexStatus, direction: Direction) -> Option<String> {
    status.completed?;
    let (verb, digest) = status.id.rsplit_once(' ').unwrap_or(("", &status.id));
    let digest: polyarch_oci::Digest = digest.parse().ok()?;
    let words = match (verb, direction) {
        ("already exists", Direction::Pull) => "Already exists",
        ("already exists", Direction::Push) => "Layer already exists",
        ("mounted", _) => "Mounted from another repository",
        // A transfer that was broken off ends as well.
        _ if status.current < status.total => return None,
        ("pushing", Direction::Push) => "Pushed",
        ("", Direction::Pull) => "Pull complete",
        _ => return None,
    };
    Some(format!("{}: {words}\n", digest.short()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_dockers() {
        let digest = polyarch_oci::Digest::of("layer").to_string();
        let line = |id: &str, current, is_done: bool, direction| {
            let completed = is_done.then_some(std::time::UNIX_EPOCH);
            let id = id.replace("DIGEST", &digest);
            let status = VertexStatus { id, vertex: "".into(), current, total: 5, started: None, completed };
            line_of(&status, direction).map(|line| line[14..].trim_end().to_owned())
        };
        assert_eq!(line("DIGEST", 5, true, Direction::Pull).as_deref(), Some("Pull complete"));
        assert_eq!(line("DIGEST", 5, false, Direction::Pull), None);
        assert_eq!(line("DIGEST", 4, true, Direction::Pull), None, "it was broken off");
        assert_eq!(
            line("already exists DIGEST", 0, true, Direction::Pull).as_deref(),
            Some("Already exists")
        );
        assert_eq!(
            line("already exists DIGEST", 0, true, Direction::Push).as_deref(),
            Some("Layer already exists")
        );
        assert_eq!(line("pushing DIGEST", 5, true, Direction::Push).as_deref(), Some("Pushed"));
        assert_eq!(line("extracting DIGEST", 5, true, Direction::Pull), None);
        assert_eq!(line("pushing manifest for x@DIGEST", 5, true, Direction::Push), None);
    }
}
