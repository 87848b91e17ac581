// SPDX-License-Identifier: Apache-2.0
//! Where the commands meet the engine: one small function for each thing that it can do.
//!
//! Opening enters the user namespace while there is one thread, then starts the threads. Ctrl-C and
//! SIGTERM ask whatever runs to stop; a second one ends the process at once.

use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use polyarch_build::inventory::{CacheItem, inventory};
use polyarch_build::store_usage::{StoreUsage, store_usage};
use polyarch_build::{
    BuildError, BuildRequest, BuildResult, ErrorKind, PrunePlan, PruneRequest, PullRequest, PullResult,
    PushRequest, PushResult, RunRequest, RunStdio, ServiceOptions, Services, SignalRelay,
};
use polyarch_buildkit::caller::KeptDirectories;
use polyarch_buildkit::history::{History, Recorder};
use polyarch_sandbox::IdMapping;
use polyarch_sandbox::user_namespace::{EnterOptions, enter};
use polyarch_solver::CancelFlag;
use polyarch_solver::progress::Progress;

use crate::config::Settings;
use crate::image_list::{ImageSummary, list_images};
use crate::{CommandError, Environment, ExitCode};

/// How long work that is asked to stop may take to clean up after itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// The same for a server, whose clients are told first.
const SERVER_PATIENCE: Duration = Duration::from_secs(15);

/// Whom Ctrl-C is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupts {
    /// For us: what runs shall stop.
    Stop,
    /// For the program on our terminal, which gets it from there; other signals are passed on to it.
    LeftToProgram,
    /// For the program, which gets this and other signals from us. The third one that it survives ends it.
    PassedOn,
}

/// The engine, opened for one command.
pub struct Engine {
    /// Taken only by the end, which waits for nothing: what still runs then was interrupted.
    runtime: Option<tokio::runtime::Runtime>,
    cancel: CancelFlag,
    relay: SignalRelay,
    options: ServiceOptions,
}

impl Engine {
    /// Enters the user namespace and starts the threads.
    ///
    /// # Errors
    /// When the machine doesn't permit it.
    pub fn open(
        environment: &Environment,
        settings: &Settings,
        interrupts: Interrupts,
    ) -> Result<Engine, CommandError> {
        let path = environment.variables.get("PATH").cloned().unwrap_or_default();
        let mapping = enter(&EnterOptions::for_path(&path))
            .map_err(|error| BuildError::new(ErrorKind::Sandbox, polyarch_build::error::chain_of(&error)))?;
        Engine::start(environment, settings, interrupts, mapping)
    }

    fn start(
        environment: &Environment,
        settings: &Settings,
        interrupts: Interrupts,
        mapping: IdMapping,
    ) -> Result<Engine, CommandError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
            BuildError::new(ErrorKind::Sandbox, format!("can't start threads: {error}"))
                .with_hint("raise the limit on processes: ulimit -u")
        })?;
        let cancel = CancelFlag::default();
        let relay = SignalRelay::default();
        runtime.spawn(watch_signals(cancel.clone(), interrupts, relay.clone()));
        let options = ServiceOptions {
            root: settings.root.clone(),
            launcher_program: PathBuf::from("/proc/self/exe"),
            registry: settings.client_options(),
            emulator_directories: settings.emulator_directories.clone(),
            path_dirs: environment.path_directories(),
            mapping,
            // Without the file steps have no name server, as the host has none.
            resolv_conf: std::fs::read("/etc/resolv.conf").unwrap_or_default(),
            force_copy: false,
            takes_lone_images: false,
        };
        Ok(Engine { runtime: Some(runtime), cancel, relay, options })
    }

    /// Starts the threads without a user namespace: for commands that read and write documents and blobs
    /// but no file trees.
    ///
    /// # Errors
    /// When threads can't be started.
    pub fn open_for_documents(
        environment: &Environment,
        settings: &Settings,
    ) -> Result<Engine, CommandError> {
        let reason = "this command works without one".to_owned();
        Engine::start(environment, settings, Interrupts::Stop, IdMapping::Host { reason })
    }

    /// Does work with the rooms, and gives up what it waits for when interrupted.
    ///
    /// # Errors
    /// What the work gave.
    pub fn perform<T, F: Future<Output = Result<T, BuildError>>>(
        &self,
        work: impl FnOnce(Arc<Services>) -> F,
    ) -> Result<T, BuildError> {
        let services = self.services()?;
        self.wait(Duration::ZERO, work(services))
    }

    /// Does work that needs no store, and gives it up when interrupted.
    ///
    /// # Errors
    /// That it was interrupted.
    pub fn wait_for<T>(&self, work: impl Future<Output = T>) -> Result<T, BuildError> {
        self.wait(Duration::ZERO, async { Ok(work.await) })
    }

    /// Says what this user lacks for everything to work, when it is something.
    pub fn shortcoming(&self) -> Option<String> {
        match &self.options.mapping {
            IdMapping::Single { reason } => Some(format!("only your own user exists in steps: {reason}")),
            _ => None,
        }
    }

    /// Serves: does work that opens the rooms by itself, as often as it wants, until the flag tells it to end.
    ///
    /// # Errors
    /// What the work gave.
    pub fn serve<T, F: Future<Output = Result<T, BuildError>>>(
        &self,
        work: impl FnOnce(ServiceOptions, CancelFlag) -> F,
    ) -> Result<T, BuildError> {
        self.wait(SERVER_PATIENCE, work(self.options.clone(), self.cancel.clone()))
    }

    /// Begins to remember a build; `None` when the store does not let us, which the build itself will say.
    pub fn remember(&self, request: &BuildRequest) -> Option<Recorder> {
        let services = self.services().ok()?;
        Recorder::start(History::new(services.store()), request).ok()
    }

    /// Builds.
    ///
    /// # Errors
    /// How the build failed.
    pub fn build(&self, request: BuildRequest, progress: &Progress) -> Result<BuildResult, BuildError> {
        let services = self.services()?;
        self.wait(PATIENCE, services.build(request, progress.clone(), self.cancel.clone()))
    }

    /// Does work with the rooms that may take its time to clean up when it is interrupted; the flag tells it.
    ///
    /// # Errors
    /// What the work gave.
    pub fn perform_patiently<T, F: Future<Output = Result<T, BuildError>>>(
        &self,
        work: impl FnOnce(Arc<Services>, CancelFlag) -> F,
    ) -> Result<T, BuildError> {
        let services = self.services()?;
        self.wait(PATIENCE, work(services, self.cancel.clone()))
    }

    /// Runs a program of an image on our own standard streams; returns its exit code.
    ///
    /// # Errors
    /// Why it was not started; with an `exit_code` of 126 or 127 when it can't be executed or found.
    pub fn run_image(
        &self,
        request: RunRequest,
        is_interactive: bool,
        progress: &Progress,
    ) -> Result<i32, BuildError> {
        let services = self.services()?;
        let stdio = RunStdio {
            stdin: if is_interactive { Some(own(std::io::stdin())?) } else { None },
            stdout: Some(own(std::io::stdout())?),
            stderr: Some(own(std::io::stderr())?),
        };
        let run = services.run_image(request, stdio, progress, self.cancel.clone(), self.relay.clone());
        self.wait(PATIENCE, run)
    }

    /// Fetches an image into the store.
    ///
    /// # Errors
    /// Why it could not be had.
    pub fn pull(&self, request: &PullRequest, progress: &Progress) -> Result<PullResult, BuildError> {
        let services = self.services()?;
        self.wait(Duration::ZERO, services.pull(request, progress))
    }

    /// Pushes an image of the store to the registry of its name; returns what was pushed.
    ///
    /// # Errors
    /// Why it could not be pushed.
    pub fn push(&self, request: &PushRequest, progress: &Progress) -> Result<PushResult, BuildError> {
        let services = self.services()?;
        self.wait(Duration::ZERO, services.push(request, progress))
    }

    /// Lists the images of the store, by name.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn images(&self) -> Result<Vec<ImageSummary>, BuildError> {
        list_images(self.services()?.store())
    }

    /// Lists the pieces of the build cache.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn build_cache(&self) -> Result<Vec<CacheItem>, BuildError> {
        inventory(&self.options)
    }

    /// Finds what a prune would remove.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn plan_prune(&self, request: &PruneRequest) -> Result<PrunePlan, BuildError> {
        polyarch_build::plan_prune(&self.options, request)
    }

    /// Removes what was planned; returns what went. `waiting` is told which processes it waits for.
    ///
    /// # Errors
    /// When builds keep using the store, or something can't be removed.
    pub fn prune(
        &self,
        request: &PruneRequest,
        plan: &PrunePlan,
        waiting: impl FnOnce(&str),
    ) -> Result<PrunePlan, BuildError> {
        polyarch_build::prune(&self.options, request, plan, waiting)
    }

    /// Removes what clients of a node sent for their builds and no running build uses.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remove_kept_contexts(&self) -> Result<(), BuildError> {
        let root = &self.options.root;
        let removed = KeptDirectories::of_store(root).remove_unused(Duration::ZERO);
        removed.map(drop).map_err(|error| BuildError::io("can't remove what clients sent from", root, &error))
    }

    /// Adds up what the store takes of the disk.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn store_usage(&self) -> Result<StoreUsage, BuildError> {
        store_usage(&self.options)
    }

    fn runtime(&self) -> &tokio::runtime::Runtime {
        self.runtime.as_ref().expect("it is taken only when the engine is dropped")
    }

    fn services(&self) -> Result<Arc<Services>, BuildError> {
        let _guard = self.runtime().enter();
        Services::open(self.options.clone())
    }

    /// Waits for work; when interrupted, gives it time to clean up, then drops it.
    fn wait<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, BuildError>>,
    ) -> Result<T, BuildError> {
        self.runtime().block_on(async {
            tokio::pin!(work);
            tokio::select! {
                result = &mut work => return result,
                () = self.cancel.cancelled() => {}
            }
            match tokio::time::timeout(patience, work).await {
                Ok(Ok(result)) => Ok(result),
                // Whatever else failed, it failed because it had to stop.
                _ => Err(BuildError::cancelled()),
            }
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Work on threads can't be stopped, for instance a compression; interrupted, nobody waits for it.
            runtime.shutdown_background();
        }
    }
}

/// Returns a standard stream as a descriptor of its own.
fn own(stream: impl AsFd) -> Result<OwnedFd, BuildError> {
    stream
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| BuildError::io("can't pass on", "a standard stream", &error))
}

/// How often a program is asked to end before it is made to.
const REQUESTS: u32 = 3;

/// Turns the first signal into a request to stop, and the second into the end; while a program runs that
/// signals are for, it gets them.
async fn watch_signals(cancel: CancelFlag, interrupts: Interrupts, relay: SignalRelay) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Then the signals do what they do by themselves: they end the process.
        return;
    };
    if interrupts != Interrupts::Stop {
        for kind in [
            SignalKind::hangup(),
            SignalKind::quit(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
        ] {
            tokio::spawn(pass_on(kind, interrupts, relay.clone(), cancel.clone()));
        }
    }
    let mut requests = 0;
    loop {
        let kind = tokio::select! {
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = terminate.recv() => SignalKind::terminate(),
        };
        let is_from_terminal = interrupts == Interrupts::LeftToProgram && kind == SignalKind::interrupt();
        if interrupts != Interrupts::Stop
            && requests < REQUESTS - 1
            && (if is_from_terminal { relay.is_set() } else { relay.send(kind.as_raw_value()) })
        {
            requests += u32::from(!is_from_terminal);
            continue;
        }
        if cancel.is_cancelled() {
            exit_at_once(ExitCode::Interrupted);
        }
        cancel.cancel();
    }
}

/// Passes one kind of signal on to the program; before there is one, those that mean the end are a request
/// to stop.
async fn pass_on(
    kind: tokio::signal::unix::SignalKind,
    interrupts: Interrupts,
    relay: SignalRelay,
    cancel: CancelFlag,
) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut signals) = signal(kind) else { return };
    while signals.recv().await.is_some() {
        // The terminal sends this one to the program as well.
        let is_from_terminal = interrupts == Interrupts::LeftToProgram && kind == SignalKind::quit();
        let is_passed = if is_from_terminal { relay.is_set() } else { relay.send(kind.as_raw_value()) };
        if !is_passed && (kind == SignalKind::hangup() || kind == SignalKind::quit()) {
            cancel.cancel();
        }
    }
}

/// Ends the process where waiting for anything is what the user no longer wants.
#[expect(
    clippy::exit,
    reason = "the second Ctrl-C; children end with us, the store stays whole at any moment"
)]
fn exit_at_once(code: ExitCode) -> ! {
    std::process::exit(i32::from(code.number()))
}
