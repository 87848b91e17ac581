// SPDX-License-Identifier: Apache-2.0
//! The polyarch command: arguments in, text and exit codes out.
//!
//! This is the only room that reads the environment, the home directory and the terminal; it passes
//! what it finds to the other rooms as values. Each subcommand is one file in [`commands`]; progress is
//! rendered in [`progress`]; every failure becomes text and an exit code in [`error`].

// The types of builds' futures are deep.
#![recursion_limit = "256"]

pub mod builders;
pub mod commands;
pub mod config;
mod credential_files;
pub mod engine;
pub mod environment;
pub mod error;
pub mod image_list;
pub mod inspection;
pub mod node_server;
pub mod panics;
pub mod past;
pub mod printer;
pub mod progress;
pub mod reference;
pub mod session;
pub mod template;
mod terminal_prompt;
pub mod transfer;
pub mod visible_text;

pub use environment::Environment;
pub use error::{CommandError, ExitCode};
