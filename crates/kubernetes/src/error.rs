// SPDX-License-Identifier: Apache-2.0
//! What can go wrong.

use std::path::PathBuf;

/// A driver option or an address that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// There is none of this name.
    #[error("invalid driver option {name:?} for the driver kubernetes")]
    Unknown {
        /// The name.
        name: String,
    },
    /// Its value is not of its kind.
    #[error("driver option {name}={value}: {expected}")]
    Value {
        /// The name.
        name: String,
        /// The value.
        value: String,
        /// What would be understood.
        expected: &'static str,
    },
    /// No address of a node.
    #[error("{address:?} is no address of a node in a cluster")]
    Address {
        /// The text.
        address: String,
    },
}

/// Why the cluster did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no usable description of a cluster.
    #[error("can't read the cluster's address from {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// No file was named, and this is no pod either.
    #[error("no cluster is known: there is no kubeconfig, and this is not a pod of a cluster")]
    NoCluster(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The API server refused, or was not reached.
    #[error("can't {action}")]
    Api {
        /// What was tried.
        action: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The options can't be written as documents of the API.
    #[error("the description of the pods is not valid")]
    Manifest(#[source] serde_json::Error),
    /// The pods were not ready in time.
    #[error("{ready} of {wanted} pods of {name} were ready after {seconds} s")]
    NotReady {
        /// The Deployment or StatefulSet.
        name: String,
        /// How many were ready.
        ready: u32,
        /// How many there should be.
        wanted: u32,
        /// How long was waited, in seconds.
        seconds: u64,
    },
    /// No pod runs.
    #[error("no pod of {name} runs")]
    NoPod {
        /// The Deployment or StatefulSet.
        name: String,
    },
    /// A pod has no container, or its program gave no stream.
    #[error("can't talk to a program in the pod {pod}: {reason}")]
    Stream {
        /// The pod.
        pod: String,
        /// What is missing.
        reason: &'static str,
    },
}

impl ClusterError {
    pub(crate) fn api(action: impl Into<String>) -> impl FnOnce(kube::Error) -> ClusterError {
        let action = action.into();
        move |source| ClusterError::Api { action, source: Box::new(source) }
    }
}
