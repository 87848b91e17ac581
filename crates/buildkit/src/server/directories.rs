// SPDX-License-Identifier: Apache-2.0
//! A directory of a client's as a context: what steps read of it is copied here when they are known.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use polyarch_build::BuildError;
use polyarch_build::distant::{Distant, DistantDirectories, DistantDirectory, Wanted};
use polyarch_build::fetch::Shown;
use polyarch_snapshot::TreeRoot;
use polyarch_solver::progress::{ActiveStatus, Progress};

use crate::caller::{
    CallerError, ClientSession, KeptDirectories, KeptDirectory, ReceiveRequest, Received, Sessions,
};

/// The name of the ignore file.
const IGNORE_FILE: &str = ".dockerignore";
/// The largest ignore file, in bytes.
const MAX_IGNORE_BYTES: u64 = 16 << 20;
/// How long the session of a directory is waited for.
const SESSION_PATIENCE: Duration = Duration::from_secs(5);
/// How often a transfer is told of at most.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// The directories that a client offers.
pub(super) struct ClientDirectories {
    pub(super) sessions: Sessions,
    /// The session of the build.
    pub(super) session: Option<ClientSession>,
    /// Its id.
    pub(super) session_id: String,
    /// The ids of other sessions, by the directories that they have.
    pub(super) owners: BTreeMap<String, String>,
    /// Where what clients send is kept.
    pub(super) kept: KeptDirectories,
}

impl std::fmt::Debug for ClientDirectories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientDirectories")
    }
}

impl DistantDirectories for ClientDirectories {
    fn directory(&self, name: &str, label: &str) -> Distant {
        let owner = match (self.owners.get(name), &self.session) {
            (None, Some(session)) => Owner::Session(session.clone()),
            (Some(id), _) => Owner::Id(id.clone()),
            (None, None) => Owner::Id(self.session_id.clone()),
        };
        Distant::new(ClientDirectory {
            sessions: self.sessions.clone(),
            owner,
            name: name.to_owned(),
            label: label.to_owned(),
            kept: self.kept.clone(),
            leases: Mutex::default(),
        })
    }
}

/// Which session has a directory.
enum Owner {
    /// This one.
    Session(ClientSession),
    /// The one of this id, which may come later.
    Id(String),
}

/// A directory that a client offers.
struct ClientDirectory {
    sessions: Sessions,
    owner: Owner,
    /// The name under which the client offers it.
    name: String,
    /// What people read in front of what is loaded: `internal`, or the context's name.
    label: String,
    kept: KeptDirectories,
    /// What was brought, for as long as this is there.
    leases: Mutex<Vec<KeptDirectory>>,
}

impl std::fmt::Debug for ClientDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientDirectory").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ClientDirectory {
    async fn session(&self) -> Result<ClientSession, CallerError> {
        match &self.owner {
            Owner::Session(session) => Ok(session.clone()),
            Owner::Id(id) => self.sessions.find(id, SESSION_PATIENCE).await,
        }
    }

    /// Brings files into a directory that is kept for a purpose, and holds it.
    async fn receive(
        &self,
        purpose: &str,
        selection: ReceiveRequest,
        progress: impl Fn(Received) + Send + 'static,
    ) -> Result<PathBuf, CallerError> {
        let session = self.session().await?;
        let directory = self.kept.lease(&session, purpose)?;
        let request = ReceiveRequest { name: self.name.clone(), ..selection };
        session.receive_directory(&request, &directory, progress).await?;
        let path = directory.path().to_owned();
        self.leases.lock().unwrap_or_else(PoisonError::into_inner).push(directory);
        Ok(path)
    }

    async fn read_ignore_file(&self) -> Result<Option<Vec<u8>>, CallerError> {
        let selection =
            ReceiveRequest { follow_paths: vec![IGNORE_FILE.to_owned()], ..ReceiveRequest::default() };
        let path = match self.receive(&format!("dockerignore {}", self.name), selection, |_| {}).await {
            Ok(path) => path,
            // A client need not offer what steps don't read; if they do, they will be told.
            Err(CallerError::Refused { .. } | CallerError::NotOffered { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let failed = |error| CallerError::Write { path: path.clone(), source: std::io::Error::other(error) };
        let tree = TreeRoot::open(&path).map_err(failed)?;
        // Rules that are there and can't be read must not let everything through.
        match tree.symlink_metadata(IGNORE_FILE).map_err(failed)? {
            None => Ok(None),
            Some(_) => tree.read(IGNORE_FILE, MAX_IGNORE_BYTES).map(Some).map_err(failed),
        }
    }
}

impl DistantDirectory for ClientDirectory {
    fn ignore_file<'a>(
        &'a self,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, BuildError>> {
        Box::pin(async move {
            let label = &self.label;
            let vertex = progress
                .begin(&format!("load dockerignore {label}"), format!("[{label}] load .dockerignore"));
            match self.read_ignore_file().await {
                Ok(found) => {
                    vertex.done();
                    Ok(found)
                }
                Err(error) => {
                    vertex.failed(&error);
                    Err(error.into())
                }
            }
        })
    }

    fn bring<'a>(&'a self, wanted: Wanted, shown: &'a Shown) -> BoxFuture<'a, Result<PathBuf, BuildError>> {
        Box::pin(async move {
            let id = format!("transferring {}:", self.name);
            let status = ActiveStatus::start(shown.progress.clone(), shown.vertex.clone(), id, 0);
            let told = Mutex::new((status, None::<Instant>, 0));
            let tell = move |received: Received| {
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                let (status, last, so_far) = &mut *told;
                let is_due = last.is_none_or(|last| last.elapsed() >= TELL_EVERY);
                // The end is told again, whenever it comes.
                if is_due || received.is_complete && *so_far != received.transferred_bytes {
                    status.update(received.transferred_bytes);
                    (*last, *so_far) = (Some(Instant::now()), received.transferred_bytes);
                }
            };
            let Wanted { paths, exclude } = wanted;
            let selection = ReceiveRequest {
                exclude,
                follow_paths: paths.unwrap_or_default(),
                ..ReceiveRequest::default()
            };
            Ok(self.receive(&format!("context {}", self.name), selection, tell).await?)
        })
    }
}
