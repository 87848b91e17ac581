// SPDX-License-Identifier: Apache-2.0
//! A child that stays outside of the new user namespace and maps its identifiers from there.
//!
//! Only a process of the parent namespace may write more than one line into `uid_map`. So the child is forked first,
//! waits until its parent has unshared, and then writes the map (when root) or runs `newuidmap` and `newgidmap`.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::SandboxError;
use crate::kernel;

/// What the child does once it is told to.
#[derive(Debug, Clone)]
pub(super) enum HelperPlan {
    /// Writes the maps itself.
    Write {
        /// The content of `uid_map`.
        uid_map: String,
        /// The content of `gid_map`.
        gid_map: String,
    },
    /// Runs the setuid programs.
    Commands {
        /// The program and its arguments after the process identifier.
        newuidmap: (PathBuf, Vec<String>),
        /// The program and its arguments after the process identifier.
        newgidmap: (PathBuf, Vec<String>),
    },
}

/// Says that the child could not do its work.
#[derive(Debug)]
pub(super) struct HelperFailure {
    /// Whether no map has been written yet, so that another way may be tried.
    pub(super) is_untouched: bool,
    /// What failed.
    pub(super) reason: String,
}

/// The waiting child.
#[derive(Debug)]
pub(super) struct Helper {
    child: Pid,
    go: OwnedFd,
    result: OwnedFd,
}

impl Helper {
    /// Forks the child. `process` is the one whose identifiers it will map.
    pub(super) fn start(plan: HelperPlan, process: Pid) -> Result<Helper, SandboxError> {
        let pipe =
            || pipe_with(PipeFlags::CLOEXEC).map_err(|errno| SandboxError::system("make a pipe", errno));
        let (go_read, go) = pipe()?;
        let (result, result_write) = pipe()?;
        let child = kernel::fork().map_err(|errno| SandboxError::system("fork", errno))?;
        let Some(child) = child else {
            drop((go, result));
            serve(plan, process, go_read, result_write);
        };
        Ok(Helper { child, go, result })
    }

    /// Lets the child do its work and waits for it.
    pub(super) fn apply(self) -> Result<(), HelperFailure> {
        let Helper { child, go, result } = self;
        let lost = |reason: String| HelperFailure { is_untouched: false, reason };
        std::fs::File::from(go)
            .write_all(b"g")
            .map_err(|error| lost(format!("the helper is gone: {error}")))?;
        let mut answer = String::new();
        let read = std::fs::File::from(result).take(64 << 10).read_to_string(&mut answer);
        let _ = waitpid(Some(child), WaitOptions::empty());
        read.map_err(|error| lost(format!("the helper's answer is unreadable: {error}")))?;
        match answer.split_at_checked(1) {
            Some(("=", _)) => Ok(()),
            Some(("u", reason)) => Err(HelperFailure { is_untouched: true, reason: reason.to_owned() }),
            Some(("t", reason)) => Err(lost(reason.to_owned())),
            _ => Err(lost("the helper ended without an answer".to_owned())),
        }
    }

    /// Ends the child without any work done.
    pub(super) fn dismiss(self) {
        drop(self.go);
        let _ = waitpid(Some(self.child), WaitOptions::empty());
    }
}

/// The child's whole life.
fn serve(plan: HelperPlan, process: Pid, go: OwnedFd, result: OwnedFd) -> ! {
    let mut byte = [0u8; 1];
    let answer = match std::fs::File::from(go).read(&mut byte) {
        Ok(1) => match map(plan, process) {
            Ok(()) => "=".to_owned(),
            Err(HelperFailure { is_untouched: true, reason }) => format!("u{reason}"),
            Err(HelperFailure { is_untouched: false, reason }) => format!("t{reason}"),
        },
        _ => kernel::exit_now(0),
    };
    let _ = std::fs::File::from(result).write_all(answer.as_bytes());
    kernel::exit_now(0)
}

fn map(plan: HelperPlan, process: Pid) -> Result<(), HelperFailure> {
    let process = process.as_raw_nonzero().to_string();
    match plan {
        HelperPlan::Write { uid_map, gid_map } => {
            let write = |file: &str, text: &str| {
                let path = format!("/proc/{process}/{file}");
                std::fs::write(&path, text).map_err(|error| HelperFailure {
                    is_untouched: false,
                    reason: format!("{path}: {error}"),
                })
            };
            write("uid_map", &uid_map)?;
            write("gid_map", &gid_map)
        }
        HelperPlan::Commands { newuidmap, newgidmap } => {
            run(newuidmap, &process).map_err(|reason| HelperFailure { is_untouched: true, reason })?;
            run(newgidmap, &process).map_err(|reason| HelperFailure { is_untouched: false, reason })
        }
    }
}

fn run((program, arguments): (PathBuf, Vec<String>), process: &str) -> Result<(), String> {
    let output = Command::new(&program)
        .arg(process)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} failed ({}): {}", program.display(), output.status, said.trim()))
}
