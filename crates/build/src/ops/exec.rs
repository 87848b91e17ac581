// SPDX-License-Identifier: Apache-2.0
//! RUN: a process in a container on top of a tree.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use polyarch_oci::Platform;
use polyarch_sandbox::emulation::{Support, describe_crash};
use polyarch_sandbox::{
    CancelFlag, ExitStatus, Mount, Network, ProcessSpec, RootFs, SandboxError, Security, Stdio, Ulimit,
};
use polyarch_snapshot::{RootMount, SnapshotId, TreeRoot};
use polyarch_solver::progress::{Event, Progress, VertexLog};
use polyarch_solver::{CacheKey, KeyHasher, VertexContext};
use rustix::event::{PollFd, PollFlags, poll};

use super::exec_mounts::{ExecMount, Gathered, gather, mount_content_key};
use super::file::{commit, user_in};
use super::unless_cancelled;
use super::user::User;
use crate::error::{BuildError, ErrorKind, StepLog, chain_of};
use crate::fetch::{Shown, blocking};
use crate::request::NetworkMode;
use crate::result::Execution;
use crate::secrets::SecretSource;
use crate::services::Services;
use crate::stats::Stats;
use crate::tree::{Layer, Output, Tree};

/// How many of a step's last lines an error shows.
const LAST_LINES: usize = 10;

/// A process on top of the tree of input 0.
pub(crate) struct ExecOp {
    pub(crate) services: Arc<Services>,
    pub(crate) stats: Arc<Stats>,
    /// The platform whose programs it runs.
    pub(crate) platform: Platform,
    /// The arguments, the program first.
    pub(crate) args: Vec<String>,
    /// What is executed, for messages: `/bin/sh -c make`.
    pub(crate) shown_command: String,
    /// A file to execute instead of the shell: its name and content.
    pub(crate) script: Option<(String, String)>,
    /// The environment, `NAME=value`.
    pub(crate) env: Vec<String>,
    /// The environment that is no part of the key: proxies.
    pub(crate) unkeyed_env: Vec<String>,
    /// The working directory.
    pub(crate) cwd: String,
    /// `user[:group]`, unresolved; empty is root.
    pub(crate) user: String,
    pub(crate) network: NetworkMode,
    pub(crate) extra_hosts: Vec<(String, String)>,
    pub(crate) shm_size_bytes: Option<u64>,
    pub(crate) ulimits: Vec<Ulimit>,
    /// The host name; `buildkitsandbox` when absent.
    pub(crate) hostname: Option<String>,
    /// Whether it runs without a sandbox but the namespaces.
    pub(crate) is_insecure: bool,
    /// What `--mount` brings.
    pub(crate) mounts: Vec<ExecMount>,
    /// Where secrets and agents come from.
    pub(crate) secrets: Arc<dyn SecretSource>,
    /// The exit codes that are no failure; only 0 when there are none.
    pub(crate) valid_exit_codes: Vec<i32>,
    /// Whether what it changes in its root is thrown away.
    pub(crate) discards_root: bool,
}

impl ExecOp {
    pub(crate) fn digest(&self) -> CacheKey {
        let mut hasher = KeyHasher::new("exec 2");
        hasher
            .part(self.platform.to_string())
            .parts(&self.args)
            .parts(self.script.iter().flat_map(|(name, text)| [name, text]))
            .parts(&self.env)
            .part(&self.cwd)
            .part(&self.user)
            .part([self.network as u8])
            .parts(self.extra_hosts.iter().flat_map(|(name, address)| [name, address]))
            .parts(self.mounts.iter().map(ExecMount::key))
            .parts(self.ulimits.iter().map(|limit| format!("{limit:?}")))
            .part(self.hostname.as_deref().unwrap_or_default())
            .part([u8::from(self.is_insecure)]);
        if !self.valid_exit_codes.is_empty() || self.discards_root {
            hasher.part(format!("{:?} {}", self.valid_exit_codes, self.discards_root));
        }
        hasher.finish()
    }

    /// Tells whether an input becomes a part of an output: then all of it decides, and not what is shown of it.
    pub(crate) fn keeps(&self, input: usize) -> bool {
        let writable = self.mounts.iter().filter(|mount| matches!(mount, ExecMount::Writable { .. }));
        writable.filter_map(ExecMount::source).any(|source| source.input == input)
    }

    /// Returns the trees of the further outputs before the step, in their order.
    fn further_bases<'a>(&'a self, inputs: &'a [Output]) -> impl Iterator<Item = Tree> + 'a {
        self.mounts.iter().filter_map(|mount| match mount {
            ExecMount::Writable { from, .. } => {
                let base = from.as_ref().and_then(|from| inputs.get(from.input));
                Some(base.map(Output::tree).unwrap_or_default())
            }
            _ => None,
        })
    }

    /// Computes the key of exactly what a mount shows of an input.
    pub(crate) async fn content_key(
        &self,
        input: usize,
        output: Output,
        shown: &Shown,
    ) -> Result<CacheKey, BuildError> {
        mount_content_key(&self.services, &self.mounts, input, output, shown).await
    }

    pub(crate) async fn exec(
        &self,
        inputs: Vec<Output>,
        context: &VertexContext,
        name: &Arc<str>,
        no_cache: bool,
    ) -> Result<Output, BuildError> {
        let base = inputs.first().map(Output::tree).unwrap_or_default();
        let shown = super::shown(context);
        let parents = unless_cancelled(context, self.services.directories(&base, &shown)).await?;
        // The preflight has asked already, unless a trigger of the base brought this step.
        let (services, platform) = (self.services.clone(), self.platform.clone());
        let support = blocking(move || services.support(std::slice::from_ref(&platform)).remove(0)).await;
        if let Support::None { reason, fix } = &support {
            return Err(BuildError::platform_unsupported(&self.platform, reason, fix));
        }
        let gathering = gather(&self.services, &*self.secrets, &self.mounts, &inputs, &shown);
        let mut gathered = unless_cancelled(context, gathering).await?;
        gathered.renews_caches = no_cache;
        let started = SystemTime::now();
        let cancel = CancelFlag::new().map_err(|error| sandbox_error(&error))?;
        let watched = (context.cancel.clone(), cancel.clone());
        let watcher = tokio::spawn(async move {
            watched.0.cancelled().await;
            watched.1.cancel();
        });
        let run = Run {
            services: self.services.clone(),
            spec: self.spec(),
            gathered,
            user: self.user.clone(),
            script: self.script.clone(),
            progress: context.progress.clone(),
            vertex: context.digest.clone(),
            cancel,
            valid_exit_codes: self.valid_exit_codes.clone(),
            discards_root: self.discards_root,
        };
        let outcome = blocking(move || run.run(&parents)).await;
        watcher.abort();
        let finished = outcome?;
        self.stats.executed(context.digest.clone(), execution(&support), started);
        let Some(layers) = finished.layers else {
            return Err(self.failure(finished.result, &support, finished.last_lines, name));
        };
        let bases = std::iter::once(base.clone()).chain(self.further_bases(&inputs));
        let trees: Vec<Tree> = bases
            .zip(layers)
            .map(|(base, layer)| base.with_step(layer.map(|id| Layer::Step { id })))
            .collect();
        match trees.as_slice() {
            [tree] => Ok(Output::Tree(tree.clone())),
            _ => Ok(Output::Trees(trees.into())),
        }
    }

    fn spec(&self) -> ProcessSpec {
        let mut spec = ProcessSpec::new(self.args.clone());
        spec.env = self.env.iter().chain(&self.unkeyed_env).cloned().collect();
        spec.cwd = self.cwd.clone();
        spec.network = match self.network {
            NetworkMode::Default | NetworkMode::Host => Network::Host,
            NetworkMode::None => Network::None,
        };
        spec.resolv_conf = self.services.options.resolv_conf.clone();
        if let Some(hostname) = &self.hostname {
            spec.hostname.clone_from(hostname);
        }
        spec.hosts = hosts_file(&spec.hostname, &self.extra_hosts);
        spec.ulimits.clone_from(&self.ulimits);
        if self.is_insecure {
            spec.security = Security::Insecure;
        }
        spec.shm_size_bytes = self.shm_size_bytes.unwrap_or(0);
        if let Some((source, target)) = self.services.emulator_bind() {
            spec.mounts.push(Mount::Bind { source, target: target.into(), read_only: true });
        }
        spec
    }

    /// Says how the process failed, in BuildKit's words, and why where it is known.
    fn failure(
        &self,
        result: Result<ExitStatus, SandboxError>,
        support: &Support,
        last_lines: Vec<String>,
        name: &Arc<str>,
    ) -> BuildError {
        let command = &self.shown_command;
        let mut failure = match &result {
            Ok(ExitStatus::Code(code)) => BuildError::new(
                ErrorKind::Step,
                format!("process \"{command}\" did not complete successfully: exit code: {code}"),
            ),
            Ok(ExitStatus::Signal(signal)) => BuildError::new(
                ErrorKind::Step,
                format!(
                    "process \"{command}\" did not complete successfully: exit code: {} (killed by signal {signal})",
                    128 + signal
                ),
            ),
            Err(SandboxError::Cancelled) => return BuildError::cancelled(),
            Err(error @ SandboxError::Exec { failure }) => {
                let text = format!("process \"{command}\" could not be started: {error}");
                let error = BuildError::new(ErrorKind::Step, text);
                if failure.is_foreign() {
                    error.with_hint(format!(
                        "this step runs as {}; check that the base image and copied programs are for that platform",
                        self.platform
                    ))
                } else {
                    error
                }
            }
            Err(error) => sandbox_error(error),
        };
        if let Ok(status) = result {
            failure.exit_code = Some(status.shell_code());
            if let Support::Private { emulator } = support
                && let Some(text) = describe_crash(status.shell_code(), &self.platform, emulator)
            {
                failure = failure.with_hint(text);
            }
            if let Some(hint) = self.services.mapping_hint()
                && last_lines.iter().any(|line| is_about_identifiers(line))
            {
                failure = failure.with_hint(hint);
            }
        }
        failure.log = Some(Box::new(StepLog { step: name.to_string(), last_lines }));
        failure
    }
}

/// Tells whether a program complains about users or groups that do not exist in the namespace.
fn is_about_identifiers(line: &str) -> bool {
    ["chown", "chgrp", "setgroups", "setegid", "seteuid", "setuid", "setgid", "ownership"]
        .iter()
        .any(|word| line.contains(word))
}

pub(crate) fn execution(support: &Support) -> Execution {
    match support {
        Support::Native => Execution::Native,
        Support::Private { emulator } => {
            let version = emulator.version().map_or(String::new(), |version| format!(" {version}"));
            Execution::Emulated(format!("{}{version}", emulator.name()))
        }
        Support::HostHandler { name, .. } => Execution::Emulated(format!("host handler {name}")),
        Support::None { .. } => Execution::None,
    }
}

pub(crate) fn sandbox_error(error: &SandboxError) -> BuildError {
    match error {
        SandboxError::Cancelled => BuildError::cancelled(),
        _ => BuildError::new(ErrorKind::Sandbox, chain_of(error)),
    }
}

/// Returns /etc/hosts of a step.
pub(crate) fn hosts_file(hostname: &str, extra: &[(String, String)]) -> Vec<u8> {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text.into_bytes()
}

/// Returns the sandbox's root for a snapshot's.
pub(crate) fn root_fs(mount: RootMount) -> RootFs {
    match mount {
        RootMount::Overlay { lower, upper, work } => RootFs::overlay(lower, upper, work),
        RootMount::Dir(path) => RootFs::dir(path),
    }
}

/// Looks a user up in a tree, and adds the environment that follows from it.
pub(crate) fn apply_user(spec: &mut ProcessSpec, tree: &TreeRoot, user: &str) -> Result<User, BuildError> {
    let user = user_in(tree, user)?;
    spec.uid = user.uid;
    spec.gid = user.gid;
    // The primary group is among them, as for every login: programs look there only.
    spec.groups = vec![user.gid];
    spec.groups.extend(user.groups.iter().filter(|group| **group != user.gid));
    if !spec.env.iter().any(|entry| entry.starts_with("HOME=")) {
        let fallback = if user.uid == 0 { "/root" } else { "/" };
        spec.env.push(format!("HOME={}", user.home.as_deref().unwrap_or(fallback)));
    }
    Ok(user)
}

/// One execution, on a thread of its own.
struct Run {
    services: Arc<Services>,
    spec: ProcessSpec,
    gathered: Gathered,
    user: String,
    script: Option<(String, String)>,
    progress: Progress,
    vertex: Arc<str>,
    cancel: CancelFlag,
    valid_exit_codes: Vec<i32>,
    discards_root: bool,
}

struct Finished {
    result: Result<ExitStatus, SandboxError>,
    /// The layers of the root and of the further outputs; none when it failed.
    layers: Option<Vec<Option<SnapshotId>>>,
    last_lines: Vec<String>,
}

impl Run {
    fn run(mut self, parents: &[SnapshotId]) -> Result<Finished, BuildError> {
        let services = self.services.clone();
        let snapshot_error = |error| services.snapshot_error("can't prepare a step", &error);
        let active = services.snapshots.prepare(parents).map_err(snapshot_error)?;
        {
            let tree = active.tree().map_err(snapshot_error)?;
            apply_user(&mut self.spec, &tree, &self.user)?;
            if !tree.exists(self.spec.cwd.as_str()) {
                tree.mkdir_all(self.spec.cwd.as_str(), 0o755, (0, 0)).map_err(snapshot_error)?;
            }
        }
        let _scratch = self.write_script()?;
        let mut gathered = std::mem::take(&mut self.gathered);
        for entry in gathered.env.drain(..) {
            // The later entry of a name would win in most programs, and in none should there be two.
            let name = entry.split('=').next().unwrap_or_default();
            self.spec.env.retain(|it| it.split('=').next() != Some(name));
            self.spec.env.push(entry);
        }
        let mut attached = gathered.attach(&services, &self.cancel)?;
        self.spec.mounts.extend(attached.mounts.iter().cloned());
        let root = root_fs(active.root_mount().map_err(snapshot_error)?);
        let lines = LastLines::default();
        let (stdio, pump) = self.pump(&lines)?;
        let result = services.launcher()?.run(&root, &self.spec, stdio, &self.cancel);
        // The pipes end with the last process of the container, which has ended.
        let _ = pump.join();
        let writable = std::mem::take(&mut attached.writable);
        drop(attached);
        let layers = match &result {
            Ok(status) if self.is_success(status) => {
                let root = if self.discards_root { None } else { commit(&services, active)? };
                let further = writable.into_iter().map(|active| commit(&services, active));
                Some(std::iter::once(Ok(root)).chain(further).collect::<Result<_, BuildError>>()?)
            }
            _ => None,
        };
        Ok(Finished { result, layers, last_lines: lines.take() })
    }

    fn is_success(&self, status: &ExitStatus) -> bool {
        match self.valid_exit_codes.as_slice() {
            [] => matches!(status, ExitStatus::Code(0)),
            codes => codes.contains(&status.shell_code()),
        }
    }

    /// Writes the script of a heredoc and binds it below /dev, where no layer sees it.
    fn write_script(&mut self) -> Result<Option<tempfile::TempDir>, BuildError> {
        let Some((name, content)) = &self.script else { return Ok(None) };
        let directory = self.services.scratch()?;
        let path = directory.path().join("script");
        let write = || {
            std::fs::write(&path, content)?;
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        };
        write().map_err(|error| BuildError::io("can't write", &path, &error))?;
        let target = PathBuf::from(format!("/dev/pipes/{name}"));
        self.spec.args = vec![target.display().to_string()];
        self.spec.mounts.push(Mount::Bind { source: path, target, read_only: true });
        Ok(Some(directory))
    }

    /// Makes the pipes of both streams, and a thread that sends all that comes through them as log events.
    fn pump(&self, lines: &LastLines) -> Result<(Stdio, std::thread::JoinHandle<()>), BuildError> {
        let pipe = || {
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| {
                let error = std::io::Error::from(errno);
                BuildError::new(ErrorKind::Sandbox, format!("can't make a pipe: {error}"))
            })
        };
        let ((out_reader, out_writer), (err_reader, err_writer)) = (pipe()?, pipe()?);
        let (progress, vertex, lines) = (self.progress.clone(), self.vertex.clone(), lines.clone());
        let thread = std::thread::spawn(move || {
            read_both([out_reader, err_reader], |stream, data| {
                lines.add(data);
                let (vertex, data, timestamp) = (vertex.clone(), data.to_vec(), SystemTime::now());
                progress.send(Event::Log(VertexLog { vertex, stream, data, timestamp }));
            });
        });
        Ok((Stdio { stdin: None, stdout: Some(out_writer), stderr: Some(err_writer) }, thread))
    }
}

/// Reads two streams to their ends, as near to the order in which they were written as two pipes tell.
fn read_both(readers: [OwnedFd; 2], mut take: impl FnMut(u8, &[u8])) {
    let mut open: Vec<(u8, OwnedFd)> = (1..).zip(readers).collect();
    let mut buffer = vec![0; 32 << 10];
    while !open.is_empty() {
        let mut polled: Vec<PollFd<'_>> = open.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)).collect();
        match poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // Without poll there is no telling who has something to say; the step itself goes on.
            Err(_) => return,
        }
        let is_ready: Vec<bool> = polled.iter().map(|it| !it.revents().is_empty()).collect();
        let mut is_ready = is_ready.into_iter();
        open.retain(|(stream, fd)| {
            if !is_ready.next().unwrap_or(false) {
                return true;
            }
            match rustix::io::read(fd, &mut buffer) {
                Ok(count @ 1..) => {
                    take(*stream, &buffer[..count]);
                    true
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => true,
                Ok(_) | Err(_) => false,
            }
        });
    }
}

/// The last lines of both streams, as they came.
#[derive(Clone, Default)]
struct LastLines(Arc<Mutex<(VecDeque<String>, Vec<u8>)>>);

impl LastLines {
    fn add(&self, bytes: &[u8]) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, pending) = &mut *guard;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            // A line without an end is kept only as far as people would read it.
            let room = (16_usize << 10).saturating_sub(pending.len());
            pending.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                lines.push_back(text_of(pending));
                pending.clear();
                if lines.len() > LAST_LINES {
                    lines.pop_front();
                }
            }
        }
    }

    fn take(&self) -> Vec<String> {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, pending) = &mut *guard;
        if !pending.is_empty() {
            lines.push_back(text_of(pending));
        }
        let surplus = lines.len().saturating_sub(LAST_LINES);
        lines.drain(..).skip(surplus).collect()
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches(['\n', '\r']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_across_pieces() {
        let lines = LastLines::default();
        for number in 0..20 {
            lines.add(format!("line {number}\nrest").as_bytes());
            lines.add(b" of it\n");
        }
        lines.add(b"unfinished");
        let lines = lines.take();
        assert_eq!(lines.len(), LAST_LINES);
        assert_eq!(lines[LAST_LINES - 1], "unfinished");
        assert_eq!(lines[LAST_LINES - 2], "rest of it");
    }
}
