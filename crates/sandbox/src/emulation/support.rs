// SPDX-License-Identifier: Apache-2.0
//! The decision, per platform, between native, privately emulated, emulated by the host, and not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use polyarch_oci::Platform;
use serde::{Deserialize, Serialize};

use super::bundle::CONTAINER_DIRECTORY;
use super::host::{HostHandler, read_host_handlers};
use super::registration::Registration;
use super::run::{Outcome, execute};
use super::{Architecture, Emulator, probe_executable};

/// Says where emulators and the host's handlers are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmulationConfig {
    /// Directories that the user named for emulators; they win over `path_dirs`.
    pub directories: Vec<PathBuf>,
    /// The directories of the caller's search path.
    pub path_dirs: Vec<PathBuf>,
    /// The host's binfmt_misc, usually `/proc/sys/fs/binfmt_misc`; only read.
    pub host_binfmt: PathBuf,
    /// A private directory on this machine where a copy of a dynamically linked QEMU may be put.
    pub state: PathBuf,
    /// Whether a private binfmt_misc may be made: true only in a user namespace of our own.
    ///
    /// Even then the initial user namespace is recognised and left alone.
    pub is_private_allowed: bool,
}

/// Tells how programs of a platform run on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    /// The processor runs them itself.
    Native,
    /// QEMU runs them, registered for this user namespace only.
    Private {
        /// The emulator.
        emulator: Emulator,
    },
    /// A handler of the host runs them.
    HostHandler {
        /// The name of its entry in the host's binfmt_misc.
        name: String,
        /// The interpreter of that entry.
        interpreter: PathBuf,
    },
    /// They can't run.
    None {
        /// What is missing or what went wrong.
        reason: String,
        /// What mends it: a command, or advice where no command does.
        fix: String,
    },
}

/// Runs programs of foreign platforms in this user namespace; see the module's documentation.
#[derive(Debug)]
pub struct Emulation {
    config: EmulationConfig,
    known: BTreeMap<Platform, Support>,
    registration: Registration,
    /// Read at the first need.
    host_handlers: Option<Vec<HostHandler>>,
}

impl Emulation {
    /// Takes the configuration; looks at nothing yet, so a purely native build pays nothing.
    pub fn prepare(config: EmulationConfig) -> Emulation {
        let registration = Registration::new(config.is_private_allowed, config.state.clone());
        Emulation { config, known: BTreeMap::new(), registration, host_handlers: None }
    }

    /// Finds out how each of the platforms runs, in their order, and registers what they need.
    ///
    /// Ask for all platforms of a build in one call: the probes run at the same time, and the choice
    /// between a private instance and the host's handlers is made for all of them. Answers are kept, asking
    /// again is cheap.
    pub fn support(&mut self, platforms: &[Platform]) -> Vec<Support> {
        let mut open: Vec<Platform> =
            platforms.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        open.retain(|platform| !self.known.contains_key(platform));
        for decide in
            [Emulation::decide_without_probing, Emulation::decide_natively, Emulation::decide_emulated]
        {
            if !open.is_empty() {
                decide(self, &open);
                open.retain(|platform| !self.known.contains_key(platform));
            }
        }
        platforms
            .iter()
            .map(|platform| {
                self.known
                    .get(platform)
                    .cloned()
                    .unwrap_or_else(|| none("it was not examined", "report this"))
            })
            .collect()
    }

    /// Returns the directory that every container must see read-only below its `/dev`, if one is needed:
    /// the source on this machine and the target path in the container.
    ///
    /// It carries the loader and libraries of a dynamically linked QEMU, which the kernel looks up inside
    /// the container. Only meaningful after [`Emulation::support`].
    pub fn dev_bind(&self) -> Option<(&Path, &'static str)> {
        self.registration.bundle().map(|bundle| (bundle, CONTAINER_DIRECTORY))
    }

    /// Settles what needs no look at the machine: its own platform, and what no Linux can run.
    fn decide_without_probing(&mut self, platforms: &[Platform]) {
        for platform in platforms {
            let support = if *platform == Platform::host() {
                Support::Native
            } else if platform.os != "linux" {
                none(
                    format!("steps of {} can't run on Linux", platform.os),
                    "leave out RUN for this platform",
                )
            } else if Architecture::of(platform).is_none() {
                none(format!("the architecture {} is unknown", platform.architecture), KNOWN_PLATFORMS)
            } else if probe_executable(platform).is_none() {
                none(
                    format!("the variant {} of {} is unknown", platform.variant, platform.architecture),
                    KNOWN_PLATFORMS,
                )
            } else {
                continue;
            };
            self.known.insert(platform.clone(), support);
        }
    }

    /// Settles which platforms the processor runs itself.
    fn decide_natively(&mut self, platforms: &[Platform]) {
        let Some(host) = Architecture::of(&Platform::host()) else { return };
        let candidates: Vec<&Platform> = platforms
            .iter()
            .filter(|platform| {
                let architecture = Architecture::of(platform);
                let is_candidate = architecture.is_some_and(|a| host.may_run_natively().contains(&a));
                // What a handler takes isn't native, even if the processor could.
                is_candidate && (architecture == Some(host) || !self.is_taken_by_a_handler(architecture))
            })
            .collect();
        for (platform, outcome) in candidates.iter().zip(self.probe_all(&candidates)) {
            if matches!(outcome, Outcome::Ran) {
                self.known.insert((*platform).clone(), Support::Native);
            } else if Architecture::of(platform) == Some(host) {
                // The host's own architecture is never emulated: the emulator itself would be caught.
                let fix =
                    format!("build for {}/{}, or use a native node", platform.os, platform.architecture);
                let reason = format!("the processor of this machine lacks the variant: {}", outcome.reason());
                self.known.insert((*platform).clone(), none(reason, fix));
            }
        }
    }

    /// Tells whether programs of the architecture are caught by a handler that this namespace sees.
    fn is_taken_by_a_handler(&mut self, architecture: Option<Architecture>) -> bool {
        if self.registration.exists() {
            return architecture
                .is_some_and(|architecture| self.registration.emulator(architecture).is_some());
        }
        self.host_handlers().iter().any(|handler| Some(handler.architecture) == architecture)
    }

    fn host_handlers(&mut self) -> &[HostHandler] {
        let directory = &self.config.host_binfmt;
        self.host_handlers.get_or_insert_with(|| read_host_handlers(directory))
    }

    /// Settles the platforms that only an emulator can run.
    fn decide_emulated(&mut self, platforms: &[Platform]) {
        let architectures: BTreeSet<Architecture> = platforms.iter().filter_map(Architecture::of).collect();
        let plan = self.plan(&architectures);
        let refused = self.registration.register(plan);
        let platforms: Vec<&Platform> = platforms.iter().collect();
        let mut outcomes = self.probe_all(&platforms);
        let too_old = platforms.iter().zip(&outcomes).filter(|(_, o)| matches!(o, Outcome::ExtraArgument));
        let too_old = too_old.filter_map(|(platform, _)| Architecture::of(platform)).collect();
        if self.registration.drop_first_argument(&too_old) {
            outcomes = self.probe_all(&platforms);
        }
        for (platform, outcome) in platforms.into_iter().zip(outcomes) {
            let support = Architecture::of(platform).map_or_else(
                || none("its architecture is unknown", KNOWN_PLATFORMS),
                |architecture| self.judge(platform, architecture, &outcome, refused.get(&architecture)),
            );
            self.known.insert(platform.clone(), support);
        }
    }

    /// Chooses the emulators that are to be registered privately; none where the host's handlers serve better.
    ///
    /// A private instance hides the host's handlers. Those whose interpreter is a file that we reach are
    /// registered again in ours. One that isn't reachable (it lived in a container that is gone; the kernel
    /// holds it open) can only be used from where it is, so it is kept in sight when it and its like are all
    /// that is asked for.
    fn plan(&mut self, architectures: &BTreeSet<Architecture>) -> BTreeMap<Architecture, Emulator> {
        if self.registration.obstacle().is_some() {
            return BTreeMap::new();
        }
        let mut plan = BTreeMap::new();
        let mut only_host = false;
        for architecture in architectures {
            if self.registration.emulator(*architecture).is_some() {
                continue;
            }
            let found = Emulator::find(*architecture, &self.config.directories, &self.config.path_dirs);
            let handler = self.host_handler(*architecture).cloned();
            let reachable = handler.as_ref().and_then(|handler| Emulator::inspect(&handler.interpreter));
            match found.or(reachable) {
                Some(emulator) => {
                    plan.insert(*architecture, emulator);
                }
                None => only_host |= handler.is_some(),
            }
        }
        let serves_all = architectures.iter().all(|architecture| self.host_handler(*architecture).is_some());
        if self.registration.is_undecided() && only_host && serves_all { BTreeMap::new() } else { plan }
    }

    fn host_handler(&mut self, architecture: Architecture) -> Option<&HostHandler> {
        self.host_handlers().iter().find(|handler| handler.architecture == architecture)
    }

    /// Turns the outcome of an emulated probe into an answer.
    fn judge(
        &mut self,
        platform: &Platform,
        architecture: Architecture,
        outcome: &Outcome,
        refusal: Option<&String>,
    ) -> Support {
        let private = self.registration.emulator(architecture).cloned();
        let exists = self.registration.exists();
        let handler = self.host_handler(architecture).cloned();
        match (outcome, private) {
            (Outcome::Ran, Some(emulator)) => Support::Private { emulator },
            (outcome, Some(emulator)) => {
                let version = emulator.version().map_or(String::new(), |version| format!(" {version}"));
                none(
                    format!("{}{version} can't emulate it: {}", emulator.path.display(), outcome.reason()),
                    "install another version of QEMU and name its directory in the configuration",
                )
            }
            // Out of sight of the host's handlers, and not taken by one of ours: only the processor is left.
            (Outcome::Ran, None) if exists => Support::Native,
            (Outcome::Ran, None) => match handler {
                Some(handler) => host_support(platform, handler),
                None => Support::HostHandler { name: "out of sight".to_owned(), interpreter: PathBuf::new() },
            },
            (outcome, None) => self.explain(platform, architecture, outcome, refusal, handler),
        }
    }

    /// Says why a platform without a working emulator can't run, and what mends it.
    fn explain(
        &self,
        platform: &Platform,
        architecture: Architecture,
        outcome: &Outcome,
        refusal: Option<&String>,
        handler: Option<HostHandler>,
    ) -> Support {
        let install = format!("apt-get install {}", architecture.debian_package());
        if let Some(refusal) = refusal {
            return none(refusal, install);
        }
        let found = Emulator::find(architecture, &self.config.directories, &self.config.path_dirs);
        match (handler, found, self.registration.obstacle()) {
            (Some(handler), ..) if self.registration.exists() => none(
                format!(
                    "the host's handler {} uses {}, which is not reachable from here, and emulators of other \
                     platforms of this build had to be registered privately",
                    handler.name,
                    handler.interpreter.display()
                ),
                install,
            ),
            (Some(handler), ..) => none(
                format!(
                    "the host's handler {} ({}, flags {:?}) does not run it here: {}",
                    handler.name,
                    handler.interpreter.display(),
                    handler.flags,
                    outcome.reason()
                ),
                format!("{install} (and register it with the flag F)"),
            ),
            (None, Some(emulator), Some(reason)) => none(
                format!(
                    "{} is here but can't be registered: {reason}; and the host has no handler for {platform}",
                    emulator.path.display()
                ),
                "apt-get install qemu-user-static binfmt-support (registers the host's handlers), or Linux 6.7 or \
                 newer and a build in its own user namespace",
            ),
            _ => none(
                format!(
                    "no emulator was found: neither qemu-{name}-static nor qemu-{name} is in {}",
                    self.searched(),
                    name = architecture.qemu_name()
                ),
                install,
            ),
        }
    }

    /// Executes the probe of each platform, at the same time.
    fn probe_all(&self, platforms: &[&Platform]) -> Vec<Outcome> {
        let programs: Vec<Vec<u8>> =
            platforms.iter().map(|platform| probe_executable(platform).unwrap_or_default()).collect();
        execute(&programs, self.registration.bundle())
    }

    /// Lists the directories that were searched.
    fn searched(&self) -> String {
        let mut directories: Vec<String> = Vec::new();
        for directory in self.config.directories.iter().chain(&self.config.path_dirs) {
            let directory = directory.display().to_string();
            if !directories.contains(&directory) {
                directories.push(directory);
            }
        }
        if directories.is_empty() {
            "any directory (none was given)".to_owned()
        } else {
            directories.join(", ")
        }
    }
}

const KNOWN_PLATFORMS: &str = "use one of linux/amd64[/v2…v4], 386, arm64, arm/v5…v8, ppc64le, s390x, riscv64, \
    mips64le, loong64, ppc64, mips64, mipsle, mips";

fn none(reason: impl Into<String>, fix: impl Into<String>) -> Support {
    Support::None { reason: reason.into(), fix: fix.into() }
}

/// Judges a handler of the host whose probe ran out here: does it also run inside a container?
fn host_support(platform: &Platform, handler: HostHandler) -> Support {
    let HostHandler { name, interpreter, flags, .. } = handler;
    let refuse = |reason: &str| {
        none(
            format!("the host's handler {name} ({}) for {platform} {reason}", interpreter.display()),
            "apt-get install qemu-user-static binfmt-support (registers static emulators with the flag F)",
        )
    };
    if !flags.contains('F') {
        return refuse("lacks the flag F, so its interpreter would be looked for inside the container");
    }
    if Emulator::inspect(&interpreter).is_some_and(|emulator| !emulator.is_static) {
        return refuse("is dynamically linked, so its libraries would be looked for inside the container");
    }
    Support::HostHandler { name, interpreter }
}
