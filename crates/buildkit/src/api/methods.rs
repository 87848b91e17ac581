// SPDX-License-Identifier: Apache-2.0
//! The methods of every service, each with its path and its messages.

use crate::Method;
use crate::api::control::BytesMessage;
use crate::api::fsutil::Packet;
use crate::api::{auth, content, control, gateway, health, secrets, ssh};

/// `moby.buildkit.v1.Control`: what a client asks of a daemon.
pub mod daemon {
    use super::*;

    /// What the cache holds.
    pub const DISK_USAGE: Method<control::DiskUsageRequest, control::DiskUsageResponse> =
        Method::new("/moby.buildkit.v1.Control/DiskUsage");
    /// Removes cache; each record that goes is answered.
    pub const PRUNE: Method<control::PruneRequest, control::UsageRecord> =
        Method::new("/moby.buildkit.v1.Control/Prune");
    /// Builds; returns when the build has ended.
    pub const SOLVE: Method<control::SolveRequest, control::SolveResponse> =
        Method::new("/moby.buildkit.v1.Control/Solve");
    /// The progress of a build, until it ends.
    pub const STATUS: Method<control::StatusRequest, control::StatusResponse> =
        Method::new("/moby.buildkit.v1.Control/Status");
    /// Offers the client's services through a stream of bytes.
    pub const SESSION: Method<BytesMessage, BytesMessage> = Method::new("/moby.buildkit.v1.Control/Session");
    /// The workers.
    pub const LIST_WORKERS: Method<control::ListWorkersRequest, control::ListWorkersResponse> =
        Method::new("/moby.buildkit.v1.Control/ListWorkers");
    /// What program the daemon is.
    pub const INFO: Method<control::InfoRequest, control::InfoResponse> =
        Method::new("/moby.buildkit.v1.Control/Info");
    /// The records of builds.
    pub const LISTEN_BUILD_HISTORY: Method<control::BuildHistoryRequest, control::BuildHistoryEvent> =
        Method::new("/moby.buildkit.v1.Control/ListenBuildHistory");
    /// Changes a record of a build.
    pub const UPDATE_BUILD_HISTORY: Method<
        control::UpdateBuildHistoryRequest,
        control::UpdateBuildHistoryResponse,
    > = Method::new("/moby.buildkit.v1.Control/UpdateBuildHistory");
}

/// `moby.buildkit.v1.frontend.LLBBridge`: what a frontend asks of a daemon while it builds.
pub mod bridge {
    use super::*;

    /// What the daemon can do.
    pub const PING: Method<gateway::PingRequest, gateway::PongResponse> =
        Method::new("/moby.buildkit.v1.frontend.LLBBridge/Ping");
    /// Solves a graph or runs another frontend.
    pub const SOLVE: Method<gateway::SolveRequest, gateway::SolveResponse> =
        Method::new("/moby.buildkit.v1.frontend.LLBBridge/Solve");
    /// Ends the build.
    pub const RETURN: Method<gateway::ReturnRequest, gateway::ReturnResponse> =
        Method::new("/moby.buildkit.v1.frontend.LLBBridge/Return");
    /// The frontend's inputs.
    pub const INPUTS: Method<gateway::InputsRequest, gateway::InputsResponse> =
        Method::new("/moby.buildkit.v1.frontend.LLBBridge/Inputs");
    /// An image's config.
    pub const RESOLVE_IMAGE_CONFIG: Method<
        gateway::ResolveImageConfigRequest,
        gateway::ResolveImageConfigResponse,
    > = Method::new("/moby.buildkit.v1.frontend.LLBBridge/ResolveImageConfig");
    /// What a source is at present.
    pub const RESOLVE_SOURCE_META: Method<
        gateway::ResolveSourceMetaRequest,
        gateway::ResolveSourceMetaResponse,
    > = Method::new("/moby.buildkit.v1.frontend.LLBBridge/ResolveSourceMeta");
    /// A file of a tree.
    pub const READ_FILE: Method<gateway::ReadFileRequest, gateway::ReadFileResponse> =
        Method::new("/moby.buildkit.v1.frontend.LLBBridge/ReadFile");
    /// A directory of a tree.
    pub const READ_DIR: Method<gateway::ReadDirRequest, gateway::ReadDirResponse> =
        Method::new("/moby.buildkit.v1.frontend.LLBBridge/ReadDir");
    /// What a path of a tree is.
    pub const STAT_FILE: Method<gateway::StatFileRequest, gateway::StatFileResponse> =
        Method::new("/moby.buildkit.v1.frontend.LLBBridge/StatFile");
    /// Makes a tree now.
    pub const EVALUATE: Method<gateway::EvaluateRequest, gateway::EvaluateResponse> =
        Method::new("/moby.buildkit.v1.frontend.LLBBridge/Evaluate");
    /// Warns.
    pub const WARN: Method<gateway::WarnRequest, gateway::WarnResponse> =
        Method::new("/moby.buildkit.v1.frontend.LLBBridge/Warn");
}

/// What a daemon asks of a client, through its session.
pub mod client {
    use super::*;

    /// Sends the files of a directory.
    pub const FILE_SYNC: Method<Packet, Packet> = Method::new("/moby.filesync.v1.FileSync/DiffCopy");
    /// Takes an export as a stream of bytes.
    pub const FILE_SEND: Method<BytesMessage, BytesMessage> =
        Method::new("/moby.filesync.v1.FileSend/DiffCopy");
    /// Takes an export as files: the same path, with the packets of a file transfer.
    pub const FILE_SEND_PACKETS: Method<Packet, Packet> = Method::new("/moby.filesync.v1.FileSend/DiffCopy");
    /// A user and a password for a registry.
    pub const CREDENTIALS: Method<auth::CredentialsRequest, auth::CredentialsResponse> =
        Method::new("/moby.filesync.v1.Auth/Credentials");
    /// Whether the client fetches the tokens of a registry.
    pub const TOKEN_AUTHORITY: Method<auth::GetTokenAuthorityRequest, auth::GetTokenAuthorityResponse> =
        Method::new("/moby.filesync.v1.Auth/GetTokenAuthority");
    /// A token that the client fetches, so that its password stays with it.
    pub const FETCH_TOKEN: Method<auth::FetchTokenRequest, auth::FetchTokenResponse> =
        Method::new("/moby.filesync.v1.Auth/FetchToken");
    /// A secret.
    pub const GET_SECRET: Method<secrets::GetSecretRequest, secrets::GetSecretResponse> =
        Method::new("/moby.buildkit.secrets.v1.Secrets/GetSecret");
    /// Whether there is an agent.
    pub const CHECK_AGENT: Method<ssh::CheckAgentRequest, ssh::CheckAgentResponse> =
        Method::new("/moby.sshforward.v1.SSH/CheckAgent");
    /// A connection to an agent.
    pub const FORWARD_AGENT: Method<BytesMessage, BytesMessage> =
        Method::new("/moby.sshforward.v1.SSH/ForwardAgent");
    /// A stream that the client has, such as an archive on its standard input.
    pub const UPLOAD: Method<BytesMessage, BytesMessage> = Method::new("/moby.upload.v1.Upload/Pull");
    /// What is known of a blob.
    pub const CONTENT_INFO: Method<content::InfoRequest, content::InfoResponse> =
        Method::new("/containerd.services.content.v1.Content/Info");
    /// A blob's bytes.
    pub const CONTENT_READ: Method<content::ReadContentRequest, content::ReadContentResponse> =
        Method::new("/containerd.services.content.v1.Content/Read");
    /// Writes a blob.
    pub const CONTENT_WRITE: Method<content::WriteContentRequest, content::WriteContentResponse> =
        Method::new("/containerd.services.content.v1.Content/Write");
    /// Whether the other side is alive.
    pub const HEALTH_CHECK: Method<health::HealthCheckRequest, health::HealthCheckResponse> =
        Method::new("/grpc.health.v1.Health/Check");
}
