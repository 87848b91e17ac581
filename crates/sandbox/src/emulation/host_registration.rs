// SPDX-License-Identifier: Apache-2.0
//! Registers emulators in the binfmt_misc of the whole machine, and removes them.
//!
//! Nothing in this crate calls it by itself. Entries have the names that QEMU's own tools, Debian and
//! tonistiigi/binfmt give them (`qemu-aarch64`), so that each of these finds what another has installed. The flags
//! are `F`, `O`, `C` and, where kernel and emulator know it, `P`; see [`super::binfmt`].

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use polyarch_oci::Platform;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::run::{Outcome, execute};
use super::{
    Architecture, BinfmtError, Emulator, Handler, HostHandler, probe_executable, read_host_handlers,
};

/// The files of an instance that are no entries, and the entry by which Windows runs its own programs.
const RESERVED: [&str; 3] = ["register", "status", "WSLInterop"];
/// More entries than any host has.
const ENTRIES_MAX: usize = 1024;
/// Who may write a file or directory besides its owner.
const OTHERS_MAY_WRITE: u32 = 0o022;
/// In such a directory others can't replace what is not theirs.
const STICKY: u32 = 0o1000;

/// Returns the name of an architecture's entry.
pub fn entry_name(architecture: Architecture) -> String {
    format!("qemu-{}", architecture.qemu_name())
}

/// A binfmt_misc file system, mounted at a directory.
#[derive(Debug, Clone)]
pub struct HostBinfmt {
    directory: PathBuf,
}

/// What a request to install an emulator came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installation {
    /// It was registered with these flags.
    Registered {
        /// The flags, for example `POCF`.
        flags: String,
        /// Why it could not be tried, if it could not: the entry is out of this process's sight.
        untried: Option<String>,
    },
    /// There was a handler that serves containers; nothing was changed.
    Present(HostHandler),
    /// The processor runs these programs itself; nothing was changed.
    Native,
}

/// Says why an emulator could not be registered or removed host-wide.
#[derive(Debug, thiserror::Error)]
pub enum HostBinfmtError {
    /// The file system is not there and can't be mounted.
    #[error("cannot mount binfmt_misc at {}", directory.display())]
    Mount {
        /// Where.
        directory: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The administrator has switched the handlers of this machine off.
    #[error("binfmt_misc at {} is disabled", directory.display())]
    Disabled {
        /// Where.
        directory: PathBuf,
    },
    /// An entry, or the list of them, can't be read or written.
    #[error("cannot {action} {}", path.display())]
    Access {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// There is no such entry.
    #[error("not found")]
    NotFound,
    /// An entry of that name is in the way.
    #[error("an entry {name} exists but does not serve: {reason}")]
    InTheWay {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This emulator must not or can't be registered for everybody.
    #[error("{} can't serve the whole machine: {reason}", path.display())]
    Emulator {
        /// The emulator.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The handler can't be expressed.
    #[error(transparent)]
    Handler(#[from] BinfmtError),
}

impl HostBinfmt {
    /// Takes the directory where the file system is, or shall be.
    pub fn at(directory: impl Into<PathBuf>) -> HostBinfmt {
        HostBinfmt { directory: directory.into() }
    }

    /// Returns that directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Tells whether the file system is there.
    pub fn is_mounted(&self) -> bool {
        self.directory.join("status").is_file()
    }

    /// Mounts the file system unless it is there, and sees that it is switched on; tells whether it was mounted.
    ///
    /// # Errors
    /// [`HostBinfmtError::Mount`] and [`HostBinfmtError::Disabled`].
    pub fn ensure_mounted(&self) -> Result<bool, HostBinfmtError> {
        let is_new = !self.is_mounted();
        if is_new {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount("binfmt_misc", &self.directory, "binfmt_misc", flags, None).map_err(|errno| {
                HostBinfmtError::Mount { directory: self.directory.clone(), source: errno.into() }
            })?;
        }
        let status = std::fs::read_to_string(self.directory.join("status")).unwrap_or_default();
        if status.trim() == "disabled" {
            return Err(HostBinfmtError::Disabled { directory: self.directory.clone() });
        }
        Ok(is_new)
    }

    /// Returns the names of all entries, sorted; none where the file system is not mounted.
    ///
    /// # Errors
    /// [`HostBinfmtError::Access`].
    pub fn names(&self) -> Result<Vec<String>, HostBinfmtError> {
        if !self.is_mounted() {
            return Ok(Vec::new());
        }
        let entries = std::fs::read_dir(&self.directory).map_err(|source| HostBinfmtError::Access {
            action: "list",
            path: self.directory.clone(),
            source,
        })?;
        let mut names: Vec<String> = entries
            .take(ENTRIES_MAX)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| !RESERVED[..2].contains(&name.as_str()))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Returns the names of the entries that are switched on, sorted.
    ///
    /// # Errors
    /// [`HostBinfmtError::Access`].
    pub fn enabled_names(&self) -> Result<Vec<String>, HostBinfmtError> {
        let mut names = self.names()?;
        names.retain(|name| {
            let text = std::fs::read(self.directory.join(name)).unwrap_or_default();
            text.starts_with(b"enabled")
        });
        Ok(names)
    }

    /// Returns the handlers of known architectures.
    pub fn handlers(&self) -> Vec<HostHandler> {
        read_host_handlers(&self.directory)
    }

    /// Registers an emulator for everybody, unless the architecture is served already, and tries it.
    ///
    /// An emulator that does not run its probe is removed again.
    ///
    /// # Errors
    /// When the entry's name is taken by something else, the emulator is not fit for everybody, or the kernel refuses.
    pub fn install(
        &self,
        architecture: Architecture,
        emulator: &Emulator,
    ) -> Result<Installation, HostBinfmtError> {
        if let Some(present) = self.present(architecture)? {
            return Ok(present);
        }
        check_emulator(emulator)?;
        let mut handler = Handler::new(architecture, emulator.path.clone());
        handler.name = entry_name(architecture);
        let mut flags = "POCF";
        match self.register(&handler, flags) {
            // A flag that the kernel doesn't know (P, before 5.12).
            Err(HostBinfmtError::Access { source, .. }) if is(&source, Errno::INVAL) => {
                flags = "OCF";
                self.register(&handler, flags)?;
            }
            other => other?,
        }
        let mut outcome = probe(architecture);
        if matches!(outcome, Outcome::ExtraArgument) {
            self.remove(&handler.name)?;
            flags = "OCF";
            self.register(&handler, flags)?;
            outcome = probe(architecture);
        }
        let untried = match outcome {
            Outcome::Ran => None,
            // Not executed at all: another instance than the one written to counts for this process.
            Outcome::Refused(error) => Some(error.to_string()),
            other => {
                self.remove(&handler.name)?;
                return Err(HostBinfmtError::Emulator {
                    path: emulator.path.clone(),
                    reason: other.reason(),
                });
            }
        };
        Ok(Installation::Registered { flags: flags.to_owned(), untried })
    }

    /// Returns what already serves an architecture, whether it is native or handled.
    ///
    /// # Errors
    /// [`HostBinfmtError::InTheWay`] when a handler is there that containers can't use.
    pub fn present(&self, architecture: Architecture) -> Result<Option<Installation>, HostBinfmtError> {
        if let Some(handler) =
            self.handlers().into_iter().find(|handler| handler.architecture == architecture)
        {
            if handler.flags.contains('F') {
                return Ok(Some(Installation::Present(handler)));
            }
            let reason =
                "it lacks the flag F, so its interpreter is looked for inside of each container".to_owned();
            return Err(HostBinfmtError::InTheWay { name: handler.name, reason });
        }
        let host = Architecture::of(&Platform::host());
        let is_candidate = host.is_some_and(|host| host.may_run_natively().contains(&architecture));
        // The machine's own programs are never emulated: the emulator would be caught itself.
        if is_candidate && (host == Some(architecture) || matches!(probe(architecture), Outcome::Ran)) {
            return Ok(Some(Installation::Native));
        }
        Ok(None)
    }

    /// Removes an entry.
    ///
    /// # Errors
    /// [`HostBinfmtError::NotFound`] and [`HostBinfmtError::Access`].
    pub fn remove(&self, name: &str) -> Result<(), HostBinfmtError> {
        let is_name = !name.is_empty() && !matches!(name, "." | "..") && !name.contains('/');
        if !is_name || RESERVED.contains(&name) || !self.is_mounted() {
            return Err(HostBinfmtError::NotFound);
        }
        match self.write(name, b"-1", "remove") {
            Err(HostBinfmtError::Access { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(HostBinfmtError::NotFound)
            }
            other => other,
        }
    }

    fn register(&self, handler: &Handler, flags: &str) -> Result<(), HostBinfmtError> {
        let line = handler.line(&handler.name, flags)?;
        match self.write("register", &line, "register an emulator at") {
            Err(HostBinfmtError::Access { source, .. }) if is(&source, Errno::EXIST) => {
                let reason = "it is disabled, or takes other programs".to_owned();
                Err(HostBinfmtError::InTheWay { name: handler.name.clone(), reason })
            }
            other => other,
        }
    }

    /// Writes to a file of the instance, at once: the kernel takes each write as a whole request.
    fn write(&self, file: &str, bytes: &[u8], action: &'static str) -> Result<(), HostBinfmtError> {
        let path = self.directory.join(file);
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let written =
            rustix::fs::open(&path, flags, Mode::empty()).and_then(|file| rustix::io::write(&file, bytes));
        written.map(|_| ()).map_err(|errno| HostBinfmtError::Access { action, path, source: errno.into() })
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Executes an architecture's probe as any program of this machine would be executed.
fn probe(architecture: Architecture) -> Outcome {
    let platform = Platform::new("linux", architecture.name(), "");
    let program = probe_executable(&platform).unwrap_or_default();
    execute(&[program], None)
        .pop()
        .unwrap_or_else(|| Outcome::Refused(io::Error::from(io::ErrorKind::Unsupported)))
}

/// Sees that an emulator works in any container and that only root can replace it.
///
/// It will run with root's rights in every container that has set-user-ID programs.
fn check_emulator(emulator: &Emulator) -> Result<(), HostBinfmtError> {
    let refuse = |reason: String| HostBinfmtError::Emulator { path: emulator.path.clone(), reason };
    if !emulator.is_static {
        return Err(refuse("it is dynamically linked, and containers lack its libraries".to_owned()));
    }
    let path = std::fs::canonicalize(&emulator.path).map_err(|error| refuse(error.to_string()))?;
    for (index, part) in path.ancestors().enumerate() {
        let metadata = part.metadata().map_err(|error| refuse(error.to_string()))?;
        if !only_root_changes(&metadata, index > 0) {
            return Err(refuse(format!("others than root may change {}", part.display())));
        }
    }
    Ok(())
}

fn only_root_changes(metadata: &Metadata, is_directory: bool) -> bool {
    let is_guarded = is_directory && metadata.mode() & STICKY != 0;
    metadata.uid() == 0 && (metadata.mode() & OTHERS_MAY_WRITE == 0 || is_guarded)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory that looks like an instance; what is written to it can be read back.
    fn instance(entries: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("status", "enabled\n"), ("register", "")].iter().chain(entries) {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    fn entry(architecture: Architecture, flags: &str) -> String {
        let magic = architecture.magic();
        format!(
            "enabled\ninterpreter /usr/bin/q\nflags: {flags}\noffset 0\nmagic {}\nmask {}\n",
            hex::encode(magic.magic),
            hex::encode(magic.mask)
        )
    }

    #[test]
    fn entries_are_told_from_the_files_that_rule_them() {
        let directory =
            instance(&[("qemu-b", "enabled\n"), ("qemu-a", "disabled\n"), ("WSLInterop", "enabled\n")]);
        let host = HostBinfmt::at(directory.path());
        assert_eq!(host.names().unwrap(), ["WSLInterop", "qemu-a", "qemu-b"]);
        assert_eq!(host.enabled_names().unwrap(), ["WSLInterop", "qemu-b"]);
        assert!(!host.ensure_mounted().unwrap());
        for name in ["register", "status", "WSLInterop", "", ".", "..", "a/b", "qemu-c"] {
            assert!(matches!(host.remove(name), Err(HostBinfmtError::NotFound)), "{name:?}");
        }
        host.remove("qemu-b").unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("qemu-b")).unwrap(), "-1abled\n");
    }

    #[test]
    fn a_disabled_instance_is_not_written_to() {
        let directory = instance(&[("status", "disabled\n")]);
        let host = HostBinfmt::at(directory.path());
        assert!(matches!(host.ensure_mounted(), Err(HostBinfmtError::Disabled { .. })));
        assert_eq!(HostBinfmt::at("/nonexistent").names().unwrap(), [""; 0]);
    }

    #[test]
    fn what_serves_already_is_left_alone_and_what_cannot_serve_is_named() {
        let good = entry(Architecture::S390x, "OCF");
        let bad = entry(Architecture::Riscv64, "OC");
        let directory = instance(&[("other-s390x", &good), ("qemu-riscv64", &bad)]);
        let host = HostBinfmt::at(directory.path());
        let present = host.present(Architecture::S390x).unwrap();
        assert!(matches!(present, Some(Installation::Present(handler)) if handler.name == "other-s390x"));
        let error = host.present(Architecture::Riscv64).unwrap_err().to_string();
        assert!(error.contains("qemu-riscv64") && error.contains("flag F"), "{error}");
        let own = Architecture::of(&Platform::host()).unwrap();
        assert_eq!(host.present(own).unwrap(), Some(Installation::Native));
    }

    #[test]
    fn emulators_that_others_could_replace_or_containers_could_not_load_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qemu-s390x");
        std::fs::write(&path, probe_executable(&Platform::host()).unwrap()).unwrap();
        let refusal = |mode: u32, is_static| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let emulator = Emulator { path: path.clone(), is_static };
            check_emulator(&emulator).err().map(|error| error.to_string())
        };
        assert!(refusal(0o777, true).unwrap().contains("others than root may change"));
        assert!(refusal(0o755, false).unwrap().contains("dynamically linked"));
        if rustix::process::geteuid().is_root() {
            assert_eq!(refusal(0o755, true), None);
        }
    }
}
