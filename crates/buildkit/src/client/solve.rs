// SPDX-License-Identifier: Apache-2.0
//! One build on a node: session, solve and status at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use polyarch_build::BuildError;
use polyarch_build::error::SourceLocation;
use polyarch_build::source_policy::SourcePolicy;
use polyarch_solver::progress::Progress;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Status};

use crate::api::control::{self, CacheOptions, CacheOptionsEntry};
use crate::api::methods::daemon;
use crate::client::error_details::{location_of, vertex_of};
use crate::client::{Node, status};
use crate::error::NodeError;
use crate::session::{Session, random_id};

/// How long more progress is waited for after a build has ended.
const LAST_PROGRESS: Duration = Duration::from_secs(5);
/// How long a node may go on telling progress of a build that has ended.
const ALL_PROGRESS: Duration = Duration::from_secs(10);

/// What to do with a result: BuildKit's name of an exporter, and its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exporter {
    /// `oci`, `docker`, `image`, `local`, `tar`.
    pub kind: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
}

/// A build for a node.
#[derive(Debug, Clone, Default)]
pub struct SolveRequest {
    /// The frontend of the node's, `dockerfile.v0`.
    pub frontend: String,
    /// What the frontend is told: `filename`, `target`, `platform`, `build-arg:NAME`…
    pub attributes: BTreeMap<String, String>,
    /// What becomes of the result; nothing leaves it in the node's cache.
    pub exporters: Vec<Exporter>,
    /// Where cache comes from.
    pub cache_from: Vec<CacheOptionsEntry>,
    /// Where cache goes to.
    pub cache_to: Vec<CacheOptionsEntry>,
    /// What steps may be granted: `network.host`, `security.insecure`.
    pub entitlements: Vec<String>,
    /// What the build may read.
    pub policy: Option<SourcePolicy>,
    /// Tells this node's steps apart from those of other nodes.
    pub label: Option<String>,
}

/// What a build gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SolveResult {
    /// What the exporters said: `containerimage.digest`, `containerimage.config.digest`,
    /// `containerimage.descriptor`…
    pub response: BTreeMap<String, String>,
}

/// Why a build on a node failed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct SolveError {
    /// What failed.
    #[source]
    pub error: NodeError,
    /// Where in the Dockerfile, when the node said.
    pub location: Option<SourceLocation>,
    /// The digest of the step as the progress had it, when the node said.
    pub vertex: Option<String>,
}

impl From<NodeError> for SolveError {
    fn from(error: NodeError) -> SolveError {
        SolveError { error, location: None, vertex: None }
    }
}

impl From<SolveError> for BuildError {
    fn from(error: SolveError) -> BuildError {
        let location = error.location;
        let error = BuildError::from(error.error);
        match location {
            Some(location) => error.at(location),
            None => error,
        }
    }
}

impl Node {
    /// Builds. Returns when the node has ended the build and all its progress has been sent; dropping
    /// the future cancels the build on the node.
    ///
    /// # Errors
    /// What the node says of a step or the Dockerfile, or that the connection broke.
    pub async fn solve(
        &self,
        request: SolveRequest,
        session: &Session,
        progress: &Progress,
    ) -> Result<SolveResult, SolveError> {
        let random = |error: getrandom::Error| NodeError::Call {
            what: "can't name a build",
            code: tonic::Code::Internal,
            message: error.to_string(),
        };
        let build = random_id().map_err(random)?;
        let serving = AbortOnDropHandle::new(tokio::spawn({
            let (session, channel) = (session.clone(), self.channel.clone());
            async move { session.run(&channel).await }
        }));
        let activity = Arc::new(Notify::new());
        // However this ends, no step stays open in the progress.
        let steps = EndSteps(Arc::new(status::OpenSteps::new(progress.clone())));
        let following = AbortOnDropHandle::new(tokio::spawn({
            let (channel, build, label) = (self.channel.clone(), build.clone(), request.label.clone());
            let (steps, activity) = (steps.0.clone(), activity.clone());
            async move {
                let active = || activity.notify_one();
                status::follow(&channel, &build, label.as_deref(), &steps, active).await
            }
        }));
        let message = Request::new(request.message(build, session.id()));
        let solved = daemon::SOLVE.call(&self.channel, message).await;
        drop(serving);
        finish_progress(following, &activity, tokio::time::sleep(ALL_PROGRESS)).await;
        match solved {
            Ok(answer) => Ok(SolveResult { response: answer.exporter_response }),
            Err(status) => Err(solve_error(&status)),
        }
    }
}

/// Ends the steps of a build with the build.
struct EndSteps(Arc<status::OpenSteps>);

impl Drop for EndSteps {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl SolveRequest {
    fn message(self, build: String, session: &str) -> control::SolveRequest {
        let exporters: Vec<_> = self
            .exporters
            .into_iter()
            .map(|exporter| control::Exporter { r#type: exporter.kind, attrs: exporter.attributes })
            .collect();
        let mut frontend_attrs = self.attributes;
        // Where cache comes from the frontend must be told; what the daemon is told of it serves definitions only.
        if !self.cache_from.is_empty() {
            let imports = self.cache_from.iter().map(|it| json!({ "Type": it.r#type, "Attrs": it.attrs }));
            frontend_attrs.insert("cache-imports".to_owned(), Value::from_iter(imports).to_string());
        }
        // Nodes before v0.13 know only one exporter, under the old name.
        let first = exporters.first().cloned().unwrap_or_default();
        control::SolveRequest {
            r#ref: build,
            exporter_deprecated: first.r#type,
            exporter_attrs_deprecated: first.attrs,
            session: session.to_owned(),
            frontend: self.frontend,
            frontend_attrs,
            cache: Some(CacheOptions {
                exports: self.cache_to,
                imports: self.cache_from,
                ..CacheOptions::default()
            }),
            entitlements: self.entitlements,
            exporters,
            source_policy: self.policy.as_ref().map(crate::policy::message),
            ..control::SolveRequest::default()
        }
    }
}

/// Waits for the rest of the progress as long as any comes, but not after the end of `patience`.
async fn finish_progress(
    following: AbortOnDropHandle<Result<(), Status>>,
    activity: &Notify,
    patience: impl Future<Output = ()>,
) {
    let mut following = following;
    tokio::pin!(patience);
    loop {
        tokio::select! {
            biased;
            () = &mut patience => return,
            ended = &mut following => {
                if let Ok(Err(status)) = ended {
                    tracing::debug!("the progress of a node ended: {status}");
                }
                return;
            }
            more = tokio::time::timeout(LAST_PROGRESS, activity.notified()) => {
                if more.is_err() {
                    return;
                }
            }
        }
    }
}

fn solve_error(status: &Status) -> SolveError {
    let error = match NodeError::of_status("the build was lost", status) {
        NodeError::Call { code, message, .. } if code != tonic::Code::Unavailable => {
            NodeError::Build { code, message }
        }
        error => error,
    };
    SolveError { error, location: location_of(status), vertex: vertex_of(status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_that_goes_on_talking_is_not_heard_for_ever() {
        let activity = Arc::new(Notify::new());
        let talking = AbortOnDropHandle::new(tokio::spawn({
            let activity = activity.clone();
            async move {
                loop {
                    activity.notify_one();
                    tokio::task::yield_now().await;
                }
            }
        }));
        let patience = async {
            // It has talked by then.
            for _ in 0..100 {
                activity.notified().await;
            }
        };
        finish_progress(talking, &activity, patience).await;
    }

    #[test]
    fn daemon_and_frontend_are_told_where_cache_comes_from() {
        let attrs = BTreeMap::from([("ref".to_owned(), "example.com/cache:1".to_owned())]);
        let cache_from = vec![CacheOptionsEntry { r#type: "registry".to_owned(), attrs }];
        let message = SolveRequest { cache_from: cache_from.clone(), ..SolveRequest::default() }
            .message("build".to_owned(), "session");
        assert_eq!(message.cache.unwrap().imports, cache_from);
        let told: Value = serde_json::from_str(&message.frontend_attrs["cache-imports"]).unwrap();
        assert_eq!(told, json!([{ "Type": "registry", "Attrs": { "ref": "example.com/cache:1" } }]));
        let without = SolveRequest::default().message("build".to_owned(), "session");
        assert!(without.frontend_attrs.is_empty());
    }
}
