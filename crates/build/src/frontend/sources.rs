// SPDX-License-Identifier: Apache-2.0
//! Where files come from: the context, named contexts, stages and images.

use std::sync::Arc;

use polyarch_dockerfile::{Span, Stage, StageReference};
use polyarch_oci::{Digest, Platform, Reference};
use polyarch_solver::VertexId;

use super::stage::{LoweredStage, hidden};
use super::{Frontend, Lowering};
use crate::context::LocalContext;
use crate::error::{BuildError, ErrorKind};
use crate::fetch::{Shown, blocking};
use crate::image::ImageDraft;
use crate::image_source::ResolvedImage;
use crate::named_context::{ContextSource, NamedContext};
use crate::ops::context_op::ContextOp;
use crate::ops::copy::{CopyAction, CopyPath};
use crate::ops::file::FileAction;
use crate::ops::image::{BuiltOp, ImageOp};
use crate::ops::remote::RemoteOp;
use crate::ops::{BuildOp, OpKind};
use crate::provenance::Material;
use crate::remote::{GitReference, GitSource, RemoteSource, WebSource, redacted};

/// What a named context gives.
pub(super) enum Named {
    /// An image, with its config.
    Image(Arc<ResolvedImage>),
    /// Files only, as a vertex to copy from.
    Files(VertexId),
    /// What another build has made, with what its image would be.
    Built(VertexId, Box<ImageDraft>),
}

impl Frontend<'_> {
    /// Finds the named context that a name means for a platform.
    pub(crate) fn named_context(&self, name: &str, platform: &Platform) -> Option<&NamedContext> {
        NamedContext::find(&self.request.contexts, name, platform)
    }

    /// Finds the named context that stands in for a stage.
    pub(crate) fn context_of_stage(&self, stage: &Stage, platform: &Platform) -> Option<&NamedContext> {
        self.named_context(stage.name.as_deref()?, platform)
    }

    /// Resolves the image of a named context.
    pub(super) async fn named_image(
        &self,
        context: &NamedContext,
        platform: &Platform,
        span: Span,
    ) -> Result<Option<Arc<ResolvedImage>>, BuildError> {
        if self.converted(context)?.is_some_and(|it| !matches!(it.source, ContextSource::Image(_))) {
            return Ok(None);
        }
        let label = format!("[context {}] load metadata for", context.name);
        match &context.source {
            ContextSource::Image(reference) => {
                self.resolve_reference(reference, &label, platform, span).await.map(Some)
            }
            ContextSource::StoredLayout(reference) => {
                self.resolve_stored_layout(reference, &label, platform, span).await.map(Some)
            }
            ContextSource::OciLayout { directory, tag, digest } => {
                let key = format!("{platform} layout {} {tag:?} {digest:?}", directory.display());
                let image = self.images.get(&key, || async {
                    let progress = self.progress();
                    let vertex = progress
                        .begin(&format!("metadata {key}"), format!("{label} {}", directory.display()));
                    let shown = Shown { progress, vertex: vertex.digest() };
                    let (services, directory) = (self.services.clone(), directory.clone());
                    let (tag, digest) = (tag.clone(), digest.clone());
                    let found =
                        blocking(move || services.layout_root(&directory, tag.as_deref(), digest.as_ref()))
                            .await;
                    let image = match found {
                        Ok(root) => {
                            let reference = layout_reference(context, &root.descriptor.digest)?;
                            self.services.select_image(&reference, &root, platform, &shown).await
                        }
                        Err(error) => Err(error),
                    };
                    match image {
                        Ok(image) => {
                            vertex.done();
                            Ok(Arc::new(image))
                        }
                        Err(error) => {
                            vertex.failed(&error);
                            Err(error.at(self.location(span)))
                        }
                    }
                });
                image.await.map(Some)
            }
            ContextSource::Directory(_)
            | ContextSource::Distant(_)
            | ContextSource::Scratch
            | ContextSource::Git(_)
            | ContextSource::Http(_)
            | ContextSource::Built(_) => Ok(None),
        }
    }
}

/// Returns a name for messages about an image that only a layout has.
fn layout_reference(context: &NamedContext, digest: &Digest) -> Result<Reference, BuildError> {
    let named = context.name.parse::<Reference>().map_err(|error| {
        BuildError::from_source(ErrorKind::Usage, format!("invalid context name {}", context.name), &error)
    })?;
    Ok(named.with_digest(digest.clone()))
}

impl Lowering<'_, '_> {
    /// Returns what a named context gives for a platform.
    pub(super) async fn named(
        &mut self,
        context: &NamedContext,
        platform: &Platform,
        span: Span,
    ) -> Result<Named, BuildError> {
        let located = |error: BuildError| error.at(self.frontend.location(span));
        let converted = self.frontend.converted(context).map_err(located)?;
        let context = converted.as_ref().unwrap_or(context);
        if let Some(image) = self.frontend.named_image(context, platform, span).await? {
            return Ok(Named::Image(image));
        }
        if let ContextSource::Built(built) = &context.source {
            let capture = built.0.capture.clone().map(Arc::new);
            let mut op = hidden(OpKind::Built(BuiltOp { tree: built.0.tree.clone(), capture }));
            op.name = format!("[context {}] take from another build", context.name).into();
            return Ok(Named::Built(self.graph.add(op, Vec::new()), Box::new(built.0.draft.clone())));
        }
        let kind = match &context.source {
            ContextSource::Directory(path) => {
                let (services, path) = (self.frontend.services.clone(), path.clone());
                let files = blocking(move || LocalContext::open_named(&services, &path))
                    .await
                    .map_err(|error| error.at(self.frontend.location(span)))?;
                OpKind::Context(ContextOp { identity: context.identity(), context: Arc::new(files) })
            }
            ContextSource::Distant(distant) => {
                let frontend = self.frontend;
                let identity = context.identity();
                let files = frontend.distant.get(&identity, || async {
                    LocalContext::open_distant_named(distant, &frontend.progress).await.map(Arc::new)
                });
                let context = files.await.map_err(|error| error.at(frontend.location(span)))?;
                OpKind::Context(ContextOp { identity, context })
            }
            ContextSource::Git(url) => {
                let reference = GitReference::parse(url)
                    .map_err(|error| self.refused(&error.to_string(), span))?
                    .ok_or_else(|| self.refused(&format!("invalid git context {}", redacted(url)), span))?;
                let keep_git_dir = reference.keep_git_dir.unwrap_or(false);
                let source = RemoteSource::Git(GitSource { reference, keep_git_dir });
                return Ok(Named::Files(self.remote_vertex(source, url, span)?));
            }
            ContextSource::Http(url) => {
                let source = WebSource { url: url.clone(), file_name: "context".to_owned(), checksum: None };
                return Ok(Named::Files(self.remote_vertex(RemoteSource::Web(source), url, span)?));
            }
            ContextSource::Scratch
            | ContextSource::Image(_)
            | ContextSource::OciLayout { .. }
            | ContextSource::StoredLayout(_)
            | ContextSource::Built(_) => OpKind::Image(ImageOp::default()),
        };
        let mut op = hidden(kind);
        op.name = format!("[context {}] load from client", context.name).into();
        Ok(Named::Files(self.graph.add(op, Vec::new())))
    }

    /// Makes a tree of the files of a vertex that is none of layers, as FROM needs it.
    pub(super) fn tree_of(&mut self, files: VertexId, name: &str, span: Span) -> VertexId {
        let empty = self.graph.add(hidden(OpKind::Image(ImageOp::default())), Vec::new());
        let action = CopyAction {
            input: 1,
            sources: vec![CopyPath::plain(".")],
            destination: "/".to_owned(),
            from_context: true,
            ..CopyAction::default()
        };
        let op = BuildOp {
            kind: OpKind::File(self.file_op(FileAction::Copy(vec![action]))),
            name: format!("[context {name}] FROM").into(),
            location: Some(self.frontend.location(span)),
            no_cache: false,
        };
        self.graph.add(op, vec![empty, files])
    }

    /// Returns the vertex that a `--from` or `from=` names: a stage, a named context, or else an image.
    pub(super) async fn source_vertex(&mut self, from: &str, span: Span) -> Result<VertexId, BuildError> {
        let frontend = self.frontend;
        if let Some(stage) = frontend.dockerfile.referenced_stage(from) {
            let current = self.current;
            return self
                .stages
                .get(&stage.index)
                .map(LoweredStage::source)
                .ok_or_else(|| frontend.stage_comes_later(&StageReference { text: from, span }, current));
        }
        let target = self.target.clone();
        if let Some(context) = frontend.named_context(from, &target) {
            let is_layout = context.source.is_layout();
            return match self.named(context, &target, span).await? {
                Named::Image(image) => Ok(self.image_vertex(&image, is_layout)),
                Named::Files(vertex) | Named::Built(vertex, _) => Ok(vertex),
            };
        }
        if from.parse::<usize>().is_ok() {
            let error = BuildError::new(ErrorKind::Dockerfile, format!("there is no stage number {from}"));
            return Err(error.at(frontend.location(span)));
        }
        let names: Vec<&str> =
            frontend.dockerfile.stages.iter().filter_map(|it| it.name.as_deref()).collect();
        let hint = polyarch_oci::platform::did_you_mean(from, &names);
        let image = frontend.resolve(from, &self.target, span).await.map_err(|error| {
            if hint.is_empty() {
                error
            } else {
                error.with_hint(format!("no stage has the name {from}{hint}"))
            }
        })?;
        Ok(self.image_vertex(&image, false))
    }

    /// Takes in an image that was asked for a platform, as a step.
    pub(super) fn take_image(
        &mut self,
        image: &ResolvedImage,
        platform: &Platform,
        is_layout: bool,
    ) -> ImageOp {
        let digest = image.reference.digest().unwrap_or(&image.root.digest).clone();
        let scheme = if is_layout { "oci-layout" } else { "docker-image" };
        let reference = &image.reference;
        let identifier = match reference.digest() {
            Some(_) => format!("{scheme}://{reference}"),
            None => format!("{scheme}://{reference}@{digest}"),
        };
        self.materials.push(Material::Image {
            reference: reference.clone(),
            platform: platform.clone(),
            digest,
            is_layout,
        });
        ImageOp { layers: image.layers.clone(), identifier: Some(identifier) }
    }

    fn image_vertex(&mut self, image: &ResolvedImage, is_layout: bool) -> VertexId {
        let platform = self.target.clone();
        let mut op = hidden(OpKind::Image(self.take_image(image, &platform, is_layout)));
        op.name = format!("FROM {}", image.reference).into();
        self.graph.add(op, Vec::new())
    }

    /// Returns the vertex of files from elsewhere.
    pub(super) fn remote_vertex(
        &mut self,
        source: RemoteSource,
        url: &str,
        span: Span,
    ) -> Result<VertexId, BuildError> {
        let frontend = self.frontend;
        let source = frontend.permitted_remote(source).map_err(|error| error.at(frontend.location(span)))?;
        let secrets = frontend.request.steps.secrets.clone();
        let mut op = hidden(OpKind::Remote(RemoteOp::new(&frontend.services, source, secrets)));
        op.name = format!("[internal] load {}", redacted(url)).into();
        Ok(self.graph.add(op, Vec::new()))
    }

    /// Tells whether a vertex gives files of a user's: their owners and times mean nothing.
    pub(super) fn is_context(&self, vertex: VertexId) -> bool {
        matches!(self.graph.op(vertex).kind, OpKind::Context(_))
    }

    /// Returns the vertex of the main context.
    pub(super) fn context_vertex(&mut self) -> VertexId {
        let context = self.frontend.context.clone();
        let mut op = hidden(OpKind::Context(ContextOp { identity: String::new(), context }));
        op.name = "[internal] load build context".into();
        self.graph.add(op, Vec::new())
    }
}
