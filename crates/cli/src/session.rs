// SPDX-License-Identifier: Apache-2.0
//! One invocation: what every command works with.

use std::path::PathBuf;

use crate::config::Settings;
use crate::engine::{Engine, Interrupts};
use crate::printer::Printer;
use crate::{CommandError, Environment};

/// What every command works with.
#[derive(Debug, Clone)]
pub struct Session {
    /// The surroundings.
    pub environment: Environment,
    /// The way to the outputs.
    pub printer: Printer,
    /// Whether what happens inside is of interest.
    pub is_debug: bool,
    /// The store's directory, when a flag names one.
    pub root: Option<PathBuf>,
}

impl Session {
    /// Reads the settings.
    ///
    /// # Errors
    /// When a file of settings can't be read or makes no sense.
    pub fn settings(&self) -> Result<Settings, CommandError> {
        Settings::load(&self.environment, self.root.as_deref())
    }

    /// Enters the user namespace and opens the store. To be called once, while there is one thread.
    ///
    /// # Errors
    /// When the machine doesn't permit it.
    pub fn open(&self, settings: &Settings) -> Result<Engine, CommandError> {
        Engine::open(&self.environment, settings, Interrupts::Stop)
    }

    /// Opens the store without a user namespace: for commands that need no file trees.
    ///
    /// # Errors
    /// When threads can't be started.
    pub fn open_for_documents(&self, settings: &Settings) -> Result<Engine, CommandError> {
        Engine::open_for_documents(&self.environment, settings)
    }

    /// The same as [`Session::open`], for a program that gets the signals; `is_tty` when it has our terminal.
    ///
    /// # Errors
    /// When the machine doesn't permit it.
    pub fn open_for_program(&self, settings: &Settings, is_tty: bool) -> Result<Engine, CommandError> {
        let interrupts = if is_tty { Interrupts::LeftToProgram } else { Interrupts::PassedOn };
        Engine::open(&self.environment, settings, interrupts)
    }

    /// Returns what a template or a document says, as it is printed: byte for byte to a program, and to a terminal only
    /// what is visible, because images may carry escape sequences.
    pub fn shown_template(&self, text: String) -> String {
        match self.environment.stdout_is_terminal {
            true => crate::visible_text::visible_text(&text),
            false => text,
        }
    }
}
