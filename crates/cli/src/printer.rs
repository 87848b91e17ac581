// SPDX-License-Identifier: Apache-2.0
//! The one way to standard output and standard error.
//!
//! Data goes to standard output, everything else to standard error. A reader that went away (`| head`)
//! is no error: what is written after that is dropped.

use std::io::{ErrorKind, Write};

use crate::error::CommandError;

/// Writes data and messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Printer;

impl Printer {
    /// Writes data to standard output, as it is.
    ///
    /// # Errors
    /// When the output can't be written, for example because the disk is full.
    pub fn data(self, text: &str) -> Result<(), CommandError> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(CommandError::io("can't write to", "standard output", &error))
            }
            _ => Ok(()),
        }
    }

    /// Writes a message to standard error, as it is; nobody can be told when that fails.
    pub fn message(self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }

    /// Writes a warning to standard error.
    pub fn warning(self, text: &str) {
        self.message(&format!("WARNING: {}\n", crate::visible_text::visible_text(text)));
    }
}
