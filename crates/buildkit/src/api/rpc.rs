// SPDX-License-Identifier: Apache-2.0
//! The status of a call as a message of its own (`google.rpc.Status`).

use prost::Message;

/// How a call ended.
#[derive(Clone, PartialEq, Message)]
pub struct Status {
    /// The code of gRPC.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What people read.
    #[prost(string, tag = "2")]
    pub message: String,
    /// What programs read.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<prost_types::Any>,
}
