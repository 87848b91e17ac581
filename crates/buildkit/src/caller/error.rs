// SPDX-License-Identifier: Apache-2.0
//! How asking a client fails.

use std::path::PathBuf;

use polyarch_build::{BuildError, ErrorKind};
use tonic::{Code, Status};

use crate::error::{chain_of, message_of};

/// Why a client did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// No such session came.
    #[error("no active session for {id}: the client has not opened it, or it has ended")]
    NoSession {
        /// The session's id as the build has it.
        id: String,
    },
    /// The session ended while it was needed.
    #[error("can't {what}: the client's session has ended")]
    Ended {
        /// What was wanted.
        what: &'static str,
    },
    /// The client has not offered to do it.
    #[error("can't {what}: the client's session does not offer {method}")]
    NotOffered {
        /// What was wanted.
        what: &'static str,
        /// The method.
        method: &'static str,
    },
    /// The client did not answer in time.
    #[error("can't {what}: the client did not answer within {seconds} s")]
    TimedOut {
        /// What was wanted.
        what: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// The client refused.
    #[error("can't {what}: {message}")]
    Refused {
        /// What was wanted.
        what: &'static str,
        /// gRPC's code of it.
        code: Code,
        /// What the client said.
        message: String,
    },
    /// The client sent what it must not.
    #[error("can't {what}: the client sent {problem}")]
    Hostile {
        /// What was wanted.
        what: &'static str,
        /// What is wrong with what it sent.
        problem: String,
    },
    /// A device of a directory can't be made here.
    #[error("the directory has the device {path}, which can't be made here without root's rights")]
    Device {
        /// Its path in the client's directory.
        path: String,
    },
    /// A program of a directory has capabilities that it can't have here.
    #[error("can't keep the file {path} as the client has it: {source}")]
    Capability {
        /// Its path in the client's directory.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Something can't be written here.
    #[error("can't write {}: {source}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl CallerError {
    pub(super) fn of_status(what: &'static str, status: &Status) -> CallerError {
        CallerError::Refused { what, code: status.code(), message: message_of(status) }
    }

    /// Returns whether the client does not do this.
    pub fn is_not_offered(&self) -> bool {
        matches!(self, CallerError::Refused { code: Code::Unavailable | Code::Unimplemented, .. })
    }

    /// Returns whether the client said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, CallerError::Refused { code: Code::NotFound, .. })
    }
}

impl From<CallerError> for BuildError {
    fn from(error: CallerError) -> BuildError {
        let kind = match &error {
            CallerError::NoSession { .. }
            | CallerError::NotOffered { .. }
            | CallerError::Refused { .. }
            | CallerError::Hostile { .. }
            | CallerError::TimedOut { .. }
            | CallerError::Device { .. }
            | CallerError::Capability { .. } => ErrorKind::Usage,
            CallerError::Ended { .. } => ErrorKind::Cancelled,
            CallerError::Write { .. } => ErrorKind::Storage,
        };
        let text = chain_of(&error);
        match error {
            CallerError::Device { path } => BuildError::new(kind, text)
                .with_hint(format!("leave it out with a line {path} in .dockerignore")),
            CallerError::Capability { path, .. } => BuildError::new(kind, text)
                .with_hint(format!("leave it out with a line {path} in .dockerignore"))
                .with_hint(format!(
                    "or take them away with `setcap -r {path}` and give them with RUN setcap"
                )),
            _ => BuildError::new(kind, text),
        }
    }
}
