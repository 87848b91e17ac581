// SPDX-License-Identifier: Apache-2.0
//! gRPC's health service.

use prost::{Enumeration, Message};

/// Asks how a service is; the empty name stands for the whole server.
#[derive(Clone, PartialEq, Message)]
pub struct HealthCheckRequest {
    /// The service.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// How a service is.
#[derive(Clone, PartialEq, Message)]
pub struct HealthCheckResponse {
    /// Its state.
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}

/// The state of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum ServingStatus {
    /// Nobody knows.
    Unknown = 0,
    /// It answers.
    Serving = 1,
    /// It does not answer.
    NotServing = 2,
    /// There is no such service.
    ServiceUnknown = 3,
}
