// SPDX-License-Identifier: Apache-2.0
//! Decides how programs of each platform run on this machine, and makes them run.
//!
//! An [`Emulation`] belongs to one user namespace: the launcher creates it after it has entered the user
//! and mount namespaces of the build, asks for all target platforms at once with [`Emulation::support`],
//! and keeps it alive as long as containers run. A platform runs in the first of these ways that a really
//! executed probe confirms:
//!
//! 1. natively,
//! 2. by QEMU, registered in a binfmt_misc instance that only this user namespace sees,
//! 3. by a handler that the host has registered.
//!
//! For that the host's own binfmt_misc is read, never written. Writing it is a story of its own, told only when a
//! user asks for it: [`HostBinfmt`] and [`BinfmtDirectory`]. See `docs/emulation.md`.

pub mod arch;
pub mod binfmt;
mod binfmt_directory;
mod bundle;
mod crash;
mod elf_patch;
mod host;
mod host_registration;
mod probe;
mod qemu;
mod registration;
mod run;
mod support;

pub use arch::Architecture;
pub use binfmt::{BinfmtError, Handler, PrivateBinfmt, is_initial_user_namespace};
pub use binfmt_directory::{BinfmtDirectory, Origin};
pub use crash::describe_crash;
pub use host::{HostHandler, read_host_handlers};
pub use host_registration::{HostBinfmt, HostBinfmtError, Installation, entry_name};
pub use probe::{PROBE_STATUS, probe_executable};
pub use qemu::Emulator;
pub use support::{Emulation, EmulationConfig, Support};
