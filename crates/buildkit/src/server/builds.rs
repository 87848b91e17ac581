// SPDX-License-Identifier: Apache-2.0
//! The builds that are running, by the names that their clients gave them.
//!
//! A build is found by whoever knows its name, which its client has made up and nobody can guess; calls of its
//! frontend and its status may come before the build itself, and wait a moment for it. It stays known for a
//! short time after its end, for a client that asks late.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polyarch_build::Services;
use polyarch_solver::CancelFlag;
use polyarch_solver::progress::Progress;
use tokio::sync::Notify;
use tonic::Status;

use crate::api::control::SolveRequest;
use crate::caller::ClientSession;
use crate::server::results::{ResultTree, Results};
use crate::server::status::StatusLog;

/// How long a call waits for its build.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a build is known after its end.
const AFTERLIFE: Duration = Duration::from_secs(10);
/// The most builds at a time, those that have just ended among them.
const MAX_BUILDS: usize = 512;
/// The longest name of a build, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// One build.
pub(crate) struct Build {
    /// What was asked for.
    pub(crate) request: SolveRequest,
    /// The client.
    pub(crate) session: Option<ClientSession>,
    /// The rooms, with the client's credentials; nobody else's build uses them.
    pub(crate) services: Arc<Services>,
    /// What clients are told.
    pub(crate) status: Arc<StatusLog>,
    /// Set when it shall stop.
    pub(crate) cancel: CancelFlag,
    /// The trees that its frontend has, and what it returned.
    pub(crate) results: Results,
}

impl Build {
    pub(crate) fn progress(&self) -> Progress {
        self.status.progress()
    }
}

/// The builds by their names.
#[derive(Clone, Default)]
pub(crate) struct Builds(Arc<Table>);

#[derive(Default)]
struct Table {
    by_name: Mutex<HashMap<String, Entry>>,
    came: Notify,
}

enum Entry {
    /// Its client's session is waited for.
    Starting(Arc<StatusLog>),
    /// It runs, or has ended a moment ago.
    Known(Arc<Build>),
}

/// A build's place in the table; when it goes, the build is told to stop, and forgotten a little later.
pub(crate) struct Place {
    builds: Builds,
    name: String,
    pub(crate) status: Arc<StatusLog>,
    pub(crate) cancel: CancelFlag,
}

impl Builds {
    /// Makes a place for a build.
    pub(crate) fn reserve(&self, name: &str) -> Result<Place, Status> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(Status::invalid_argument("a build needs a ref of at most 256 bytes"));
        }
        let mut by_name = self.lock();
        if by_name.contains_key(name) {
            return Err(Status::already_exists(format!("job ID {name} exists")));
        }
        if by_name.len() >= MAX_BUILDS {
            return Err(Status::resource_exhausted(format!("{MAX_BUILDS} builds are running already")));
        }
        let status = StatusLog::new();
        by_name.insert(name.to_owned(), Entry::Starting(status.clone()));
        drop(by_name);
        self.0.came.notify_waiters();
        Ok(Place { builds: self.clone(), name: name.to_owned(), status, cancel: CancelFlag::default() })
    }

    /// Returns a build, which may come in a moment.
    pub(crate) async fn find(&self, name: &str) -> Result<Arc<Build>, Status> {
        self.wait(name, |entry| match entry {
            Entry::Known(build) => Some(build.clone()),
            Entry::Starting(_) => None,
        })
        .await
    }

    /// Returns the progress of a build, which may come in a moment.
    pub(crate) async fn status(&self, name: &str) -> Result<Arc<StatusLog>, Status> {
        self.wait(name, |entry| match entry {
            Entry::Known(build) => Some(build.status.clone()),
            Entry::Starting(status) => Some(status.clone()),
        })
        .await
    }

    /// Tells whether a build is running, or has ended a moment ago.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// Returns a result of whichever build: who knows its name may use it.
    pub(crate) fn result(&self, name: &str) -> Result<ResultTree, Status> {
        let by_name = self.lock();
        let found = by_name.values().find_map(|entry| match entry {
            Entry::Known(build) => build.results.get(name).ok(),
            Entry::Starting(_) => None,
        });
        found.ok_or_else(|| Status::not_found("the build whose result is an input here has ended"))
    }

    async fn wait<T>(&self, name: &str, take: impl Fn(&Entry) -> Option<T>) -> Result<T, Status> {
        let search = async {
            loop {
                let came = self.0.came.notified();
                tokio::pin!(came);
                // Before looking, or else one that comes between looking and waiting were missed.
                came.as_mut().enable();
                if let Some(found) = self.lock().get(name).and_then(&take) {
                    return found;
                }
                came.await;
            }
        };
        tokio::time::timeout(PATIENCE, search)
            .await
            .map_err(|_| Status::not_found(format!("no such job {name}")))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        self.0.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks every build to stop.
    pub(crate) fn cancel_all(&self) {
        for entry in self.lock().values() {
            if let Entry::Known(build) = entry {
                build.cancel.cancel();
            }
        }
    }
}

impl Place {
    /// Puts the build there.
    pub(crate) fn fill(&self, build: Arc<Build>) {
        self.builds.lock().insert(self.name.clone(), Entry::Known(build));
        self.builds.0.came.notify_waiters();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.status.end();
        let (builds, name) = (self.builds.clone(), self.name.clone());
        // What it holds goes at once; only what it said is kept for a while.
        builds.lock().insert(name.clone(), Entry::Starting(self.status.clone()));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep(AFTERLIFE).await;
                builds.lock().remove(&name);
            })),
            Err(_) => drop(builds.lock().remove(&name)),
        }
    }
}
