// SPDX-License-Identifier: Apache-2.0
//! What is asked of a cluster: make a node's pods, wait for them, list them, reach into one, remove them.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource};

use crate::connection::PodConnection;
use crate::error::ClusterError;
use crate::manifest::{Workload, config_maps, workload};
use crate::options::{ANNOTATION_PLATFORM, LABEL_APP, LoadBalance, PodOptions};

/// How long is waited between two questions whether pods are ready.
const POLL: Duration = Duration::from_millis(500);

/// The API server's answer when there is no such object.
const NOT_FOUND: u16 = 404;

/// The API server's answer when there is such an object already.
const CONFLICT: u16 = 409;

/// A namespace of a cluster.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

/// What there is of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeState {
    /// Nothing.
    Absent,
    /// Its documents, but no pod that is ready.
    Stopped,
    /// Pods that run, sorted by name.
    Running(Vec<Pod>),
}

/// A pod that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its first container, where the daemon is.
    pub container: String,
    /// The platforms fixed for it, comma-separated; empty when none are.
    pub platforms: String,
}

impl Cluster {
    /// Reads where the cluster is: from kubeconfigs, of which the first that says something counts, or without any from
    /// what every pod of a cluster is given.
    ///
    /// `namespace` overrides theirs. Nothing is asked of the cluster yet; but a program that a kubeconfig names for a
    /// user's credentials is run.
    ///
    /// # Errors
    /// When a file can't be read, or they name no cluster.
    pub async fn open(kubeconfigs: &[PathBuf], namespace: Option<&str>) -> Result<Cluster, ClusterError> {
        let config = match kubeconfigs {
            [] => Config::incluster_dns().map_err(|error| ClusterError::NoCluster(Box::new(error)))?,
            [first, others @ ..] => {
                let failed = |path: &PathBuf, source| ClusterError::Kubeconfig {
                    path: path.clone(),
                    source: Box::new(source),
                };
                let mut merged = Kubeconfig::read_from(first).map_err(|error| failed(first, error))?;
                for path in others {
                    let next = Kubeconfig::read_from(path).map_err(|error| failed(path, error))?;
                    merged = merged.merge(next).map_err(|error| failed(path, error))?;
                }
                let config = Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default()).await;
                config.map_err(|error| failed(first, error))?
            }
        };
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = Client::try_from(config).map_err(ClusterError::api("make a client of the cluster"))?;
        Ok(Cluster { client, namespace })
    }

    /// Makes what there is not yet of a node: its files, and its Deployment or StatefulSet.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn create(&self, pods: &PodOptions) -> Result<(), ClusterError> {
        if self.ready(pods).await?.is_some() {
            return Ok(());
        }
        for map in config_maps(pods)? {
            self.create_one(&map).await?;
        }
        match workload(pods)? {
            Workload::Deployment(document) => self.create_one(&*document).await,
            Workload::StatefulSet(document) => self.create_one(&*document).await,
        }
    }

    /// Waits until all pods are ready; `report` is told how many are, whenever that changes.
    ///
    /// # Errors
    /// When the cluster refuses, or the node's time is over.
    pub async fn wait(&self, pods: &PodOptions, mut report: impl FnMut(u32)) -> Result<(), ClusterError> {
        let mut last = None;
        let waiting = async {
            loop {
                let ready = self.ready(pods).await?.unwrap_or(0);
                if last.replace(ready) != Some(ready) {
                    report(ready);
                }
                if ready >= pods.replicas {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        match tokio::time::timeout(pods.timeout, waiting).await {
            Ok(result) => result,
            Err(_) => Err(ClusterError::NotReady {
                name: pods.name.clone(),
                ready: last.unwrap_or(0),
                wanted: pods.replicas,
                seconds: pods.timeout.as_secs(),
            }),
        }
    }

    /// Tells what there is of a node.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn state(&self, pods: &PodOptions) -> Result<NodeState, ClusterError> {
        match self.ready(pods).await? {
            None => Ok(NodeState::Absent),
            Some(0) => Ok(NodeState::Stopped),
            Some(_) => Ok(NodeState::Running(self.running(pods).await?)),
        }
    }

    /// Connects to the daemon in one of a node's pods. `context` names what is built, so that builds of the same
    /// find the same pod.
    ///
    /// # Errors
    /// When no pod runs, or the program can't be started there.
    pub async fn connect(&self, pods: &PodOptions, context: &str) -> Result<PodConnection, ClusterError> {
        let running = self.running(pods).await?;
        let chosen = match pods.load_balance {
            LoadBalance::Sticky => running.iter().max_by_key(|pod| weight(context, &pod.name)),
            LoadBalance::Random => running.iter().max_by_key(|pod| weight(&random(), &pod.name)),
        };
        let pod = chosen.ok_or_else(|| ClusterError::NoPod { name: pods.name.clone() })?;
        PodConnection::open(&self.api(), &pod.name, &pod.container).await
    }

    /// Removes all that there is of a node. What is not there is no error.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn remove(&self, pods: &PodOptions) -> Result<(), ClusterError> {
        match workload(pods)? {
            Workload::Deployment(_) => self.remove_one::<Deployment>(&pods.name).await?,
            Workload::StatefulSet(_) => self.remove_one::<StatefulSet>(&pods.name).await?,
        }
        for map in config_maps(pods)? {
            self.remove_one::<v1::ConfigMap>(&map.metadata.name.unwrap_or_default()).await?;
        }
        Ok(())
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create_one<K>(&self, document: &K) -> Result<(), ClusterError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let name = document.meta().name.clone().unwrap_or_default();
        match self.api::<K>().create(&PostParams::default(), document).await {
            // Another build was faster.
            Err(kube::Error::Api(status)) if status.code == CONFLICT => Ok(()),
            made => made.map(drop).map_err(ClusterError::api(format!("create the {} {name}", K::kind(&())))),
        }
    }

    async fn remove_one<K>(&self, name: &str) -> Result<(), ClusterError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        match self.api::<K>().delete(name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.code == NOT_FOUND => Ok(()),
            gone => gone.map(drop).map_err(ClusterError::api(format!("delete the {} {name}", K::kind(&())))),
        }
    }

    /// Returns how many pods are ready; `None` when nothing runs pods.
    async fn ready(&self, pods: &PodOptions) -> Result<Option<u32>, ClusterError> {
        let failed = ClusterError::api(format!("look for {}", pods.name));
        let ready = match &pods.volume_size {
            None => {
                let found = self.api::<Deployment>().get_opt(&pods.name).await.map_err(failed)?;
                found.map(|found| found.status.and_then(|status| status.ready_replicas))
            }
            Some(_) => {
                let found = self.api::<StatefulSet>().get_opt(&pods.name).await.map_err(failed)?;
                found.map(|found| found.status.and_then(|status| status.ready_replicas))
            }
        };
        Ok(ready.map(|ready| u32::try_from(ready.unwrap_or(0)).unwrap_or(0)))
    }

    async fn running(&self, pods: &PodOptions) -> Result<Vec<Pod>, ClusterError> {
        let selector = ListParams::default().labels(&format!("{LABEL_APP}={}", pods.name));
        let failed = ClusterError::api(format!("list the pods of {}", pods.name));
        let list = self.api::<v1::Pod>().list(&selector).await.map_err(failed)?;
        let mut running: Vec<Pod> = list.items.into_iter().filter_map(running_pod).collect();
        running.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(running)
    }
}

/// Returns what matters of a pod; `None` when it does not run, or is about to end.
fn running_pod(pod: v1::Pod) -> Option<Pod> {
    let is_running = pod.status.and_then(|status| status.phase).as_deref() == Some("Running");
    if !is_running || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let container = pod.spec?.containers.into_iter().next()?.name;
    let platforms = pod.metadata.annotations.and_then(|mut all| all.remove(ANNOTATION_PLATFORM));
    Some(Pod { name: pod.metadata.name?, container, platforms: platforms.unwrap_or_default() })
}

/// How much a pod attracts a context. The strongest wins, so that a pod that comes or goes moves few contexts.
fn weight(context: &str, pod: &str) -> u64 {
    // FNV-1a: the same on every machine and in every version, which the standard library's hash is not.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in context.bytes().chain([0]).chain(pod.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    // The last bytes, by which pods differ, move the upper bits too little: MurmurHash3's last step mixes them.
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Something that differs from call to call.
fn random() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one("pod").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_spread_over_pods_and_stay_when_one_goes() {
        let pods = ["a-1", "a-2", "a-3"];
        let chosen = |context: &str, pods: &[&str]| -> String {
            pods.iter().max_by_key(|pod| weight(context, pod)).unwrap().to_string()
        };
        let contexts: Vec<String> = (0..300).map(|number| format!("/src/{number}")).collect();
        for pod in pods {
            let share = contexts.iter().filter(|context| chosen(context, &pods) == pod).count();
            assert!((60..140).contains(&share), "{pod} gets {share} of 300");
        }
        for context in &contexts {
            let before = chosen(context, &pods);
            if before != "a-3" {
                assert_eq!(chosen(context, &pods[..2]), before);
            }
        }
    }
}
