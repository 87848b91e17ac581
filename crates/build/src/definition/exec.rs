// SPDX-License-Identifier: Apache-2.0
//! A process of a definition, and what it becomes.

use std::sync::Arc;

use polyarch_dockerfile::instruction::{MountOwner, Sharing};
use polyarch_solver::VertexId;

use super::Vertex;
use super::lower::Lowering;
use crate::cache_mounts::CacheMountId;
use crate::error::{BuildError, ErrorKind};
use crate::frontend::absolute;
use crate::ops::OpKind;
use crate::ops::exec::ExecOp;
use crate::ops::exec_mounts::{CacheExecMount, ExecMount, MountSource};
use crate::request::{Entitlement, NetworkMode, Ulimit};

/// The search path of processes that are given none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    /// The arguments, the program first.
    pub args: Vec<String>,
    /// The environment, `NAME=value`.
    pub env: Vec<String>,
    /// The environment that decides about nothing: proxies.
    pub unkeyed_env: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// The host name.
    pub hostname: Option<String>,
    /// `name, address` lines for /etc/hosts.
    pub extra_hosts: Vec<(String, String)>,
    /// Limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// The network.
    pub network: NetworkMode,
    /// Whether it runs without a sandbox but the namespaces.
    pub is_insecure: bool,
    /// The exit codes that are no failure; only 0 when there are none.
    pub valid_exit_codes: Vec<i32>,
    /// Its mounts; the one at `/` is its root.
    pub mounts: Vec<ExecMountSpec>,
}

/// A mount of a process.
#[derive(Debug, Clone)]
pub struct ExecMountSpec {
    /// Where the process sees it.
    pub target: String,
    /// The input that it shows, when it shows one.
    pub input: Option<usize>,
    /// The path in that input.
    pub selector: String,
    /// Which output of the vertex it becomes.
    pub output: Option<usize>,
    /// Whether the process can change nothing.
    pub read_only: bool,
    /// What it is.
    pub kind: ExecMountKind,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecMountKind {
    /// A tree.
    Bind,
    /// A directory that stays from build to build.
    Cache {
        /// Its name.
        id: String,
        /// Who may use it at the same time.
        sharing: CacheSharing,
    },
    /// An empty directory in memory; 0 is no limit.
    Tmpfs {
        /// How much may be in it.
        size_bytes: u64,
    },
    /// A secret as a file.
    Secret {
        /// Its name.
        id: String,
        /// Whether it may be absent.
        optional: bool,
        /// Owner and mode of the file.
        permissions: MountPermissions,
    },
    /// A secret as a variable; the target is the variable's name.
    SecretVariable {
        /// Its name.
        id: String,
        /// Whether it may be absent.
        optional: bool,
    },
    /// A socket of an SSH agent.
    Ssh {
        /// Its name.
        id: String,
        /// Whether it may be absent.
        optional: bool,
        /// Owner and mode of the socket.
        permissions: MountPermissions,
    },
}

/// Owner and mode of a file that is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountPermissions {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The mode.
    pub mode: u32,
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheSharing {
    /// Everybody.
    Shared,
    /// Each has one of its own.
    Private,
    /// One after the other.
    Locked,
}

impl From<MountPermissions> for MountOwner {
    fn from(from: MountPermissions) -> MountOwner {
        MountOwner { mode: Some(from.mode), uid: Some(from.uid), gid: Some(from.gid) }
    }
}

/// A process, lowered.
pub(super) struct LoweredExec {
    pub(super) vertex: VertexId,
    /// Which of the trees that it gives each output is; `None` when it gives only one.
    pub(super) outputs: Vec<(usize, Option<usize>)>,
}

impl Lowering<'_> {
    /// Adds the operation of a process.
    pub(super) fn exec(
        &mut self,
        vertex: &Vertex,
        exec: &Exec,
        inputs: &[VertexId],
    ) -> Result<LoweredExec, BuildError> {
        let wrong = |message: &str| Err(BuildError::new(ErrorKind::Usage, message));
        if exec.network == NetworkMode::Host {
            self.require(Entitlement::NetworkHost)?;
        }
        if exec.is_insecure {
            self.require(Entitlement::SecurityInsecure)?;
        }
        if exec.args.is_empty() {
            return wrong("a process without arguments");
        }
        let is_root = |mount: &&ExecMountSpec| mount.kind == ExecMountKind::Bind && mount.target == "/";
        let mut roots = exec.mounts.iter().filter(is_root);
        let (Some(root), None) = (roots.next(), roots.next()) else {
            return wrong("a process needs one mount at \"/\"");
        };
        if !matches!(root.selector.as_str(), "" | "/" | ".") {
            return wrong("the root of a process can't be a part of a tree");
        }
        let base = self.base(root.input.map(|input| inputs[input]));
        let mut exec_inputs = vec![base];
        let mut mounts = Vec::new();
        let mut outputs: Vec<(usize, usize)> = root.output.map(|output| (output, 0)).into_iter().collect();
        for mount in exec.mounts.iter().filter(|mount| !is_root(mount)) {
            let from = mount.input.map(|input| {
                let keeps = mount.kind == ExecMountKind::Bind && mount.output.is_some();
                let input = if keeps { self.base(Some(inputs[input])) } else { inputs[input] };
                exec_inputs.push(input);
                MountSource {
                    input: exec_inputs.len() - 1,
                    path: absolute("/", &mount.selector),
                    has_unknown_times: false,
                    looked_up: Arc::default(),
                }
            });
            let target = absolute("/", &mount.target);
            if let (ExecMountKind::Bind, Some(output)) = (&mount.kind, mount.output) {
                let further = mounts.iter().filter(|it| matches!(it, ExecMount::Writable { .. })).count();
                outputs.push((output, further + 1));
                mounts.push(ExecMount::Writable { from, target });
                continue;
            }
            mounts.push(self.mount(mount, from, target, &mut exec_inputs));
        }
        let mut env = exec.env.clone();
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.push(DEFAULT_PATH.to_owned());
        }
        let has_further = mounts.iter().any(|mount| matches!(mount, ExecMount::Writable { .. }));
        let op = ExecOp {
            services: self.services.clone(),
            stats: self.stats.clone(),
            platform: vertex.platform.clone(),
            args: exec.args.clone(),
            shown_command: exec.args.join(" "),
            script: None,
            env,
            unkeyed_env: exec.unkeyed_env.clone(),
            cwd: absolute("/", &exec.cwd),
            user: exec.user.clone(),
            network: exec.network,
            extra_hosts: exec.extra_hosts.clone(),
            shm_size_bytes: None,
            ulimits: exec.ulimits.clone(),
            hostname: exec.hostname.clone(),
            is_insecure: exec.is_insecure,
            mounts,
            secrets: self.request.steps.secrets.clone(),
            valid_exit_codes: exec.valid_exit_codes.clone(),
            discards_root: root.output.is_none() || root.read_only,
        };
        let vertex = self.add(vertex, OpKind::Exec(Box::new(op)), exec_inputs);
        let outputs = outputs.into_iter().map(|(output, tree)| (output, has_further.then_some(tree)));
        Ok(LoweredExec { vertex, outputs: outputs.collect() })
    }

    fn mount(
        &mut self,
        mount: &ExecMountSpec,
        from: Option<MountSource>,
        target: String,
        inputs: &mut Vec<VertexId>,
    ) -> ExecMount {
        match &mount.kind {
            ExecMountKind::Bind => {
                let from = from.unwrap_or_else(|| {
                    inputs.push(self.scratch());
                    MountSource {
                        input: inputs.len() - 1,
                        path: "/".to_owned(),
                        has_unknown_times: false,
                        looked_up: Arc::default(),
                    }
                });
                ExecMount::Bind { from, target, read_only: mount.read_only }
            }
            ExecMountKind::Cache { id, sharing } => {
                let id = if id.is_empty() { target.clone() } else { id.clone() };
                ExecMount::Cache(Box::new(CacheExecMount {
                    id: CacheMountId {
                        namespace: String::new(),
                        id,
                        platform: None,
                        seed: None,
                        owner: MountOwner::default(),
                    },
                    from,
                    source: "/".to_owned(),
                    target,
                    read_only: mount.read_only,
                    sharing: match sharing {
                        CacheSharing::Shared => Sharing::Shared,
                        CacheSharing::Private => Sharing::Private,
                        CacheSharing::Locked => Sharing::Locked,
                    },
                }))
            }
            ExecMountKind::Tmpfs { size_bytes } => ExecMount::Tmpfs { target, size_bytes: *size_bytes },
            ExecMountKind::Secret { id, optional, permissions } => ExecMount::Secret {
                id: id.clone(),
                target: Some(target),
                env: None,
                required: !optional,
                owner: (*permissions).into(),
            },
            ExecMountKind::SecretVariable { id, optional } => ExecMount::Secret {
                id: id.clone(),
                target: None,
                env: Some(mount.target.clone()),
                required: !optional,
                owner: MountOwner::default(),
            },
            ExecMountKind::Ssh { id, optional, permissions } => {
                ExecMount::Ssh { id: id.clone(), target, required: !optional, owner: (*permissions).into() }
            }
        }
    }

    /// Refuses what the build was not allowed to do.
    fn require(&self, entitlement: Entitlement) -> Result<(), BuildError> {
        if self.request.steps.entitlements.contains(&entitlement) {
            return Ok(());
        }
        let name = entitlement.as_str();
        Err(BuildError::new(ErrorKind::Dockerfile, format!("{name} is not allowed"))
            .with_hint(format!("if this step is to be trusted with it: --allow {name}")))
    }
}
