// SPDX-License-Identifier: Apache-2.0
//! A build on several nodes: each platform on one of them, all results home, one image.
//!
//! Nothing is published until every platform has succeeded. A node that fails, or the way to it, is left out,
//! and its platforms are tried once more on another that fits, at once; a step that fails ends the build.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use polyarch_build::fetch::blocking;
use polyarch_build::nodes::{NodeOffer, Placement, place};
use polyarch_build::request::Output;
use polyarch_build::result::Execution;
use polyarch_build::{
    BuildError, BuildRequest, BuildResult, CacheCollector, ClientCache, ErrorKind, FinishedImage, Services,
};
use polyarch_buildkit::client::{
    ConnectOptions, DialedAhead, Endpoint, Node, NodeBuildOptions, platforms_of,
};
use polyarch_oci::{Descriptor, Platform};
use polyarch_sandbox::emulation::Support;
use polyarch_solver::CancelFlag;
use polyarch_solver::progress::Progress;

use super::super::buildx_builder::examine::connect_options;
use crate::CommandError;
use crate::builders::driver::{NodeKind, node_kind};
use crate::builders::{Builder, BuilderNode, pods};
use crate::config::Settings;
use crate::engine::Engine;
use crate::session::Session;

/// How long connecting to a node may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A node of the builder.
pub struct BuildNode {
    node: BuilderNode,
    kind: NodeKind,
    dialed: Option<DialedAhead>,
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
        Ok(BuildNode { kind: node_kind(&builder.driver, &node.endpoint)?, node: node.clone(), dialed: None })
    };
    builder.nodes.iter().map(of).collect()
}

/// Tells whether everything can be done without a user namespace: nothing is executed here, and no file tree
/// is asked for. Then ssh is the user's own, with the user's keys.
pub fn need_documents_only(nodes: &[BuildNode], request: &BuildRequest) -> bool {
    nodes.iter().all(BuildNode::is_remote)
        && request.outputs.iter().all(|output| output.is_image() || matches!(output, Output::CacheOnly))
}

/// Begins the connections that go through a program of the user's, ssh for one. To be called before a user namespace is
/// entered: in there the program would not be the user's any more.
///
/// # Errors
/// When a program can't be started.
pub fn dial_ahead(nodes: &mut [BuildNode], session: &Session) -> Result<(), CommandError> {
    for node in nodes {
        if let NodeKind::Remote(endpoint) = &node.kind {
            let options = connect_options(&session.environment, &node.node, TIMEOUT);
            let dialed = DialedAhead::start(endpoint, &options);
            node.dialed =
                dialed.map_err(|error| CommandError::io("can't connect to", &node.node.endpoint, &error))?;
        }
    }
    Ok(())
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
        let Built { images, caches } = build_everywhere(&ready, &platforms, allow_emulation, &work).await?;
        let result = work.services.export_finished(request, &images, progress).await?;
        work.services.export_merged_cache(&request.cache.to, &caches, progress).await?;
        Ok(result)
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
        NodeKind::Remote(endpoint) => match connect(endpoint, node, session, work.progress).await {
            Ok((connection, platforms)) => {
                Ready { offer: offer(Ok(platforms)), connection: Some(connection) }
            }
            Err(reason) => Ready { offer: offer(Err(reason)), connection: None },
        },
    }
}

async fn connect(
    endpoint: &Endpoint,
    node: &BuildNode,
    session: &Session,
    progress: &Progress,
) -> Result<(Node, Vec<Platform>), String> {
    if let Endpoint::Dialed { .. } = endpoint {
        boot(node, session, progress).await?;
    }
    let options = connect_options(&session.environment, &node.node, TIMEOUT);
    let options = ConnectOptions { dialed: node.dialed.clone(), ..options };
    let connected = Node::connect(endpoint, &options).await;
    let (connection, workers) = connected.map_err(|error| polyarch_build::error::chain_of(&error))?;
    // The first worker is the one that builds.
    Ok((connection, workers.first().map(platforms_of).unwrap_or_default()))
}

/// Makes the pods of a node that are not there yet.
async fn boot(node: &BuildNode, session: &Session, progress: &Progress) -> Result<(), String> {
    let name = &node.node.name;
    let vertex = progress.begin(&format!("boot {name}"), format!("[internal] booting {name}"));
    match pods::boot(&session.environment, &node.node, |_, _| {}).await {
        Ok(()) => {
            vertex.done();
            Ok(())
        }
        Err(error) => {
            vertex.failed(&error);
            Err(polyarch_build::error::chain_of(&error))
        }
    }
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

/// What nodes have built.
#[derive(Default)]
struct Built {
    images: Vec<FinishedImage>,
    /// The manifests of what they know of the steps.
    caches: Vec<Descriptor>,
}

/// Builds every platform, and at once again those whose node is lost, each of them once more at most.
async fn build_everywhere(
    ready: &[Ready],
    platforms: &[Platform],
    allow_emulation: bool,
    work: &Work<'_>,
) -> Result<Built, BuildError> {
    let offers: Vec<NodeOffer> = ready.iter().map(|ready| ready.offer.clone()).collect();
    let placements = place(platforms, &offers, &[], allow_emulation)?;
    warn_of_silent(&offers, work.progress);
    let is_labelled = placements.iter().any(|placement| placement.node != placements[0].node);
    let mut running: FuturesUnordered<_> = by_node(placements)
        .into_iter()
        .map(|(node, its)| run(ready, node, its, is_labelled, false, work))
        .collect();
    let (mut built, mut lost_nodes) = (Built::default(), Vec::new());
    // A failure of the work itself ends the others, as what they make is of no use then.
    while let Some(outcome) = running.next().await {
        let lost = match outcome? {
            Ok(finished) => {
                built.images.extend(finished.images);
                built.caches.extend(finished.caches);
                continue;
            }
            Err(lost) => lost,
        };
        lost_nodes.push(lost.node);
        let again: Vec<Platform> =
            lost.placements.iter().map(|placement| placement.platform.clone()).collect();
        let placements = match lost.is_second_try {
            true => return Err(lost.error),
            // Without another node the loss is what went wrong.
            false => place(&again, &offers, &lost_nodes, allow_emulation).map_err(|_| lost.error.clone())?,
        };
        let others: Vec<String> = placements
            .iter()
            .map(|placement| format!("{} on {}", placement.platform, offers[placement.node].name))
            .collect();
        work.progress.warn(format!(
            "the node {} failed and is left out: {}; building {} instead",
            offers[lost.node].name,
            lost.error.message,
            others.join(", ")
        ));
        for (node, its) in by_node(placements) {
            running.push(run(ready, node, its, true, true, work));
        }
    }
    let images = &built.images;
    let in_order =
        platforms.iter().filter_map(|platform| images.iter().find(|image| image.platform == *platform));
    Ok(Built { images: in_order.cloned().collect(), caches: built.caches })
}

/// Says which nodes are left out because they do not answer.
fn warn_of_silent(offers: &[NodeOffer], progress: &Progress) {
    for offer in offers {
        if let Err(reason) = &offer.platforms {
            progress.warn(format!("the node {} does not answer and is left out: {reason}", offer.name));
        }
    }
}

/// Gathers what each node builds.
fn by_node(placements: Vec<Placement>) -> BTreeMap<usize, Vec<Placement>> {
    let mut by_node: BTreeMap<usize, Vec<Placement>> = BTreeMap::new();
    for placement in placements {
        by_node.entry(placement.node).or_default().push(placement);
    }
    by_node
}

/// A node that was lost, and what it should have built.
struct LostNode {
    node: usize,
    placements: Vec<Placement>,
    is_second_try: bool,
    error: BuildError,
}

/// Builds what was placed on a node; the inner error is the loss of the node.
async fn run(
    ready: &[Ready],
    node: usize,
    placements: Vec<Placement>,
    is_labelled: bool,
    is_second_try: bool,
    work: &Work<'_>,
) -> Result<Result<Built, LostNode>, BuildError> {
    let Some(connection) = &ready[node].connection else {
        return run_local(&placements, work).await.map(Ok);
    };
    let built = run_remote(connection, &ready[node].offer.name, &placements, is_labelled, work).await?;
    Ok(built.map_err(|error| LostNode { node, placements, is_second_try, error }))
}

/// Builds here, without any output: the images stay in the store until all others are there.
async fn run_local(placements: &[Placement], work: &Work<'_>) -> Result<Built, BuildError> {
    let collector = Arc::new(CacheCollector::default());
    let request = BuildRequest {
        cache: work.request.cache.collected_by(ClientCache(collector.clone())),
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
    Ok(Built { images: images.collect(), caches: collector.take().into_iter().collect() })
}

/// Builds on a node; the inner error is one of the node's.
async fn run_remote(
    connection: &Node,
    name: &str,
    placements: &[Placement],
    is_labelled: bool,
    work: &Work<'_>,
) -> Result<Result<Built, BuildError>, BuildError> {
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
            Ok(Ok(Built { images: finished.collect(), caches: image.cache.into_iter().collect() }))
        }
        Err(failure) if failure.is_of_node => Ok(Err(failure.error)),
        Err(failure) => Err(failure.error),
    }
}
