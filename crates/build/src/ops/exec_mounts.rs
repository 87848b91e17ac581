// SPDX-License-Identifier: Apache-2.0
//! What `RUN --mount` brings: files of other trees, caches, memory, secrets and agents.
//!
//! First, what has to be waited for is gathered: layers are fetched, secrets and agents asked for. Then, on the
//! thread of the step, trees are prepared and caches taken; they are let go when the step has ended.

mod cache;

use std::sync::{Arc, OnceLock};

use polyarch_dockerfile::instruction::{MountOwner, Sharing};
use polyarch_sandbox::{CancelFlag, MemoryFile, Mount, RootFsKind};
use polyarch_snapshot::{
    ActiveSnapshot, CopySource, CopySpec, KeepAll, PathFilter, SnapshotError, SnapshotId, TreeRoot,
    content_key, copy,
};
use polyarch_solver::{CacheKey, KeyHasher};

use cache::seeded;

use super::agent_socket::AgentSocket;
use super::exec::root_fs;
use super::file::{CONTENT_KEYS, UNKNOWN_TIME};
use crate::cache_mounts::{CacheMount, CacheMountId};
use crate::context::{IgnoreFilter, LocalContext};
use crate::distant::followed;
use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking};
use crate::secrets::{MAX_SECRET_BYTES, SecretSource};
use crate::services::Services;
use crate::tree::Output;

/// Mode of a secret's file, as in BuildKit.
const SECRET_MODE: u32 = 0o400;

/// A mount of a step; targets are absolute.
#[derive(Debug, Clone)]
pub(crate) enum ExecMount {
    /// Files of a tree or of the context; what the step changes in them is thrown away.
    Bind { from: MountSource, target: String, read_only: bool },
    /// Files of a tree; what the step changes in them is a further output of it.
    Writable {
        /// Nothing begins with an empty tree.
        from: Option<MountSource>,
        target: String,
    },
    /// A directory that stays.
    Cache(Box<CacheExecMount>),
    /// An empty directory in memory; 0 is no limit.
    Tmpfs { target: String, size_bytes: u64 },
    /// A secret as a file, as a variable, or both.
    Secret { id: String, target: Option<String>, env: Option<String>, required: bool, owner: MountOwner },
    /// A socket of an agent.
    Ssh { id: String, target: String, required: bool, owner: MountOwner },
}

/// A directory that stays from build to build.
#[derive(Debug, Clone)]
pub(crate) struct CacheExecMount {
    /// Which; its seed is known only when the step runs.
    pub(crate) id: CacheMountId,
    /// What an empty cache begins with.
    pub(crate) from: Option<MountSource>,
    /// The path in the cache, where it has no seed.
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) read_only: bool,
    pub(crate) sharing: Sharing,
}

/// A path in one of the step's inputs.
#[derive(Debug, Clone)]
pub(crate) struct MountSource {
    /// Which input.
    pub(crate) input: usize,
    /// The absolute path there.
    pub(crate) path: String,
    /// Whether files get [`UNKNOWN_TIME`] when they are of a context.
    pub(crate) has_unknown_times: bool,
    /// The content key by which the step was looked up, when this is of the user's context.
    pub(crate) looked_up: Arc<OnceLock<CacheKey>>,
}

impl ExecMount {
    /// Returns what of the mount decides about the step's result. What a cache holds does not: that is what
    /// makes it one. Neither does its name, nor who shares it.
    pub(super) fn key(&self) -> String {
        match self {
            ExecMount::Bind { from, target, read_only } => {
                format!("bind {:?} {target:?} {read_only} {}", from.path, from.has_unknown_times)
            }
            ExecMount::Writable { from, target } => {
                format!("writable {:?} {target:?}", from.as_ref().map(|from| &from.path))
            }
            ExecMount::Cache(cache) => {
                let from = cache.from.as_ref().map(|from| &from.path);
                let CacheExecMount { id, source, target, read_only, .. } = &**cache;
                format!("cache {from:?} {source:?} {target:?} {read_only} {:?}", id.owner)
            }
            ExecMount::Tmpfs { target, size_bytes } => format!("tmpfs {target:?} {size_bytes}"),
            ExecMount::Secret { id, target, env, required, owner } => {
                format!("secret {id:?} {target:?} {env:?} {required} {owner:?}")
            }
            ExecMount::Ssh { id, target, required, owner } => {
                format!("ssh {id:?} {target:?} {required} {owner:?}")
            }
        }
    }

    pub(super) fn source(&self) -> Option<&MountSource> {
        match self {
            ExecMount::Bind { from, .. } => Some(from),
            ExecMount::Writable { from, .. } => from.as_ref(),
            ExecMount::Cache(cache) => cache.from.as_ref(),
            ExecMount::Tmpfs { .. } | ExecMount::Secret { .. } | ExecMount::Ssh { .. } => None,
        }
    }
}

/// Returns the paths that mounts show of an input; `None` is all of it.
pub(super) fn paths_read(mounts: &[ExecMount], input: usize) -> Option<Vec<String>> {
    let sources = mounts.iter().filter_map(ExecMount::source).filter(|source| source.input == input);
    sources.map(|source| followed(&source.path)).collect()
}

/// Computes the key of exactly what a step's mount shows of an input.
pub(super) async fn mount_content_key(
    services: &Arc<Services>,
    mounts: &[ExecMount],
    input: usize,
    output: Output,
    shown: &Shown,
) -> Result<CacheKey, BuildError> {
    let Some(source) = mounts.iter().filter_map(ExecMount::source).find(|it| it.input == input).cloned()
    else {
        return Ok(KeyHasher::new("nothing").finish());
    };
    let files = Files::of(services, &output, shown).await?;
    let remembered = match &files {
        Files::Layers(ids) => Some(
            KeyHasher::new("mounted content of")
                .part(&source.path)
                .parts(ids.iter().map(SnapshotId::as_str))
                .finish()
                .hex(),
        ),
        Files::Context(_) => None,
    };
    // Committed layers never change.
    let recalled = remembered.as_ref().and_then(|key| services.store.get_record(CONTENT_KEYS, key).ok()?);
    if let Some(key) = recalled.and_then(|bytes| CacheKey::from_hex(std::str::from_utf8(&bytes).ok()?)) {
        return Ok(key);
    }
    let is_context = matches!(files, Files::Context(_));
    let (own, path) = (services.clone(), source.clone());
    let key = blocking(move || files.key(&own, &path)).await?;
    if is_context {
        // Computed twice only for one vertex in one run, and then the first one counts.
        let _ = source.looked_up.set(key);
    }
    if let Some(remembered) = remembered {
        // Only a saving for the next build.
        let _ = services.store.put_record(CONTENT_KEYS, &remembered, key.hex().as_bytes());
    }
    Ok(key)
}

/// An input's files, fetched.
enum Files {
    Layers(Vec<SnapshotId>),
    Context(Arc<LocalContext>),
}

impl Files {
    async fn of(services: &Arc<Services>, output: &Output, shown: &Shown) -> Result<Files, BuildError> {
        Ok(match output {
            Output::Trees(_) => return Err(BuildError::several_trees()),
            Output::Tree(tree) => Files::Layers(services.directories(tree, shown).await?),
            Output::Context(context) => Files::Context(context.clone()),
        })
    }

    fn key(&self, services: &Services, from: &MountSource) -> Result<CacheKey, BuildError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let digest =
            self.with_spec(services, from, "/", |spec| content_key(spec, Some(services.memory()), threads))?;
        Ok(KeyHasher::new("content").part(digest.to_string()).finish())
    }

    /// Copies what is at a path to a place in another tree.
    fn copy_to(
        &self,
        services: &Services,
        from: &MountSource,
        destination: &str,
        into: &TreeRoot,
    ) -> Result<(), BuildError> {
        self.with_spec(services, from, destination, |spec| copy(spec, into))?;
        if let Some(before) = from.looked_up.get()
            && self.key(services, from)? != *before
        {
            // Recorded under the old key, what the step made of the new files would be taken for that of the old.
            let message = "files of the build context changed while they were copied";
            return Err(BuildError::new(ErrorKind::Dockerfile, message).with_hint("build again"));
        }
        Ok(())
    }

    fn with_spec<T>(
        &self,
        services: &Services,
        from: &MountSource,
        destination: &str,
        call: impl FnOnce(&CopySpec<'_>) -> Result<T, SnapshotError>,
    ) -> Result<T, BuildError> {
        let (tree, ignored) = match self {
            Files::Layers(ids) => {
                (services.snapshots.view(ids).map_err(|error| cannot_mount(services, &error))?, None)
            }
            Files::Context(context) => (context.tree()?, context.ignored()),
        };
        let relative = from.path.trim_start_matches('/');
        let pattern = if relative.is_empty() { "." } else { relative }.to_owned();
        let is_context = matches!(self, Files::Context(_));
        let filter = IgnoreFilter { rules: ignored };
        let filter: &dyn PathFilter = if ignored.is_some() { &filter } else { &KeepAll };
        let spec = CopySpec {
            source: &tree,
            sources: &[CopySource { pattern, allow_wildcard: false }],
            filter,
            matcher: &|pattern, name| pattern == name,
            destination,
            owner: is_context.then_some((0, 0)),
            mode: None,
            unpack: false,
            unpack_owner: None,
            modified: (from.has_unknown_times && is_context).then_some(UNKNOWN_TIME),
            within: None,
            created_mode: 0o755,
            keeps_directories: false,
            follows_links: true,
            needs_match: false,
        };
        call(&spec).map_err(|error| cannot_mount(services, &error))
    }
}

fn cannot_mount(services: &Services, error: &SnapshotError) -> BuildError {
    let mut failure = services.snapshot_error("can't mount", error);
    if matches!(error, SnapshotError::MissingSource { .. }) {
        failure.kind = ErrorKind::Dockerfile;
    }
    failure
}

/// Mounts as far as they can be known without touching the step's disk.
#[derive(Default)]
pub(super) struct Gathered {
    parts: Vec<Part>,
    /// Whether caches that don't begin with nothing begin anew.
    pub(super) renews_caches: bool,
    /// The environment that mounts bring.
    pub(super) env: Vec<String>,
    agents: Vec<AgentSocket>,
}

enum Part {
    Ready(Mount),
    Bind { files: Files, from: MountSource, target: String, read_only: bool },
    Writable { layers: Vec<SnapshotId>, path: String, target: String },
    Cache { files: Option<Files>, mount: Box<CacheExecMount> },
}

/// Asks for all that has to be waited for.
pub(super) async fn gather(
    services: &Arc<Services>,
    secrets: &dyn SecretSource,
    mounts: &[ExecMount],
    inputs: &[Output],
    shown: &Shown,
) -> Result<Gathered, BuildError> {
    let mut gathered = Gathered::default();
    for mount in mounts {
        let files = match mount.source().and_then(|source| inputs.get(source.input)) {
            Some(output) => Some(Files::of(services, output, shown).await?),
            None => None,
        };
        match mount {
            ExecMount::Bind { from, target, read_only } => {
                let files = files.unwrap_or(Files::Layers(Vec::new()));
                let (from, target, read_only) = (from.clone(), target.clone(), *read_only);
                gathered.parts.push(Part::Bind { files, from, target, read_only });
            }
            ExecMount::Writable { from, target } => {
                let layers = match files {
                    Some(Files::Layers(layers)) => layers,
                    Some(Files::Context(_)) | None => Vec::new(),
                };
                let path = from.as_ref().map_or("/", |from| &from.path).to_owned();
                gathered.parts.push(Part::Writable { layers, path, target: target.clone() });
            }
            ExecMount::Cache(mount) => gathered.parts.push(Part::Cache { files, mount: mount.clone() }),
            ExecMount::Tmpfs { target, size_bytes } => gathered
                .parts
                .push(Part::Ready(Mount::Tmpfs { target: target.into(), size_bytes: *size_bytes })),
            ExecMount::Secret { id, target, env, required, owner } => {
                let Some(content) = secrets.secret(id).await? else {
                    if *required {
                        return Err(BuildError::new(ErrorKind::Usage, format!("secret {id}: not found"))
                            .with_hint(format!("give it: --secret id={id},src=FILE")));
                    }
                    continue;
                };
                gathered.secret(id, content, target.as_deref(), env.as_deref(), *owner)?;
            }
            ExecMount::Ssh { id, target, required, owner } => match secrets.agent(id).await? {
                Some(agent) => {
                    let socket = AgentSocket::listen(services.scratch()?, agent, *owner)?;
                    let (source, target) = (socket.path(), target.into());
                    gathered.parts.push(Part::Ready(Mount::Bind { source, target, read_only: false }));
                    gathered.agents.push(socket);
                }
                None if *required => {
                    let message = format!("no SSH key {id:?} forwarded from the client");
                    return Err(BuildError::new(ErrorKind::Usage, message)
                        .with_hint(format!("forward the agent: --ssh {id}")));
                }
                None => {}
            },
        }
    }
    Ok(gathered)
}

impl Gathered {
    fn secret(
        &mut self,
        id: &str,
        content: Vec<u8>,
        target: Option<&str>,
        env: Option<&str>,
        owner: MountOwner,
    ) -> Result<(), BuildError> {
        let unfit = |reason: &str| Err(BuildError::new(ErrorKind::Usage, format!("secret {id}: {reason}")));
        if content.len() > MAX_SECRET_BYTES {
            return unfit(&format!("larger than {MAX_SECRET_BYTES} bytes"));
        }
        if let Some(name) = env {
            match std::str::from_utf8(&content) {
                Ok(text) if !text.contains('\0') => self.env.push(format!("{name}={text}")),
                _ => return unfit("no environment variable can hold it: it is not text"),
            }
        }
        if let Some(target) = target {
            let MountOwner { mode, uid, gid } = owner;
            let mode = mode.unwrap_or(SECRET_MODE) & 0o777;
            let file = MemoryFile { content, mode, uid: uid.unwrap_or(0), gid: gid.unwrap_or(0) };
            self.parts.push(Part::Ready(Mount::File { file, target: target.into() }));
        }
        Ok(())
    }

    /// Prepares trees and takes caches. Blocks while a cache is locked by others.
    pub(super) fn attach(self, services: &Services, cancel: &CancelFlag) -> Result<Attached, BuildError> {
        let mut attached = Attached { _agents: self.agents, ..Attached::default() };
        let mut mounts: Vec<Option<Mount>> = Vec::new();
        let mut caches = Vec::new();
        for part in self.parts {
            mounts.push(match part {
                Part::Ready(mount) => Some(mount),
                Part::Bind { files, from, target, read_only } => {
                    let (tree, active) = bind(services, &files, &from)?;
                    attached._trees.push(active);
                    let path = from.path.into();
                    Some(Mount::Tree { tree, path, target: target.into(), read_only })
                }
                Part::Writable { layers, path, target } => {
                    let failed = |error: SnapshotError| cannot_mount(services, &error);
                    let active = services.snapshots.prepare(&layers).map_err(failed)?;
                    {
                        let tree = active.tree().map_err(failed)?;
                        if tree.metadata(path.as_str()).map_err(failed)?.is_none() {
                            let message = format!("can't mount {path:?}: not found");
                            return Err(BuildError::new(ErrorKind::Dockerfile, message));
                        }
                    }
                    let tree = root_fs(active.root_mount().map_err(failed)?).kind;
                    attached.writable.push(active);
                    Some(Mount::Tree { tree, path: path.into(), target: target.into(), read_only: false })
                }
                Part::Cache { files, mount } => {
                    caches.push((mounts.len(), seeded(files, mount)));
                    None
                }
            });
        }
        // In one order for all steps: two that lock the same two caches don't wait for each other.
        caches.sort_by_key(|(_, cache)| format!("{:?}", cache.mount.id));
        let mut taken: Vec<(CacheMountId, std::path::PathBuf)> = Vec::new();
        for (at, cache) in caches {
            let id = cache.mount.id.clone();
            // Mounted twice in one step, it is one cache.
            let files = match taken.iter().find(|(other, _)| *other == id) {
                Some((_, files)) => files.clone(),
                None => {
                    let held = cache.take(services, cancel, self.renews_caches)?;
                    let files = held.files.clone();
                    attached._caches.push(held);
                    taken.push((id, files.clone()));
                    files
                }
            };
            mounts[at] = Some(cache.mounted(&files)?);
        }
        attached.mounts = mounts.into_iter().flatten().collect();
        // What lies beneath another mount comes after it; of two at one place, the later one is seen.
        attached.mounts.sort_by(|one, other| one.target().cmp(other.target()));
        Ok(attached)
    }
}

/// Prepares a tree of its own for a bind, so that changes are thrown away with it.
fn bind(
    services: &Services,
    files: &Files,
    from: &MountSource,
) -> Result<(RootFsKind, ActiveSnapshot), BuildError> {
    let failed = |error: SnapshotError| cannot_mount(services, &error);
    let layers: &[SnapshotId] = match files {
        Files::Layers(ids) => ids,
        Files::Context(_) => &[],
    };
    let active = services.snapshots.prepare(layers).map_err(failed)?;
    {
        let tree = active.tree().map_err(failed)?;
        if let Files::Context(_) = files {
            files.copy_to(services, from, &from.path, &tree)?;
        }
        if tree.metadata(from.path.as_str()).map_err(failed)?.is_none() {
            let message = format!("can't mount {:?}: not found", from.path);
            return Err(BuildError::new(ErrorKind::Dockerfile, message));
        }
    }
    let root = root_fs(active.root_mount().map_err(failed)?);
    Ok((root.kind, active))
}

/// Mounts that are ready, and what must be kept for as long as the step runs.
#[derive(Default)]
pub(super) struct Attached {
    /// In the order in which they are made.
    pub(super) mounts: Vec<Mount>,
    /// The trees whose changes are kept, in the order of their mounts.
    pub(super) writable: Vec<ActiveSnapshot>,
    _trees: Vec<ActiveSnapshot>,
    _caches: Vec<CacheMount>,
    _agents: Vec<AgentSocket>,
}
