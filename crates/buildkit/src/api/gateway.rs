// SPDX-License-Identifier: Apache-2.0
//! The LLBBridge service, which frontends call while a build runs.

#![expect(missing_docs, reason = "the fields are those of the protocol, under its names")]

use std::collections::BTreeMap;

use prost::{Enumeration, Message, Oneof};

pub use container::*;
pub use source::*;

mod container;
mod source;

/// The result of a frontend.
#[derive(Clone, PartialEq, Message)]
pub struct Result {
    #[prost(oneof = "ResultRefs", tags = "1, 2, 3, 4")]
    pub result: Option<ResultRefs>,
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub metadata: BTreeMap<String, Vec<u8>>,
    #[prost(btree_map = "string, message", tag = "12")]
    pub attestations: BTreeMap<String, Attestations>,
}

/// The trees of a result.
#[derive(Clone, PartialEq, Oneof)]
pub enum ResultRefs {
    #[prost(string, tag = "1")]
    RefDeprecated(String),
    #[prost(message, tag = "2")]
    RefsDeprecated(RefMapDeprecated),
    #[prost(message, tag = "3")]
    Ref(Ref),
    #[prost(message, tag = "4")]
    Refs(RefMap),
}

/// Trees by platform, in the old form.
#[derive(Clone, PartialEq, Message)]
pub struct RefMapDeprecated {
    #[prost(btree_map = "string, string", tag = "1")]
    pub refs: BTreeMap<String, String>,
}

/// A tree: an opaque name that the server minted.
#[derive(Clone, PartialEq, Message)]
pub struct Ref {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub def: Option<super::llb::Definition>,
}

/// Trees by platform.
#[derive(Clone, PartialEq, Message)]
pub struct RefMap {
    #[prost(btree_map = "string, message", tag = "1")]
    pub refs: BTreeMap<String, Ref>,
}

/// Attestations of a platform.
#[derive(Clone, PartialEq, Message)]
pub struct Attestations {
    #[prost(message, repeated, tag = "1")]
    pub attestation: Vec<Attestation>,
}

/// An attestation.
#[derive(Clone, PartialEq, Message)]
pub struct Attestation {
    #[prost(enumeration = "AttestationKind", tag = "1")]
    pub kind: i32,
    #[prost(btree_map = "string, bytes", tag = "2")]
    pub metadata: BTreeMap<String, Vec<u8>>,
    #[prost(message, optional, tag = "3")]
    pub r#ref: Option<Ref>,
    #[prost(string, tag = "4")]
    pub path: String,
    #[prost(string, tag = "5")]
    pub in_toto_predicate_type: String,
    #[prost(message, repeated, tag = "6")]
    pub in_toto_subjects: Vec<InTotoSubject>,
}

/// The kind of an attestation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum AttestationKind {
    InToto = 0,
    Bundle = 1,
}

/// The subject of an attestation.
#[derive(Clone, PartialEq, Message)]
pub struct InTotoSubject {
    #[prost(enumeration = "InTotoSubjectKind", tag = "1")]
    pub kind: i32,
    #[prost(string, repeated, tag = "2")]
    pub digest: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
}

/// The kind of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
#[repr(i32)]
pub enum InTotoSubjectKind {
    Itself = 0,
    Raw = 1,
}

/// Ends a build with a result or an error.
#[derive(Clone, PartialEq, Message)]
pub struct ReturnRequest {
    #[prost(message, optional, tag = "1")]
    pub result: Option<Result>,
    #[prost(message, optional, tag = "2")]
    pub error: Option<super::rpc::Status>,
}

/// The end of a build was taken.
#[derive(Clone, PartialEq, Message)]
pub struct ReturnResponse {}

/// Asks for the frontend's inputs.
#[derive(Clone, PartialEq, Message)]
pub struct InputsRequest {}

/// The frontend's inputs.
#[derive(Clone, PartialEq, Message)]
pub struct InputsResponse {
    #[prost(btree_map = "string, message", tag = "1")]
    pub definitions: BTreeMap<String, super::llb::Definition>,
}

/// Asks for a frontend's or a graph's result within a build.
#[derive(Clone, PartialEq, Message)]
pub struct SolveRequest {
    #[prost(message, optional, tag = "1")]
    pub definition: Option<super::llb::Definition>,
    #[prost(string, tag = "2")]
    pub frontend: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub frontend_opt: BTreeMap<String, String>,
    #[prost(bool, tag = "5")]
    pub allow_result_return: bool,
    #[prost(bool, tag = "6")]
    pub allow_result_array_ref: bool,
    #[prost(bool, tag = "10")]
    pub r#final: bool,
    #[prost(bytes = "vec", tag = "11")]
    pub exporter_attr: Vec<u8>,
    #[prost(message, repeated, tag = "12")]
    pub cache_imports: Vec<CacheOptionsEntry>,
    #[prost(btree_map = "string, message", tag = "13")]
    pub frontend_inputs: BTreeMap<String, super::llb::Definition>,
    #[prost(bool, tag = "14")]
    pub evaluate: bool,
    #[prost(message, repeated, tag = "15")]
    pub source_policies: Vec<super::policy::Policy>,
}

/// A place that cache comes from.
#[derive(Clone, PartialEq, Message)]
pub struct CacheOptionsEntry {
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub attrs: BTreeMap<String, String>,
}

/// A result within a build.
#[derive(Clone, PartialEq, Message)]
pub struct SolveResponse {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(message, optional, tag = "3")]
    pub result: Option<Result>,
}

/// Asks for a file of a tree.
#[derive(Clone, PartialEq, Message)]
pub struct ReadFileRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(string, tag = "2")]
    pub file_path: String,
    #[prost(message, optional, tag = "3")]
    pub range: Option<FileRange>,
    #[prost(int32, tag = "4")]
    pub mount_index: i32,
}

/// A part of a file.
#[derive(Clone, PartialEq, Message)]
pub struct FileRange {
    #[prost(int64, tag = "1")]
    pub offset: i64,
    #[prost(int64, tag = "2")]
    pub length: i64,
}

/// A file of a tree.
#[derive(Clone, PartialEq, Message)]
pub struct ReadFileResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}

/// Asks for a directory of a tree.
#[derive(Clone, PartialEq, Message)]
pub struct ReadDirRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(string, tag = "2")]
    pub dir_path: String,
    #[prost(string, tag = "3")]
    pub include_pattern: String,
    #[prost(int32, tag = "4")]
    pub mount_index: i32,
}

/// A directory of a tree.
#[derive(Clone, PartialEq, Message)]
pub struct ReadDirResponse {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<super::fsutil::Stat>,
}

/// Asks what a path of a tree is.
#[derive(Clone, PartialEq, Message)]
pub struct StatFileRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(string, tag = "2")]
    pub path: String,
    #[prost(int32, tag = "3")]
    pub mount_index: i32,
}

/// What a path of a tree is.
#[derive(Clone, PartialEq, Message)]
pub struct StatFileResponse {
    #[prost(message, optional, tag = "1")]
    pub stat: Option<super::fsutil::Stat>,
}

/// Asks for a tree to be made now.
#[derive(Clone, PartialEq, Message)]
pub struct EvaluateRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
}

/// A tree has been made.
#[derive(Clone, PartialEq, Message)]
pub struct EvaluateResponse {}

/// Asks what the server can do.
#[derive(Clone, PartialEq, Message)]
pub struct PingRequest {}

/// What the server can do.
#[derive(Clone, PartialEq, Message)]
pub struct PongResponse {
    #[prost(message, repeated, tag = "1")]
    pub frontend_api_caps: Vec<super::caps::APICap>,
    #[prost(message, repeated, tag = "2")]
    pub llb_caps: Vec<super::caps::APICap>,
    #[prost(message, repeated, tag = "3")]
    pub workers: Vec<super::worker::WorkerRecord>,
}

/// A frontend's warning.
#[derive(Clone, PartialEq, Message)]
pub struct WarnRequest {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(int64, tag = "2")]
    pub level: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub short: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub detail: Vec<Vec<u8>>,
    #[prost(string, tag = "5")]
    pub url: String,
    #[prost(message, optional, tag = "6")]
    pub info: Option<super::llb::SourceInfo>,
    #[prost(message, repeated, tag = "7")]
    pub ranges: Vec<super::llb::Range>,
}

/// A warning was taken.
#[derive(Clone, PartialEq, Message)]
pub struct WarnResponse {}
