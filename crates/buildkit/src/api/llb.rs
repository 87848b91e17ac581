// SPDX-License-Identifier: Apache-2.0
//! LLB, the graph of operations that BuildKit solves.

#![expect(missing_docs, reason = "the fields are those of the protocol, under its names")]

use std::collections::BTreeMap;

use prost::{Message, Oneof};

pub use exec::*;
pub use file::*;

mod exec;
mod file;

/// A vertex of the graph; the digest of its encoded bytes is its name.
#[derive(Clone, PartialEq, Message)]
pub struct Op {
    #[prost(message, repeated, tag = "1")]
    pub inputs: Vec<Input>,
    #[prost(oneof = "OpKind", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub op: Option<OpKind>,
    #[prost(message, optional, tag = "10")]
    pub platform: Option<Platform>,
    #[prost(message, optional, tag = "11")]
    pub constraints: Option<WorkerConstraints>,
}

/// What a vertex does.
#[derive(Clone, PartialEq, Oneof)]
pub enum OpKind {
    #[prost(message, boxed, tag = "2")]
    Exec(Box<ExecOp>),
    #[prost(message, tag = "3")]
    Source(SourceOp),
    #[prost(message, tag = "4")]
    File(FileOp),
    #[prost(message, tag = "5")]
    Build(BuildOp),
    #[prost(message, tag = "6")]
    Merge(MergeOp),
    #[prost(message, tag = "7")]
    Diff(DiffOp),
    #[prost(message, tag = "8")]
    Passthrough(PassthroughOp),
}

/// A platform.
#[derive(Clone, PartialEq, Message)]
pub struct Platform {
    #[prost(string, tag = "1")]
    pub architecture: String,
    #[prost(string, tag = "2")]
    pub os: String,
    #[prost(string, tag = "3")]
    pub variant: String,
    #[prost(string, tag = "4")]
    pub os_version: String,
    #[prost(string, repeated, tag = "5")]
    pub os_features: Vec<String>,
}

/// An output of another vertex.
#[derive(Clone, PartialEq, Message)]
pub struct Input {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(int64, tag = "2")]
    pub index: i64,
}

/// Files from outside, named by a URL-like identifier.
#[derive(Clone, PartialEq, Message)]
pub struct SourceOp {
    #[prost(string, tag = "1")]
    pub identifier: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub attrs: BTreeMap<String, String>,
}

/// A build within the build.
#[derive(Clone, PartialEq, Message)]
pub struct BuildOp {
    #[prost(int64, tag = "1")]
    pub builder: i64,
    #[prost(btree_map = "string, message", tag = "2")]
    pub inputs: BTreeMap<String, BuildInput>,
    #[prost(message, optional, tag = "3")]
    pub def: Option<Definition>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub attrs: BTreeMap<String, String>,
}

/// An input of a `BuildOp`.
#[derive(Clone, PartialEq, Message)]
pub struct BuildInput {
    #[prost(int64, tag = "1")]
    pub input: i64,
}

/// What is known of a vertex without being part of its digest.
#[derive(Clone, PartialEq, Message)]
pub struct OpMetadata {
    #[prost(bool, tag = "1")]
    pub ignore_cache: bool,
    #[prost(btree_map = "string, string", tag = "2")]
    pub description: BTreeMap<String, String>,
    #[prost(message, optional, tag = "4")]
    pub export_cache: Option<ExportCache>,
    #[prost(btree_map = "string, bool", tag = "5")]
    pub caps: BTreeMap<String, bool>,
    #[prost(message, optional, tag = "6")]
    pub progress_group: Option<ProgressGroup>,
    #[prost(message, optional, tag = "7")]
    pub linux_resources: Option<LinuxResources>,
}

/// Where vertices stand in source files.
#[derive(Clone, PartialEq, Message)]
pub struct Source {
    #[prost(btree_map = "string, message", tag = "1")]
    pub locations: BTreeMap<String, Locations>,
    #[prost(message, repeated, tag = "2")]
    pub infos: Vec<SourceInfo>,
}

/// Places in source files.
#[derive(Clone, PartialEq, Message)]
pub struct Locations {
    #[prost(message, repeated, tag = "1")]
    pub locations: Vec<Location>,
}

/// A source file.
#[derive(Clone, PartialEq, Message)]
pub struct SourceInfo {
    #[prost(string, tag = "1")]
    pub filename: String,
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    pub definition: Option<Definition>,
    #[prost(string, tag = "4")]
    pub language: String,
}

/// A place in a source file.
#[derive(Clone, PartialEq, Message)]
pub struct Location {
    #[prost(int32, tag = "1")]
    pub source_index: i32,
    #[prost(message, repeated, tag = "2")]
    pub ranges: Vec<Range>,
}

/// A range of a source file.
#[derive(Clone, PartialEq, Message)]
pub struct Range {
    #[prost(message, optional, tag = "1")]
    pub start: Option<Position>,
    #[prost(message, optional, tag = "2")]
    pub end: Option<Position>,
}

/// A position in a source file; lines count from 1.
#[derive(Clone, PartialEq, Message)]
pub struct Position {
    #[prost(int32, tag = "1")]
    pub line: i32,
    #[prost(int32, tag = "2")]
    pub character: i32,
}

/// Whether a vertex's cache is exported.
#[derive(Clone, PartialEq, Message)]
pub struct ExportCache {
    #[prost(bool, tag = "1")]
    pub value: bool,
}

/// Vertices shown as one.
#[derive(Clone, PartialEq, Message)]
pub struct ProgressGroup {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(bool, tag = "3")]
    pub weak: bool,
}

/// Which workers may run a vertex.
#[derive(Clone, PartialEq, Message)]
pub struct WorkerConstraints {
    #[prost(string, repeated, tag = "1")]
    pub filter: Vec<String>,
}

/// A graph: encoded `Op`s, the last of which is the result, and what is known of them.
#[derive(Clone, PartialEq, Message)]
pub struct Definition {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub def: Vec<Vec<u8>>,
    #[prost(btree_map = "string, message", tag = "2")]
    pub metadata: BTreeMap<String, OpMetadata>,
    #[prost(message, optional, tag = "3")]
    pub source: Option<Source>,
}

/// An input of a `MergeOp`.
#[derive(Clone, PartialEq, Message)]
pub struct MergeInput {
    #[prost(int64, tag = "1")]
    pub input: i64,
}

/// Stacks trees.
#[derive(Clone, PartialEq, Message)]
pub struct MergeOp {
    #[prost(message, repeated, tag = "1")]
    pub inputs: Vec<MergeInput>,
}

/// The lower tree of a `DiffOp`.
#[derive(Clone, PartialEq, Message)]
pub struct LowerDiffInput {
    #[prost(int64, tag = "1")]
    pub input: i64,
}

/// The upper tree of a `DiffOp`.
#[derive(Clone, PartialEq, Message)]
pub struct UpperDiffInput {
    #[prost(int64, tag = "1")]
    pub input: i64,
}

/// What one tree has and another has not.
#[derive(Clone, PartialEq, Message)]
pub struct DiffOp {
    #[prost(message, optional, tag = "1")]
    pub lower: Option<LowerDiffInput>,
    #[prost(message, optional, tag = "2")]
    pub upper: Option<UpperDiffInput>,
}

/// Gives its inputs on.
#[derive(Clone, PartialEq, Message)]
pub struct PassthroughOp {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(int64, repeated, tag = "2")]
    pub outputs: Vec<i64>,
}
