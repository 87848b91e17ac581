// SPDX-License-Identifier: Apache-2.0
//! Drives an unmodified `buildkitd` as a node.
//!
//! [`Node::connect`] proves that the node answers; [`Node::solve`] opens a session, starts a build with a
//! frontend of the node's own, follows its progress and returns what its exporters said. The bytes of
//! results come through the session's [`crate::session::ArchiveTarget`]s. [`Node::build_image`] does all of
//! this for a build request and brings the image home into the store.

mod attributes;
mod cache;
mod connect;
mod docker;
mod endpoint;
mod error_details;
mod image;
mod intake;
mod program;
mod solve;
pub(crate) mod status;
pub(crate) mod tls;

use std::time::Duration;

use futures_util::StreamExt as _;
use polyarch_oci::Platform;
use tonic::Request;
use tonic::transport::Channel;

use crate::api::control::{DiskUsageRequest, InfoRequest, ListWorkersRequest, PruneRequest, UsageRecord};
use crate::api::methods::daemon;
use crate::api::worker::{BuildkitVersion, WorkerRecord};
use crate::error::NodeError;

pub use connect::quote as quote_for_shell;
pub use connect::{ConnectOptions, Dialer, Transport};
pub use endpoint::Endpoint;
pub use image::{NodeBuildError, NodeBuildOptions, NodeImage};
pub use program::DialedAhead;
pub use solve::{Exporter, SolveError, SolveRequest, SolveResult};
pub use tls::TlsFiles;

/// What BuildKit calls itself.
const BUILDKIT_PACKAGE: &str = "github.com/moby/buildkit";

/// A connection to a node; cheap to clone.
#[derive(Clone)]
pub struct Node {
    endpoint: Endpoint,
    channel: Channel,
}

impl Node {
    /// Connects to a node and asks it for its workers, whose platforms it returns beside.
    ///
    /// # Errors
    /// When the node can't be reached, does not answer, or is no BuildKit that is new enough.
    pub async fn connect(
        endpoint: &Endpoint,
        options: &ConnectOptions,
    ) -> Result<(Node, Vec<WorkerRecord>), NodeError> {
        let connector = connect::Connector::new(endpoint, options)?;
        let node = Node { endpoint: endpoint.clone(), channel: connector.open().await? };
        let asked = async { tokio::try_join!(node.workers(), node.version()) };
        let answers = in_time(endpoint, options.timeout, asked).await;
        let workers = match answers {
            Ok((_, version)) if too_old(version.as_ref()).is_some() => Err(NodeError::TooOld {
                endpoint: endpoint.to_string(),
                version: too_old(version.as_ref()).unwrap_or_default(),
                needed: OLDEST,
            }),
            Ok((workers, _)) => Ok(workers),
            Err(error) => Err(error),
        };
        match workers {
            Ok(workers) if workers.is_empty() => Err(NodeError::Answer {
                endpoint: endpoint.to_string(),
                problem: "it has no worker that could build".to_owned(),
            }),
            Ok(workers) => Ok((node, workers)),
            // What ssh said tells more than that its connection ended.
            Err(error @ NodeError::Call { .. }) => Err(match connector.said().await {
                Some(said) => NodeError::Connect { endpoint: endpoint.to_string(), source: said.into() },
                None => error,
            }),
            Err(error) => Err(error),
        }
    }

    /// Returns where the node listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Asks for the workers, the preferred one first.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, NodeError> {
        let answer =
            daemon::LIST_WORKERS.call(&self.channel, Request::new(ListWorkersRequest::default())).await;
        let answer = answer.map_err(|status| NodeError::of_status("can't list the workers", &status))?;
        Ok(answer.record)
    }

    /// Asks what program the node runs; `None` when it is too old to say.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn version(&self) -> Result<Option<BuildkitVersion>, NodeError> {
        match daemon::INFO.call(&self.channel, Request::new(InfoRequest::default())).await {
            Ok(answer) => Ok(answer.buildkit_version),
            Err(status) if status.code() == tonic::Code::Unimplemented => Ok(None),
            Err(status) => Err(NodeError::of_status("can't ask for the version", &status)),
        }
    }

    /// Asks what the node's cache holds; `filter` has the words of containerd's filters, and what was used within
    /// `unused_for` nanoseconds is left out.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn disk_usage(
        &self,
        filter: Vec<String>,
        unused_for: i64,
    ) -> Result<Vec<UsageRecord>, NodeError> {
        let request = Request::new(DiskUsageRequest { filter, age_limit: unused_for });
        let answer = daemon::DISK_USAGE.call(&self.channel, request).await;
        let answer = answer.map_err(|status| NodeError::of_status("can't ask for the cache", &status))?;
        Ok(answer.record)
    }

    /// Removes cache; `removed` is told each record that goes.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn prune(
        &self,
        request: PruneRequest,
        mut removed: impl FnMut(UsageRecord),
    ) -> Result<(), NodeError> {
        let failed = |status: tonic::Status| NodeError::of_status("can't remove cache", &status);
        let answer = daemon::PRUNE.call_for_stream(&self.channel, Request::new(request)).await;
        let mut records = answer.map_err(failed)?.into_inner();
        while let Some(record) = records.next().await {
            removed(record.map_err(failed)?);
        }
        Ok(())
    }
}

/// The oldest BuildKit that is driven: the first that tells its version.
const OLDEST: &str = "v0.11";

/// Returns what is too old about a version; `None` when it will do. What is no version of BuildKit's tells nothing.
fn too_old(version: Option<&BuildkitVersion>) -> Option<String> {
    let Some(version) = version else { return Some(format!("older than {OLDEST}")) };
    if version.package != BUILDKIT_PACKAGE {
        return None;
    }
    let mut numbers = version.version.trim_start_matches('v').split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(0)), Some(Ok(minor))) if minor < 11 => Some(version.version.clone()),
        _ => None,
    }
}

/// Returns the platforms of a worker in its order, each once; what is no platform is left out.
pub fn platforms_of(worker: &WorkerRecord) -> Vec<Platform> {
    let mut platforms = Vec::new();
    for platform in &worker.platforms {
        let platform = Platform::new(&platform.os, &platform.architecture, &platform.variant).normalized();
        if !platform.os.is_empty() && !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    platforms
}

/// Waits for an answer no longer than this.
async fn in_time<T>(
    endpoint: &Endpoint,
    timeout: Duration,
    answer: impl Future<Output = Result<T, NodeError>>,
) -> Result<T, NodeError> {
    match tokio::time::timeout(timeout, answer).await {
        Ok(result) => result,
        Err(_) => Err(NodeError::TimedOut { endpoint: endpoint.to_string(), seconds: timeout.as_secs() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_daemons_are_told_from_others() {
        let of = |package: &str, version: &str| {
            let version = BuildkitVersion {
                package: package.to_owned(),
                version: version.to_owned(),
                ..BuildkitVersion::default()
            };
            too_old(Some(&version))
        };
        for fine in ["v0.11.0", "v0.32.2", "v1.0.0", "", "devel", "v0.12.0-rc1"] {
            assert_eq!(of(BUILDKIT_PACKAGE, fine), None, "{fine}");
        }
        assert_eq!(of(BUILDKIT_PACKAGE, "v0.10.6").as_deref(), Some("v0.10.6"));
        assert_eq!(of("polyarch", "v0.1.0"), None);
        assert_eq!(too_old(None).as_deref(), Some("older than v0.11"));
    }
}
