// SPDX-License-Identifier: Apache-2.0
//! The LLBBridge service, which frontends call while a build runs.

#![expect(missing_docs, reason = "the fields are those of the protocol, under its names")]

use std::collections::BTreeMap;

use prost::{Enumeration, Message, Oneof};

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

/// Asks for an image's config.
#[derive(Clone, PartialEq, Message)]
pub struct ResolveImageConfigRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(message, optional, tag = "2")]
    pub platform: Option<super::llb::Platform>,
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
    pub source_policies: Vec<super::policy::Policy>,
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
    pub source: Option<super::llb::SourceOp>,
    #[prost(message, optional, tag = "2")]
    pub platform: Option<super::llb::Platform>,
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
    pub source_policies: Vec<super::policy::Policy>,
}

/// What a source is at present.
#[derive(Clone, PartialEq, Message)]
pub struct ResolveSourceMetaResponse {
    #[prost(message, optional, tag = "1")]
    pub source: Option<super::llb::SourceOp>,
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

/// Asks for a container.
#[derive(Clone, PartialEq, Message)]
pub struct NewContainerRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<super::llb::Mount>,
    #[prost(enumeration = "super::llb::NetMode", tag = "3")]
    pub network: i32,
    #[prost(message, optional, tag = "4")]
    pub platform: Option<super::llb::Platform>,
    #[prost(message, optional, tag = "5")]
    pub constraints: Option<super::llb::WorkerConstraints>,
    #[prost(message, repeated, tag = "6")]
    pub extra_hosts: Vec<super::llb::HostIP>,
    #[prost(string, tag = "7")]
    pub hostname: String,
}

/// A container was made.
#[derive(Clone, PartialEq, Message)]
pub struct NewContainerResponse {}

/// Gives a container back.
#[derive(Clone, PartialEq, Message)]
pub struct ReleaseContainerRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
}

/// A container was given back.
#[derive(Clone, PartialEq, Message)]
pub struct ReleaseContainerResponse {}

/// A message of a process in a container.
#[derive(Clone, PartialEq, Message)]
pub struct ExecMessage {
    #[prost(string, tag = "1")]
    pub process_id: String,
    #[prost(oneof = "ExecMessageInput", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub input: Option<ExecMessageInput>,
}

/// What a message of a process says.
#[derive(Clone, PartialEq, Oneof)]
pub enum ExecMessageInput {
    #[prost(message, boxed, tag = "2")]
    Init(Box<InitMessage>),
    #[prost(message, tag = "3")]
    File(FdMessage),
    #[prost(message, tag = "4")]
    Resize(ResizeMessage),
    #[prost(message, tag = "5")]
    Started(StartedMessage),
    #[prost(message, tag = "6")]
    Exit(ExitMessage),
    #[prost(message, tag = "7")]
    Done(DoneMessage),
    #[prost(message, tag = "8")]
    Signal(SignalMessage),
}

/// Starts a process.
#[derive(Clone, PartialEq, Message)]
pub struct InitMessage {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(message, optional, tag = "2")]
    pub meta: Option<super::llb::Meta>,
    #[prost(uint32, repeated, tag = "3")]
    pub fds: Vec<u32>,
    #[prost(bool, tag = "4")]
    pub tty: bool,
    #[prost(enumeration = "super::llb::SecurityMode", tag = "5")]
    pub security: i32,
    #[prost(message, repeated, tag = "6")]
    pub secretenv: Vec<super::llb::SecretEnv>,
}

/// A process has ended.
#[derive(Clone, PartialEq, Message)]
pub struct ExitMessage {
    #[prost(uint32, tag = "1")]
    pub code: u32,
    #[prost(message, optional, tag = "2")]
    pub error: Option<super::rpc::Status>,
}

/// A process has started.
#[derive(Clone, PartialEq, Message)]
pub struct StartedMessage {}

/// Nothing more comes.
#[derive(Clone, PartialEq, Message)]
pub struct DoneMessage {}

/// Bytes of a process.
#[derive(Clone, PartialEq, Message)]
pub struct FdMessage {
    #[prost(uint32, tag = "1")]
    pub fd: u32,
    #[prost(bool, tag = "2")]
    pub eof: bool,
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
}

/// The size of a terminal.
#[derive(Clone, PartialEq, Message)]
pub struct ResizeMessage {
    #[prost(uint32, tag = "1")]
    pub rows: u32,
    #[prost(uint32, tag = "2")]
    pub cols: u32,
}

/// A signal for a process.
#[derive(Clone, PartialEq, Message)]
pub struct SignalMessage {
    #[prost(string, tag = "1")]
    pub name: String,
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
