// SPDX-License-Identifier: Apache-2.0
//! Capabilities: what the other side can do.

#![expect(missing_docs, reason = "the fields are those of the protocol, under its names")]

use prost::Message;

/// One capability.
#[derive(Clone, PartialEq, Message)]
pub struct APICap {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(bool, tag = "2")]
    pub enabled: bool,
    #[prost(bool, tag = "3")]
    pub deprecated: bool,
    #[prost(string, tag = "4")]
    pub disabled_reason: String,
    #[prost(string, tag = "5")]
    pub disabled_reason_msg: String,
    #[prost(string, tag = "6")]
    pub disabled_alternative: String,
}
