// SPDX-License-Identifier: Apache-2.0
//! What every step of a build works with: store, snapshots, registries, sandbox, emulation.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use polyarch_oci::Platform;
use polyarch_registry::{Client, ClientOptions};
use polyarch_sandbox::emulation::{Emulation, EmulationConfig, Support};
use polyarch_sandbox::user_namespace::IdMapping;
use polyarch_sandbox::{Launcher, LauncherOptions};
use polyarch_snapshot::{HashMemory, SnapshotOptions, Snapshots, TreeMode};
use polyarch_store::Store;

use crate::client_documents::Sent;
use crate::error::{BuildError, ErrorKind};
use crate::once_map::OnceMap;

/// How to open the rooms.
#[derive(Clone)]
pub struct ServiceOptions {
    /// The directory that holds everything.
    pub root: PathBuf,
    /// The program that becomes the launcher, `/proc/self/exe`.
    pub launcher_program: PathBuf,
    /// Settings of the registry client.
    pub registry: ClientOptions,
    /// Directories of emulators that the user named.
    pub emulator_directories: Vec<PathBuf>,
    /// The directories of the search path.
    pub path_dirs: Vec<PathBuf>,
    /// The identifiers that exist in this process's user namespace.
    pub mapping: IdMapping,
    /// The host's resolver configuration, given to steps.
    pub resolv_conf: Vec<u8>,
    /// Makes trees by copying even where overlays can be mounted.
    pub force_copy: bool,
    /// Takes an image that is alone under its name for whatever platform is asked, as BuildKit does; otherwise
    /// an image must be of the platform.
    pub takes_lone_images: bool,
}

impl ServiceOptions {
    /// Returns the directory of layers. Where only one user exists, owners stand beside the files instead of
    /// on them, so such layers are of no use to a process that has more users, and the other way round.
    pub(crate) fn snapshot_directory(&self) -> PathBuf {
        self.root.join(match &self.mapping {
            IdMapping::Single { .. } => "snapshots-single-user",
            IdMapping::Host { .. } | IdMapping::Identity | IdMapping::Subordinate { .. } => "snapshots",
        })
    }

    /// Returns the directories of layers that this process can look after, each with the namespace of the
    /// records that name its layers, its own first. Who has one user can't remove the files of others.
    pub(crate) fn layer_places(&self) -> Vec<(PathBuf, &'static str)> {
        let own = (self.snapshot_directory(), self.step_namespace());
        let single = (self.root.join("snapshots-single-user"), "steps-single-user");
        match own.0 == single.0 || !single.0.is_dir() {
            true => vec![own],
            false => vec![own, single],
        }
    }

    /// Returns the namespace of the records of steps, which name such layers.
    pub(crate) fn step_namespace(&self) -> &'static str {
        match &self.mapping {
            IdMapping::Single { .. } => "steps-single-user",
            IdMapping::Host { .. } | IdMapping::Identity | IdMapping::Subordinate { .. } => "steps",
        }
    }
}

/// The rooms, opened.
///
/// Opening is cheap; what costs (launcher, emulators, connections) starts when first used.
pub struct Services {
    pub(crate) store: Store,
    pub(crate) snapshots: Snapshots,
    pub(crate) registry: Client,
    pub(crate) options: ServiceOptions,
    /// What the client has sent whose build this is; `None` when the store is the builder's own.
    pub(crate) sent: Option<Sent>,
    pub(crate) roots: OnceMap<crate::image_source::RootDocument, BuildError>,
    pub(crate) fetches: OnceMap<(), BuildError>,
    pub(crate) unpackings: OnceMap<Vec<polyarch_snapshot::SnapshotId>, BuildError>,
    pub(crate) blobs: OnceMap<crate::image::LayerBlob, BuildError>,
    /// What this process has marked as used.
    pub(crate) used: Mutex<HashSet<String>>,
    memory: OnceLock<HashMemory>,
    launcher: OnceLock<Result<Launcher, BuildError>>,
    emulation: Mutex<Emulation>,
    is_copy_told: OnceLock<()>,
}

impl Services {
    /// Opens the rooms below `options.root`.
    ///
    /// # Errors
    /// When the store can't be opened.
    pub fn open(options: ServiceOptions) -> Result<Arc<Services>, BuildError> {
        Services::open_with(options, None)
    }

    pub(crate) fn open_with(
        options: ServiceOptions,
        sent: Option<Sent>,
    ) -> Result<Arc<Services>, BuildError> {
        let store = Store::open(&options.root)
            .map_err(|error| BuildError::new(ErrorKind::Storage, crate::error::chain_of(&error)))?;
        let snapshot_options = SnapshotOptions { force_copy: options.force_copy };
        let snapshots = Snapshots::open(&options.snapshot_directory(), snapshot_options)
            .map_err(|error| BuildError::new(ErrorKind::Storage, crate::error::chain_of(&error)))?;
        let emulation = Emulation::prepare(EmulationConfig {
            directories: options.emulator_directories.clone(),
            path_dirs: options.path_dirs.clone(),
            host_binfmt: PathBuf::from("/proc/sys/fs/binfmt_misc"),
            state: options.root.join("emulation"),
            is_private_allowed: options.mapping.is_user_namespace(),
        });
        Ok(Arc::new(Services {
            store,
            snapshots,
            registry: Client::new(options.registry.clone()),
            sent,
            roots: OnceMap::default(),
            fetches: OnceMap::default(),
            unpackings: OnceMap::default(),
            blobs: OnceMap::default(),
            used: Mutex::default(),
            memory: OnceLock::new(),
            launcher: OnceLock::new(),
            emulation: Mutex::new(emulation),
            is_copy_told: OnceLock::new(),
            options,
        }))
    }

    /// Returns the store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the client of registries.
    pub fn registry(&self) -> &Client {
        &self.registry
    }

    /// Returns the layer directories.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Returns the launcher, started when first asked for.
    pub(crate) fn launcher(&self) -> Result<&Launcher, BuildError> {
        let started = self.launcher.get_or_init(|| {
            Launcher::start(LauncherOptions {
                program: self.options.launcher_program.clone(),
                scratch_directory: self.options.root.join("launcher"),
            })
            .map_err(|error| BuildError::new(ErrorKind::Sandbox, crate::error::chain_of(&error)))
        });
        started.as_ref().map_err(BuildError::clone)
    }

    /// Tells how programs of platforms run here; those that need an emulator get it registered.
    pub fn support(&self, platforms: &[Platform]) -> Vec<Support> {
        self.emulation.lock().unwrap_or_else(PoisonError::into_inner).support(platforms)
    }

    /// Tells which platforms' programs run here at all, by themselves or emulated.
    pub fn runs(&self, platforms: &[Platform]) -> Vec<bool> {
        self.support(platforms).iter().map(|support| !matches!(support, Support::None { .. })).collect()
    }

    /// Returns the directory that containers need below /dev for a dynamically linked emulator.
    pub(crate) fn emulator_bind(&self) -> Option<(PathBuf, &'static str)> {
        let emulation = self.emulation.lock().unwrap_or_else(PoisonError::into_inner);
        emulation.dev_bind().map(|(source, target)| (source.to_owned(), target))
    }

    /// Returns the remembered hashes of files, loaded when first asked for.
    pub(crate) fn memory(&self) -> &HashMemory {
        self.memory.get_or_init(|| HashMemory::load(&self.memory_path()))
    }

    /// Writes the remembered hashes, when there are new ones; a failure costs time, not truth.
    pub(crate) fn save_memory(&self) {
        if let Some(memory) = self.memory.get() {
            let _ = memory.save(&self.memory_path());
        }
    }

    fn memory_path(&self) -> PathBuf {
        self.options.root.join("file-hashes")
    }

    /// Returns, the first time it is asked, why trees are made by copying; `None` when they are mounted.
    pub(crate) fn copy_mode_reason(&self) -> Option<&str> {
        match self.snapshots.mode() {
            TreeMode::Copy { reason } if self.is_copy_told.set(()).is_ok() => Some(reason),
            _ => None,
        }
    }

    /// Returns a hint for errors that come from missing identifiers.
    pub(crate) fn mapping_hint(&self) -> Option<&str> {
        match &self.options.mapping {
            IdMapping::Single { reason } => Some(reason),
            _ => None,
        }
    }

    /// Makes an empty directory for files that live as long as the value.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn scratch(&self) -> Result<tempfile::TempDir, BuildError> {
        let parent = self.options.root.join("scratch");
        let make = || {
            std::fs::create_dir_all(&parent)?;
            tempfile::TempDir::with_prefix_in("build-", &parent)
        };
        make().map_err(|error| BuildError::io("can't make a directory below", &parent, &error))
    }

    /// Returns the root directory.
    pub fn root(&self) -> &Path {
        &self.options.root
    }
}
