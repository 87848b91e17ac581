// SPDX-License-Identifier: Apache-2.0
//! Our builder behind BuildKit's API: what a `buildkitd` offers to `docker buildx` and `buildctl`.
//!
//! One [`Server`] answers on any number of [`Listener`]s. A client opens its session
//! ([`crate::caller`]), then a build (`Control.Solve`), whose frontend is either ours, asked for with
//! the build, or runs in the client and calls `LLBBridge`. Every build opens the rooms of the builder for
//! itself, with the credentials of its own client: nothing of one client can be seen by another but what both
//! could have had from a registry. When a client goes away its builds are stopped.

mod admission;
mod attributes;
mod bridge;
mod builds;
mod cache;
mod capabilities;
mod contexts;
mod definition;
mod directories;
mod dispatch;
mod errors;
mod exporters;
mod frontend;
mod history;
mod layouts;
mod listen;
mod outputs;
mod resolve;
mod results;
mod returned;
mod secrets;
mod solve;
mod status;
mod usage;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use polyarch_build::ServiceOptions;
use polyarch_oci::Platform;
use tokio::sync::OnceCell;

use crate::caller::Sessions;
use builds::Builds;
use history::Journal;

pub(crate) use errors::{message_of_status, status_of};
pub use listen::{Listener, ServerTls};
pub(crate) use status::{StatusLog, timestamp};

/// How a server is set up.
#[derive(Clone)]
pub struct ServerOptions {
    /// How to open the rooms; the credentials are replaced by those of each client.
    pub services: ServiceOptions,
    /// The version that is told beside ours.
    pub version: String,
    /// Labels of the worker.
    pub labels: BTreeMap<String, String>,
    /// The platforms that are told; those that can run here when there are none.
    pub platforms: Vec<Platform>,
    /// What builds may be granted: `network.host`, `security.insecure`.
    pub entitlements: BTreeSet<String>,
    /// How many steps of a build run at a time; 0 lets the builder choose.
    pub max_parallel: usize,
    /// How many threads compress; 0 means as many as there are CPUs.
    pub threads: usize,
}

/// Our builder behind BuildKit's API; clones are the same server.
#[derive(Clone)]
pub struct Server(Arc<State>);

struct State {
    options: ServerOptions,
    /// The worker's name, as long as the process lives.
    worker: String,
    sessions: Sessions,
    builds: Builds,
    journal: Arc<Journal>,
    platforms: OnceCell<Vec<Platform>>,
}

impl Server {
    /// Makes a server.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(options: ServerOptions) -> Result<Server, getrandom::Error> {
        Ok(Server(Arc::new(State {
            options,
            worker: crate::session::random_id()?,
            sessions: Sessions::new(),
            builds: Builds::default(),
            journal: Arc::default(),
            platforms: OnceCell::new(),
        })))
    }

    /// Asks every build to stop and ends every session.
    pub fn stop(&self) {
        self.0.builds.cancel_all();
        self.0.sessions.end_all();
    }
}
