// SPDX-License-Identifier: Apache-2.0
//! Runs one process in isolation, natively or emulated.
//!
//! The life of a sandbox:
//!
//! 1. [`user_namespace::enter`] makes this process root of a user and mount namespace of its own. It is the first
//!    thing that `main` does, while there is one thread.
//! 2. [`Launcher::start`] re-executes the program as a small, single-threaded process that forks the containers.
//! 3. [`Launcher::run`] (or [`Launcher::spawn`]) sends it a [`RootFs`] and a [`ProcessSpec`] and returns the
//!    [`ExitStatus`] of the process. Any number may run at once. Everything that a process started ends with it.
//! 4. [`emulation`] lets processes of other CPU architectures run; [`seccomp`] holds the system call filter.
//!
//! This is the only crate with `unsafe`: one system call per block. What runs inside, in which order, is told in
//! `docs/sandbox.md`.

mod cancel;
mod capabilities;
pub mod emulation;
mod error;
mod executor;
mod failure;
mod kernel;
pub mod launcher;
mod mounts;
pub mod seccomp;
pub mod user_namespace;

pub use cancel::CancelFlag;
pub use error::{ExecFailure, SandboxError};
pub use executor::{
    ExitStatus, MemoryFile, Mount, Network, ProcessSpec, Resource, RootFs, RootFsKind, Security, Stdio,
    Ulimit,
};
pub use launcher::{Launcher, LauncherOptions, RunHandle};
pub use user_namespace::IdMapping;
