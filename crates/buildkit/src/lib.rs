// SPDX-License-Identifier: Apache-2.0
//! BuildKit's API in both directions, so that its fleets and its clients are ours too.
//!
//! [`api`] has the messages and methods, plain structs with the protocol's field numbers;
//! [`client`] drives an unmodified `buildkitd` as a node; [`server`] is our builder in the place of one; [`session`] is what a client serves to a
//! daemon while it builds: contexts, credentials, secrets, agents, and the place results come to; [`caller`]
//! is such a session as the daemon has it; [`history`] remembers builds.
//!
//! A daemon is foreign: what it sends is capped and checked, and it sees of this machine only what a
//! session was given. Out of scope: which node builds what, and how builders are remembered.

#![recursion_limit = "256"]

pub mod api;
pub mod caller;
pub mod client;
mod error;
pub mod history;
mod method;
mod policy;
pub mod server;
pub mod session;
mod warning;

pub use error::NodeError;
pub use method::Method;
