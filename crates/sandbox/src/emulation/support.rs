// SPDX-License-Identifier: Apache-2.0
//! The decision, per platform, between native, privately emulated, emulated by the host, and not at all.

use std::path::{Path, PathBuf};

use polyarch_oci::Platform;
use serde::{Deserialize, Serialize};

use super::Emulator;

/// Says where emulators and the host's handlers are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmulationConfig {
    /// Directories that the user named for emulators; they win over `path_dirs`.
    pub directories: Vec<PathBuf>,
    /// The directories of the caller's search path.
    pub path_dirs: Vec<PathBuf>,
    /// The host's binfmt_misc, usually `/proc/sys/fs/binfmt_misc`; only read.
    pub host_binfmt: PathBuf,
    /// A private directory on this machine where a copy of a dynamically linked QEMU may be put.
    pub state: PathBuf,
    /// Whether a private binfmt_misc may be made: true only in a user namespace of our own.
    ///
    /// Even then the initial user namespace is recognised and left alone.
    pub is_private_allowed: bool,
}

/// Tells how programs of a platform run on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    /// The processor runs them itself.
    Native,
    /// QEMU runs them, registered for this user namespace only.
    Private {
        /// The emulator.
        emulator: Emulator,
    },
    /// A handler of the host runs them.
    HostHandler {
        /// The name of its entry in the host's binfmt_misc.
        name: String,
        /// The interpreter of that entry.
        interpreter: PathBuf,
    },
    /// They can't run.
    None {
        /// What is missing or what went wrong.
        reason: String,
        /// What mends it: a command, or advice where no command does.
        fix: String,
    },
}

/// Runs programs of foreign platforms in this user namespace; see the module's documentation.
#[derive(Debug)]
pub struct Emulation {
    config: EmulationConfig,
}

impl Emulation {
    /// Takes the configuration; looks at nothing yet, so a purely native build pays nothing.
    pub fn prepare(config: EmulationConfig) -> Emulation {
        Emulation { config }
    }

    /// Finds out how each of the platforms runs, in their order, and registers what they need.
    ///
    /// Ask for all platforms of a build in one call: the probes run at the same time, and the choice
    /// between a private instance and the host's handlers is made for all of them. Answers are kept, asking
    /// again is cheap.
    pub fn support(&mut self, platforms: &[Platform]) -> Vec<Support> {
        platforms
            .iter()
            .map(|platform| {
                if *platform == Platform::host() {
                    Support::Native
                } else {
                    Support::None {
                        reason: format!("{platform} can't run here yet"),
                        fix: self.config.state.display().to_string(),
                    }
                }
            })
            .collect()
    }

    /// Returns the directory that every container must see read-only below its `/dev`, if one is needed:
    /// the source on this machine and the target path in the container.
    ///
    /// It carries the loader and libraries of a dynamically linked QEMU, which the kernel looks up inside
    /// the container. Only meaningful after [`Emulation::support`].
    pub fn dev_bind(&self) -> Option<(&Path, &'static str)> {
        None
    }
}
