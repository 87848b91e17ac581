// SPDX-License-Identifier: Apache-2.0
//! What can go wrong between a request and the exit status of its process.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Says why a sandbox could not be made or a process not be started.
///
/// A process that ran and failed is no error: it is an [`ExitStatus`](crate::ExitStatus).
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel or its configuration refuses user namespaces.
    #[error("this machine does not let {who} create a user namespace: {reason}; {fix}")]
    UserNamespace {
        /// Who asked: `root` or `uid 1000`.
        who: String,
        /// The setting that forbids it, or the kernel's answer.
        reason: String,
        /// What to run or to change.
        fix: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The user namespace stands, but its identifiers could not be mapped.
    #[error("cannot map user identifiers into the user namespace: {reason}; {fix}")]
    IdMapping {
        /// What failed.
        reason: String,
        /// What to run or to change.
        fix: String,
    },
    /// `enter` was called when the process had more than one thread.
    #[error("the user namespace must be entered before any thread is started")]
    Threads,
    /// A system call that prepares things outside of a container failed.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The launcher process could not be started.
    #[error("cannot start the launcher process {}", program.display())]
    LauncherStart {
        /// The program that was executed.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The launcher process has ended, and with it every container.
    #[error("the launcher process has ended unexpectedly; all running steps ended with it")]
    LauncherGone,
    /// The request or the answer is not what the other side speaks.
    #[error("the launcher process was sent something it does not understand: {reason}")]
    Protocol {
        /// What is wrong.
        reason: String,
    },
    /// The specification can not be run as it stands.
    #[error("invalid process specification: {reason}")]
    Specification {
        /// What is wrong with it.
        reason: String,
    },
    /// A step of setting up the container failed, before the program was started.
    #[error("cannot set up the container: {step}{}{}",
        if path.as_os_str().is_empty() { "" } else { " " }, path.display())]
    Setup {
        /// What was tried, for example `mount overlay on`.
        step: String,
        /// The path it was tried with; empty where there is none.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A mount target in the image is something that can not be mounted on.
    #[error("cannot mount on {} in the image: {reason}", target.display())]
    MountTarget {
        /// The target as the specification names it.
        target: PathBuf,
        /// What is in the way.
        reason: String,
    },
    /// The container stands, but the program could not be executed.
    #[error("{failure}")]
    Exec {
        /// Which of the ways of failing.
        failure: ExecFailure,
    },
    /// The run was cancelled; everything it had started is gone.
    #[error("cancelled")]
    Cancelled,
    /// The container's init process was killed from outside.
    #[error("the container was killed from outside (signal {signal}); is the machine out of memory?")]
    Killed {
        /// The signal that ended it.
        signal: i32,
    },
}

impl SandboxError {
    /// Makes a [`SandboxError::System`].
    pub(crate) fn system(action: &'static str, errno: Errno) -> SandboxError {
        SandboxError::System { action, source: errno.into() }
    }
}

/// Says why `execve` of a container's program failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ExecFailure {
    /// No directory of `PATH` has the program.
    #[error("exec: {program:?}: executable file not found in $PATH")]
    NotInPath {
        /// `args[0]`.
        program: String,
    },
    /// The program is named by a path and is not there.
    #[error("exec: {program:?}: no such file or directory")]
    NotFound {
        /// `args[0]`.
        program: String,
    },
    /// The file is there, but the interpreter it names (`#!` line or dynamic loader) is not.
    #[error("exec: {program:?}: the file exists, but the interpreter it asks for does not ({interpreter})")]
    InterpreterNotFound {
        /// The file that was found.
        program: String,
        /// The interpreter's path, or `unknown`.
        interpreter: String,
    },
    /// The file may not be executed.
    #[error("exec: {program:?}: permission denied")]
    PermissionDenied {
        /// The file that was found.
        program: String,
    },
    /// The kernel does not know the file's format: another architecture, or no executable at all.
    #[error("exec: {program:?}: exec format error{}", match elf_machine {
        Some(machine) => format!(" (an ELF file for machine number {machine}, which this machine cannot run)"),
        None => " (neither an ELF file nor a script with a #! line)".to_owned(),
    })]
    Format {
        /// The file that was found.
        program: String,
        /// `e_machine` of the file's ELF header; `None` when it is no readable ELF file.
        elf_machine: Option<u16>,
    },
    /// Anything else that `execve` answered.
    #[error("exec: {program:?}: {}", io::Error::from_raw_os_error(*errno))]
    Other {
        /// The file that was tried.
        program: String,
        /// The kernel's answer.
        errno: i32,
    },
}

impl ExecFailure {
    /// Returns the exit code that a shell or Docker gives for this failure: 127 or 126.
    pub fn exit_code(&self) -> i32 {
        match self {
            ExecFailure::NotInPath { .. }
            | ExecFailure::NotFound { .. }
            | ExecFailure::InterpreterNotFound { .. } => 127,
            ExecFailure::PermissionDenied { .. } | ExecFailure::Format { .. } | ExecFailure::Other { .. } => {
                126
            }
        }
    }

    /// Says whether the file was there and was of a kind that this kernel can not run.
    pub fn is_foreign(&self) -> bool {
        matches!(self, ExecFailure::Format { elf_machine: Some(_), .. })
    }
}
