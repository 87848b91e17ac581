// SPDX-License-Identifier: Apache-2.0
//! What a frontend asks about sources before it builds on them.

#![expect(missing_docs, reason = "the fields are those of the protocol, under its names")]

use std::collections::BTreeMap;

use prost::{Enumeration, Message};

/// Asks for an image's config.
#[derive(Clone, PartialEq, Message)]
pub struct ResolveImageConfigRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(message, optional, tag = "2")]
    pub platform: Option<crate::api::llb::Platform>,
    #[prost(string, tag = "3")]
    pub resolve_mode: String,
    #[prost(string, tag = "4")]
    pub log_name: String,
    #[prost(int32, tag = "5")]
    pub resolver_type: i32,
    #[prost(string, tag = "6")]
    pub session_id: String,
    #[prost(string, tag = "7")]
    pub store_id: String,
    #[prost(message, repeated, tag = "8")]
    pub source_policies: Vec<crate::api::policy::Policy>,
}

/// An image's config.
#[derive(Clone, PartialEq, Message)]
pub struct ResolveImageConfigResponse {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(bytes = "vec", tag = "2")]
    pub config: Vec<u8>,
    #[prost(string, tag = "3")]
    pub r#ref: String,
}

/// Asks what a source is at present.
#[derive(Clone, PartialEq, Message)]
pub struct ResolveSourceMetaRequest {
    #[prost(message, optional, tag = "1")]
    pub source: Option<crate::api::llb::SourceOp>,
    #[prost(message, optional, tag = "2")]
    pub platform: Option<crate::api::llb::Platform>,
    #[prost(string, tag = "3")]
    pub log_name: String,
    #[prost(string, tag = "4")]
    pub resolve_mode: String,
    #[prost(message, optional, tag = "5")]
    pub git: Option<ResolveSourceGitRequest>,
    #[prost(message, optional, tag = "6")]
    pub image: Option<ResolveSourceImageRequest>,
    #[prost(message, optional, tag = "7")]
    pub http: Option<ResolveSourceHTTPRequest>,
    #[prost(message, repeated, tag = "8")]
    pub source_policies: Vec<crate::api::policy::Policy>,
}

/// What a source is at present.
#[derive(Clone, PartialEq, Message)]
pub struct ResolveSourceMetaResponse {
    #[prost(message, optional, tag = "1")]
    pub source: Option<crate::api::llb::SourceOp>,
    #[prost(message, optional, tag = "2")]
    pub image: Option<ResolveSourceImageResponse>,
    #[prost(message, optional, tag = "3")]
    pub git: Option<ResolveSourceGitResponse>,
    #[prost(message, optional, tag = "4")]
    pub http: Option<ResolveSourceHTTPResponse>,
}

/// What to tell of an image.
#[derive(Clone, PartialEq, Message)]
pub struct ResolveSourceImageRequest {
    #[prost(bool, tag = "1")]
    pub no_config: bool,
    #[prost(bool, tag = "2")]
    pub attestation_chain: bool,
    #[prost(string, repeated, tag = "3")]
    pub resolve_attestations: Vec<String>,
}

/// The documents that attest an image.
#[derive(Clone, PartialEq, Message)]
pub struct AttestationChain {
    #[prost(string, tag = "1")]
    pub root: String,
    #[prost(string, tag = "2")]
    pub image_manifest: String,
    #[prost(string, tag = "3")]
    pub attestation_manifest: String,
    #[prost(string, repeated, tag = "4")]
    pub signature_manifests: Vec<String>,
    #[prost(btree_map = "string, message", tag = "5")]
    pub blobs: BTreeMap<String, Blob>,
}

/// What an image is.
#[derive(Clone, PartialEq, Message)]
pub struct ResolveSourceImageResponse {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(bytes = "vec", tag = "2")]
    pub config: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub attestation_chain: Option<AttestationChain>,
}

/// What to tell of a git source.
#[derive(Clone, PartialEq, Message)]
pub struct ResolveSourceGitRequest {
    #[prost(bool, tag = "1")]
    pub return_object: bool,
}

/// What a git source is.
#[derive(Clone, PartialEq, Message)]
pub struct ResolveSourceGitResponse {
    #[prost(string, tag = "1")]
    pub checksum: String,
    #[prost(string, tag = "2")]
    pub r#ref: String,
    #[prost(string, tag = "3")]
    pub commit_checksum: String,
    #[prost(bytes = "vec", tag = "4")]
    pub commit_object: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub tag_object: Vec<u8>,
}

/// What a file behind a URL is.
#[derive(Clone, PartialEq, Message)]
pub struct ResolveSourceHTTPResponse {
    #[prost(string, tag = "1")]
    pub checksum: String,
    #[prost(string, tag = "2")]
    pub filename: String,
    #[prost(message, optional, tag = "3")]
    pub last_modified: Option<prost_types::Timestamp>,
    #[prost(message, optional, tag = "4")]
    pub checksum_response: Option<ChecksumResponse>,
}

/// What to tell of a file behind a URL.
#[derive(Clone, PartialEq, Message)]
pub struct ResolveSourceHTTPRequest {
    #[prost(message, optional, tag = "1")]
    pub checksum_request: Option<ChecksumRequest>,
}

/// An algorithm of checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum ChecksumAlgo {
    Sha256 = 0,
    Sha384 = 1,
    Sha512 = 2,
}

/// Asks for a checksum.
#[derive(Clone, PartialEq, Message)]
pub struct ChecksumRequest {
    #[prost(enumeration = "ChecksumAlgo", tag = "1")]
    pub algo: i32,
    #[prost(bytes = "vec", tag = "2")]
    pub suffix: Vec<u8>,
}

/// A checksum.
#[derive(Clone, PartialEq, Message)]
pub struct ChecksumResponse {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(bytes = "vec", tag = "2")]
    pub suffix: Vec<u8>,
}

/// A blob with its bytes.
#[derive(Clone, PartialEq, Message)]
pub struct Blob {
    #[prost(message, optional, tag = "1")]
    pub descriptor: Option<Descriptor>,
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
}

/// What a blob is.
#[derive(Clone, PartialEq, Message)]
pub struct Descriptor {
    #[prost(string, tag = "1")]
    pub media_type: String,
    #[prost(string, tag = "2")]
    pub digest: String,
    #[prost(int64, tag = "3")]
    pub size: i64,
    #[prost(btree_map = "string, string", tag = "5")]
    pub annotations: BTreeMap<String, String>,
}
