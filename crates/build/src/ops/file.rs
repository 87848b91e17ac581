// SPDX-License-Identifier: Apache-2.0
//! Files made and copied: COPY, ADD, WORKDIR and heredocs.

use std::sync::Arc;

use polyarch_dockerfile::value::chmod::Chmod;
use polyarch_dockerfile::{IgnoreRules, Pattern};
use polyarch_snapshot::{CopySource, CopySpec, KeepAll, PathFilter, SnapshotId, TreeRoot, content_key, copy};
use polyarch_solver::{CacheKey, KeyHasher, VertexContext};

use super::user::resolve_owner;
use crate::context::IgnoreFilter;
use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking};
use crate::result::Execution;
use crate::services::Services;
use crate::stats::Stats;
use crate::tree::{Layer, Output};

/// The largest /etc/passwd or /etc/group that is read from a tree, in bytes.
pub(crate) const MAX_PASSWD_BYTES: u64 = 4 << 20;

/// Changes to the tree of input 0; further inputs are copied from.
pub(crate) struct FileOp {
    pub(crate) services: Arc<Services>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) action: FileAction,
}

/// One instruction's changes.
#[derive(Debug, Clone)]
pub(crate) enum FileAction {
    /// WORKDIR: a directory and those above it.
    Mkdir {
        /// The absolute path.
        path: String,
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
}

impl FileOp {
    pub(crate) fn digest(&self) -> CacheKey {
        let mut hasher = KeyHasher::new("file 1");
        match &self.action {
            FileAction::Mkdir { path } => hasher.part("mkdir").part(path),
            FileAction::Copy(copy) => hasher
                .part("copy")
                .parts(&copy.sources)
                .parts(copy.heredocs.iter().flat_map(|(name, text)| [name, text]))
                .part(&copy.destination)
                .part(format!("{:?} {:?}", copy.owner, copy.mode))
                .parts(&copy.exclude)
                .part([u8::from(copy.unpack), u8::from(copy.from_context)]),
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
        let (services, action) = (self.services.clone(), action.clone());
        let key = blocking(move || {
            let source = Source::open(&services, &output, ids.as_deref())?;
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let digest = source.with_spec(&services, &action, Some((0, 0)), None, |spec| {
                content_key(spec, Some(services.memory()), threads)
            })?;
            Ok::<_, BuildError>(KeyHasher::new("content").part(digest.to_string()).finish())
        })
        .await?;
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
        let from_context = matches!(&action, FileAction::Copy(copy) if copy.from_context);
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
            commit(&services, active)
        })
        .await?;
        self.stats.executed(context.digest.clone(), Execution::Native, started);
        Ok(Output::Tree(base.with_step(layer.map(|id| Layer::Step { id, from_context }))))
    }
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
        FileAction::Mkdir { path } => tree
            .mkdir_all(path.as_str(), 0o755, (0, 0))
            .map_err(|error| services.snapshot_error("can't make the working directory", &error)),
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

/// Resolves `--chown` by the names in the tree that is copied into.
fn owner_in(tree: &TreeRoot, owner: &str) -> Result<(u32, u32), BuildError> {
    let read = |path: &str| {
        let bytes = tree.read(path, MAX_PASSWD_BYTES).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    resolve_owner(owner, &read("etc/passwd"), &read("etc/group"))
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
