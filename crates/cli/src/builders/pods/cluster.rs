// SPDX-License-Identifier: Apache-2.0
//! Nodes that are pods, with a cluster to ask.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::FutureExt as _;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_buildkit::client::Dialer;
use polyarch_kubernetes::{Cluster, ClusterError, NodeAddress, OptionError, PodOptions, deployment_name};

use crate::builders::BuilderNode;
use crate::{CommandError, Environment};

/// The entitlement that pods give builds when nothing is said of any: their network is their own.
const NETWORK_HOST: &str = "--allow-insecure-entitlement=network.host";

/// Accepts the driver.
///
/// # Errors
/// Never; without the cargo feature it is refused here.
pub fn validate() -> Result<(), CommandError> {
    Ok(())
}

/// Checks the options of a node.
///
/// # Errors
/// When one is unknown or makes no sense.
pub fn validate_options(options: &BTreeMap<String, String>) -> Result<(), CommandError> {
    PodOptions::parse("node", options).map(drop).map_err(|error| usage(&error))
}

/// Returns the address of a new node; `kubeconfig` is what the variable says.
///
/// # Errors
/// Never; without the cargo feature there is none.
pub fn endpoint(builder: &str, node: &str, kubeconfig: Option<&str>) -> Result<String, CommandError> {
    let address = NodeAddress {
        builder: builder.to_owned(),
        deployment: node.to_owned(),
        kubeconfig: kubeconfig.unwrap_or_default().to_owned(),
    };
    Ok(address.to_string())
}

/// Returns the way to a node; `None` when it is no pod.
pub fn dialer(environment: &Environment, node: &BuilderNode) -> Option<Dialer> {
    if !node.endpoint.starts_with("kubernetes:") {
        return None;
    }
    let wanted = Wanted::of(environment, node).map_err(|error| error.message);
    // Builds of one directory go to the same of several pods.
    let context = environment.current_directory.to_string_lossy().into_owned();
    Some(Dialer::new(move || {
        let (wanted, context) = (wanted.clone(), context.clone());
        async move {
            let wanted = wanted.map_err(io::Error::other)?;
            let failed = |error: ClusterError| io::Error::other(polyarch_build::error::chain_of(&error));
            let cluster = wanted.open().await.map_err(failed)?;
            cluster.connect(&wanted.pods, &context).await.map_err(failed)
        }
        .boxed()
    }))
}

/// Makes the pods of a node that are not there yet, and waits until they are ready. `report` is told how many are, and
/// how many there shall be.
///
/// # Errors
/// When the cluster refuses, or pods are not ready in time.
pub async fn boot(
    environment: &Environment,
    node: &BuilderNode,
    mut report: impl FnMut(u32, u32),
) -> Result<(), BuildError> {
    let wanted = Wanted::of(environment, node)?;
    let replicas = wanted.pods.replicas;
    let booted = async {
        let cluster = wanted.open().await?;
        cluster.create(&wanted.pods).await?;
        cluster.wait(&wanted.pods, |ready| report(ready, replicas)).await
    };
    booted.await.map_err(|error| failed(node, &error))
}

/// Removes the pods of a node.
///
/// # Errors
/// When the cluster refuses.
pub async fn remove(environment: &Environment, node: &BuilderNode) -> Result<(), BuildError> {
    let wanted = Wanted::of(environment, node)?;
    let removed = async { wanted.open().await?.remove(&wanted.pods).await };
    removed.await.map_err(|error| failed(node, &error))
}

/// The pods of a node, and where they are.
#[derive(Clone)]
struct Wanted {
    kubeconfigs: Vec<PathBuf>,
    pods: PodOptions,
}

impl Wanted {
    fn of(environment: &Environment, node: &BuilderNode) -> Result<Wanted, BuildError> {
        let address: NodeAddress =
            node.endpoint.parse().map_err(|error: OptionError| *usage(&error).error)?;
        let options = PodOptions::parse(&deployment_name(&node.name), &node.driver_opts);
        let mut pods = options.map_err(|error| *usage(&error).error)?;
        let platforms: Vec<String> = node.platforms.iter().map(ToString::to_string).collect();
        pods.platforms = platforms.join(",");
        pods.flags.clone_from(&node.buildkitd_flags);
        if !pods.flags.iter().any(|flag| flag.starts_with("--allow-insecure-entitlement")) {
            pods.flags.push(NETWORK_HOST.to_owned());
        }
        for (path, text) in &node.files {
            let wrong = || {
                BuildError::new(
                    ErrorKind::Usage,
                    format!("the file {path} of the node {} is not text in base64", node.name),
                )
                .with_hint("give it again: polyarch buildx create --node NODE --buildkitd-config FILE")
            };
            let bytes = STANDARD.decode(text).map_err(|_| wrong())?;
            pods.files.insert(path.clone(), String::from_utf8(bytes).map_err(|_| wrong())?);
        }
        Ok(Wanted { kubeconfigs: kubeconfigs(environment, &address), pods })
    }

    async fn open(&self) -> Result<Cluster, ClusterError> {
        Cluster::open(&self.kubeconfigs, self.pods.namespace.as_deref()).await
    }
}

/// Returns the files that tell where the cluster is: those of the address, of the variable, or the user's own; none
/// within a cluster.
fn kubeconfigs(environment: &Environment, address: &NodeAddress) -> Vec<PathBuf> {
    let named = Some(address.kubeconfig.as_str()).filter(|list| !list.is_empty());
    match named.or(environment.text("KUBECONFIG")) {
        Some(list) => {
            let files = list.split(':').filter(|file| !file.is_empty());
            files.map(|file| environment.resolve(Path::new(file))).collect()
        }
        None => {
            let own = environment.path("HOME").map(|home| home.join(".kube/config"));
            own.filter(|file| file.is_file()).into_iter().collect()
        }
    }
}

fn usage(error: &OptionError) -> CommandError {
    CommandError::usage(error.to_string())
}

fn failed(node: &BuilderNode, error: &ClusterError) -> BuildError {
    let what = format!("the pods of the node {} can't be had", node.name);
    let failure = BuildError::from_source(ErrorKind::Registry, what, error);
    let name = deployment_name(&node.name);
    failure.with_hint(match error {
        ClusterError::Kubeconfig { .. } | ClusterError::NoCluster(_) => {
            "name the cluster's file: KUBECONFIG=FILE polyarch buildx create --driver kubernetes".to_owned()
        }
        ClusterError::NotReady { .. } => {
            format!("see what keeps them: kubectl describe pods -l app={name}; or wait longer: --driver-opt timeout=5m")
        }
        _ => format!("see what the cluster has of it: kubectl get pods -l app={name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> BuilderNode {
        BuilderNode {
            name: "far_0".to_owned(),
            endpoint: endpoint("far", "far_0", Some("/a/config:b")).unwrap(),
            driver_opts: [("namespace", "ci"), ("replicas", "2")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            files: [("buildkitd.toml".to_owned(), STANDARD.encode("debug = true"))].into(),
            ..BuilderNode::default()
        }
    }

    #[test]
    fn what_is_kept_of_a_node_tells_its_pods() {
        let environment = Environment { current_directory: "/here".into(), ..Environment::default() };
        let wanted = Wanted::of(&environment, &node()).unwrap();
        assert_eq!(wanted.kubeconfigs, [PathBuf::from("/a/config"), "/here/b".into()]);
        assert_eq!((wanted.pods.name.as_str(), wanted.pods.replicas), ("far-0", 2));
        assert_eq!(wanted.pods.flags, [NETWORK_HOST]);
        assert_eq!(wanted.pods.files["buildkitd.toml"], "debug = true");
        let own = BuilderNode {
            buildkitd_flags: vec!["--allow-insecure-entitlement=security.insecure".to_owned()],
            ..node()
        };
        assert_eq!(Wanted::of(&environment, &own).unwrap().pods.flags, own.buildkitd_flags);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let environment = Environment::default();
        let wrong = BuilderNode { endpoint: "tcp://far:1".to_owned(), ..node() };
        assert!(Wanted::of(&environment, &wrong).err().unwrap().message.contains("no address of a node"));
        assert!(dialer(&environment, &wrong).is_none());
        let wrong = BuilderNode { files: [("a".to_owned(), "%".to_owned())].into(), ..node() };
        assert!(Wanted::of(&environment, &wrong).err().unwrap().message.contains("base64"));
        let options = [("replica".to_owned(), "1".to_owned())].into();
        assert!(validate_options(&options).unwrap_err().error.message.contains("replica"));
    }
}
