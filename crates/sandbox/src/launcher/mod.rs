// SPDX-License-Identifier: Apache-2.0
//! A small process that forks the containers, and the builder's side of the connection to it.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::{CancelFlag, ExitStatus, ProcessSpec, RootFs, SandboxError, Stdio};

pub(crate) mod bytes;

/// The first argument that makes the program a launcher: `main` must call [`main`] when it sees it.
pub const ARGUMENT: &str = "polyarch-launcher";

/// How to start a launcher.
#[derive(Debug, Clone)]
pub struct LauncherOptions {
    /// The program to execute with [`ARGUMENT`]: `/proc/self/exe`, except in tests.
    pub program: PathBuf,
    /// A directory of the caller's for the launcher alone, on the same file system as the layers; made if missing.
    ///
    /// It gets a few empty directories (`skeleton*`, `root`) that are the same each time and may stay or be removed
    /// while no launcher runs.
    pub scratch_directory: PathBuf,
}

/// The builder's end of the launcher process. Dropping it ends the process and every container.
///
/// Shared between threads by reference: any number of runs may be under way.
#[derive(Debug)]
pub struct Launcher {}

impl Launcher {
    /// Starts the launcher process.
    ///
    /// Call it after [`user_namespace::enter`](crate::user_namespace::enter), best before anything large is
    /// allocated. The process ends by itself when this one dies, however that happens.
    pub fn start(options: LauncherOptions) -> Result<Launcher, SandboxError> {
        let _ = options;
        Ok(Launcher {})
    }

    /// Runs a process and waits for its end.
    ///
    /// When it returns, no process of the container is left and nothing of it is mounted. Blocks the thread.
    pub fn run(
        &self,
        root: &RootFs,
        spec: &ProcessSpec,
        stdio: Stdio,
        cancel: &CancelFlag,
    ) -> Result<ExitStatus, SandboxError> {
        self.spawn(root, spec, stdio)?.wait(cancel)
    }

    /// Starts a process and returns at once.
    pub fn spawn(&self, root: &RootFs, spec: &ProcessSpec, stdio: Stdio) -> Result<RunHandle, SandboxError> {
        let _ = (root, spec, stdio);
        Err(SandboxError::LauncherGone)
    }
}

/// A running container. Dropping it kills the container without waiting.
#[derive(Debug)]
pub struct RunHandle {}

impl RunHandle {
    /// Waits for the end of the process.
    ///
    /// On cancellation the container is killed, its end is awaited, and [`SandboxError::Cancelled`] is returned.
    pub fn wait(self, cancel: &CancelFlag) -> Result<ExitStatus, SandboxError> {
        let _ = cancel;
        Err(SandboxError::LauncherGone)
    }

    /// Sends a signal to the container's process; that it has ended already is no error.
    pub fn signal(&self, signal: i32) -> Result<(), SandboxError> {
        let _ = signal;
        Ok(())
    }

    /// Kills the container with everything in it. [`RunHandle::wait`] then returns [`SandboxError::Cancelled`].
    pub fn kill(&self) -> Result<(), SandboxError> {
        Ok(())
    }
}

/// The whole of the launcher process: serves requests until the builder is gone.
///
/// Standard input is the connection. Never returns in the containers' processes.
pub fn main() -> ExitCode {
    ExitCode::FAILURE
}
