// SPDX-License-Identifier: Apache-2.0
//! Finds QEMU's user-mode emulators on this machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A user-mode emulator for one architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emulator {
    /// The executable on this machine.
    pub path: PathBuf,
    /// Whether it needs no loader and no libraries.
    pub is_static: bool,
    /// What it says of itself, for example `7.2.22`; empty when it doesn't say.
    pub version: String,
}
