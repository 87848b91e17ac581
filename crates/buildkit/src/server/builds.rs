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
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tonic::Status;

use crate::api::control::SolveRequest;
use crate::caller::ClientSession;
use crate::server::results::{ResultTree, Results};
use crate::server::status::StatusLog;

/// How long a call waits for a build of which nothing is known yet.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a build is known after its end.
const AFTERLIFE: Duration = Duration::from_secs(10);
/// The most builds at a time, those that have just ended among them.
const MAX_BUILDS: usize = 512;
/// How many questions of a frontend are worked on at a time; others wait.
pub(crate) const MAX_SOLVING: usize = 32;
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
    /// How many more of its frontend's questions may be worked on at a time.
    pub(crate) solving: Semaphore,
    /// What its client has uploaded, by name and URL: it can be asked for only once.
    pub(crate) uploads: tokio::sync::Mutex<HashMap<String, tempfile::TempDir>>,
}

impl Build {
    pub(crate) fn progress(&self) -> Progress {
        self.status.progress()
    }
}

/// The builds by their names.
#[derive(Clone, Default)]
pub(crate) struct Builds(Arc<Table>);

struct Table {
    by_name: Mutex<HashMap<String, Entry>>,
    came: Notify,
    patience: Duration,
}

impl Default for Table {
    fn default() -> Table {
        Table { by_name: Mutex::default(), came: Notify::new(), patience: PATIENCE }
    }
}

enum Entry {
    /// Its client's session is waited for, or the rooms are opened, which on a new store takes a while.
    Starting(Arc<StatusLog>, CancelFlag),
    /// It runs.
    Known(Arc<Build>),
    /// It has ended a moment ago.
    Ended(Arc<StatusLog>),
}

/// What a call finds under a name.
enum Found<T> {
    /// What it looks for.
    Ready(T),
    /// It comes as soon as the build has started.
    Soon,
    /// There was such a build.
    Gone,
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
        let cancel = CancelFlag::default();
        by_name.insert(name.to_owned(), Entry::Starting(status.clone(), cancel.clone()));
        drop(by_name);
        self.0.came.notify_waiters();
        Ok(Place { builds: self.clone(), name: name.to_owned(), status, cancel })
    }

    /// Returns a build, which may come in a moment.
    pub(crate) async fn find(&self, name: &str) -> Result<Arc<Build>, Status> {
        self.wait(name, |entry| match entry {
            Entry::Known(build) => Found::Ready(build.clone()),
            Entry::Starting(..) => Found::Soon,
            Entry::Ended(_) => Found::Gone,
        })
        .await
    }

    /// Returns the progress of a build, which may come in a moment.
    pub(crate) async fn status(&self, name: &str) -> Result<Arc<StatusLog>, Status> {
        self.wait(name, |entry| match entry {
            Entry::Known(build) => Found::Ready(build.status.clone()),
            Entry::Starting(status, _) | Entry::Ended(status) => Found::Ready(status.clone()),
        })
        .await
    }

    /// Tells whether a build is running, or has ended a moment ago.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// Returns the result that a definition names, of whichever build: the client that was told the name hands
    /// it on so.
    pub(crate) fn result(&self, name: &str) -> Result<ResultTree, Status> {
        let by_name = self.lock();
        let found = by_name.values().find_map(|entry| match entry {
            Entry::Known(build) => build.results.get(name).ok(),
            Entry::Starting(..) | Entry::Ended(_) => None,
        });
        found.ok_or_else(|| Status::not_found("the build whose result is an input here has ended"))
    }

    /// Waits for what a name has: a moment for a build of which nothing is known, and as long as it takes for one
    /// that is starting.
    async fn wait<T>(&self, name: &str, look: impl Fn(&Entry) -> Found<T>) -> Result<T, Status> {
        let deadline = Instant::now() + self.0.patience;
        loop {
            let came = self.0.came.notified();
            tokio::pin!(came);
            // Before looking, or else one that comes between looking and waiting were missed.
            came.as_mut().enable();
            let found = self.lock().get(name).map(&look);
            match found {
                Some(Found::Ready(found)) => return Ok(found),
                Some(Found::Gone) => return Err(Status::not_found(format!("job {name} has ended"))),
                Some(Found::Soon) => came.await,
                None => tokio::time::timeout_at(deadline, came)
                    .await
                    .map_err(|_| Status::not_found(format!("no such job {name}")))?,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        self.0.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks every build to stop.
    pub(crate) fn cancel_all(&self) {
        for entry in self.lock().values() {
            match entry {
                Entry::Known(build) => build.cancel.cancel(),
                Entry::Starting(_, cancel) => cancel.cancel(),
                Entry::Ended(_) => {}
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
        builds.lock().insert(name.clone(), Entry::Ended(self.status.clone()));
        builds.0.came.notify_waiters();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                tokio::time::sleep(AFTERLIFE).await;
                builds.lock().remove(&name);
            })),
            Err(_) => drop(builds.lock().remove(&name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;
    use tonic::Code;

    use super::*;

    fn impatient() -> Builds {
        Builds(Arc::new(Table { patience: Duration::ZERO, ..Table::default() }))
    }

    #[tokio::test]
    async fn a_build_that_is_starting_is_waited_for_whatever_the_patience() {
        let builds = impatient();
        let place = builds.reserve("slow").unwrap();
        let mut waiting = pin!(builds.find("slow"));
        assert!(waiting.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
        assert!(waiting.as_mut().now_or_never().is_none(), "it is starting still");
        assert!(builds.status("slow").await.is_ok(), "what it says can be followed already");
        drop(place);
        let error = waiting.await.map(drop).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::NotFound, "job slow has ended"));
    }

    #[tokio::test]
    async fn what_nobody_started_is_not_there() {
        let error = impatient().find("other").await.map(drop).unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::NotFound, "no such job other"));
    }

    #[tokio::test]
    async fn a_build_that_only_begins_is_stopped_too() {
        let builds = Builds::default();
        let place = builds.reserve("one").unwrap();
        assert!(!place.cancel.is_cancelled());
        builds.cancel_all();
        assert!(place.cancel.is_cancelled());
    }
}
