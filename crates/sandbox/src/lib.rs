// SPDX-License-Identifier: Apache-2.0
//! Runs one process in isolation, natively or emulated.

pub mod emulation;
pub mod seccomp;
