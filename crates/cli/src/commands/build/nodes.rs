// SPDX-License-Identifier: Apache-2.0
//! A build on several nodes: each platform on one of them, all results home, one image.
//!
//! Nothing is published until every platform has succeeded. A node that fails, or the way to it, is left out,
//! and its platforms are tried once more on another that fits; a step that fails ends the build.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use polyarch_build::fetch::blocking;
use polyarch_build::nodes::{NodeOffer, Placement, place};
use polyarch_build::request::Output;
use polyarch_build::result::Execution;
use polyarch_build::{BuildError, BuildRequest, BuildResult, ErrorKind, FinishedImage, Services};
use polyarch_buildkit::client::{Endpoint, Node, NodeBuildOptions, platforms_of};
use polyarch_oci::Platform;
use polyarch_sandbox::emulation::Support;
use polyarch_solver::CancelFlag;
use polyarch_solver::progress::Progress;

use super::super::buildx_builder::examine::connect_options;
use crate::CommandError;
use crate::builders::driver::{NodeKind, node_kind};
use crate::builders::{Builder, BuilderNode};
use crate::config::Settings;
use crate::engine::Engine;
use crate::session::Session;

/// How long connecting to a node may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A node of the builder.
pub struct BuildNode {
    node: BuilderNode,
    kind: NodeKind,
}

impl BuildNode {
    /// Tells whether it is another program than this one.
    pub fn is_remote(&self) -> bool {
        matches!(self.kind, NodeKind::Remote(_))
    }
}

/// Returns the nodes of a builder.
///
/// # Errors
/// When one has an endpoint that makes no sense.
pub fn nodes_of(builder: &Builder) -> Result<Vec<BuildNode>, CommandError> {
    let of = |node: &BuilderNode| {
        Ok(BuildNode { kind: node_kind(&builder.driver, &node.endpoint)?, node: node.clone() })
    };
    builder.nodes.iter().map(of).collect()
}

/// Tells whether everything can be done without a user namespace: nothing is executed here, and no file tree
/// is asked for. Then ssh is the user's own, with the user's keys.
pub fn need_documents_only(nodes: &[BuildNode], request: &BuildRequest) -> bool {
    nodes.iter().all(BuildNode::is_remote)
        && request.outputs.iter().all(|output| output.is_image() || matches!(output, Output::CacheOnly))
}

/// A node that may get work.
struct Ready {
    offer: NodeOffer,
    connection: Option<Node>,
}

/// What every node's work needs.
struct Work<'a> {
    services: Arc<Services>,
    cancel: CancelFlag,
    request: &'a BuildRequest,
    settings: &'a Settings,
    progress: &'a Progress,
}

/// Builds on nodes.
///
/// # Errors
/// When no node fits a platform, or how the build failed.
pub fn build(
    engine: &Engine,
    nodes: Vec<BuildNode>,
    request: &BuildRequest,
    allow_emulation: bool,
    session: &Session,
    settings: &Settings,
    progress: &Progress,
) -> Result<BuildResult, BuildError> {
    engine.perform_patiently(|services, cancel| async move {
        let work = Work { services, cancel, request, settings, progress };
        let ready = join_all(nodes.iter().map(|node| get_ready(node, &work, session))).await;
        let platforms = match request.platforms.as_slice() {
            [] => vec![default_platform(&ready)?],
            platforms => platforms.to_vec(),
        };
        let images = build_everywhere(&ready, &platforms, allow_emulation, &work).await?;
        work.services.export_finished(request, &images, progress).await
    })
}

/// Connects to a node and asks what it can do.
async fn get_ready(node: &BuildNode, work: &Work<'_>, session: &Session) -> Ready {
    let offer =
        |platforms| NodeOffer { name: node.node.name.clone(), fixed: node.node.platforms.clone(), platforms };
    match &node.kind {
        NodeKind::Local => {
            let host = Platform::host();
            let (services, asked) = (work.services.clone(), work.request.platforms.clone());
            let supports = blocking(move || services.support(&asked)).await;
            let runs = work.request.platforms.iter().zip(supports);
            let others = runs
                .filter(|(platform, support)| **platform != host && !matches!(support, Support::None { .. }));
            let platforms = std::iter::once(host.clone()).chain(others.map(|(platform, _)| platform.clone()));
            Ready { offer: offer(Ok(platforms.collect())), connection: None }
        }
        NodeKind::Remote(endpoint) => match connect(endpoint, &node.node, session).await {
            Ok((connection, platforms)) => {
                Ready { offer: offer(Ok(platforms)), connection: Some(connection) }
            }
            Err(reason) => Ready { offer: offer(Err(reason)), connection: None },
        },
    }
}

async fn connect(
    endpoint: &Endpoint,
    node: &BuilderNode,
    session: &Session,
) -> Result<(Node, Vec<Platform>), String> {
    let options = connect_options(&session.environment, node, TIMEOUT);
    let connected = Node::connect(endpoint, &options).await;
    let (connection, workers) = connected.map_err(|error| polyarch_build::error::chain_of(&error))?;
    // The first worker is the one that builds.
    Ok((connection, workers.first().map(platforms_of).unwrap_or_default()))
}

/// Returns the platform of the first node that answers.
fn default_platform(ready: &[Ready]) -> Result<Platform, BuildError> {
    let own = ready.iter().find_map(|ready| ready.offer.platforms.as_ref().ok()?.first().cloned());
    own.ok_or_else(|| {
        let reasons: Vec<&str> = ready
            .iter()
            .filter_map(|ready| ready.offer.platforms.as_ref().err().map(String::as_str))
            .collect();
        BuildError::new(
            ErrorKind::Registry,
            format!("no node of the builder answers: {}", reasons.join("; ")),
        )
        .with_hint("see `polyarch buildx ls`")
    })
}

/// Builds every platform, and once more those whose node failed.
async fn build_everywhere(
    ready: &[Ready],
    platforms: &[Platform],
    allow_emulation: bool,
    work: &Work<'_>,
) -> Result<Vec<FinishedImage>, BuildError> {
    let offers: Vec<NodeOffer> = ready.iter().map(|ready| ready.offer.clone()).collect();
    let placements = place(platforms, &offers, &[], allow_emulation)?;
    let is_labelled = placements.iter().any(|placement| placement.node != placements[0].node);
    let outcomes = run(ready, &placements, is_labelled, work).await?;
    let (mut images, mut failed_nodes, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok(finished) => images.extend(finished),
            Err(failure) => {
                work.progress.warn(format!(
                    "the node {} failed and is left out: {}",
                    ready[failure.node].offer.name, failure.error.message
                ));
                failed_nodes.push(failure.node);
                left.extend(
                    failure.platforms.iter().cloned().map(|platform| (platform, failure.error.clone())),
                );
            }
        }
    }
    if let Some((_, error)) = left.first() {
        let again: Vec<Platform> = left.iter().map(|(platform, _)| platform.clone()).collect();
        // Without another node the first failure is what went wrong.
        let placements = place(&again, &offers, &failed_nodes, allow_emulation).map_err(|_| error.clone())?;
        for outcome in run(ready, &placements, true, work).await? {
            images.extend(outcome.map_err(|failure| failure.error)?);
        }
    }
    let in_order =
        platforms.iter().filter_map(|platform| images.iter().find(|image| image.platform == *platform));
    Ok(in_order.cloned().collect())
}

/// A node that could not be reached, or was lost.
struct NodeFailure {
    node: usize,
    platforms: Vec<Platform>,
    error: BuildError,
}

/// Runs all placements, node by node at the same time. A failure of the work itself stops the others.
async fn run(
    ready: &[Ready],
    placements: &[Placement],
    is_labelled: bool,
    work: &Work<'_>,
) -> Result<Vec<Result<Vec<FinishedImage>, NodeFailure>>, BuildError> {
    let mut by_node: BTreeMap<usize, Vec<Placement>> = BTreeMap::new();
    for placement in placements {
        by_node.entry(placement.node).or_default().push(placement.clone());
    }
    let runs = by_node.into_iter().map(|(node, placements)| async move {
        match &ready[node].connection {
            Some(connection) => {
                let name = &ready[node].offer.name;
                run_remote(connection, name, &placements, is_labelled, work).await.map(|result| {
                    result.map_err(|error| NodeFailure {
                        node,
                        platforms: placements.iter().map(|placement| placement.platform.clone()).collect(),
                        error,
                    })
                })
            }
            None => run_local(&placements, work).await.map(Ok),
        }
    });
    try_join_all(runs).await
}

/// Builds here, without any output: the images stay in the store until all others are there.
async fn run_local(placements: &[Placement], work: &Work<'_>) -> Result<Vec<FinishedImage>, BuildError> {
    let request = BuildRequest {
        platforms: placements.iter().map(|placement| placement.platform.clone()).collect(),
        names: Vec::new(),
        outputs: Vec::new(),
        ..work.request.clone()
    };
    let result = work.services.build(request, work.progress.clone(), work.cancel.clone()).await?;
    let images = result.platforms.into_iter().filter_map(|image| {
        Some(FinishedImage {
            platform: image.platform,
            manifest: image.manifest?,
            execution: image.execution,
            duration: image.duration,
        })
    });
    Ok(images.collect())
}

/// Builds on a node; the inner error is one of the node's.
async fn run_remote(
    connection: &Node,
    name: &str,
    placements: &[Placement],
    is_labelled: bool,
    work: &Work<'_>,
) -> Result<Result<Vec<FinishedImage>, BuildError>, BuildError> {
    let begun = Instant::now();
    let options = NodeBuildOptions {
        platforms: placements.iter().map(|placement| placement.platform.clone()).collect(),
        label: is_labelled.then(|| name.to_owned()),
        credentials: Some(work.settings.credentials.clone()),
    };
    match connection.build_image(&work.services, work.request, options, work.progress).await {
        Ok(image) => {
            let finished =
                image.platforms.into_iter().zip(placements).map(|((platform, manifest), placement)| {
                    let execution = match placement.is_emulated {
                        true => Execution::Emulated(format!("on {name}")),
                        false => Execution::Native,
                    };
                    FinishedImage { platform, manifest, execution, duration: begun.elapsed() }
                });
            Ok(Ok(finished.collect()))
        }
        Err(failure) if failure.is_of_node => Ok(Err(failure.error)),
        Err(failure) => Err(failure.error),
    }
}
