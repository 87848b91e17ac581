// SPDX-License-Identifier: Apache-2.0
//! Failures as they travel from a container's processes through the launcher to the builder.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::launcher::bytes;
use crate::{ExecFailure, SandboxError};

/// What went wrong before the program ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// A system call failed.
    Setup {
        /// What was tried, so that the path can follow it: `mount proc on`.
        step: String,
        /// The path, or empty.
        #[serde(with = "bytes::path")]
        path: PathBuf,
        /// The kernel's answer.
        errno: i32,
    },
    /// A mount target is unsuitable.
    MountTarget {
        /// As the specification names it.
        #[serde(with = "bytes::path")]
        target: PathBuf,
        /// What is in the way.
        reason: String,
    },
    /// The specification can not be run.
    Specification {
        /// What is wrong.
        reason: String,
    },
    /// `execve` failed.
    Exec(ExecFailure),
}

impl From<Failure> for SandboxError {
    fn from(failure: Failure) -> SandboxError {
        match failure {
            Failure::Setup { step, path, errno } => {
                SandboxError::Setup { step, path, source: io::Error::from_raw_os_error(errno) }
            }
            Failure::MountTarget { target, reason } => SandboxError::MountTarget { target, reason },
            Failure::Specification { reason } => SandboxError::Specification { reason },
            Failure::Exec(failure) => SandboxError::Exec { failure },
        }
    }
}

/// Names the step that a system call belongs to.
pub(crate) trait Step<T> {
    /// Names the step.
    fn step(self, step: &str) -> Result<T, Failure>;
    /// Names the step and the path that it was tried with.
    fn at(self, step: &str, path: impl AsRef<Path>) -> Result<T, Failure>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, step: &str) -> Result<T, Failure> {
        self.at(step, "")
    }

    fn at(self, step: &str, path: impl AsRef<Path>) -> Result<T, Failure> {
        self.map_err(|errno| Failure::Setup {
            step: step.to_owned(),
            path: path.as_ref().to_owned(),
            errno: errno.raw_os_error(),
        })
    }
}
