// SPDX-License-Identifier: Apache-2.0
//! What is run: a root file system, a process, its standard streams, and how it ended.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::launcher::bytes;

/// The root file system of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Where the files come from.
    pub kind: RootFsKind,
    /// Whether the process finds its root mounted read-only (its own mounts keep their flags).
    pub read_only: bool,
}

/// Where the files of a root file system come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootFsKind {
    /// An overlay is mounted for the run. All paths are absolute, all on file systems that overlayfs takes.
    ///
    /// Nothing but what the process itself does ends up in `upper`: mount points come from a lower layer of the
    /// launcher's. Mounted with `userxattr` and `volatile`; `work` must be fresh and empty for each run, and may be
    /// removed after it.
    Overlay {
        /// The layer directories, top first. May be empty.
        #[serde(with = "bytes::paths")]
        lower: Vec<PathBuf>,
        /// The directory that receives what changes.
        #[serde(with = "bytes::path")]
        upper: PathBuf,
        /// overlayfs's own directory, on the same file system as `upper`.
        #[serde(with = "bytes::path")]
        work: PathBuf,
    },
    /// A directory is used as it is, with the changes made in place.
    ///
    /// Missing mount points are created and, when nobody used them, removed again after the run.
    Dir(#[serde(with = "bytes::path")] PathBuf),
}

impl RootFs {
    /// A writable overlay of `lower` (top first) with `upper` and `work`.
    pub fn overlay(lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf) -> RootFs {
        RootFs { kind: RootFsKind::Overlay { lower, upper, work }, read_only: false }
    }

    /// A writable directory.
    pub fn dir(path: PathBuf) -> RootFs {
        RootFs { kind: RootFsKind::Dir(path), read_only: false }
    }
}

/// One process and the container around it.
///
/// [`ProcessSpec::new`] gives the defaults of a build step; change the fields that differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The program and its arguments; a program without a slash is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// The whole environment, as `NAME=value`.
    pub env: Vec<String>,
    /// The absolute working directory, resolved in the container. It must exist.
    pub cwd: String,
    /// The user identifier inside of the container.
    pub uid: u32,
    /// The group identifier inside of the container.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The host name of the UTS namespace.
    pub hostname: String,
    /// Which network the process sees.
    pub network: Network,
    /// Mounts beyond the standard ones, made in this order.
    pub mounts: Vec<Mount>,
    /// The content of `/etc/resolv.conf`. Empty: the image's own file stays.
    #[serde(with = "bytes::blob")]
    pub resolv_conf: Vec<u8>,
    /// The content of `/etc/hosts`. Empty: the image's own file stays.
    #[serde(with = "bytes::blob")]
    pub hosts: Vec<u8>,
    /// The size of `/dev/shm`; 0 gives Docker's 64 MiB.
    pub shm_size_bytes: u64,
    /// Resource limits to set; others are inherited.
    pub ulimits: Vec<Ulimit>,
    /// How much the process may do.
    pub security: Security,
    /// Whether the standard streams are the caller's terminal: then the process stays in the caller's session, so
    /// that job control and signals of the terminal reach it. Otherwise it gets a session of its own.
    pub is_tty: bool,
}

impl ProcessSpec {
    /// Root in `/` with an empty environment, the host's network and Docker's default security.
    pub fn new(args: Vec<String>) -> ProcessSpec {
        ProcessSpec {
            args,
            env: Vec::new(),
            cwd: "/".to_owned(),
            uid: 0,
            gid: 0,
            groups: Vec::new(),
            hostname: "buildkitsandbox".to_owned(),
            network: Network::Host,
            mounts: Vec::new(),
            resolv_conf: Vec::new(),
            hosts: Vec::new(),
            shm_size_bytes: 0,
            ulimits: Vec::new(),
            security: Security::Sandbox,
            is_tty: false,
        }
    }
}

/// The network that a process sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The network namespace of the builder.
    Host,
    /// A namespace of its own in which only `lo` is up.
    None,
}

/// How much a process may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// Docker's default: its capability set, its system call filter, masked and read-only paths.
    Sandbox,
    /// All capabilities of the user namespace, no filter, nothing masked.
    Insecure,
}

/// A mount beyond the standard ones.
///
/// Targets are absolute, resolved inside of the container's root (symbolic links never lead out), and are created
/// where they are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mount {
    /// A directory or a file of the host (cache, secret, context, agent socket…), with the mounts beneath it.
    Bind {
        /// The absolute path on the host.
        #[serde(with = "bytes::path")]
        source: PathBuf,
        /// The absolute path in the container.
        #[serde(with = "bytes::path")]
        target: PathBuf,
        /// Whether the process may write to it.
        read_only: bool,
    },
    /// A part of a file tree: a directory or a file below its root.
    ///
    /// The path is resolved as the tree's own processes would see it: no link leads out of the tree.
    Tree {
        /// The tree; an overlay of its own is mounted for it.
        tree: RootFsKind,
        /// The path below the tree's root; empty is the root itself.
        #[serde(with = "bytes::path")]
        path: PathBuf,
        /// The absolute path in the container.
        #[serde(with = "bytes::path")]
        target: PathBuf,
        /// Whether the process may not write to it.
        read_only: bool,
    },
    /// A read-only file that is nowhere but in memory.
    File {
        /// What it is.
        file: MemoryFile,
        /// The absolute path in the container.
        #[serde(with = "bytes::path")]
        target: PathBuf,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// The absolute path in the container.
        #[serde(with = "bytes::path")]
        target: PathBuf,
        /// The limit; 0 is the kernel's default (half of the memory).
        size_bytes: u64,
    },
}

impl Mount {
    /// The absolute path in the container.
    pub fn target(&self) -> &PathBuf {
        match self {
            Mount::Bind { target, .. }
            | Mount::Tree { target, .. }
            | Mount::File { target, .. }
            | Mount::Tmpfs { target, .. } => target,
        }
    }
}

/// A file whose content only its readers should see: it is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryFile {
    /// What it holds.
    #[serde(with = "bytes::blob")]
    pub content: Vec<u8>,
    /// Octal file mode.
    pub mode: u32,
    /// Whose it is.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl std::fmt::Debug for MemoryFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let MemoryFile { content, mode, uid, gid } = self;
        write!(formatter, "MemoryFile({} bytes, mode {mode:o}, owner {uid}:{gid})", content.len())
    }
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// What is limited.
    pub resource: Resource,
    /// The soft limit; `None` is unlimited.
    pub soft: Option<u64>,
    /// The hard limit; `None` is unlimited.
    pub hard: Option<u64>,
}

macro_rules! resources {
    ($($variant:ident $name:literal $doc:literal,)*) => {
        /// A resource that can be limited, by the name that `--ulimit` uses.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Resource {
            $(#[doc = $doc] $variant,)*
        }

        impl Resource {
            /// Returns the resource of a `--ulimit` name such as `nofile`.
            pub fn from_name(name: &str) -> Option<Resource> {
                match name {
                    $($name => Some(Resource::$variant),)*
                    _ => None,
                }
            }

            /// Returns the `--ulimit` name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Resource::$variant => $name,)*
                }
            }

            /// Returns the kernel's name for it.
            pub(crate) fn to_kernel(self) -> rustix::process::Resource {
                match self {
                    $(Resource::$variant => rustix::process::Resource::$variant,)*
                }
            }
        }
    };
}

resources! {
    As "as" "Address space in bytes.",
    Core "core" "Size of a core file in bytes.",
    Cpu "cpu" "CPU time in seconds.",
    Data "data" "Data segment in bytes.",
    Fsize "fsize" "Size of a file in bytes.",
    Locks "locks" "File locks.",
    Memlock "memlock" "Locked memory in bytes.",
    Msgqueue "msgqueue" "Bytes in POSIX message queues.",
    Nice "nice" "Ceiling of the nice value.",
    Nofile "nofile" "Open files.",
    Nproc "nproc" "Processes of the user.",
    Rss "rss" "Resident set in bytes.",
    Rtprio "rtprio" "Ceiling of the real-time priority.",
    Rttime "rttime" "Real-time CPU microseconds.",
    Sigpending "sigpending" "Queued signals.",
    Stack "stack" "Stack in bytes.",
}

/// The standard streams of a process; `None` is `/dev/null`.
///
/// They are given away: the caller's copies are closed once the process has them, so that the reading end of a pipe
/// sees its end with the last process of the container.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It called `exit` with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// Says whether the process ended with code 0.
    pub fn is_success(self) -> bool {
        self == ExitStatus::Code(0)
    }

    /// Returns the code that a shell would show: a signal counts as 128 + its number.
    pub fn shell_code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(signal) => 128 + signal,
        }
    }
}
