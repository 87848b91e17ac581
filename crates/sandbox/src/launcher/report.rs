// SPDX-License-Identifier: Apache-2.0
//! The one line that a container's processes leave for the launcher: how the program ended, or why it did not start.
//!
//! It goes through a pipe that is closed by `execve`. The program, before it is one, writes at most a failure and then
//! ends; only after that the init writes, so the first line is the one that counts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::ExitStatus;
use crate::failure::Failure;

/// More is not read: a report has a path at most.
const LIMIT_BYTES: usize = 60 << 10;

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The program ended.
    Ended(ExitStatus),
    /// The program was not started.
    Failed(Failure),
}

/// Writes a report. That nobody reads it is no error: then nobody cares.
pub(super) fn write(pipe: BorrowedFd<'_>, report: &Report) {
    let Ok(mut line) = serde_json::to_vec(report) else { return };
    line.push(b'\n');
    let mut rest = line.as_slice();
    while !rest.is_empty() {
        match rustix::io::write(pipe, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Reads the first report of a pipe whose writers are gone; `None` when there is none.
pub(super) fn read(pipe: OwnedFd) -> Option<Report> {
    let mut text = vec![0; LIMIT_BYTES];
    let mut length = 0;
    while length < text.len() {
        match rustix::io::read(pipe.as_fd(), &mut text[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            // The pipe does not block: a writer that is left over can not hold the launcher up.
            Err(_) => break,
        }
    }
    let line = text[..length].split(|byte| *byte == b'\n').next()?;
    serde_json::from_slice(line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::path::PathBuf;

    #[test]
    fn the_first_report_counts() {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).expect("pipe");
        let failure = Failure::Setup { step: "enter".to_owned(), path: PathBuf::from("/nowhere"), errno: 2 };
        write(writer.as_fd(), &Report::Failed(failure.clone()));
        write(writer.as_fd(), &Report::Ended(ExitStatus::Code(127)));
        assert_eq!(read(reader), Some(Report::Failed(failure)));
    }

    #[test]
    fn nonsense_and_silence_are_no_report() {
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).expect("pipe");
        assert_eq!(read(reader), None);
        drop(writer);
        let (reader, writer) = pipe_with(PipeFlags::NONBLOCK).expect("pipe");
        rustix::io::write(&writer, b"{\"Ended\":").expect("write");
        drop(writer);
        assert_eq!(read(reader), None);
    }
}
