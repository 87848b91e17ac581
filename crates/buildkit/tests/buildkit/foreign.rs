// SPDX-License-Identifier: Apache-2.0
//! What the tests against an unmodified buildkitd share.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use polyarch_buildkit::client::{ConnectOptions, Endpoint, Node};
use polyarch_solver::progress::{Event, Progress};
use polyarch_testkit::Buildkitd;

pub(crate) async fn connect(daemon: &Buildkitd) -> Node {
    Node::connect(&Endpoint::Unix(daemon.socket()), &options()).await.unwrap().0
}

pub(crate) fn options() -> ConnectOptions {
    ConnectOptions { timeout: Duration::from_secs(10), ..ConnectOptions::default() }
}

/// Keeps all events.
pub(crate) fn recorder() -> (Progress, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = events.clone();
    (Progress::new(move |event| sink.lock().unwrap().push(event)), events)
}
