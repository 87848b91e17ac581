// SPDX-License-Identifier: Apache-2.0
//! One image, tried: its command in the sandbox, natively or emulated.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use polyarch_oci::{ContainerConfig, ImageConfig, ManifestOrIndex, Platform, Reference};
use polyarch_sandbox::emulation::Support;
use polyarch_sandbox::{
    CancelFlag as SandboxCancel, Mount, Network, ProcessSpec, RunHandle, SandboxError, Stdio,
};
use polyarch_solver::CancelFlag;
use polyarch_solver::progress::Progress;

use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking};
use crate::frontend::absolute;
use crate::ops::exec::{apply_user, hosts_file, root_fs, sandbox_error};
use crate::request::{NetworkMode, PullPolicy};
use crate::services::Services;
use crate::tree::{Layer, Tree};

/// What to run.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The image.
    pub reference: Reference,
    /// The platform; the machine's own, or the only one that the image has, when absent.
    pub platform: Option<Platform>,
    /// Arguments instead of the image's CMD.
    pub command: Vec<String>,
    /// The program instead of the image's ENTRYPOINT; an empty text clears that.
    pub entrypoint: Option<String>,
    /// Environment beyond the image's, `NAME=value`.
    pub env: Vec<String>,
    /// The working directory instead of the image's.
    pub working_dir: Option<String>,
    /// The user instead of the image's.
    pub user: Option<String>,
    /// The network.
    pub network: NetworkMode,
    /// When to ask the registry.
    pub pull: PullPolicy,
    /// Whether the standard streams are a terminal.
    pub is_tty: bool,
    /// The host name.
    pub hostname: Option<String>,
    /// `name, address` lines for /etc/hosts.
    pub extra_hosts: Vec<(String, String)>,
    /// Directories and files of the host, and empty directories in memory.
    pub mounts: Vec<Mount>,
    /// Whether the program finds its root read-only.
    pub read_only: bool,
}

impl RunRequest {
    /// Makes the request to run an image's own command for the machine's own platform.
    pub fn new(reference: Reference) -> RunRequest {
        RunRequest {
            reference,
            platform: None,
            command: Vec::new(),
            entrypoint: None,
            env: Vec::new(),
            working_dir: None,
            user: None,
            network: NetworkMode::Default,
            pull: PullPolicy::Default,
            is_tty: false,
            hostname: None,
            extra_hosts: Vec::new(),
            mounts: Vec::new(),
            read_only: false,
        }
    }
}

/// The standard streams; `None` is `/dev/null`.
#[derive(Debug, Default)]
pub struct RunStdio {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// Passes signals on to the program of a run, for as long as there is one.
#[derive(Debug, Clone, Default)]
pub struct SignalRelay(Arc<Mutex<Option<Arc<RunHandle>>>>);

impl SignalRelay {
    /// Sends a signal to the program; tells whether there is one.
    pub fn send(&self, signal: i32) -> bool {
        let handle = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // A program that has just ended needs no signal any more.
        handle.is_some_and(|handle| handle.signal(signal).is_ok())
    }

    /// Tells whether a program runs.
    pub fn is_set(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn set(&self, handle: Option<Arc<RunHandle>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = handle;
    }
}

impl Services {
    /// Runs an image's command and returns its exit code; what it wrote to its files is thrown away.
    ///
    /// # Errors
    /// When the image can't be had, or its platform can't run here. A program that could not be
    /// executed is an error with an exit code, 126 or 127.
    pub async fn run_image(
        self: &Arc<Self>,
        request: RunRequest,
        stdio: RunStdio,
        progress: &Progress,
        cancel: CancelFlag,
        relay: SignalRelay,
    ) -> Result<i32, BuildError> {
        let platform = match &request.platform {
            Some(platform) => platform.clone(),
            None => self.default_platform(&request.reference)?,
        };
        let vertex =
            progress.begin("run", format!("preparing {} for {platform}", request.reference.familiar()));
        let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
        let image = self.resolve_image(&request.reference, &platform, request.pull, &shown).await?;
        let asked = vec![platform.clone()];
        let services = self.clone();
        let support = blocking(move || services.support(&asked)).await.remove(0);
        if let Support::None { reason, fix } = &support {
            return Err(BuildError::platform_unsupported(&platform, reason, fix));
        }
        let layers = image.layers.iter().cloned().map(|layer| Layer::Image(Box::new(layer))).collect();
        let parents = self.directories(&Tree::new(layers, Vec::new()), &shown).await?;
        vertex.done();
        let spec = self.run_spec(&image.config.value, &request)?;
        let read_only = request.read_only;
        let user = request.user.unwrap_or_else(|| image.config.value.config.user.clone());
        let sandbox_cancel = SandboxCancel::new().map_err(|error| sandbox_error(&error))?;
        let watched = sandbox_cancel.clone();
        let watcher = tokio::spawn(async move {
            cancel.cancelled().await;
            watched.cancel();
        });
        let services = self.clone();
        let result = blocking(move || {
            let container = Container { spec, user, stdio, read_only };
            services.run_blocking(&parents, container, &sandbox_cancel, &relay)
        })
        .await;
        watcher.abort();
        result
    }

    /// Returns the machine's own platform, or the only one of an image that the store has.
    fn default_platform(&self, reference: &Reference) -> Result<Platform, BuildError> {
        let host = Platform::host();
        let entry = self
            .store
            .get_ref(&reference.clone().with_default_tag())
            .map_err(|error| crate::image_source::storage_error(&error))?;
        let Some(Ok(document)) = entry.map(|entry| self.store.image(&entry.descriptor)) else {
            return Ok(host);
        };
        let only = match &document {
            ManifestOrIndex::Index(index) => match crate::image_source::platforms_of(&index.value).as_slice()
            {
                [only] => Some(only.clone().normalized()),
                _ => None,
            },
            ManifestOrIndex::Manifest(manifest) => {
                self.store.config(&manifest.value).ok().map(|config| config.value.platform())
            }
        };
        Ok(only.filter(|only| !only.architecture.is_empty()).unwrap_or(host))
    }

    fn run_spec(&self, image: &ImageConfig, request: &RunRequest) -> Result<ProcessSpec, BuildError> {
        let config = &image.config;
        let args = arguments(config, request);
        if args.is_empty() {
            return Err(BuildError::new(ErrorKind::Usage, "the image has no command")
                .with_hint("name one: polyarch run IMAGE COMMAND"));
        }
        let mut spec = ProcessSpec::new(args);
        spec.env = config.env.clone();
        if !spec.env.iter().any(|entry| entry.starts_with("PATH=")) {
            spec.env.push("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        }
        for entry in &request.env {
            let name = entry.split('=').next().unwrap_or_default();
            spec.env.retain(|it| it.split('=').next() != Some(name));
            spec.env.push(entry.clone());
        }
        let working_dir = request.working_dir.as_ref().unwrap_or(&config.working_dir);
        spec.cwd = absolute("/", working_dir);
        spec.network = if request.network == NetworkMode::None { Network::None } else { Network::Host };
        spec.hostname = request.hostname.clone().unwrap_or_else(|| "polyarch".to_owned());
        spec.resolv_conf = self.options.resolv_conf.clone();
        spec.hosts = hosts_file(&spec.hostname, &request.extra_hosts);
        spec.is_tty = request.is_tty;
        if let Some((source, target)) = self.emulator_bind() {
            spec.mounts.push(Mount::Bind { source, target: target.into(), read_only: true });
        }
        // What is beneath another mount comes after it.
        let mut mounts = request.mounts.clone();
        mounts.sort_by_key(|mount| mount.target().components().count());
        spec.mounts.extend(mounts);
        Ok(spec)
    }

    fn run_blocking(
        &self,
        parents: &[polyarch_snapshot::SnapshotId],
        container: Container,
        cancel: &SandboxCancel,
        relay: &SignalRelay,
    ) -> Result<i32, BuildError> {
        let Container { mut spec, user, stdio, read_only } = container;
        let snapshot_error = |error| self.snapshot_error("can't prepare the container", &error);
        let active = self.snapshots.prepare(parents).map_err(snapshot_error)?;
        {
            let tree = active.tree().map_err(snapshot_error)?;
            apply_user(&mut spec, &tree, &user)?;
            if !tree.exists(spec.cwd.as_str()) {
                tree.mkdir_all(spec.cwd.as_str(), 0o755, (0, 0)).map_err(snapshot_error)?;
            }
        }
        let mut root = root_fs(active.root_mount().map_err(snapshot_error)?);
        root.read_only = read_only;
        let stdio = Stdio { stdin: stdio.stdin, stdout: stdio.stdout, stderr: stdio.stderr };
        if cancel.is_cancelled() {
            return Err(BuildError::cancelled());
        }
        let handle = self.launcher()?.spawn(&root, &spec, stdio).map_err(|error| sandbox_error(&error))?;
        let handle = Arc::new(handle);
        relay.set(Some(handle.clone()));
        let ended = handle.wait(cancel);
        relay.set(None);
        match ended {
            Ok(status) => Ok(status.shell_code()),
            Err(SandboxError::Exec { failure }) => {
                let mut error = BuildError::new(ErrorKind::Step, failure.to_string());
                error.exit_code = Some(failure.exit_code());
                Err(error)
            }
            Err(error) => Err(sandbox_error(&error)),
        }
    }
}

/// What runs, as far as the image's files need not be looked at.
struct Container {
    spec: ProcessSpec,
    user: String,
    stdio: RunStdio,
    read_only: bool,
}

/// Returns the program and its arguments, by Docker's rule: another entrypoint drops the image's CMD.
fn arguments(config: &ContainerConfig, request: &RunRequest) -> Vec<String> {
    let entrypoint = match &request.entrypoint {
        Some(program) if program.is_empty() => Vec::new(),
        Some(program) => vec![program.clone()],
        None => config.entrypoint.clone().unwrap_or_default(),
    };
    let command = if !request.command.is_empty() {
        request.command.clone()
    } else if request.entrypoint.is_some() {
        Vec::new()
    } else {
        config.cmd.clone().unwrap_or_default()
    };
    entrypoint.into_iter().chain(command).collect()
}
