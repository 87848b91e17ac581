// SPDX-License-Identifier: Apache-2.0
//! What steps may know but nothing may keep: secrets and the sockets of SSH agents.
//!
//! A source is asked when a step that mounts one runs, never before. What it tells goes to that step's process
//! and nowhere else: no key, record, log, layer or file on a disk has it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

use futures_util::future::BoxFuture;

use crate::error::BuildError;

/// The largest secret that steps get: BuildKit's limit.
pub const MAX_SECRET_BYTES: usize = 500 << 10;

/// Where secrets and agents come from: flags of the command, or a client's session.
///
/// It is asked anew for every step; an error fails that step, `None` only when the step requires what it asks
/// for.
pub trait SecretSource: Send + Sync + Debug {
    /// Returns a secret's bytes, at most [`MAX_SECRET_BYTES`]; `None` when there is no secret of that name.
    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BuildError>>;

    /// Returns the path of a unix socket at which an SSH agent answers; `None` when there is none of that name.
    ///
    /// The socket must answer for as long as the build runs. Steps get a socket of their own, whose connections
    /// are passed on to this one.
    fn agent<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<PathBuf>, BuildError>>;
}

/// A source that has nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSecrets;

impl SecretSource for NoSecrets {
    fn secret<'a>(&'a self, _id: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BuildError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn agent<'a>(&'a self, _id: &'a str) -> BoxFuture<'a, Result<Option<PathBuf>, BuildError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// A source of what is known from the beginning.
#[derive(Clone, Default)]
pub struct FixedSecrets {
    /// Secrets by their names.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Sockets of agents by their names.
    pub agents: BTreeMap<String, PathBuf>,
}

impl Debug for FixedSecrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "FixedSecrets({:?}, {:?})", self.secrets.keys(), self.agents)
    }
}

impl SecretSource for FixedSecrets {
    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, BuildError>> {
        Box::pin(std::future::ready(Ok(self.secrets.get(id).cloned())))
    }

    fn agent<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<PathBuf>, BuildError>> {
        Box::pin(std::future::ready(Ok(self.agents.get(id).cloned())))
    }
}
