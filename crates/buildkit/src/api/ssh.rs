// SPDX-License-Identifier: Apache-2.0
//! The session's SSH service: agents, forwarded.

#![expect(missing_docs, reason = "the fields are those of the protocol, under its names")]

use prost::Message;

/// Asks whether there is an agent.
#[derive(Clone, PartialEq, Message)]
pub struct CheckAgentRequest {
    #[prost(string, tag = "1")]
    pub id: String,
}

/// There is an agent.
#[derive(Clone, PartialEq, Message)]
pub struct CheckAgentResponse {}
