// SPDX-License-Identifier: Apache-2.0
//! The session's Auth service: credentials of registries.

#![expect(missing_docs, reason = "the fields are those of the protocol, under its names")]

use prost::Message;

/// Asks for a user and a password.
#[derive(Clone, PartialEq, Message)]
pub struct CredentialsRequest {
    #[prost(string, tag = "1")]
    pub host: String,
}

/// A user and a password; both empty when there are none.
#[derive(Clone, PartialEq, Message)]
pub struct CredentialsResponse {
    #[prost(string, tag = "1")]
    pub username: String,
    #[prost(string, tag = "2")]
    pub secret: String,
}

/// Asks the client to fetch a token.
#[derive(Clone, PartialEq, Message)]
pub struct FetchTokenRequest {
    #[prost(string, tag = "1")]
    pub client_id: String,
    #[prost(string, tag = "2")]
    pub host: String,
    #[prost(string, tag = "3")]
    pub realm: String,
    #[prost(string, tag = "4")]
    pub service: String,
    #[prost(string, repeated, tag = "5")]
    pub scopes: Vec<String>,
}

/// A token.
#[derive(Clone, PartialEq, Message)]
pub struct FetchTokenResponse {
    #[prost(string, tag = "1")]
    pub token: String,
    #[prost(int64, tag = "2")]
    pub expires_in: i64,
    #[prost(int64, tag = "3")]
    pub issued_at: i64,
}

/// Asks for the key that a client signs with.
#[derive(Clone, PartialEq, Message)]
pub struct GetTokenAuthorityRequest {
    #[prost(string, tag = "1")]
    pub host: String,
    #[prost(bytes = "vec", tag = "2")]
    pub salt: Vec<u8>,
}

/// The key that a client signs with.
#[derive(Clone, PartialEq, Message)]
pub struct GetTokenAuthorityResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub public_key: Vec<u8>,
}

/// Asks for a signature.
#[derive(Clone, PartialEq, Message)]
pub struct VerifyTokenAuthorityRequest {
    #[prost(string, tag = "1")]
    pub host: String,
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub salt: Vec<u8>,
}

/// A signature.
#[derive(Clone, PartialEq, Message)]
pub struct VerifyTokenAuthorityResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub signed: Vec<u8>,
}
