// SPDX-License-Identifier: Apache-2.0
//! Files made and copied: COPY, ADD, WORKDIR and heredocs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use polyarch_snapshot::{SnapshotId, TreeRoot, content_key};
use polyarch_solver::{CacheKey, KeyHasher, VertexContext};

use super::copy::{CopyAction, CopyPath, Source};
use super::file_change::{FileChange, make_directories};
use super::unless_cancelled;
use super::user::{User, resolve_user};
use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking};
use crate::result::Execution;
use crate::services::Services;
use crate::stats::Stats;
use crate::tree::{Layer, Output};

/// The time, in seconds since 1970, of files from the user's context when `SOURCE_DATE_EPOCH` is set: when
/// they were checked out says nothing. It is the first that zip archives can tell. In a layer's tar it
/// becomes the epoch, wherever the file went after it was copied.
pub(crate) const UNKNOWN_TIME: i64 = 315_532_800;

/// The largest /etc/passwd or /etc/group that is read from a tree, in bytes.
pub(crate) const MAX_PASSWD_BYTES: u64 = 4 << 20;

/// Changes to the tree of input 0; further inputs are copied from.
pub(crate) struct FileOp {
    pub(crate) services: Arc<Services>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) action: FileAction,
    /// The content keys by which this step was looked up, by the inputs that are a context of the user's.
    pub(crate) looked_up: Mutex<BTreeMap<usize, CacheKey>>,
}

/// One instruction's changes.
#[derive(Debug, Clone)]
pub(crate) enum FileAction {
    /// WORKDIR: a directory and those above it.
    Mkdir {
        /// The absolute path.
        path: String,
        /// `user[:group]` that a new directory belongs to, unresolved; empty is root.
        user: String,
        /// The time of what is made, in nanoseconds since 1970; now when absent.
        time: Option<i64>,
    },
    /// COPY and ADD: each part in its order.
    Copy(Vec<CopyAction>),
    /// What a client's definition says, in its order.
    Changes(Vec<Change>),
}

/// One change of a definition.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// A copy from an input.
    Copy(CopyAction),
    /// Any other.
    Other(FileChange),
}

impl FileAction {
    /// Returns what is copied from an input.
    fn copies_of(&self, input: usize) -> Vec<CopyAction> {
        let copies: Vec<&CopyAction> = match self {
            FileAction::Mkdir { .. } => Vec::new(),
            FileAction::Copy(actions) => actions.iter().collect(),
            FileAction::Changes(changes) => changes
                .iter()
                .filter_map(|change| match change {
                    Change::Copy(action) => Some(action),
                    Change::Other(_) => None,
                })
                .collect(),
        };
        copies.into_iter().filter(|action| action.input == input).cloned().collect()
    }
}

impl FileOp {
    pub(crate) fn digest(&self) -> CacheKey {
        let mut hasher = KeyHasher::new("file 1");
        match &self.action {
            FileAction::Mkdir { path, user, time } => {
                let hasher = hasher.part("mkdir").part(path).part(user);
                match time {
                    Some(time) => hasher.part(time.to_string()),
                    None => hasher,
                }
            }
            FileAction::Copy(actions) => {
                actions.iter().fold(hasher.part("copy"), |hasher, action| hasher.parts(action.key_parts()))
            }
            FileAction::Changes(changes) => {
                changes.iter().fold(hasher.part("changes"), |hasher, change| match change {
                    Change::Copy(action) => hasher.part("copy").parts(action.key_parts()),
                    Change::Other(change) => hasher.part(change.key()),
                })
            }
        };
        hasher.finish()
    }

    /// Returns the paths that are copied of an input; `None` is all of it.
    pub(super) fn paths_read(&self, input: usize) -> Option<Vec<String>> {
        let FileAction::Copy(actions) = &self.action else { return Some(Vec::new()) };
        let sources = actions.iter().filter(|action| action.input == input).flat_map(|it| &it.sources);
        sources.map(CopyPath::followed).collect()
    }

    /// Computes the key of exactly what is copied of an input.
    pub(crate) async fn content_key(
        &self,
        input: usize,
        output: Output,
        shown: &Shown,
    ) -> Result<CacheKey, BuildError> {
        let actions = self.action.copies_of(input);
        if actions.is_empty() {
            return Ok(KeyHasher::new("nothing").finish());
        }
        let ids = match &output {
            Output::Tree(tree) => Some(self.services.directories(tree, shown).await?),
            Output::Trees(_) => return Err(BuildError::several_trees()),
            Output::Context(_) => None,
        };
        let remembered = ids.as_ref().map(|ids| self.memory_key(input, ids));
        if let Some(key) = remembered.as_ref().and_then(|key| self.recall(key)) {
            return Ok(key);
        }
        let is_context = matches!(output, Output::Context(_));
        let services = self.services.clone();
        let key = blocking(move || compute_content_key(&services, &actions, &output, ids.as_deref())).await?;
        if is_context {
            // Computed twice only for one vertex in one run, and then the first one counts.
            let mut looked_up = self.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
            looked_up.entry(input).or_insert(key);
        }
        if let Some(remembered) = remembered {
            // Only a saving for the next build.
            let _ = self.services.store.put_record(CONTENT_KEYS, &remembered, key.hex().as_bytes());
        }
        Ok(key)
    }

    fn memory_key(&self, input: usize, ids: &[SnapshotId]) -> String {
        let ids = ids.iter().map(SnapshotId::as_str);
        let mut hasher = KeyHasher::new("content of");
        hasher.part(self.digest().as_bytes()).part(input.to_string()).parts(ids).finish().hex()
    }

    /// Returns the content key remembered for the same layers: committed layers never change.
    fn recall(&self, remembered: &str) -> Option<CacheKey> {
        let bytes = self.services.store.get_record(CONTENT_KEYS, remembered).ok()??;
        CacheKey::from_hex(std::str::from_utf8(&bytes).ok()?)
    }

    pub(crate) async fn exec(
        &self,
        inputs: Vec<Output>,
        context: &VertexContext,
    ) -> Result<Output, BuildError> {
        let started = std::time::SystemTime::now();
        let shown = super::shown(context);
        let base = inputs.first().map(Output::tree).unwrap_or_default();
        let parents = unless_cancelled(context, self.services.directories(&base, &shown)).await?;
        let mut sources = Vec::new();
        for output in inputs.into_iter().skip(1) {
            let ids = match &output {
                Output::Tree(tree) => {
                    Some(unless_cancelled(context, self.services.directories(tree, &shown)).await?)
                }
                Output::Trees(_) => return Err(BuildError::several_trees()),
                Output::Context(_) => None,
            };
            sources.push((output, ids));
        }
        let (services, action) = (self.services.clone(), self.action.clone());
        let looked_up = self.looked_up.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let layer = blocking(move || {
            let active = services
                .snapshots
                .prepare(&parents)
                .map_err(|error| services.snapshot_error("can't prepare a layer", &error))?;
            {
                let tree =
                    active.tree().map_err(|error| services.snapshot_error("can't open a tree", &error))?;
                apply(&services, &action, &sources, &tree)?;
            }
            check_unchanged(&services, &action, &sources, &looked_up)?;
            commit(&services, active)
        })
        .await?;
        self.stats.executed(context.digest.clone(), Execution::Native, started);
        Ok(Output::Tree(base.with_step(layer.map(|id| Layer::Step { id }))))
    }
}

/// An input to copy from, with its layers when it has some.
type OpenedInput = (Output, Option<Vec<SnapshotId>>);

/// Makes sure that a context still is what the step was looked up by: recorded under the old key, new files
/// would be taken for the old ones for ever.
fn check_unchanged(
    services: &Services,
    action: &FileAction,
    sources: &[OpenedInput],
    looked_up: &BTreeMap<usize, CacheKey>,
) -> Result<(), BuildError> {
    for (input, before) in looked_up {
        let Some((output @ Output::Context(_), _)) = sources.get(input.saturating_sub(1)) else { continue };
        let actions = action.copies_of(*input);
        if compute_content_key(services, &actions, output, None)? != *before {
            let message = "files of the build context changed while they were copied";
            return Err(BuildError::new(ErrorKind::Dockerfile, message).with_hint("build again"));
        }
    }
    Ok(())
}

/// Computes the key of what actions copy from one input.
fn compute_content_key(
    services: &Services,
    actions: &[CopyAction],
    output: &Output,
    ids: Option<&[SnapshotId]>,
) -> Result<CacheKey, BuildError> {
    let source = Source::open(services, output, ids)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut hasher = KeyHasher::new("content");
    for action in actions {
        let digest = source.with_spec(services, action, Some((0, 0)), None, |spec| {
            content_key(spec, Some(services.memory()), threads)
        })?;
        hasher.part(digest.to_string());
    }
    Ok(hasher.finish())
}

/// The namespace of records that remember content keys of committed layers.
pub(crate) const CONTENT_KEYS: &str = "content-keys";

/// Commits what a step changed under a new name; `None` when it changed nothing.
pub(crate) fn commit(
    services: &Services,
    active: polyarch_snapshot::ActiveSnapshot,
) -> Result<Option<SnapshotId>, BuildError> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random)
        .map_err(|error| BuildError::new(ErrorKind::Storage, format!("no random numbers: {error}")))?;
    let id = SnapshotId::of_result(&polyarch_oci::Digest::from_sha256_bytes(random));
    let snapshot =
        active.commit(id).map_err(|error| services.snapshot_error("can't commit a layer", &error))?;
    if snapshot.is_empty {
        // An empty layer is no layer; what is left of it is only a directory.
        let _ = services.snapshots.remove(&snapshot.id);
        return Ok(None);
    }
    Ok(Some(snapshot.id))
}

fn apply(
    services: &Services,
    action: &FileAction,
    sources: &[OpenedInput],
    tree: &TreeRoot,
) -> Result<(), BuildError> {
    match action {
        FileAction::Mkdir { path, user, time } => {
            let user = user_in(tree, user)?;
            make_directories(tree, path, 0o755, (user.uid, user.gid), *time)
                .map_err(|error| services.snapshot_error("can't make the working directory", &error))
        }
        FileAction::Copy(actions) => {
            actions.iter().try_for_each(|action| apply_copy(services, action, sources, tree))
        }
        FileAction::Changes(changes) => changes.iter().try_for_each(|change| match change {
            Change::Copy(action) => apply_copy(services, action, sources, tree),
            Change::Other(change) => change.apply(services, tree),
        }),
    }
}

fn apply_copy(
    services: &Services,
    action: &CopyAction,
    sources: &[OpenedInput],
    tree: &TreeRoot,
) -> Result<(), BuildError> {
    let source = match action.input.checked_sub(1).and_then(|at| sources.get(at)) {
        Some((output, ids)) => Some(Source::open(services, output, ids.as_deref())?),
        None => None,
    };
    action.apply(services, source.as_ref(), tree)
}

/// Reads a file of accounts; a tree without it has none.
pub(crate) fn read_accounts(tree: &TreeRoot, path: &str) -> Result<String, BuildError> {
    if !tree.exists(path) {
        return Ok(String::new());
    }
    let bytes = tree.read(path, MAX_PASSWD_BYTES).map_err(|error| {
        BuildError::from_source(ErrorKind::Dockerfile, format!("can't read /{path} of the image"), &error)
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Resolves `user[:group]` by the names in a tree.
pub(crate) fn user_in(tree: &TreeRoot, user: &str) -> Result<User, BuildError> {
    resolve_user(user, &read_accounts(tree, "etc/passwd")?, &read_accounts(tree, "etc/group")?)
        .map_err(|error| BuildError::from_source(ErrorKind::Dockerfile, "can't act as this user", &error))
}
