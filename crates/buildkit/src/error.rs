// SPDX-License-Identifier: Apache-2.0
//! How talking to a node fails.

use std::path::PathBuf;

use polyarch_build::{BuildError, ErrorKind};

/// Why a node did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// An endpoint makes no sense.
    #[error("{endpoint:?} is no endpoint of a node: {problem}")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A connection to another machine would be open to everybody.
    #[error(
        "a connection to {endpoint} is not protected, and whoever can reach that port can build there; \
         use certificates (cacert, cert, key), or ssh://, or say insecure=true"
    )]
    Unprotected {
        /// The endpoint.
        endpoint: String,
    },
    /// No connection came to be.
    #[error("can't connect to {endpoint}")]
    Connect {
        /// The endpoint.
        endpoint: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A node did not answer in time.
    #[error("{endpoint} did not answer within {seconds} s")]
    TimedOut {
        /// The endpoint.
        endpoint: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A node's program does not know what builds need.
    #[error("the node at {endpoint} runs BuildKit {version}, and {needed} or newer is needed; update it")]
    TooOld {
        /// The endpoint.
        endpoint: String,
        /// What it runs, `v0.9.3`, or `older than v0.11`.
        version: String,
        /// The oldest version that will do.
        needed: &'static str,
    },
    /// A certificate or key can't be used.
    #[error("can't use {}: {problem}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A call was refused.
    #[error("{what}: {message}")]
    Call {
        /// What could not be done.
        what: &'static str,
        /// gRPC's code of it.
        code: tonic::Code,
        /// What the node said.
        message: String,
    },
    /// A step or the Dockerfile failed, in the node's words.
    #[error("{message}")]
    Build {
        /// gRPC's code of it.
        code: tonic::Code,
        /// What the node said.
        message: String,
    },
    /// A node answered with something that it must not.
    #[error("the node at {endpoint} answered wrongly: {problem}")]
    Answer {
        /// The endpoint.
        endpoint: String,
        /// What is wrong.
        problem: String,
    },
}

impl NodeError {
    /// Makes an error of a call's status. One that has a source was made on this side, of a connection that
    /// broke.
    pub(crate) fn of_status(what: &'static str, status: &tonic::Status) -> NodeError {
        let is_lost = std::error::Error::source(status).is_some();
        let code = if is_lost { tonic::Code::Unavailable } else { status.code() };
        NodeError::Call { what, code, message: message_of(status) }
    }

    /// Tells whether another node may do better: the node or the way to it failed, not the work.
    pub fn is_of_node(&self) -> bool {
        match self {
            NodeError::Connect { .. } | NodeError::TimedOut { .. } => true,
            NodeError::Call { code, .. } => matches!(code, tonic::Code::Unavailable),
            NodeError::Endpoint { .. }
            | NodeError::Unprotected { .. }
            | NodeError::Certificate { .. }
            | NodeError::Build { .. }
            | NodeError::TooOld { .. }
            | NodeError::Answer { .. } => false,
        }
    }
}

impl From<NodeError> for BuildError {
    fn from(error: NodeError) -> BuildError {
        let kind = match &error {
            NodeError::Endpoint { .. } | NodeError::Unprotected { .. } | NodeError::Certificate { .. } => {
                ErrorKind::Usage
            }
            NodeError::Build { code: tonic::Code::Cancelled, .. } => ErrorKind::Cancelled,
            NodeError::Build { .. } => ErrorKind::Step,
            NodeError::Call { .. }
            | NodeError::Connect { .. }
            | NodeError::TimedOut { .. }
            | NodeError::TooOld { .. }
            | NodeError::Answer { .. } => ErrorKind::Registry,
        };
        BuildError::new(kind, chain_of(&error))
    }
}

/// Returns what a status says; one that comes from below gRPC hides its reason in its sources.
pub(crate) fn message_of(status: &tonic::Status) -> String {
    let text = status.message();
    let mut message = if text.is_empty() { status.code().description().to_owned() } else { text.to_owned() };
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let part = error.to_string();
        if !message.contains(&part) {
            message = format!("{message}: {part}");
        }
        cause = error.source();
    }
    message
}

pub(crate) use polyarch_build::error::chain_of;
