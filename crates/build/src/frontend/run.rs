// SPDX-License-Identifier: Apache-2.0
//! RUN: what becomes of its command, its mounts and its flags.

use std::sync::Arc;

use polyarch_dockerfile::instruction::{Mount, MountSpec, Network, Program, Run, Security};
use polyarch_dockerfile::{Instruction, InstructionKind, Span};
use polyarch_solver::VertexId;

use super::Lowering;
use super::instruction::{absolute, set_env, shell_of};
use super::stage::{StageState, hidden};
use crate::cache_mounts::CacheMountId;
use crate::error::{BuildError, ErrorKind};
use crate::ops::OpKind;
use crate::ops::exec::ExecOp;
use crate::ops::exec_mounts::{CacheExecMount, ExecMount, MountSource};
use crate::ops::image::ImageOp;
use crate::request::{Entitlement, NetworkMode};

impl Lowering<'_, '_> {
    /// Adds the step of a RUN.
    pub(super) async fn run(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        run: &Run,
    ) -> Result<(), BuildError> {
        let span = instruction.span;
        if !run.devices.is_empty() {
            return Err(self.not_yet("RUN --device", span));
        }
        let network = match run.network {
            Network::Default => self.frontend.request.network,
            Network::None => NetworkMode::None,
            Network::Host => NetworkMode::Host,
        };
        if network == NetworkMode::Host {
            self.require(Entitlement::NetworkHost, span)?;
        }
        let is_insecure = run.security == Security::Insecure;
        if is_insecure {
            self.require(Entitlement::SecurityInsecure, span)?;
        }
        let mounts = self.mounts(state, run, span).await?;
        let shell = shell_of(state);
        let (args, script) = match run.program() {
            Program::Shell(text) => (shell.iter().cloned().chain([text]).collect(), None),
            Program::Exec(arguments) => (arguments, None),
            Program::Script { file_name, content } => (vec![file_name.clone()], Some((file_name, content))),
        };
        if args.is_empty() {
            let error = BuildError::new(ErrorKind::Dockerfile, "RUN needs a command");
            return Err(error.at(self.frontend.location(span)));
        }
        let shown_command = args.join(" ");
        let count = state.arguments.len();
        let declared: Vec<String> =
            state.arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let arguments = if count == 0 { String::new() } else { format!("|{count} {} ", declared.join(" ")) };
        state.record(format!("RUN {arguments}{shown_command}"), true);
        let request = self.frontend.request;
        let working_dir = state.draft.config.config.working_dir.clone();
        let op = ExecOp {
            services: self.frontend.services.clone(),
            stats: self.frontend.stats.clone(),
            platform: state.programs.clone(),
            args,
            shown_command,
            script,
            env: mounts.env_of(state),
            unkeyed_env: self.frontend.proxy_env(),
            cwd: if working_dir.is_empty() { "/".to_owned() } else { working_dir },
            user: state.draft.config.config.user.clone(),
            network,
            extra_hosts: request.extra_hosts.clone(),
            shm_size_bytes: request.shm_size_bytes,
            ulimits: request.steps.ulimits.clone(),
            hostname: self.hostname(),
            is_insecure,
            mounts: mounts.mounts,
            secrets: request.steps.secrets.clone(),
            valid_exit_codes: Vec::new(),
            discards_root: false,
        };
        self.add_step(state, instruction, &instruction.original, OpKind::Exec(Box::new(op)), mounts.inputs);
        Ok(())
    }

    /// Refuses what the build was not allowed to do.
    fn require(&self, entitlement: Entitlement, span: Span) -> Result<(), BuildError> {
        if self.frontend.request.steps.entitlements.contains(&entitlement) {
            return Ok(());
        }
        let name = entitlement.as_str();
        Err(BuildError::new(ErrorKind::Dockerfile, format!("{name} is not allowed"))
            .with_hint(format!("if this step is to be trusted with it: --allow {name}"))
            .at(self.frontend.location(span)))
    }

    fn hostname(&self) -> Option<String> {
        let given = self.frontend.build_arg("BUILDKIT_SANDBOX_HOSTNAME");
        let given = given.or(self.frontend.request.steps.hostname.as_deref());
        given.filter(|name| !name.is_empty()).map(str::to_owned)
    }

    /// Turns `--mount` flags into mounts, and adds what they mount as inputs of the step.
    async fn mounts(&mut self, state: &StageState, run: &Run, span: Span) -> Result<RunMounts, BuildError> {
        let mut mounts = RunMounts::default();
        for mount in &run.mounts {
            let spec = mount.spec().map_err(|error| {
                BuildError::from_source(ErrorKind::Dockerfile, "RUN --mount", &error)
                    .at(self.frontend.location(span))
            })?;
            let lowered = match spec {
                MountSpec::Bind { from, source, target, read_only } => {
                    let from = self.mount_source(&mut mounts, from.as_deref(), &source, span).await?;
                    ExecMount::Bind { from, target: self.target(state, &target, span)?, read_only }
                }
                MountSpec::Cache { id, from, source, target, read_only, sharing, owner } => {
                    let from = match from.as_deref() {
                        None | Some(SCRATCH) => None,
                        from => Some(self.mount_source(&mut mounts, from, &source, span).await?),
                    };
                    let id = CacheMountId {
                        namespace: self
                            .frontend
                            .build_arg("BUILDKIT_CACHE_MOUNT_NS")
                            .unwrap_or("")
                            .to_owned(),
                        id,
                        platform: (!names_a_cache(mount)).then(|| state.draft.platform.clone()),
                        seed: None,
                        owner,
                    };
                    let target = self.target(state, &target, span)?;
                    let source = absolute("/", &source);
                    ExecMount::Cache(Box::new(CacheExecMount {
                        id,
                        from,
                        source,
                        target,
                        read_only,
                        sharing,
                    }))
                }
                MountSpec::Tmpfs { target, size_bytes } => {
                    ExecMount::Tmpfs { target: self.target(state, &target, span)?, size_bytes }
                }
                MountSpec::Secret { id, target, env, required, owner } => {
                    let target = target.map(|target| self.target(state, &target, span)).transpose()?;
                    if env.as_ref().is_some_and(|name| name.is_empty() || name.contains(['=', '\0'])) {
                        let message = format!("secret {id}: invalid name of an environment variable");
                        let error = BuildError::new(ErrorKind::Dockerfile, message);
                        return Err(error.at(self.frontend.location(span)));
                    }
                    ExecMount::Secret { id, target, env, required, owner }
                }
                MountSpec::Ssh { id, target, required, owner } => {
                    let target = match target {
                        Some(target) => self.target(state, &target, span)?,
                        None => format!("/run/buildkit/ssh_agent.{}", mounts.agents),
                    };
                    mounts.agents += 1;
                    mounts.first_agent.get_or_insert_with(|| target.clone());
                    ExecMount::Ssh { id, target, required, owner }
                }
            };
            mounts.mounts.push(lowered);
        }
        Ok(mounts)
    }

    fn target(&self, state: &StageState, target: &str, span: Span) -> Result<String, BuildError> {
        let target = absolute(&state.draft.config.config.working_dir, target);
        if target == "/" {
            let error = BuildError::new(ErrorKind::Dockerfile, "invalid mount target \"/\"");
            return Err(error
                .with_hint("a mount needs a place below /: target=DIRECTORY")
                .at(self.frontend.location(span)));
        }
        Ok(target)
    }

    /// Adds what a mount's `from` means as an input: a stage, an image, or without it the context.
    async fn mount_source(
        &mut self,
        mounts: &mut RunMounts,
        from: Option<&str>,
        source: &str,
        span: Span,
    ) -> Result<MountSource, BuildError> {
        let vertex = match from {
            None => self.context_vertex(),
            Some(SCRATCH) => self.graph.add(hidden(OpKind::Image(ImageOp::default())), Vec::new()),
            Some(from) => self.source_vertex(from, span).await?,
        };
        mounts.inputs.push(vertex);
        Ok(MountSource {
            // Input 0 is the tree that the step changes.
            input: mounts.inputs.len(),
            path: absolute("/", source),
            has_unknown_times: self.frontend.request.source_date_epoch.is_some(),
            looked_up: Arc::default(),
        })
    }
}

/// The name of the tree that has nothing.
const SCRATCH: &str = "scratch";

/// The mounts of a step.
#[derive(Default)]
struct RunMounts {
    mounts: Vec<ExecMount>,
    inputs: Vec<VertexId>,
    agents: usize,
    first_agent: Option<String>,
}

impl RunMounts {
    /// Returns the environment of the step: the stage's, and where its agent is.
    fn env_of(&self, state: &StageState) -> Vec<String> {
        let mut env = state.run_env();
        if let Some(socket) = &self.first_agent {
            set_env(&mut env, "SSH_AUTH_SOCK", socket);
        }
        env
    }
}

/// Tells whether the Dockerfile itself says which cache it means.
fn names_a_cache(mount: &Mount) -> bool {
    value(mount, "id").is_some_and(|id| !id.is_empty())
}

/// Returns the variables of a RUN that hold secrets: what people read of the step must not seem to tell them.
pub(super) fn secret_variables(kind: &InstructionKind) -> Vec<&str> {
    let InstructionKind::Run(run) = kind else { return Vec::new() };
    let secrets = run.mounts.iter().filter(|mount| value(mount, "type") == Some("secret"));
    secrets.filter_map(|mount| value(mount, "env")).collect()
}

/// Returns the value of a key of a mount as it is written; the last one counts.
fn value<'a>(mount: &'a Mount, name: &str) -> Option<&'a str> {
    let mut values = mount.fields.iter().filter(|(key, _)| key == name);
    values.next_back().and_then(|(_, value)| value.as_deref())
}
