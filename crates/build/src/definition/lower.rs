// SPDX-License-Identifier: Apache-2.0
//! A definition becomes a graph of operations.

use std::collections::HashMap;
use std::sync::Arc;

use polyarch_oci::{Digest, Platform, Reference};
use polyarch_solver::progress::Progress;
use polyarch_solver::{Graph, VertexId};

use super::{Definition, Edge, Vertex, VertexKind};
use crate::context::LocalContext;
use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking};
use crate::image_source::ResolvedImage;
use crate::ops::context_op::ContextOp;
use crate::ops::copy::{CopyAction, CopyForm, CopyPath};
use crate::ops::diff::DiffOp;
use crate::ops::file::{Change, FileAction, FileOp};
use crate::ops::image::{BuiltOp, ImageOp};
use crate::ops::merge::MergeOp;
use crate::ops::pick::PickOp;
use crate::ops::remote::RemoteOp;
use crate::ops::{BuildOp, OpKind};
use crate::provenance::Material;
use crate::remote::{GitReference, GitSource, RemoteSource, WebSource};
use crate::request::{BuildRequest, PullPolicy};
use crate::services::Services;
use crate::stats::Stats;

/// A definition, lowered.
pub(crate) struct LoweredDefinition {
    pub(crate) graph: Graph<BuildOp>,
    pub(crate) target: VertexId,
    pub(crate) platform: Platform,
    pub(crate) stats: Arc<Stats>,
    /// The vertices of outputs.
    pub(crate) made: HashMap<Edge, VertexId>,
    /// The images that it takes in.
    pub(crate) materials: Vec<Material>,
}

/// What lowering works with.
pub(super) struct Lowering<'a> {
    pub(super) services: Arc<Services>,
    pub(super) stats: Arc<Stats>,
    pub(super) request: &'a BuildRequest,
    progress: Progress,
    graph: Graph<BuildOp>,
    /// The vertices of outputs.
    made: HashMap<Edge, VertexId>,
    /// Images already resolved.
    images: HashMap<(String, Platform), Arc<ResolvedImage>>,
    materials: Vec<Material>,
}

/// Lowers a definition; images are looked up, and nothing is executed.
pub(super) async fn lower(
    services: &Arc<Services>,
    definition: &Definition,
    request: &BuildRequest,
    progress: &Progress,
) -> Result<LoweredDefinition, BuildError> {
    let mut lowering = Lowering {
        services: services.clone(),
        stats: Arc::new(Stats::default()),
        request,
        progress: progress.clone(),
        graph: Graph::new(),
        made: HashMap::new(),
        images: HashMap::new(),
        materials: Vec::new(),
    };
    for (number, vertex) in definition.vertices.iter().enumerate() {
        let lowered = lowering.vertex(number, vertex).await;
        lowered.map_err(|error| match &vertex.location {
            Some(location) => error.at(location.clone()),
            None => error,
        })?;
    }
    let platform = definition.vertices.get(definition.result.vertex).map(|vertex| vertex.platform.clone());
    let target = lowering.output(definition.result)?;
    let target = lowering.base(Some(target));
    Ok(LoweredDefinition {
        graph: lowering.graph,
        target,
        platform: platform.unwrap_or_else(Platform::host),
        stats: lowering.stats,
        made: lowering.made,
        materials: lowering.materials,
    })
}

impl Lowering<'_> {
    async fn vertex(&mut self, number: usize, vertex: &Vertex) -> Result<(), BuildError> {
        let inputs: Vec<VertexId> =
            vertex.inputs.iter().map(|edge| self.output(*edge)).collect::<Result<_, _>>()?;
        let input = |at: usize| {
            inputs
                .get(at)
                .copied()
                .ok_or_else(|| wrong(format!("an operation reads its input {at}, which it has not")))
        };
        let id = match &vertex.kind {
            VertexKind::File(steps) => {
                let outputs = self.file(vertex, steps, &inputs)?;
                self.made
                    .extend(outputs.into_iter().map(|(output, id)| (Edge { vertex: number, output }, id)));
                return Ok(());
            }
            VertexKind::Exec(exec) => {
                let lowered = self.exec(vertex, exec, &inputs)?;
                for (output, tree) in lowered.outputs {
                    let id = match tree {
                        Some(number) => {
                            let pick = OpKind::Pick(PickOp { number });
                            self.graph.add(hidden(pick), vec![lowered.vertex])
                        }
                        None => lowered.vertex,
                    };
                    self.made.insert(Edge { vertex: number, output }, id);
                }
                return Ok(());
            }
            VertexKind::Image { reference, pull, checksum, layer_limit } => {
                let image = self.image(reference, &vertex.platform, *pull).await?;
                check_digest(reference, &image, checksum.as_ref())?;
                let mut layers = image.layers.clone();
                layers.truncate(layer_limit.unwrap_or(usize::MAX));
                self.take(&image, &vertex.platform, false);
                let identifier = Some(format!("docker-image://{reference}"));
                self.add(vertex, OpKind::Image(ImageOp { layers, identifier }), Vec::new())
            }
            VertexKind::Layout { reference } => {
                // No registry knows it.
                let image = self.image(reference, &vertex.platform, PullPolicy::Never).await?;
                self.take(&image, &vertex.platform, true);
                let identifier = Some(format!("oci-layout://{reference}"));
                let op = ImageOp { layers: image.layers.clone(), identifier };
                self.add(vertex, OpKind::Image(op), Vec::new())
            }
            VertexKind::Directory { name, path, .. } => {
                let (services, path) = (self.services.clone(), path.clone());
                let files = blocking(move || LocalContext::open_received(&services, &path)).await?;
                let op = ContextOp { identity: name.clone(), context: Arc::new(files) };
                self.add(vertex, OpKind::Context(op), Vec::new())
            }
            VertexKind::Git { url, keep_git_dir, checksum, skips_submodules } => {
                let mut reference = git_reference(url)?;
                if checksum.is_some() {
                    reference.checksum.clone_from(checksum);
                }
                if *skips_submodules {
                    reference.submodules = Some(false);
                }
                let keep_git_dir = *keep_git_dir || reference.keep_git_dir.unwrap_or(false);
                self.remote(vertex, RemoteSource::Git(GitSource { reference, keep_git_dir }))
            }
            VertexKind::Http { url, file_name, checksum, mode, owner } => {
                let source = web_source(url, file_name.as_deref(), checksum.clone())?;
                let file = source.file_name.clone();
                let remote = self.remote(vertex, RemoteSource::Web(source));
                match (mode, owner) {
                    (None, None) => remote,
                    _ => self.copy_file(vertex, remote, &file, *mode, *owner),
                }
            }
            VertexKind::Built(built) => {
                let capture = built.0.capture.clone().map(Arc::new);
                let op = BuiltOp { tree: built.0.tree.clone(), capture };
                self.add(vertex, OpKind::Built(op), Vec::new())
            }
            VertexKind::Merge => {
                let trees: Vec<VertexId> = inputs.iter().map(|input| self.base(Some(*input))).collect();
                self.add(vertex, OpKind::Merge(MergeOp), trees)
            }
            VertexKind::Diff { lower, upper } => {
                let (lower, upper) = (lower.map(input).transpose()?, upper.map(input).transpose()?);
                let trees = vec![self.base(lower), self.base(upper)];
                self.add(vertex, OpKind::Diff(DiffOp { services: self.services.clone() }), trees)
            }
            VertexKind::Scratch => self.scratch(),
        };
        self.made.insert(Edge { vertex: number, output: 0 }, id);
        Ok(())
    }

    fn output(&self, edge: Edge) -> Result<VertexId, BuildError> {
        let missing = || wrong(format!("an operation has no output {}", edge.output));
        self.made.get(&edge).copied().ok_or_else(missing)
    }

    /// Adds an operation that people see as a vertex of the definition.
    pub(super) fn add(&mut self, vertex: &Vertex, kind: OpKind, inputs: Vec<VertexId>) -> VertexId {
        let op = BuildOp {
            kind,
            name: vertex.name.as_str().into(),
            location: vertex.location.clone(),
            no_cache: vertex.no_cache || self.request.no_cache,
        };
        self.graph.add(op, inputs)
    }

    /// Adds the tree that has nothing.
    pub(super) fn scratch(&mut self) -> VertexId {
        self.graph.add(hidden(OpKind::Image(ImageOp::default())), Vec::new())
    }

    /// Tells whether a vertex gives files whose owners mean nothing.
    pub(super) fn is_context(&self, id: VertexId) -> bool {
        matches!(self.graph.op(id).kind, OpKind::Context(_))
    }

    /// Returns a tree of layers for what is changed, or put on top of another.
    pub(super) fn base(&mut self, of: Option<VertexId>) -> VertexId {
        let Some(id) = of else { return self.scratch() };
        let op = self.graph.op(id);
        if !matches!(op.kind, OpKind::Context(_) | OpKind::Remote(_)) {
            return id;
        }
        let name = op.name.clone();
        let action = CopyAction {
            input: 1,
            sources: vec![CopyPath::plain(".")],
            destination: "/".to_owned(),
            from_context: self.is_context(id),
            ..CopyAction::default()
        };
        let op = self.file_op(FileAction::Copy(vec![action]));
        let empty = self.scratch();
        let op = BuildOp { kind: OpKind::File(op), name, location: None, no_cache: false };
        self.graph.add(op, vec![empty, id])
    }

    fn file_op(&self, action: FileAction) -> FileOp {
        FileOp {
            services: self.services.clone(),
            stats: self.stats.clone(),
            action,
            looked_up: Default::default(),
        }
    }

    /// Adds a copy of a single file with other permissions.
    fn copy_file(
        &mut self,
        vertex: &Vertex,
        from: VertexId,
        name: &str,
        mode: Option<u32>,
        owner: Option<(u32, u32)>,
    ) -> VertexId {
        let action = CopyAction {
            input: 1,
            sources: vec![CopyPath::literal(name)],
            destination: "/".to_owned(),
            owner: owner.map(|(uid, gid)| format!("{uid}:{gid}")),
            mode: mode.map(|mode| format!("{:o}", mode & 0o7777)),
            form: CopyForm { keeps_directories: true, ..CopyForm::default() },
            ..CopyAction::default()
        };
        let op = self.file_op(FileAction::Changes(vec![Change::Copy(action)]));
        let empty = self.scratch();
        self.add(vertex, OpKind::File(op), vec![empty, from])
    }

    fn remote(&mut self, vertex: &Vertex, source: RemoteSource) -> VertexId {
        let (services, secrets) = (self.services.clone(), self.request.steps.secrets.clone());
        self.add(vertex, OpKind::Remote(RemoteOp::new(&services, source, secrets)), Vec::new())
    }

    fn take(&mut self, image: &ResolvedImage, platform: &Platform, is_layout: bool) {
        self.materials.push(Material::Image {
            reference: image.reference.clone(),
            platform: platform.clone(),
            digest: image.reference.digest().unwrap_or(&image.root.digest).clone(),
            is_layout,
        });
    }

    async fn image(
        &mut self,
        reference: &Reference,
        platform: &Platform,
        pull: PullPolicy,
    ) -> Result<Arc<ResolvedImage>, BuildError> {
        let key = (reference.to_string(), platform.clone());
        if let Some(image) = self.images.get(&key) {
            return Ok(image.clone());
        }
        let label = format!("[internal] load metadata for {reference}");
        let vertex = self.progress.begin(&format!("metadata {platform} {reference}"), label);
        let shown = Shown { progress: self.progress.clone(), vertex: vertex.digest() };
        match self.services.resolve_image(reference, platform, pull, &shown).await {
            Ok(image) => {
                vertex.done();
                let image = Arc::new(image);
                self.images.insert(key, image.clone());
                Ok(image)
            }
            Err(error) => {
                vertex.failed(&error);
                Err(error)
            }
        }
    }
}

fn check_digest(
    reference: &Reference,
    image: &ResolvedImage,
    checksum: Option<&Digest>,
) -> Result<(), BuildError> {
    match checksum {
        Some(wanted) if *wanted != image.root.digest => {
            let found = &image.root.digest;
            Err(wrong(format!(
                "image digest {found} for {reference} does not match expected checksum {wanted}"
            )))
        }
        _ => Ok(()),
    }
}

/// Reads the URL of a repository, which need not end with `.git` where nothing else can be meant.
pub(super) fn git_reference(url: &str) -> Result<GitReference, BuildError> {
    let parse = |url: &str| GitReference::parse(url).map_err(|error| wrong(error.to_string()));
    if let Some(reference) = parse(url)? {
        return Ok(reference);
    }
    let unknown = || wrong(format!("{url} is not a git repository"));
    let (scheme, rest) = url.split_once("://").ok_or_else(unknown)?;
    if !matches!(scheme, "http" | "https") {
        return Err(unknown());
    }
    let mut reference = parse(&format!("git://{rest}"))?.ok_or_else(unknown)?;
    if let Some(rest) = reference.remote.strip_prefix("git://") {
        reference.remote = format!("{scheme}://{rest}");
    }
    Ok(reference)
}

/// Makes the source of a download.
pub(super) fn web_source(
    url: &str,
    file_name: Option<&str>,
    checksum: Option<Digest>,
) -> Result<WebSource, BuildError> {
    let mut source = WebSource::of_add(url, checksum);
    if let Some(name) = file_name {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(wrong(format!("{name:?} can't be the name of a file")));
        }
        name.clone_into(&mut source.file_name);
    }
    Ok(source)
}

/// Makes an operation that is not shown.
fn hidden(kind: OpKind) -> BuildOp {
    BuildOp { kind, name: "".into(), location: None, no_cache: false }
}

fn wrong(message: String) -> BuildError {
    BuildError::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests;
