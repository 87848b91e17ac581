// SPDX-License-Identifier: Apache-2.0
//! Containers that a frontend starts.

#![expect(missing_docs, reason = "the fields are those of the protocol, under its names")]

use prost::{Message, Oneof};

/// Asks for a container.
#[derive(Clone, PartialEq, Message)]
pub struct NewContainerRequest {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<crate::api::llb::Mount>,
    #[prost(enumeration = "crate::api::llb::NetMode", tag = "3")]
    pub network: i32,
    #[prost(message, optional, tag = "4")]
    pub platform: Option<crate::api::llb::Platform>,
    #[prost(message, optional, tag = "5")]
    pub constraints: Option<crate::api::llb::WorkerConstraints>,
    #[prost(message, repeated, tag = "6")]
    pub extra_hosts: Vec<crate::api::llb::HostIP>,
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
    pub meta: Option<crate::api::llb::Meta>,
    #[prost(uint32, repeated, tag = "3")]
    pub fds: Vec<u32>,
    #[prost(bool, tag = "4")]
    pub tty: bool,
    #[prost(enumeration = "crate::api::llb::SecurityMode", tag = "5")]
    pub security: i32,
    #[prost(message, repeated, tag = "6")]
    pub secretenv: Vec<crate::api::llb::SecretEnv>,
}

/// A process has ended.
#[derive(Clone, PartialEq, Message)]
pub struct ExitMessage {
    #[prost(uint32, tag = "1")]
    pub code: u32,
    #[prost(message, optional, tag = "2")]
    pub error: Option<crate::api::rpc::Status>,
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
