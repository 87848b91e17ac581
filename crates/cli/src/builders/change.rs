// SPDX-License-Identifier: Apache-2.0
//! How builders change: `create`, `create --append`, `create --node` and `create --leave`.

use std::collections::BTreeMap;

use polyarch_oci::Platform;

use crate::CommandError;
use crate::builders::{Builder, BuilderNode, DEFAULT, driver, name, pods};

/// What `create` is asked for.
#[derive(Debug, Clone, Default)]
pub struct CreateRequest {
    /// The builder; one is named when absent.
    pub name: Option<String>,
    /// The node.
    pub node: Option<String>,
    /// The driver.
    pub driver: Option<String>,
    /// Where the node is.
    pub endpoint: Option<String>,
    /// The platforms fixed for it.
    pub platforms: Vec<Platform>,
    /// Options of the driver; `None` leaves those of a node as they are.
    pub driver_opts: Option<BTreeMap<String, String>>,
    /// Flags for a daemon that the driver starts; `None` leaves them.
    pub buildkitd_flags: Option<Vec<String>>,
    /// Files for such a daemon, in base64.
    pub files: BTreeMap<String, String>,
    /// Whether a node is added to a builder.
    pub is_append: bool,
}

/// What the surroundings say.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `BUILDKIT_HOST`.
    pub buildkit_host: Option<String>,
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `KUBECONFIG`.
    pub kubeconfig: Option<String>,
}

/// A builder after a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// The builder.
    pub builder: Builder,
    /// The node that was made or changed.
    pub node: usize,
    /// Whether a node that was there has new settings.
    pub is_changed_node: bool,
}

/// Makes a builder, or adds or changes a node of one. `existing` is the builder of this name, `name` a valid
/// name.
///
/// # Errors
/// When what is asked for does not fit to what is there.
pub fn create(
    name: &str,
    existing: Option<&Builder>,
    request: &CreateRequest,
    surroundings: &Surroundings,
) -> Result<Changed, CommandError> {
    if name == DEFAULT {
        return Err(CommandError::usage(
            "default is a reserved name: it is the builder that is always there",
        ));
    }
    let driver = choose_driver(existing, request, surroundings);
    driver::validate(&driver)?;
    if let Some(existing) = existing {
        fits(existing, &driver, request)?;
    }
    let is_node = |node: &&BuilderNode| request.node.as_ref() == Some(&node.name);
    let changed_node = existing.and_then(|builder| builder.nodes.iter().find(is_node));
    let endpoint = match (driver.as_str(), changed_node) {
        (driver::KUBERNETES, None) => pods_endpoint(name, existing, request, surroundings)?,
        _ => choose_endpoint(&driver, changed_node, request, surroundings)?,
    };
    let mut builder = existing.cloned().unwrap_or_else(|| Builder {
        name: name.to_owned(),
        driver: driver.clone(),
        nodes: Vec::new(),
        dynamic: false,
    });
    if driver == driver::REMOTE && request.buildkitd_flags.is_some() {
        return Err(CommandError::usage(
            "the daemon of a remote node runs already: it takes no --buildkitd-flags",
        ));
    }
    if driver == driver::REMOTE && !request.files.is_empty() {
        return Err(CommandError::usage(
            "the daemon of a remote node runs already: it takes no configuration file",
        ));
    }
    // Whatever can't be a node must not be kept as one.
    driver::node_kind(&driver, &endpoint.text)?;
    let found = request.node.as_deref().and_then(|node| builder.find_node(node));
    let is_changed_node = found.is_some();
    let node = match found {
        Some(place) => {
            change_node(&mut builder.nodes[place], request, &endpoint);
            place
        }
        None => {
            let node = request.node.as_deref();
            if let (Some(node), false, false) = (node, request.is_append, builder.nodes.is_empty()) {
                return Err(CommandError::usage(format!("the builder {name} has no node {node}"))
                    .with_hint("add it with --append"));
            }
            let node = match node {
                Some(node) => name::validate(node)?,
                None => next_node_name(&builder),
            };
            if builder.find_node(&node).is_some() {
                return Err(CommandError::usage(format!("the builder {name} has a node {node} already")));
            }
            builder.nodes.push(new_node(node, request, &endpoint));
            builder.nodes.len() - 1
        }
    };
    settle(&mut builder, node)?;
    Ok(Changed { builder, node, is_changed_node })
}

/// Takes a node out of a builder.
///
/// # Errors
/// When there is no such node, or no other.
pub fn leave(builder: &Builder, node: &str) -> Result<Builder, CommandError> {
    let mut builder = builder.clone();
    let Some(place) = builder.find_node(node) else {
        let nodes: Vec<&str> = builder.nodes.iter().map(|node| node.name.as_str()).collect();
        return Err(CommandError::usage(format!("the builder {} has no node {node:?}", builder.name))
            .with_hint(format!("its nodes are {}", nodes.join(", "))));
    };
    if builder.nodes.len() == 1 {
        return Err(CommandError::usage(format!("{node} is the last node of the builder {}", builder.name))
            .with_hint(format!("remove the builder: polyarch buildx rm {}", builder.name)));
    }
    builder.nodes.remove(place);
    Ok(builder)
}

fn choose_driver(existing: Option<&Builder>, request: &CreateRequest, surroundings: &Surroundings) -> String {
    let is_remote = |endpoint: &String| {
        ["tcp://", "ssh://", "docker-container://"].iter().any(|scheme| endpoint.starts_with(scheme))
    };
    match (&request.driver, existing) {
        (Some(driver), _) => driver.clone(),
        (None, Some(existing)) => existing.driver.clone(),
        (None, None) if request.endpoint.is_none() && surroundings.buildkit_host.is_some() => {
            driver::REMOTE.into()
        }
        // An endpoint that only a node can be speaks for itself.
        (None, None) if request.endpoint.as_ref().is_some_and(is_remote) => driver::REMOTE.into(),
        (None, None) => driver::DOCKER_CONTAINER.into(),
    }
}

fn fits(existing: &Builder, driver: &str, request: &CreateRequest) -> Result<(), CommandError> {
    let name = &existing.name;
    if existing.dynamic {
        return Err(CommandError::usage(format!(
            "the nodes of the builder {name} come and go by themselves"
        )));
    }
    if request.node.is_none() && !request.is_append {
        return Err(CommandError::usage(format!("there is a builder {name} already"))
            .with_hint("add a node with --append, or name the node to change with --node"));
    }
    if driver != existing.driver {
        return Err(CommandError::usage(format!(
            "the builder {name} has the driver {}, and all nodes of a builder have the same",
            existing.driver
        ))
        .with_hint("make another builder for the other driver"));
    }
    Ok(())
}

/// An endpoint, and whether it was asked for.
struct ChosenEndpoint {
    text: String,
    is_asked_for: bool,
}

fn choose_endpoint(
    driver: &str,
    changed_node: Option<&BuilderNode>,
    request: &CreateRequest,
    surroundings: &Surroundings,
) -> Result<ChosenEndpoint, CommandError> {
    let chosen = |text: &str, is_asked_for| ChosenEndpoint { text: text.to_owned(), is_asked_for };
    if let (None, Some(node)) = (&request.endpoint, changed_node) {
        return Ok(chosen(&node.endpoint, false));
    }
    match (driver, &request.endpoint) {
        (_, Some(endpoint)) => Ok(chosen(endpoint, true)),
        (driver::REMOTE, None) => match &surroundings.buildkit_host {
            Some(host) => Ok(chosen(host, true)),
            None => Err(CommandError::usage("a remote node needs an endpoint")
                .with_hint("write unix://PATH, tcp://HOST:PORT or ssh://[USER@]HOST behind the options")),
        },
        (driver::LOCAL, None) => Ok(chosen(driver::LOCAL, false)),
        (_, None) => Ok(chosen(surroundings.docker_host.as_deref().unwrap_or(driver::DOCKER_SOCKET), false)),
    }
}

/// Returns where new pods are to be: the cluster that the user's configuration names.
fn pods_endpoint(
    builder: &str,
    existing: Option<&Builder>,
    request: &CreateRequest,
    surroundings: &Surroundings,
) -> Result<ChosenEndpoint, CommandError> {
    if let Some(endpoint) = &request.endpoint {
        return Err(CommandError::usage(format!("the driver kubernetes takes no endpoint {endpoint:?}"))
            .with_hint("name the cluster's file instead: KUBECONFIG=FILE polyarch buildx create …"));
    }
    let node = match (&request.node, existing) {
        (Some(node), _) => name::validate(node)?,
        (None, Some(existing)) => next_node_name(existing),
        (None, None) => format!("{builder}0"),
    };
    let text = pods::endpoint(builder, &node, surroundings.kubeconfig.as_deref())?;
    Ok(ChosenEndpoint { text, is_asked_for: false })
}

fn change_node(node: &mut BuilderNode, request: &CreateRequest, endpoint: &ChosenEndpoint) {
    if endpoint.is_asked_for {
        node.endpoint.clone_from(&endpoint.text);
    }
    if !request.platforms.is_empty() {
        node.platforms.clone_from(&request.platforms);
    }
    if let Some(flags) = &request.buildkitd_flags {
        node.buildkitd_flags.clone_from(flags);
    }
    if let Some(options) = &request.driver_opts {
        node.driver_opts.clone_from(options);
    }
    node.files.extend(request.files.clone());
}

fn new_node(name: String, request: &CreateRequest, endpoint: &ChosenEndpoint) -> BuilderNode {
    BuilderNode {
        name,
        endpoint: endpoint.text.clone(),
        platforms: request.platforms.clone(),
        driver_opts: request.driver_opts.clone().unwrap_or_default(),
        buildkitd_flags: request.buildkitd_flags.clone().unwrap_or_default(),
        files: request.files.clone(),
    }
}

fn next_node_name(builder: &Builder) -> String {
    let mut names = (0..).map(|number| format!("{}{number}", builder.name));
    names
        .find(|name| builder.find_node(name).is_none())
        .expect("a builder has fewer nodes than there are numbers")
}

/// Holds what is true of every builder: no endpoint twice, no platform fixed for two nodes. The node
/// that was written last keeps its platforms.
fn settle(builder: &mut Builder, written: usize) -> Result<(), CommandError> {
    let (endpoint, platforms) = {
        let node = &builder.nodes[written];
        (node.endpoint.clone(), node.platforms.clone())
    };
    let twin =
        builder.nodes.iter().enumerate().find(|(place, node)| *place != written && node.endpoint == endpoint);
    if let Some((_, twin)) = twin {
        return Err(CommandError::usage(format!(
            "invalid duplicate endpoint {endpoint}: the node {} has it",
            twin.name
        ))
        .with_hint(
            "a node of its own needs a machine of its own: write where it is behind the options, \
                        for example ssh://USER@HOST",
        ));
    }
    for (place, node) in builder.nodes.iter_mut().enumerate() {
        if place != written {
            node.platforms.retain(|platform| !platforms.contains(platform));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(node: Option<&str>, endpoint: &str, platforms: &str, is_append: bool) -> CreateRequest {
        CreateRequest {
            node: node.map(str::to_owned),
            driver: Some(driver::REMOTE.to_owned()),
            endpoint: Some(endpoint.to_owned()),
            platforms: match platforms {
                "" => Vec::new(),
                list => Platform::parse_list(list).unwrap(),
            },
            is_append,
            ..CreateRequest::default()
        }
    }

    fn make(existing: Option<&Builder>, request: &CreateRequest) -> Result<Changed, CommandError> {
        create("multi", existing, request, &Surroundings::default())
    }

    fn problem(result: Result<impl std::fmt::Debug, CommandError>) -> String {
        result.unwrap_err().error.message
    }

    #[test]
    fn nodes_are_added_changed_and_taken_out() {
        let one = make(None, &request(None, "tcp://a:1", "linux/amd64", false)).unwrap();
        assert_eq!((one.builder.nodes[0].name.as_str(), one.node), ("multi0", 0));
        let two =
            make(Some(&one.builder), &request(None, "tcp://b:1", "linux/arm64,linux/arm/v7", true)).unwrap();
        assert_eq!((two.builder.nodes[1].name.as_str(), two.node), ("multi1", 1));
        // A platform belongs to the node that was written last.
        let changed = request(Some("multi0"), "tcp://c:1", "linux/amd64,linux/arm/v7", false);
        let three = make(Some(&two.builder), &changed).unwrap().builder;
        let platforms = |builder: &Builder, node: usize| {
            builder.nodes[node].platforms.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(platforms(&three, 0), ["linux/amd64", "linux/arm/v7"]);
        assert_eq!(platforms(&three, 1), ["linux/arm64"]);
        assert_eq!(three.nodes[0].endpoint, "tcp://c:1");
        // What is not said stays.
        let only_platforms =
            CreateRequest { endpoint: None, ..request(Some("multi0"), "", "linux/riscv64", false) };
        let kept = make(Some(&three), &only_platforms).unwrap().builder;
        assert_eq!(
            (kept.nodes[0].endpoint.as_str(), platforms(&kept, 0)),
            ("tcp://c:1", vec!["linux/riscv64".into()])
        );
        let four = leave(&three, "multi0").unwrap();
        assert_eq!(four.nodes.len(), 1);
        assert!(problem(leave(&four, "multi1")).contains("last node"));
        assert!(problem(leave(&three, "other")).contains("no node \"other\""));
        // The first free number is taken.
        let five = make(Some(&four), &request(None, "tcp://d:1", "", true)).unwrap();
        assert_eq!(five.builder.nodes[1].name, "multi0");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let one = make(None, &request(None, "tcp://a:1", "", false)).unwrap().builder;
        let again = make(Some(&one), &request(None, "tcp://b:1", "", false));
        assert!(problem(again).contains("there is a builder multi already"));
        let twin = make(Some(&one), &request(Some("other"), "tcp://a:1", "", true));
        assert!(problem(twin).contains("duplicate endpoint tcp://a:1"));
        let unknown = make(Some(&one), &request(Some("other"), "tcp://b:1", "", false));
        assert!(problem(unknown).contains("no node other"));
        let driver =
            CreateRequest { driver: Some("local".into()), is_append: true, ..CreateRequest::default() };
        assert!(problem(make(Some(&one), &driver)).contains("has the driver remote"));
        let nowhere = CreateRequest { driver: Some("remote".into()), ..CreateRequest::default() };
        assert!(problem(make(None, &nowhere)).contains("needs an endpoint"));
        let flags = CreateRequest {
            buildkitd_flags: Some(vec!["--debug".into()]),
            ..request(None, "tcp://a:1", "", false)
        };
        assert!(problem(make(None, &flags)).contains("takes no --buildkitd-flags"));
        let reserved = create("default", None, &CreateRequest::default(), &Surroundings::default());
        assert!(problem(reserved).contains("reserved name"));
    }

    #[test]
    fn the_driver_follows_from_what_is_said() {
        let of = |endpoint: Option<&str>, surroundings: &Surroundings| {
            let request = CreateRequest { endpoint: endpoint.map(str::to_owned), ..CreateRequest::default() };
            let builder = create("multi", None, &request, surroundings).unwrap().builder;
            (builder.driver, builder.nodes[0].endpoint.clone())
        };
        let none = Surroundings::default();
        let buildkit = Surroundings { buildkit_host: Some("tcp://b:1".into()), ..Surroundings::default() };
        let pair = |driver: &str, endpoint: &str| (driver.to_owned(), endpoint.to_owned());
        assert_eq!(of(None, &none), pair("docker-container", driver::DOCKER_SOCKET));
        assert_eq!(of(None, &buildkit), pair("remote", "tcp://b:1"));
        assert_eq!(of(Some("ssh://pi"), &none), pair("remote", "ssh://pi"));
        assert_eq!(of(Some("default"), &buildkit), pair("docker-container", "default"));
    }
}
