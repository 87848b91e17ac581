// SPDX-License-Identifier: Apache-2.0
//! Results leave for the client or a registry, and what the client is told of them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use polyarch_build::request::{Destination, Output, OutputStream};
use polyarch_build::{BuildError, BuildRequest, BuildResult, ErrorKind, Evaluated};

use crate::caller::{ArchiveWriter, ClientSession};
use crate::server::builds::Build;
use crate::server::cache::exports;
use crate::server::layouts::send_layout;
use crate::server::outputs::{OutputKind, OutputTime, WantedOutput};
use crate::server::results::Solved;

/// The key of what frontends say of the time to which the result's times are clamped.
pub(super) const TIME_KEY: &str = "source.date.epoch";

/// The client's name for where the blobs of its layout go.
const EXPORT_STORE: &str = "export";

/// What exporters say, by BuildKit's keys.
pub(super) type Response = BTreeMap<String, String>;

/// Gives every output what it asked for: files and archives first, images last, since those are public.
pub(super) async fn export(
    build: &Build,
    solved: &Solved,
    outputs: &[WantedOutput],
) -> Result<Response, BuildError> {
    let mut response = Response::new();
    let Some((_, first)) = solved.trees.first() else {
        return match outputs {
            [] => Ok(response),
            _ => {
                Err(BuildError::new(ErrorKind::Usage, "the frontend returned nothing that could be exported"))
            }
        };
    };
    let parts = solved.trees.iter().map(|(_, tree)| (&tree.evaluation.evaluated, tree.platform));
    let evaluated = Evaluated::join(parts);
    let mut order: Vec<usize> = (0..outputs.len()).collect();
    order.sort_by_key(|at| matches!(outputs[*at].kind, OutputKind::Image { .. }));
    for at in order {
        let export = Export { build, solved, evaluated: &evaluated, base: &first.evaluation.request };
        response.extend(export.one(at, &outputs[at]).await?);
    }
    let mut request = first.evaluation.request.clone();
    if let Some(output) = outputs.iter().find(|output| matches!(output.kind, OutputKind::Image { .. })) {
        // Layers that the image has already are not compressed again.
        request.image = output.image.clone();
        set_time(output, &mut request, &solved.metadata);
    }
    request.cache.to = exports(build)?;
    let cache = build.services.export_cache(&request, &evaluated, &build.progress()).await?;
    if let Some(descriptor) = cache.and_then(|cache| serde_json::to_string(&cache).ok()) {
        // What names the cache in the client's directory.
        response.insert("cache.manifest".to_owned(), descriptor);
    }
    Ok(response)
}

struct Export<'a> {
    build: &'a Build,
    solved: &'a Solved,
    evaluated: &'a Evaluated,
    base: &'a BuildRequest,
}

impl Export<'_> {
    async fn one(&self, number: usize, output: &WantedOutput) -> Result<Response, BuildError> {
        let mut request = self.base.clone();
        request.platforms = self.evaluated.platforms().cloned().collect();
        request.names.clone_from(&output.names);
        request.image = output.image.clone();
        request.image.always_index = self.solved.is_map;
        set_time(output, &mut request, &self.solved.metadata);
        match output.kind {
            OutputKind::Image { push, by_digest, .. } => {
                request.outputs = vec![Output::Image { push, by_digest }];
                let result = self.run(&request).await?;
                Ok(response_of(output, &result))
            }
            OutputKind::Oci { tar: false } => self.layout(number, output, request).await,
            OutputKind::Oci { tar: true } => {
                self.archive(number, output, request, |to| Output::Oci { destination: to, tar: true }).await
            }
            OutputKind::Docker if self.evaluated.platforms().count() > 1 || self.solved.is_map => {
                let message = "docker exporter does not currently support exporting manifest lists";
                Err(BuildError::new(ErrorKind::Usage, message))
            }
            OutputKind::Docker => {
                self.archive(number, output, request, |to| Output::Docker { destination: Some(to) }).await
            }
            OutputKind::Tar { split } => {
                let split = self.split(split);
                self.archive(number, output, request, |to| Output::Tar {
                    destination: to,
                    platform_split: split,
                })
                .await
            }
            OutputKind::Local { split } => {
                let directory = self.build.services.scratch()?;
                let files = directory.path().join("files");
                let split = self.split(split);
                request.outputs = vec![Output::Local { destination: files.clone(), platform_split: split }];
                self.run(&request).await?;
                let vertex = self
                    .build
                    .progress()
                    .begin(&format!("sending files {number}"), "sending files to the client");
                match self.session()?.send_directory(number, &files, true).await {
                    Ok(()) => vertex.done(),
                    Err(error) => {
                        vertex.failed(&error);
                        return Err(error.into());
                    }
                }
                Ok(Response::new())
            }
        }
    }

    /// Several platforms get a directory each, also when a map has only one.
    fn split(&self, wanted: Option<bool>) -> Option<bool> {
        Some(wanted.unwrap_or(self.solved.is_map))
    }

    fn session(&self) -> Result<&ClientSession, BuildError> {
        let missing =
            || BuildError::new(ErrorKind::Usage, "the build has no session that could take its result");
        self.build.session.as_ref().ok_or_else(missing)
    }

    async fn run(&self, request: &BuildRequest) -> Result<BuildResult, BuildError> {
        let (services, progress) = (&self.build.services, self.build.progress());
        services.export_evaluated(request, self.evaluated, &progress, &self.build.cancel).await
    }

    /// Puts the blobs of an image into the client's store for them; the client itself writes the layout's index.
    async fn layout(
        &self,
        number: usize,
        output: &WantedOutput,
        mut request: BuildRequest,
    ) -> Result<Response, BuildError> {
        let content = self.session()?.content(EXPORT_STORE)?;
        let directory = self.build.services.scratch()?;
        let files = directory.path().join("layout");
        request.outputs = vec![Output::Oci { destination: Destination::Path(files.clone()), tar: false }];
        let result = self.run(&request).await?;
        let progress = self.build.progress();
        let vertex = progress.begin(&format!("sending layout {number}"), "sending the layout to the client");
        match send_layout(&content, &files).await {
            Ok(()) => vertex.done(),
            Err(error) => {
                vertex.failed(&error);
                return Err(error);
            }
        }
        Ok(response_of(output, &result))
    }

    /// Writes an archive to the client; it has it only when all of it has been made.
    async fn archive(
        &self,
        number: usize,
        output: &WantedOutput,
        mut request: BuildRequest,
        output_to: impl FnOnce(Destination) -> Output,
    ) -> Result<Response, BuildError> {
        let mut response = Response::new();
        // Clients name files by what they are told beforehand.
        if !output.told_names.is_empty() {
            response.insert("image.name".to_owned(), output.told_names.clone());
        }
        let writer = SharedWriter::new(self.session()?.send_archive(number, &response)?);
        request.outputs = vec![output_to(Destination::Stream(OutputStream::new(writer.clone())))];
        match self.run(&request).await {
            Ok(result) => {
                writer.take()?.finish().await?;
                Ok(response_of(output, &result))
            }
            // A client that doesn't take the archive says why; otherwise ours is the reason.
            Err(error) => match writer.has_failed() {
                true => Err(writer.take()?.failure().await.into()),
                false => Err(error),
            },
        }
    }
}

/// Notes to which time an output's times are clamped.
fn set_time(output: &WantedOutput, request: &mut BuildRequest, metadata: &BTreeMap<String, Vec<u8>>) {
    match output.time {
        OutputTime::OfBuild => request.source_date_epoch = time_of(metadata),
        OutputTime::None => request.image.keeps_layer_times = true,
        OutputTime::At(time) => request.source_date_epoch = Some(time),
    }
}

/// Returns the time that a frontend has fixed, in seconds since 1970: for all platforms, or else for the first.
fn time_of(metadata: &BTreeMap<String, Vec<u8>>) -> Option<i64> {
    let all = metadata.get(TIME_KEY);
    let of_platform = || metadata.iter().find(|(key, _)| key.starts_with(TIME_KEY)).map(|(_, value)| value);
    std::str::from_utf8(all.or_else(of_platform)?).ok()?.parse().ok()
}

/// Says what was exported.
fn response_of(output: &WantedOutput, result: &BuildResult) -> Response {
    let mut response = Response::new();
    let Some(root) = &result.root else { return response };
    let mut set = |key: &str, value: String| response.insert(key.to_owned(), value);
    set("containerimage.digest", root.digest.to_string());
    // One image has one config; an index has as many as platforms.
    if let [platform] = result.platforms.as_slice()
        && let (Some(config), Some(manifest)) = (&platform.config, &platform.manifest)
        && manifest.digest == root.digest
    {
        set("containerimage.config.digest", config.to_string());
    }
    if let Ok(descriptor) = serde_json::to_vec(root) {
        set("containerimage.descriptor", STANDARD.encode(descriptor));
    }
    if !output.told_names.is_empty() {
        set("image.name", output.told_names.clone());
    }
    response
}

/// The writer of an archive while an output has it.
#[derive(Clone)]
struct SharedWriter(Arc<Mutex<SharedState>>);

struct SharedState {
    writer: Option<ArchiveWriter>,
    has_failed: bool,
}

impl SharedWriter {
    fn new(writer: ArchiveWriter) -> SharedWriter {
        SharedWriter(Arc::new(Mutex::new(SharedState { writer: Some(writer), has_failed: false })))
    }

    fn take(&self) -> Result<ArchiveWriter, BuildError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = || BuildError::new(ErrorKind::Usage, "the archive has been taken already");
        state.writer.take().ok_or_else(taken)
    }

    fn has_failed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).has_failed
    }

    fn with<T>(&self, work: impl FnOnce(&mut ArchiveWriter) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(writer) = &mut state.writer else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let result = work(writer);
        state.has_failed |= result.is_err();
        result
    }
}

impl Write for SharedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|writer| writer.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with(Write::flush)
    }
}
