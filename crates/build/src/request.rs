// SPDX-License-Identifier: Apache-2.0
//! What is asked of a build, validated once.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use polyarch_oci::media_type::{Compression, Flavour};
use polyarch_oci::{Platform, Reference};
pub use polyarch_sandbox::{Resource, Ulimit};

use crate::attest::Attestations;
use crate::context::LocalContext;
use crate::distant::Distant;
use crate::frontend::SOURCE_DATE_EPOCH;
use crate::named_context::NamedContext;
use crate::remote_cache::RemoteCache;
use crate::secrets::{NoSecrets, SecretSource};
use crate::source_policy::SourcePolicies;

/// One build: a context, a Dockerfile, platforms, outputs.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Where COPY and ADD read.
    pub context: Context,
    /// What FROM, COPY `--from` and RUN `--mount=from=` may name besides stages and images.
    pub contexts: Vec<NamedContext>,
    /// Where the Dockerfile is.
    pub dockerfile: DockerfileSource,
    /// The platforms to build for, each once; empty means the machine's own.
    pub platforms: Vec<Platform>,
    /// The names of the result; every one has a tag.
    pub names: Vec<Reference>,
    /// Whether the store keeps the result under its names. Builds of others must not decide what names mean here.
    pub keeps_names: bool,
    /// The stage to build, by name or number; the last one when absent.
    pub target: Option<String>,
    /// Values of ARGs.
    pub build_args: Vec<(String, String)>,
    /// Labels for the result.
    pub labels: Vec<(String, String)>,
    /// What becomes of the result, in order; empty keeps it in the local store only.
    pub outputs: Vec<Output>,
    /// Execute every step, whatever is recorded.
    pub no_cache: bool,
    /// What the build may read.
    pub policies: SourcePolicies,
    /// Where records of steps come from and go to, besides the store.
    pub cache: RemoteCache,
    /// When to ask registries about base images.
    pub pull: PullPolicy,
    /// Seconds since 1970 to which times in layers and config are clamped.
    pub source_date_epoch: Option<i64>,
    /// The network of RUN steps that don't say.
    pub network: NetworkMode,
    /// `name:address` lines for /etc/hosts of RUN steps.
    pub extra_hosts: Vec<(String, String)>,
    /// Size of /dev/shm of RUN steps, in bytes; 64 MiB when absent.
    pub shm_size_bytes: Option<u64>,
    /// What RUN steps get beyond their command.
    pub steps: StepOptions,
    /// How the image blobs are made.
    pub image: ImageOptions,
    /// What is attested beside the image.
    pub attestations: Attestations,
    /// Judge the programs that steps brought before anything is published.
    pub verify: bool,
    /// How many steps run at a time; 0 lets the builder choose.
    pub max_parallel: usize,
    /// How many threads compress; 0 means as many as there are CPUs.
    pub threads: usize,
}

impl BuildRequest {
    /// Returns the request with the time itself where it says `SOURCE_DATE_EPOCH=context`.
    #[must_use]
    pub fn with_time_of_context(&self, context: &LocalContext) -> BuildRequest {
        let mut request = self.clone();
        let is_asked = |(name, value): &(String, String)| name == SOURCE_DATE_EPOCH && value == "context";
        if request.build_args.iter().any(is_asked) {
            request.build_args.retain(|argument| !is_asked(argument));
            if let Some(seconds) = context.time().seconds() {
                request.source_date_epoch = request.source_date_epoch.or(Some(seconds));
                request.build_args.push((SOURCE_DATE_EPOCH.to_owned(), seconds.to_string()));
            }
        }
        request
    }
}

/// What RUN steps get and may do beyond what is usual.
#[derive(Debug, Clone)]
pub struct StepOptions {
    /// Where secrets and SSH agents come from.
    pub secrets: Arc<dyn SecretSource>,
    /// What steps may do beyond the sandbox, each once: what was asked for and is granted.
    pub entitlements: Vec<Entitlement>,
    /// Limits of every step's process.
    pub ulimits: Vec<Ulimit>,
    /// The host name of steps.
    pub hostname: Option<String>,
    /// Execute every step of these stages (names or numbers), whatever is recorded.
    pub no_cache_stages: Vec<String>,
    /// What was asked for as the parent of the steps' control groups; steps stay in the builder's own.
    pub cgroup_parent: Option<String>,
}

impl Default for StepOptions {
    fn default() -> StepOptions {
        StepOptions {
            secrets: Arc::new(NoSecrets),
            entitlements: Vec::new(),
            ulimits: Vec::new(),
            hostname: None,
            no_cache_stages: Vec::new(),
            cgroup_parent: None,
        }
    }
}

/// Something that steps may only do where the build allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entitlement {
    /// The network of the host.
    NetworkHost,
    /// No sandbox but the namespaces: all capabilities, all devices, no filter.
    SecurityInsecure,
}

impl Entitlement {
    /// All of them.
    pub const ALL: [Entitlement; 2] = [Entitlement::NetworkHost, Entitlement::SecurityInsecure];

    /// Returns the name, as `--allow` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Entitlement::NetworkHost => "network.host",
            Entitlement::SecurityInsecure => "security.insecure",
        }
    }

    /// Returns the entitlement of a name.
    pub fn from_name(name: &str) -> Option<Entitlement> {
        Entitlement::ALL.into_iter().find(|entitlement| entitlement.as_str() == name)
    }
}

/// Where COPY and ADD read.
#[derive(Debug, Clone)]
pub enum Context {
    /// A directory, read where it lies.
    Directory(PathBuf),
    /// A directory of somebody else's; the Dockerfile of such a context is a file or a text.
    Distant(Distant),
    /// A tar archive, possibly compressed, given as a file (standard input was written to it).
    Archive(PathBuf),
    /// A git repository, in any form that ADD takes, with `#REF:DIRECTORY` or a query.
    Git(String),
    /// What a URL leads to: a tar archive, or a Dockerfile without a context.
    Http(String),
    /// No context: the Dockerfile came alone on standard input.
    Empty,
    /// A directory of another context; the Dockerfile is that one's.
    Subdirectory {
        /// The other, which is none of these.
        of: Box<Context>,
        /// Where in it.
        path: String,
    },
}

impl Context {
    /// Returns the context of which this is a part, or else this one.
    pub fn whole(&self) -> &Context {
        match self {
            Context::Subdirectory { of, .. } => of,
            other => other,
        }
    }
}

/// Where the Dockerfile is.
#[derive(Debug, Clone)]
pub enum DockerfileSource {
    /// `Dockerfile`, or `dockerfile`, at the root of the context.
    Default,
    /// A file of the caller's, not necessarily in the context.
    File(PathBuf),
    /// What a URL leads to.
    Url(String),
    /// Within an archive or git context.
    InContext(String),
    /// The text itself, read from standard input.
    Text(Vec<u8>),
}

/// When registries are asked about an image that the store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Take what the store has under the name; else ask, and use what the registry said last when it can't
    /// be reached.
    #[default]
    Default,
    /// Ask, and fail when the registry can't be reached (`--pull`).
    Always,
    /// Never ask.
    Never,
}

/// The network of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum NetworkMode {
    /// The builder's choice; the host's network where there is no other.
    #[default]
    Default,
    /// Only a loopback interface.
    None,
    /// The host's network.
    Host,
}

/// How image blobs and manifests are made.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageOptions {
    /// Media types of manifests and layers.
    pub flavour: Flavour,
    /// Compression of new layers.
    pub compression: Compression,
    /// The codec's level; its default when absent.
    pub compression_level: Option<i32>,
    /// Compress layers of base images again when they are compressed another way.
    pub force_compression: bool,
    /// Write an index also for one platform.
    pub always_index: bool,
    /// Annotations for each platform's manifest.
    pub manifest_annotations: Vec<(String, String)>,
    /// Annotations for the index.
    pub index_annotations: Vec<(String, String)>,
    /// Attestation manifests are artifacts that name their subject; else they look like images.
    pub attestations_as_artifacts: bool,
    /// What the names of attestations begin with where they are files.
    pub attestation_prefix: String,
    /// Leave the times of files in layers as they are, whatever time is given.
    pub keeps_layer_times: bool,
}

impl Default for ImageOptions {
    fn default() -> ImageOptions {
        ImageOptions {
            flavour: Flavour::Oci,
            compression: Compression::Gzip,
            compression_level: None,
            force_compression: false,
            always_index: false,
            manifest_annotations: Vec::new(),
            index_annotations: Vec::new(),
            attestations_as_artifacts: true,
            attestation_prefix: String::new(),
            keeps_layer_times: false,
        }
    }
}

/// What becomes of a result. It is in the local store in any case, unless there is nothing but
/// `Local`, `Tar` and `CacheOnly`.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// An image under its names, in the local store and, when pushed, in their registries.
    Image {
        /// Whether to push.
        push: bool,
        /// Push without tags, to the repositories of the names.
        by_digest: bool,
    },
    /// An OCI image layout of all platforms.
    Oci {
        /// Where to.
        destination: Destination,
        /// One tar archive, or else a directory.
        tar: bool,
    },
    /// An archive for `docker load`, of one platform.
    Docker {
        /// Where to; `None` only loads into the local store.
        destination: Option<Destination>,
    },
    /// The file tree; one directory per platform when there are several.
    Local {
        /// The directory.
        destination: PathBuf,
        /// A directory per platform, also for one.
        platform_split: Option<bool>,
    },
    /// The file tree as one tar archive.
    Tar {
        /// Where to.
        destination: Destination,
        /// A directory per platform, also for one.
        platform_split: Option<bool>,
    },
    /// Nothing: the records of the steps are all that is wanted.
    CacheOnly,
}

/// A file, or standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A file or directory, replaced when the output is complete.
    Path(PathBuf),
    /// Standard output.
    Stdout,
    /// Bytes to somebody else; they are worth nothing unless the build succeeds.
    Stream(OutputStream),
}

impl Output {
    /// Tells whether the output needs manifests and layers, and not only trees.
    pub fn is_image(&self) -> bool {
        matches!(self, Output::Image { .. } | Output::Oci { .. } | Output::Docker { .. })
    }
}

/// Where the bytes of one output go: taken once, by the output that it was given to.
#[derive(Clone)]
pub struct OutputStream(Arc<Mutex<Option<Box<dyn Write + Send>>>>);

impl OutputStream {
    /// Makes one of a writer, which is dropped when the output is complete, or has failed.
    pub fn new(writer: impl Write + Send + 'static) -> OutputStream {
        OutputStream(Arc::new(Mutex::new(Some(Box::new(writer)))))
    }

    /// Takes the writer; the second time there is none.
    pub(crate) fn take(&self) -> std::io::Result<Box<dyn Write + Send>> {
        let writer = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        writer.ok_or_else(|| std::io::Error::other("the stream has been used already"))
    }
}

impl std::fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OutputStream")
    }
}

impl PartialEq for OutputStream {
    fn eq(&self, other: &OutputStream) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for OutputStream {}
