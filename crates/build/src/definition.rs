// SPDX-License-Identifier: Apache-2.0
//! Builds that are given as a graph and not as a Dockerfile: what clients write as LLB.
//!
//! A [`Definition`] says in plain words what each vertex does; [`Services::evaluate_definition`] turns it into
//! the same operations that a Dockerfile becomes, so that both share their caches. Vertices stand in order:
//! each one reads only those before it.

mod exec;
mod files;
mod look_up;
mod lower;

use std::path::PathBuf;
use std::sync::Arc;

use polyarch_oci::{Digest, Platform, Reference};
use polyarch_solver::CancelFlag;
use polyarch_solver::progress::Progress;

pub use crate::ops::file_change::{CopyChange, FileChange};
pub(crate) use lower::LoweredDefinition;

pub use look_up::{GitFacts, SourceFacts, WebFacts};

pub use exec::{CacheSharing, Exec, ExecMountKind, ExecMountSpec, MountPermissions};

use crate::error::{BuildError, SourceLocation};
use crate::evaluated::{BuiltTree, Evaluated};
use crate::frontend::LoweredPlatform;
use crate::image::ImageDraft;
use crate::provenance::Capture;
use crate::request::{BuildRequest, PullPolicy};
use crate::services::Services;

/// A graph of operations.
#[derive(Debug, Clone, Default)]
pub struct Definition {
    /// The vertices; inputs before their readers.
    pub vertices: Vec<Vertex>,
    /// What it gives.
    pub result: Edge,
    /// What provenance tells of it.
    pub told: ToldDefinition,
}

/// A definition in the words of the client that has written it.
#[derive(Debug, Clone, Default)]
pub struct ToldDefinition {
    /// Its vertices, in the order of those of the definition; one that only names the result may follow.
    pub steps: Vec<ToldStep>,
    /// The files that it was made of.
    pub files: Vec<ToldFile>,
}

/// A vertex in the words of a client.
#[derive(Debug, Clone)]
pub struct ToldStep {
    /// Its name.
    pub digest: String,
    /// What it does, as BuildKit writes operations of LLB.
    pub op: serde_json::Value,
    /// The numbers of the vertices that it reads, and which outputs of them.
    pub inputs: Vec<(usize, usize)>,
    /// Its places in the files, as BuildKit writes them; absent where nobody says.
    pub location: Option<serde_json::Value>,
}

/// A file that a client has made a definition of.
#[derive(Debug, Clone)]
pub struct ToldFile {
    /// Its name.
    pub name: String,
    /// Its language.
    pub language: String,
    /// What is in it.
    pub data: Vec<u8>,
    /// How it was read.
    pub read: Vec<ToldStep>,
}

/// One vertex.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// What it does.
    pub kind: VertexKind,
    /// What it reads.
    pub inputs: Vec<Edge>,
    /// The platform of the images that it takes and the programs that it runs.
    pub platform: Platform,
    /// What people read.
    pub name: String,
    /// Whether it is executed whatever is recorded.
    pub no_cache: bool,
    /// Where its author has written it.
    pub location: Option<SourceLocation>,
}

/// An output of a vertex.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Edge {
    /// The number of the vertex.
    pub vertex: usize,
    /// Which of its outputs.
    pub output: usize,
}

/// What a vertex does.
#[derive(Debug, Clone)]
pub enum VertexKind {
    /// The layers of an image of a registry, or of the store.
    Image {
        /// Its name.
        reference: Reference,
        /// When the registry is asked.
        pull: PullPolicy,
        /// What its digest must be.
        checksum: Option<Digest>,
        /// How many of its layers, from the lowest on; all of them when absent.
        layer_limit: Option<usize>,
    },
    /// The layers of an image that is in the store under no name of a registry: it came from a client's layout.
    Layout {
        /// What messages call it, with its digest.
        reference: Reference,
    },
    /// A directory of this machine, which holds what a client has sent.
    Directory {
        /// What tells it from others of the definition.
        name: String,
        /// The client's name for it.
        local: String,
        /// Where it is.
        path: PathBuf,
    },
    /// A part of a git repository, in a form that ADD takes.
    Git {
        /// The URL with its reference and directory.
        url: String,
        /// Whether `.git` is kept.
        keep_git_dir: bool,
        /// What the commit must be.
        checksum: Option<String>,
        /// Whether submodules are left out.
        skips_submodules: bool,
    },
    /// A file of a web server.
    Http {
        /// Where it is.
        url: String,
        /// What it is called here.
        file_name: Option<String>,
        /// What its digest must be.
        checksum: Option<Digest>,
        /// Its permissions.
        mode: Option<u32>,
        /// Its owner.
        owner: Option<(u32, u32)>,
    },
    /// What another build has made.
    Built(Box<BuiltTree>),
    /// Changes of files, one after the other.
    File(Vec<FileStep>),
    /// A process.
    Exec(Box<Exec>),
    /// All inputs on top of each other.
    Merge,
    /// What `upper` has and `lower` has not; absent is the empty tree.
    Diff {
        /// The number of the lower input.
        lower: Option<usize>,
        /// The number of the upper input.
        upper: Option<usize>,
    },
    /// The tree that has nothing.
    Scratch,
}

/// One change of a file vertex.
#[derive(Debug, Clone)]
pub struct FileStep {
    /// What is changed: an input of the vertex, or else what an earlier step gave; nothing is the empty tree.
    pub base: Option<FileInput>,
    /// What is copied from, likewise.
    pub from: Option<FileInput>,
    /// Which output of the vertex the result is, when it is one.
    pub output: Option<usize>,
    /// The change.
    pub change: FileChange,
}

/// What a change reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileInput {
    /// An input of the vertex.
    Input(usize),
    /// What an earlier step of the vertex gave.
    Step(usize),
}

impl Services {
    /// Makes the tree of a definition.
    ///
    /// Of the request only what concerns steps counts: secrets, entitlements, how many run at a time.
    ///
    /// # Errors
    /// The first failure; other steps are stopped and the store stays whole.
    pub async fn evaluate_definition(
        self: &Arc<Self>,
        definition: &Definition,
        request: &BuildRequest,
        progress: &Progress,
        cancel: &CancelFlag,
    ) -> Result<Evaluated, BuildError> {
        let started = std::time::SystemTime::now();
        let lowering = lower::lower(self, definition, request, progress);
        let lowered = tokio::select! {
            lowered = lowering => lowered?,
            () = cancel.cancelled() => return Err(BuildError::cancelled()),
        };
        let mut capture = Capture::of_definition(definition, request, &lowered, started);
        let graph = Arc::new(lowered.graph);
        let draft = ImageDraft::scratch(&lowered.platform);
        let platforms =
            [LoweredPlatform { vertex: lowered.target, draft, materials: Vec::new(), scan: None }];
        let mut trees = self.solve(&graph, &platforms, request, progress, cancel).await?;
        if let Some(tree) = trees.first_mut() {
            capture.finished(&graph, lowered.target, &tree.tree);
            tree.capture = Some(capture);
        }
        let steps = graph.reachable(&[lowered.target]);
        let digests: Vec<_> = steps.into_iter().map(|id| graph.progress_digest(id)).collect();
        let runs = vec![lowered.stats.summary(digests.iter())];
        Ok(Evaluated { runs, trees, source_date_epoch: None })
    }
}
