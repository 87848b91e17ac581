// SPDX-License-Identifier: Apache-2.0
//! The messages of BuildKit's API by package, and its methods.
//!
//! Facts of an interface: names, field numbers and paths are BuildKit's (v0.32), so that unmodified
//! programs understand them. Unknown fields are dropped, as protobuf has it.

pub mod auth;
pub mod caps;
pub mod content;
pub mod control;
pub mod fsutil;
pub mod gateway;
pub mod health;
pub mod llb;
pub mod methods;
pub mod policy;
pub mod rpc;
pub mod secrets;
pub mod ssh;
pub mod worker;

/// The largest message that is read, in bytes; BuildKit's own limit.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// The largest piece of a stream of bytes that is sent, in bytes; some peers take only 4 MiB at a time.
pub const MAX_CHUNK_BYTES: usize = 3 << 20;
