// SPDX-License-Identifier: Apache-2.0
//! Files made and copied: COPY, ADD, WORKDIR and heredocs.

use std::sync::{Arc, OnceLock};

use polyarch_dockerfile::value::chmod::Chmod;
use polyarch_dockerfile::{IgnoreRules, Pattern};
use polyarch_snapshot::{CopySource, CopySpec, KeepAll, PathFilter, SnapshotId, TreeRoot, content_key, copy};
use polyarch_solver::{CacheKey, KeyHasher, VertexContext};

use super::user::{User, resolve_owner, resolve_user};
use crate::context::IgnoreFilter;
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
    /// The content key by which this step was looked up, when it reads the user's context.
    pub(crate) looked_up: OnceLock<CacheKey>,
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
    },
    /// COPY and ADD.
    Copy(Box<CopyAction>),
}

/// COPY or ADD.
#[derive(Debug, Clone, Default)]
pub(crate) struct CopyAction {
    /// Paths or patterns in the tree or context of input 1; empty when there are only heredocs.
    pub(crate) sources: Vec<String>,
    /// Files whose text stands in the Dockerfile: name and content.
    pub(crate) heredocs: Vec<(String, String)>,
    /// The absolute destination; with a trailing slash it is a directory.
    pub(crate) destination: String,
    /// `--chown`, unresolved.
    pub(crate) owner: Option<String>,
    /// `--chmod`, as written.
    pub(crate) mode: Option<String>,
    /// Patterns of `--exclude`.
    pub(crate) exclude: Vec<String>,
    /// Whether local archives are unpacked.
    pub(crate) unpack: bool,
    /// Whether input 1 is the user's context: its owners and times mean nothing.
    pub(crate) from_context: bool,
    /// Whether what is copied gets [`UNKNOWN_TIME`] instead of times that say nothing.
    pub(crate) has_unknown_times: bool,
}

impl FileOp {
    pub(crate) fn digest(&self) -> CacheKey {
        let mut hasher = KeyHasher::new("file 1");
        match &self.action {
            FileAction::Mkdir { path, user } => hasher.part("mkdir").part(path).part(user),
            FileAction::Copy(copy) => hasher
                .part("copy")
                .parts(&copy.sources)
                .parts(copy.heredocs.iter().flat_map(|(name, text)| [name, text]))
                .part(&copy.destination)
                .part(format!("{:?} {:?}", copy.owner, copy.mode))
                .parts(&copy.exclude)
                .part([copy.unpack, copy.from_context, copy.has_unknown_times].map(u8::from)),
        };
        hasher.finish()
    }

    /// Computes the key of exactly what is copied of an input.
    pub(crate) async fn content_key(
        &self,
        _input: usize,
        output: Output,
        shown: &Shown,
    ) -> Result<CacheKey, BuildError> {
        let FileAction::Copy(action) = &self.action else {
            return Ok(KeyHasher::new("nothing").finish());
        };
        let ids = match &output {
            Output::Tree(tree) => Some(self.services.directories(tree, shown).await?),
            Output::Context(_) => None,
        };
        let remembered = ids.as_ref().map(|ids| self.memory_key(ids));
        if let Some(key) = remembered.as_ref().and_then(|key| self.recall(key)) {
            return Ok(key);
        }
        let is_context = matches!(output, Output::Context(_));
        let (services, action) = (self.services.clone(), action.clone());
        let key = blocking(move || compute_content_key(&services, &action, &output, ids.as_deref())).await?;
        if is_context {
            // Computed twice only for one vertex in one run, and then the first one counts.
            let _ = self.looked_up.set(key);
        }
        if let Some(remembered) = remembered {
            // Only a saving for the next build.
            let _ = self.services.store.put_record(CONTENT_KEYS, &remembered, key.hex().as_bytes());
        }
        Ok(key)
    }

    fn memory_key(&self, ids: &[SnapshotId]) -> String {
        let ids = ids.iter().map(SnapshotId::as_str);
        KeyHasher::new("content of").part(self.digest().as_bytes()).parts(ids).finish().hex()
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
        let parents = self.services.directories(&base, &shown).await?;
        let source_ids = match inputs.get(1) {
            Some(Output::Tree(tree)) => Some(self.services.directories(tree, &shown).await?),
            Some(Output::Context(_)) | None => None,
        };
        let (services, action) = (self.services.clone(), self.action.clone());
        let looked_up = self.looked_up.get().copied();
        let layer = blocking(move || {
            let active = services
                .snapshots
                .prepare(&parents)
                .map_err(|error| services.snapshot_error("can't prepare a layer", &error))?;
            {
                let tree =
                    active.tree().map_err(|error| services.snapshot_error("can't open a tree", &error))?;
                apply(&services, &action, inputs.get(1), source_ids.as_deref(), &tree)?;
            }
            if let (Some(before), FileAction::Copy(copy), Some(context)) = (looked_up, &action, inputs.get(1))
                && compute_content_key(&services, copy, context, None)? != before
            {
                // Recorded under the old key, the new files would be taken for the old ones for ever.
                let message = "files of the build context changed while they were copied";
                return Err(BuildError::new(ErrorKind::Dockerfile, message).with_hint("build again"));
            }
            commit(&services, active)
        })
        .await?;
        self.stats.executed(context.digest.clone(), Execution::Native, started);
        Ok(Output::Tree(base.with_step(layer.map(|id| Layer::Step { id }))))
    }
}

/// Computes the key of what an action copies.
fn compute_content_key(
    services: &Services,
    action: &CopyAction,
    output: &Output,
    ids: Option<&[SnapshotId]>,
) -> Result<CacheKey, BuildError> {
    let source = Source::open(services, output, ids)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let digest = source.with_spec(services, action, Some((0, 0)), None, |spec| {
        content_key(spec, Some(services.memory()), threads)
    })?;
    Ok(KeyHasher::new("content").part(digest.to_string()).finish())
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
    input: Option<&Output>,
    source_ids: Option<&[SnapshotId]>,
    tree: &TreeRoot,
) -> Result<(), BuildError> {
    match action {
        FileAction::Mkdir { path, user } => {
            let user = user_in(tree, user)?;
            tree.mkdir_all(path.as_str(), 0o755, (user.uid, user.gid))
                .map_err(|error| services.snapshot_error("can't make the working directory", &error))
        }
        FileAction::Copy(action) => {
            let owner = match &action.owner {
                Some(owner) => Some(owner_in(tree, owner)?),
                None if action.from_context => Some((0, 0)),
                None => None,
            };
            for (name, text) in &action.heredocs {
                write_heredoc(services, action, name, text, owner.unwrap_or((0, 0)), tree)?;
            }
            let Some(output) = input.filter(|_| !action.sources.is_empty()) else { return Ok(()) };
            let source = Source::open(services, output, source_ids)?;
            let explicit = action.owner.as_ref().and(owner);
            source.with_spec(services, action, owner, explicit, |spec| copy(spec, tree))
        }
    }
}

/// Writes one heredoc of a COPY, below the destination when that is a directory.
fn write_heredoc(
    services: &Services,
    action: &CopyAction,
    name: &str,
    text: &str,
    owner: (u32, u32),
    tree: &TreeRoot,
) -> Result<(), BuildError> {
    let failed = |error| services.snapshot_error("can't write a heredoc", &error);
    let destination = action.destination.as_str();
    let existing = tree.metadata(destination).map_err(failed)?;
    let is_directory = destination.ends_with('/')
        || existing.is_some_and(|metadata| metadata.kind == polyarch_snapshot::Kind::Directory)
        || action.heredocs.len() + action.sources.len() > 1;
    let path = if is_directory {
        format!("{}/{name}", destination.trim_end_matches('/'))
    } else {
        destination.to_owned()
    };
    let mode = match &action.mode {
        Some(mode) => parse_mode(mode)?.apply(0o644, false),
        None => 0o644,
    };
    tree.write_file(path.as_str(), text.as_bytes(), mode, owner).map_err(failed)
}

/// Reads a file of accounts; a tree without it has none.
fn read_accounts(tree: &TreeRoot, path: &str) -> Result<String, BuildError> {
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

/// Resolves `--chown` by the names in the tree that is copied into.
fn owner_in(tree: &TreeRoot, owner: &str) -> Result<(u32, u32), BuildError> {
    resolve_owner(owner, &read_accounts(tree, "etc/passwd")?, &read_accounts(tree, "etc/group")?)
        .map_err(|error| BuildError::new(ErrorKind::Dockerfile, format!("--chown={owner}: {error}")))
}

fn parse_mode(text: &str) -> Result<Chmod, BuildError> {
    Chmod::parse(text).map_err(|error| BuildError::from_source(ErrorKind::Dockerfile, "--chmod", &error))
}

/// An opened source of a copy.
struct Source<'a> {
    tree: TreeRoot,
    ignored: Option<&'a IgnoreRules>,
}

impl<'a> Source<'a> {
    fn open(
        services: &Services,
        output: &'a Output,
        ids: Option<&[SnapshotId]>,
    ) -> Result<Source<'a>, BuildError> {
        match output {
            Output::Context(context) => Ok(Source { tree: context.tree()?, ignored: context.ignored() }),
            Output::Tree(_) => {
                let tree = services
                    .snapshots
                    .view(ids.unwrap_or_default())
                    .map_err(|error| services.snapshot_error("can't open the tree to copy from", &error))?;
                Ok(Source { tree, ignored: None })
            }
        }
    }

    /// Calls a function of the snapshot room with what the action copies.
    fn with_spec<T>(
        &self,
        services: &Services,
        action: &CopyAction,
        owner: Option<(u32, u32)>,
        unpack_owner: Option<(u32, u32)>,
        call: impl FnOnce(&CopySpec<'_>) -> Result<T, polyarch_snapshot::SnapshotError>,
    ) -> Result<T, BuildError> {
        let excluded = match action.exclude.as_slice() {
            [] => None,
            patterns => Some(
                IgnoreRules::from_patterns(patterns)
                    .map_err(|error| BuildError::from_source(ErrorKind::Dockerfile, "--exclude", &error))?,
            ),
        };
        let ignore = IgnoreFilter { rules: [self.ignored, excluded.as_ref()] };
        let filter: &dyn PathFilter =
            if self.ignored.is_some() || excluded.is_some() { &ignore } else { &KeepAll };
        let sources: Vec<CopySource> = action
            .sources
            .iter()
            .map(|pattern| CopySource { pattern: pattern.clone(), allow_wildcard: true })
            .collect();
        let mode = action.mode.as_deref().map(parse_mode).transpose()?.map(|mode| mode.apply(0o644, false));
        let keeps_owner = action.owner.is_none() && !action.from_context;
        let spec = CopySpec {
            source: &self.tree,
            sources: &sources,
            filter,
            matcher: &|pattern, name| Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(name)),
            destination: &action.destination,
            owner: owner.filter(|_| !keeps_owner),
            mode,
            unpack: action.unpack,
            unpack_owner,
            modified: action.has_unknown_times.then_some(UNKNOWN_TIME),
        };
        call(&spec).map_err(|error| {
            let mut failure = services.snapshot_error("can't copy", &error);
            if matches!(
                error,
                polyarch_snapshot::SnapshotError::MissingSource { .. }
                    | polyarch_snapshot::SnapshotError::DestinationNotDirectory { .. }
                    | polyarch_snapshot::SnapshotError::TypeConflict { .. }
            ) {
                failure.kind = ErrorKind::Dockerfile;
            }
            failure
        })
    }
}
