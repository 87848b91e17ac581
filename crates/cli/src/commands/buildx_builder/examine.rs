// SPDX-License-Identifier: Apache-2.0
//! What nodes say of themselves: whether they run, their version, platforms and workers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use polyarch_build::nodes::runs_natively;
use polyarch_buildkit::NodeError;
use polyarch_buildkit::api::worker::GCPolicy;
use polyarch_buildkit::client::{ConnectOptions, Endpoint, Node, TlsFiles, platforms_of};
use polyarch_oci::Platform;
use polyarch_sandbox::emulation::{BinfmtDirectory, HostBinfmt, Support};

use crate::builders::driver::{NodeKind, node_kind};
use crate::builders::{Builder, BuilderNode, pods};
use crate::commands::binfmt::{BINFMT_DIRECTORY, HOST_BINFMT, status};
use crate::commands::flag_values::go_bool;
use crate::config::Settings;
use crate::session::Session;
use crate::{CommandError, Environment};

/// What a node says of itself.
#[derive(Debug, Clone, Default)]
pub struct NodeStatus {
    /// `running`, `inactive` or `error`.
    pub state: &'static str,
    /// Its version, `v0.32.2`.
    pub version: String,
    /// What it builds for, its own platform first.
    pub platforms: Vec<Platform>,
    /// Its workers.
    pub ids: Vec<String>,
    /// The labels of its first worker.
    pub labels: BTreeMap<String, String>,
    /// How it collects.
    pub gc: Vec<GCPolicy>,
    /// Why nothing is known of it.
    pub error: Option<String>,
}

/// Asks every node of builders, all at once, and returns the answers builder by builder.
///
/// To be called while there is one thread: what this machine can do is found out in a user namespace.
///
/// # Errors
/// When threads can't be started.
pub fn examine(
    session: &Session,
    settings: &Settings,
    builders: &[Builder],
    timeout: Duration,
) -> Result<Vec<Vec<NodeStatus>>, CommandError> {
    let environment = &session.environment;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::io("can't start", "a runtime", &error))?;
    let mut is_local_asked = false;
    let mut answers: Vec<Vec<Option<NodeStatus>>> = Vec::new();
    let asked = builders.iter().map(|builder| {
        futures_util::future::join_all(
            builder.nodes.iter().map(|node| ask(environment, &builder.driver, node, timeout)),
        )
    });
    for statuses in runtime.block_on(futures_util::future::join_all(asked)) {
        is_local_asked |= statuses.iter().any(Option::is_none);
        answers.push(statuses);
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
    let local = if is_local_asked { local(settings, environment) } else { NodeStatus::default() };
    let complete = |status: Option<NodeStatus>| status.unwrap_or_else(|| local.clone());
    Ok(answers.into_iter().map(|statuses| statuses.into_iter().map(complete).collect()).collect())
}

/// Asks a node; `None` stands for this program itself.
async fn ask(
    environment: &Environment,
    driver: &str,
    node: &BuilderNode,
    timeout: Duration,
) -> Option<NodeStatus> {
    let failed =
        |state, error: String| Some(NodeStatus { state, error: Some(error), ..NodeStatus::default() });
    let endpoint = match node_kind(driver, &node.endpoint) {
        Ok(NodeKind::Local) => return None,
        Ok(NodeKind::Remote(endpoint)) => endpoint,
        Err(error) => return failed("error", error.error.message),
    };
    let options = connect_options(environment, node, timeout);
    match tokio::time::timeout(timeout, ask_remote(&endpoint, &options)).await {
        Ok(Ok(status)) => Some(status),
        Ok(Err(error)) => {
            let state = if error.is_of_node() { "inactive" } else { "error" };
            failed(state, polyarch_build::error::chain_of(&error))
        }
        Err(_) => failed("inactive", format!("{endpoint} did not answer within {} s", timeout.as_secs())),
    }
}

async fn ask_remote(endpoint: &Endpoint, options: &ConnectOptions) -> Result<NodeStatus, NodeError> {
    let (node, workers) = Node::connect(endpoint, options).await?;
    let version = node.version().await?.map(|version| version.version).unwrap_or_default();
    let mut status = NodeStatus { state: "running", version, ..NodeStatus::default() };
    for worker in &workers {
        status.ids.push(worker.id.clone());
        for platform in platforms_of(worker) {
            if !status.platforms.contains(&platform) {
                status.platforms.push(platform);
            }
        }
    }
    status.ids.sort();
    if let Some(worker) = workers.into_iter().next() {
        status.labels = worker.labels;
        status.gc = worker.gc_policy;
    }
    Ok(status)
}

/// Returns how to connect to a node, as its driver options say.
pub fn connect_options(environment: &Environment, node: &BuilderNode, timeout: Duration) -> ConnectOptions {
    let option = |key: &str| node.driver_opts.get(key).filter(|value| !value.is_empty());
    let tls = option("cacert").map(|ca| TlsFiles {
        ca: PathBuf::from(ca),
        client: option("cert")
            .zip(option("key"))
            .map(|(cert, key)| (PathBuf::from(cert), PathBuf::from(key))),
        server_name: option("servername").cloned(),
    });
    ConnectOptions {
        tls,
        is_plain_allowed: option("insecure").is_some_and(|value| go_bool(value) == Ok(true)),
        timeout,
        ssh_program: program_in_path(environment, "ssh"),
        docker_program: program_in_path(environment, "docker"),
        dialed: None,
        dialer: pods::dialer(environment, node),
    }
}

/// Returns where a program is; the bare name when `PATH` has it not.
pub fn program_in_path(environment: &Environment, name: &str) -> PathBuf {
    let directories = environment.path_directories();
    let found = directories.iter().map(|directory| directory.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| Path::new(name).to_owned())
}

/// Finds out what this machine can do.
fn local(settings: &Settings, environment: &Environment) -> NodeStatus {
    let host = HostBinfmt::at(HOST_BINFMT);
    let directory = BinfmtDirectory::at(BINFMT_DIRECTORY);
    let found = status::collect(settings, environment, &host, &directory);
    let is_supported = |support: &Support| !matches!(support, Support::None { .. });
    NodeStatus {
        state: "running",
        version: concat!("polyarch v", env!("CARGO_PKG_VERSION")).to_owned(),
        platforms: found
            .platforms
            .into_iter()
            .filter(|platform| is_supported(&platform.support))
            .map(|platform| platform.platform)
            .collect(),
        ..NodeStatus::default()
    }
}

/// Says what a claim of platforms comes to at a node: an error for one that it can't run, and a warning for one
/// that it only emulates.
pub fn judge_claims(
    node: &str,
    claimed: &[Platform],
    status: &NodeStatus,
) -> Result<Vec<String>, CommandError> {
    let Some(own) = status.platforms.first() else { return Ok(Vec::new()) };
    let mut warnings = Vec::new();
    for platform in claimed {
        if !status.platforms.contains(platform) {
            let able: Vec<String> = status.platforms.iter().map(ToString::to_string).collect();
            return Err(CommandError::usage(format!("the node {node} can't run {platform}"))
                .with_hint(format!("it builds for {}", able.join(", "))));
        }
        if !runs_natively(own, platform) {
            warnings.push(format!("the node {node} is {own} and only emulates {platform}, which is slow"));
        }
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_judged_by_what_the_node_says() {
        let list = |text: &str| Platform::parse_list(text).unwrap();
        let status =
            NodeStatus { platforms: list("linux/arm64,linux/arm/v7,linux/amd64"), ..NodeStatus::default() };
        assert!(judge_claims("pi", &list("linux/arm64,linux/arm/v7"), &status).unwrap().is_empty());
        let warnings = judge_claims("pi", &list("linux/amd64"), &status).unwrap();
        assert_eq!(warnings, ["the node pi is linux/arm64 and only emulates linux/amd64, which is slow"]);
        let refused = judge_claims("pi", &list("linux/s390x"), &status).unwrap_err();
        assert_eq!(refused.error.message, "the node pi can't run linux/s390x");
        // Nothing is known of a node that does not answer.
        assert!(judge_claims("pi", &list("linux/s390x"), &NodeStatus::default()).unwrap().is_empty());
    }
}
