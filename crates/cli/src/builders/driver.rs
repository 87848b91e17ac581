// SPDX-License-Identifier: Apache-2.0
//! Drivers: what a builder's nodes are, and which options and endpoints they take.
//!
//! `local` is this program itself, and so is `docker-container` at this machine's own docker: it needs
//! no container; a docker daemon on another machine is the BuildKit within it. `remote` is whatever speaks BuildKit's protocol elsewhere.
//! `kubernetes` are pods, which this program makes when they are wanted.

use std::collections::BTreeMap;
use std::path::Path;

use polyarch_buildkit::client::Endpoint;
use polyarch_oci::platform::did_you_mean;

use crate::CommandError;
use crate::builders::pods;

/// This program itself.
pub const LOCAL: &str = "local";
/// The name by which `docker buildx` users know a builder that can do everything.
pub const DOCKER_CONTAINER: &str = "docker-container";
/// Whatever speaks BuildKit's protocol.
pub const REMOTE: &str = "remote";
/// Pods.
pub const KUBERNETES: &str = "kubernetes";

const KNOWN: [&str; 4] = [LOCAL, DOCKER_CONTAINER, REMOTE, KUBERNETES];

/// The endpoint of this machine's docker when nothing else is said.
pub const DOCKER_SOCKET: &str = "unix:///var/run/docker.sock";

const REMOTE_OPTIONS: [&str; 6] = ["cacert", "cert", "key", "servername", "default-load", "insecure"];
const CONTAINER_OPTIONS: [&str; 15] = [
    "image",
    "network",
    "memory",
    "memory-swap",
    "cpu-period",
    "cpu-quota",
    "cpu-shares",
    "cpuset-cpus",
    "cpuset-mems",
    "cgroup-parent",
    "restart-policy",
    "default-load",
    "provenance-add-gha",
    "allow-untrusted-image",
    "insecure",
];

/// What a node is, by its builder's driver and its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// This program itself.
    Local,
    /// Another program, reached so.
    Remote(Endpoint),
}

/// Checks the name of a driver.
///
/// # Errors
/// When there is none of this name.
pub fn validate(driver: &str) -> Result<(), CommandError> {
    match driver {
        LOCAL | DOCKER_CONTAINER | REMOTE => Ok(()),
        KUBERNETES => pods::validate(),
        "docker" => {
            Err(CommandError::usage("the driver docker can't be created: it is docker's own builder")
                .with_hint("leave --driver out, or name local or remote"))
        }
        _ => {
            Err(CommandError::usage(format!("there is no driver {driver:?}{}", did_you_mean(driver, &KNOWN)))
                .with_hint(format!("the drivers are {}", KNOWN.join(", "))))
        }
    }
}

/// Finds out what a node is.
///
/// # Errors
/// When the endpoint makes no sense for the driver.
pub fn node_kind(driver: &str, endpoint: &str) -> Result<NodeKind, CommandError> {
    let remote = |endpoint: &str| -> Result<NodeKind, CommandError> {
        let endpoint = endpoint.parse::<Endpoint>().map_err(polyarch_build::BuildError::from)?;
        Ok(NodeKind::Remote(endpoint))
    };
    match driver {
        REMOTE => remote(endpoint),
        KUBERNETES => {
            pods::validate()?;
            Ok(NodeKind::Remote(Endpoint::Dialed { name: endpoint.to_owned() }))
        }
        LOCAL | DOCKER_CONTAINER if is_this_machine(endpoint) => Ok(NodeKind::Local),
        DOCKER_CONTAINER if endpoint.starts_with("ssh://") => remote(endpoint),
        DOCKER_CONTAINER if endpoint.starts_with("tcp://") => match remote(endpoint)? {
            NodeKind::Remote(endpoint) => match endpoint.of_docker() {
                Some(endpoint) => Ok(NodeKind::Remote(endpoint)),
                None => Err(CommandError::usage("a docker daemon's endpoint has a host and a port")),
            },
            NodeKind::Local => Ok(NodeKind::Local),
        },
        LOCAL => Err(CommandError::usage(format!(
            "the driver local builds on this machine and has no endpoint {endpoint:?}"
        ))
        .with_hint(format!("use --driver remote {endpoint}"))),
        _ => Err(CommandError::usage(format!("{endpoint:?} is no endpoint for the driver {driver}"))
            .with_hint("name another machine as ssh://[USER@]HOST, with --driver remote")),
    }
}

/// Tells whether an endpoint of docker's means this machine.
fn is_this_machine(endpoint: &str) -> bool {
    matches!(endpoint, "" | "default" | "desktop-linux" | LOCAL) || endpoint.starts_with("unix://")
}

/// Reads options, `key=value` in one or more comma-separated lists.
///
/// # Errors
/// When one is no pair, or the driver does not know it, or those of TLS don't fit together.
pub fn options(driver: &str, lists: &[String]) -> Result<Option<BTreeMap<String, String>>, CommandError> {
    if lists.is_empty() {
        return Ok(None);
    }
    let mut options = BTreeMap::new();
    for list in lists {
        for field in crate::commands::flag_values::split_csv(list).map_err(CommandError::usage)? {
            let Some((key, value)) = field.split_once('=') else {
                return Err(CommandError::usage(format!("--driver-opt {field:?}: write KEY=VALUE")));
            };
            options.insert(key.trim().to_owned(), value.to_owned());
        }
    }
    validate_options(driver, &options)?;
    Ok(Some(options))
}

fn validate_options(driver: &str, options: &BTreeMap<String, String>) -> Result<(), CommandError> {
    if driver == KUBERNETES {
        return pods::validate_options(options);
    }
    let known: &[&str] = match driver {
        REMOTE => &REMOTE_OPTIONS,
        _ => &CONTAINER_OPTIONS,
    };
    for (key, value) in options {
        let is_known = known.contains(&key.as_str()) || driver != REMOTE && key.starts_with("env.");
        if !is_known {
            return Err(CommandError::usage(format!(
                "invalid driver option {key:?} for the driver {driver}{}",
                did_you_mean(key, known)
            )));
        }
        if matches!(key.as_str(), "cacert" | "cert" | "key") && !Path::new(value).is_absolute() {
            return Err(CommandError::usage(format!("--driver-opt {key}={value}: write an absolute path")));
        }
        if matches!(key.as_str(), "default-load" | "insecure") {
            crate::commands::flag_values::go_bool(value)
                .map_err(|problem| CommandError::usage(format!("--driver-opt {key}={value}: {problem}")))?;
        }
    }
    let has = |key: &str| options.get(key).is_some_and(|value| !value.is_empty());
    let is_tls = ["cacert", "cert", "key", "servername"].iter().any(|key| has(key));
    let missing: Vec<&str> = [
        ("cacert", is_tls && !has("cacert")),
        ("key", has("cert") && !has("key")),
        ("cert", has("key") && !has("cert")),
    ]
    .iter()
    .filter_map(|(key, is_missing)| is_missing.then_some(*key))
    .collect();
    match missing.is_empty() {
        true => Ok(()),
        false => {
            Err(CommandError::usage(format!("TLS needs the driver option {} as well", missing.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_known_by_driver_and_endpoint() {
        for endpoint in ["default", "local", DOCKER_SOCKET, ""] {
            assert_eq!(node_kind(DOCKER_CONTAINER, endpoint).unwrap(), NodeKind::Local);
        }
        let ssh = NodeKind::Remote("ssh://me@pi".parse().unwrap());
        assert_eq!(node_kind(DOCKER_CONTAINER, "ssh://me@pi").unwrap(), ssh);
        assert_eq!(node_kind(REMOTE, "ssh://me@pi").unwrap(), ssh);
        let docker = Endpoint::Docker { host: "172.31.154.79".to_owned(), port: 2375 };
        let kind = node_kind(DOCKER_CONTAINER, "tcp://172.31.154.79:2375").unwrap();
        assert_eq!(kind, NodeKind::Remote(docker));
        for (driver, endpoint, problem) in [
            (DOCKER_CONTAINER, "tcp://172.31.154.79", "port is missing"),
            (LOCAL, "tcp://h:1", "builds on this machine"),
            (REMOTE, "default", "no scheme"),
            (DOCKER_CONTAINER, "somecontext", "no endpoint for the driver"),
        ] {
            let error = node_kind(driver, endpoint).unwrap_err();
            assert!(error.error.message.contains(problem), "{endpoint}: {}", error.error.message);
        }
    }

    #[test]
    fn options_are_checked() {
        let read = |driver: &str, text: &str| options(driver, &[text.to_owned()]);
        let tls = read(REMOTE, "cacert=/a/ca.pem,cert=/a/c.pem,key=/a/k.pem").unwrap().unwrap();
        assert_eq!(tls["cert"], "/a/c.pem");
        assert_eq!(read(DOCKER_CONTAINER, "env.A=b,network=host").unwrap().unwrap().len(), 2);
        assert_eq!(options(REMOTE, &[]).unwrap(), None);
        for (text, problem) in [
            ("cacert=ca.pem", "absolute"),
            ("cert=/c", "cacert, key"),
            ("image=x", "invalid driver option"),
            ("cacrt=/x", "cacert"),
            ("cacert", "KEY=VALUE"),
            ("insecure=maybe", "true or false"),
        ] {
            let error = read(REMOTE, text).unwrap_err();
            assert!(error.error.message.contains(problem), "{text}: {}", error.error.message);
        }
    }
}
