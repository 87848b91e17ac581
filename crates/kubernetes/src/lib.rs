// SPDX-License-Identifier: Apache-2.0
//! Builders in a Kubernetes cluster: pods of a BuildKit image, and connections into them.
//!
//! A node of such a builder is a Deployment, or a StatefulSet where its cache is to outlive its pods. Names, labels
//! and options are those of `docker buildx`, so that either program can use what the other has created. This crate
//! knows no BuildKit: a connection is the standard input and output of `buildctl dial-stdio` in a pod.

mod address;
mod cluster;
mod connection;
mod error;
mod manifest;
mod options;

pub use address::NodeAddress;
pub use cluster::{Cluster, NodeState, Pod};
pub use connection::PodConnection;
pub use error::{ClusterError, OptionError};
pub use options::{LoadBalance, PodOptions, Toleration, deployment_name};
