// SPDX-License-Identifier: Apache-2.0
//! A build from its request to its result.

use std::sync::Arc;

use polyarch_dockerfile::Dockerfile;
use polyarch_oci::Platform;
use polyarch_sandbox::emulation::Support;
use polyarch_solver::progress::Progress;
use polyarch_solver::{CancelFlag, Graph, Job, JobOptions, Records as _, SolveError, VertexId};

use crate::cache::StepRecords;
use crate::context::{DockerfileText, LocalContext};
use crate::error::{BuildError, ErrorKind, SourceLocation};
use crate::evaluated::Evaluated;
use crate::exporter::{self, Exported, PlatformTree};
use crate::fetch::{Shown, blocking};
use crate::frontend::permitted::permitted_context;
use crate::frontend::{Frontend, LoweredPlatform};
use crate::ops::{self, BuildOp, OpKind};
use crate::provenance::Capture;
use crate::remote_cache::CachedStep;
use crate::request::{BuildRequest, Context, DockerfileSource};
use crate::result::{BuildResult, PlatformResult, Provenance};
use crate::sbom::OUTPUT;
use crate::services::Services;
use crate::tree::Output;

/// How many steps run at a time when nobody says.
const DEFAULT_PARALLEL: usize = 8;

/// How long interrupted steps get to end before they are left behind.
const GRACE: std::time::Duration = std::time::Duration::from_secs(2);

/// A build that takes longer than this is worth being made durable when it ends.
const SYNC_AFTER: std::time::Duration = std::time::Duration::from_secs(10);

impl Services {
    /// Builds an image.
    ///
    /// Nothing is published, and no name changes, until every platform has succeeded.
    ///
    /// # Errors
    /// The first failure; other steps are stopped and the store stays whole. Also when records of steps can't be
    /// sent where they shall go, after the result is where it goes.
    pub async fn build(
        self: &Arc<Self>,
        mut request: BuildRequest,
        progress: Progress,
        cancel: CancelFlag,
    ) -> Result<BuildResult, BuildError> {
        let begun = std::time::Instant::now();
        let host = Platform::host();
        if request.platforms.is_empty() {
            request.platforms.push(host);
        }
        let evaluated = self.evaluate(&request, &progress, &cancel).await?;
        let result = self.export_evaluated(&request, &evaluated, &progress, &cancel).await?;
        tokio::select! {
            exported = self.export_cache(&request, &evaluated, &progress) => drop(exported?),
            () = cancel.cancelled() => return Err(BuildError::cancelled()),
        }
        self.finish(begun).await;
        Ok(result)
    }

    /// Makes the trees of every platform of a request, and leaves its outputs alone.
    ///
    /// # Errors
    /// The first failure; other steps are stopped and the store stays whole.
    pub async fn evaluate(
        self: &Arc<Self>,
        request: &BuildRequest,
        progress: &Progress,
        cancel: &CancelFlag,
    ) -> Result<Evaluated, BuildError> {
        let started = std::time::SystemTime::now();
        let host = Platform::host();
        let mut request = request.clone();
        if request.platforms.is_empty() {
            request.platforms.push(host.clone());
        }
        if let Some(reason) = self.copy_mode_reason() {
            progress.warn(format!("trees are made by copying, which is slower: {reason}"));
        }
        let (context, text, definition) = self.load(&request, progress, cancel).await?;
        crate::syntax::check(&request, &text)?;
        let dockerfile = match parse(&text) {
            Ok(dockerfile) => dockerfile,
            Err(error) => {
                self.warn_about_text(&request, &text, &definition, progress)?;
                return Err(error);
            }
        };
        let frontend = Frontend::new(self, &request, context, &text, dockerfile, progress);
        let source_date_epoch = tokio::select! {
            found = frontend.find_source_date_epoch() => found?,
            () = cancel.cancelled() => return Err(BuildError::cancelled()),
        };
        let found = source_date_epoch.as_ref().and_then(|epoch| epoch.seconds);
        let timed =
            BuildRequest { source_date_epoch: request.source_date_epoch.or(found), ..request.clone() };
        let frontend = Frontend { request: &timed, source_date_epoch, ..frontend };
        let stats = frontend.stats.clone();
        let unused = frontend.unused_build_args();
        if !unused.is_empty() {
            progress.warn(format!("one or more build-args [{}] were not consumed", unused.join(" ")));
        }
        let lowering = async {
            if let Err(error) = self.preflight(&frontend).await {
                if error.kind == ErrorKind::Dockerfile {
                    // What rules find often says why.
                    frontend.warn(&definition).await?;
                }
                return Err(error);
            }
            let violation = frontend.warn(&definition).await?;
            let mut graph = Graph::new();
            let mut lowered = Vec::new();
            for platform in &request.platforms {
                lowered.push(frontend.lower(&mut graph, platform).await?);
            }
            violation.map_or(Ok(()), Err)?;
            Ok::<_, BuildError>((graph, lowered))
        };
        let (graph, lowered) = tokio::select! {
            lowered = lowering => lowered?,
            () = cancel.cancelled() => return Err(BuildError::cancelled()),
        };
        let targets: Vec<VertexId> = lowered.iter().map(|it| it.vertex).collect();
        ops::want_of_contexts(&graph, &targets);
        let graph = Arc::new(graph);
        let captures: Vec<Capture> =
            lowered.iter().map(|lowered| Capture::new(&frontend, &graph, lowered, started)).collect();
        if let Some(options) = &request.attestations.provenance {
            captures.iter().try_for_each(|capture| capture.check(options))?;
        }
        let mut trees = self.solve(&graph, &lowered, &request, progress, cancel).await?;
        let runs = lowered.iter().map(|lowered| {
            let digests: Vec<_> =
                graph.reachable(&[lowered.vertex]).into_iter().map(|id| graph.progress_digest(id)).collect();
            stats.summary(digests.iter())
        });
        for ((tree, mut capture), lowered) in trees.iter_mut().zip(captures).zip(&lowered) {
            capture.finished(&graph, lowered.vertex, &tree.tree);
            if let Some(options) = &request.attestations.provenance {
                capture.check(options)?;
            }
            tree.capture = Some(capture);
        }
        Ok(Evaluated { runs: runs.collect(), trees, source_date_epoch: timed.source_date_epoch })
    }

    /// Gives every output of a request what it asked for.
    ///
    /// # Errors
    /// When an output can't be made, written or pushed. No name has changed then.
    pub async fn export_evaluated(
        self: &Arc<Self>,
        request: &BuildRequest,
        evaluated: &Evaluated,
        progress: &Progress,
        cancel: &CancelFlag,
    ) -> Result<BuildResult, BuildError> {
        let timed = BuildRequest {
            source_date_epoch: request.source_date_epoch.or(evaluated.source_date_epoch),
            ..request.clone()
        };
        let request = &timed;
        if let Some(options) = &request.attestations.provenance {
            evaluated
                .trees
                .iter()
                .filter_map(|tree| tree.capture.as_ref())
                .try_for_each(|it| it.check(options))?;
        }
        let exporting = exporter::export(self, request, &evaluated.trees, progress);
        let exported = tokio::select! {
            exported = exporting => exported?,
            () = cancel.cancelled() => return Err(BuildError::cancelled()),
        };
        Ok(result(request, evaluated, exported))
    }

    /// Opens the context and reads the Dockerfile; returns also the step that did it, which warnings are about.
    pub(crate) async fn load(
        self: &Arc<Self>,
        request: &BuildRequest,
        progress: &Progress,
        cancel: &CancelFlag,
    ) -> Result<(LocalContext, DockerfileText, Arc<str>), BuildError> {
        let name = match &request.dockerfile {
            DockerfileSource::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
            DockerfileSource::InContext(name) => Some(name.clone()),
            DockerfileSource::Default | DockerfileSource::Text(_) | DockerfileSource::Url(_) => None,
        };
        let name = name.unwrap_or_else(|| "Dockerfile".to_owned());
        let vertex =
            progress.begin("load build definition", format!("[internal] load build definition from {name}"));
        let opened = async {
            let permitted = permitted_context(request)?;
            let request = permitted.as_ref().unwrap_or(request);
            let here = self.localize(request, cancel).await?;
            let crate::remote::Localized { context, dockerfile, time, scratch, materials } = here;
            if let Context::Distant(distant) = &context {
                let (context, text) = LocalContext::open_distant(distant, &dockerfile, progress).await?;
                return Ok((context.keeping(scratch).with_materials(materials), text));
            }
            let services = self.clone();
            let opened = blocking(move || LocalContext::open(&services, &context, &dockerfile)).await;
            let keep =
                |context: LocalContext| context.of_time(time).keeping(scratch).with_materials(materials);
            opened.map(|(context, text)| (keep(context), text))
        };
        let opened = opened.await;
        match opened {
            Ok((context, text)) => {
                let size = text.bytes.len() as u64;
                vertex.status("transferring dockerfile:", size).update(size);
                let digest = vertex.digest();
                vertex.done();
                Ok((context, text, digest))
            }
            Err(error) => {
                vertex.failed(&error);
                Err(error)
            }
        }
    }

    /// Makes sure, before the first step, that programs of every platform can run here.
    async fn preflight(self: &Arc<Self>, frontend: &Frontend<'_>) -> Result<(), BuildError> {
        let mut platforms = Vec::new();
        for target in &frontend.request.platforms {
            for platform in frontend.executing_platforms(target).await? {
                if !platforms.contains(&platform) {
                    platforms.push(platform);
                }
            }
        }
        if platforms.is_empty() {
            return Ok(());
        }
        let services = self.clone();
        let asked = platforms.clone();
        let supports = blocking(move || services.support(&asked)).await;
        let mut failure: Option<BuildError> = None;
        for (platform, support) in platforms.iter().zip(supports) {
            if let Support::None { reason, fix } = support {
                let this = BuildError::platform_unsupported(platform, &reason, &fix);
                failure = Some(match failure {
                    None => this,
                    Some(first) => {
                        let mut both = BuildError::new(first.kind, format!("{first}; {this}"));
                        both.hints = first.hints;
                        for hint in this.hints {
                            if !both.hints.contains(&hint) {
                                both.hints.push(hint);
                            }
                        }
                        both
                    }
                });
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Executes what the targets need and no record gives, and returns their trees, with their steps' records when
    /// those are to go somewhere.
    pub(crate) async fn solve(
        self: &Arc<Self>,
        graph: &Arc<Graph<BuildOp>>,
        lowered: &[LoweredPlatform],
        request: &BuildRequest,
        progress: &Progress,
        cancel: &CancelFlag,
    ) -> Result<Vec<PlatformTree>, BuildError> {
        let imported = tokio::select! {
            imported = self.import_records(&request.cache.from, progress) => imported,
            () = cancel.cancelled() => return Err(BuildError::cancelled()),
        };
        let records = Arc::new(StepRecords { services: self.clone(), imported });
        let max_parallel = if request.max_parallel == 0 { DEFAULT_PARALLEL } else { request.max_parallel };
        // The job's own flag is also set by its first failure, which is no interruption.
        let stop = CancelFlag::default();
        let (interrupted, interrupt) = (cancel.clone(), stop.clone());
        let watcher = tokio::spawn(async move {
            interrupted.cancelled().await;
            interrupt.cancel();
        });
        let options = JobOptions { progress: progress.clone(), cancel: stop, max_parallel };
        let job = Job::new(graph.clone(), records.clone(), options);
        let scans = lowered.iter().filter_map(|it| it.scan);
        let targets: Vec<VertexId> = lowered.iter().map(|it| it.vertex).chain(scans).collect();
        let outputs = tokio::select! {
            outputs = job.solve(&targets) => outputs,
            // Steps end at once when interrupted; a transfer need not be waited for.
            () = async { cancel.cancelled().await; tokio::time::sleep(GRACE).await } => {
                return Err(BuildError::cancelled());
            }
        };
        watcher.abort();
        // The failure that stopped the others tells what went wrong, not those that were stopped.
        if let Some(SolveError::Op { source, vertex }) =
            outputs.iter().filter_map(|it| it.as_ref().err()).find(|it| matches!(it, SolveError::Op { .. }))
        {
            let vertex = Some(graph.progress_digest(*vertex));
            return Err(BuildError { vertex, ..BuildError::clone(source) });
        }
        let mut outputs = outputs.into_iter();
        let mut tree = || match outputs.next() {
            Some(Ok(Output::Tree(tree))) => Ok(tree),
            Some(Ok(Output::Context(_) | Output::Trees(_)) | Err(_)) | None => Err(BuildError::cancelled()),
        };
        let mut trees = Vec::new();
        for lowered in lowered {
            let draft = lowered.draft.clone();
            let steps = match request.cache.to.is_empty() {
                true => Vec::new(),
                false => cached_steps(graph, lowered.vertex, &records, &job),
            };
            trees.push(PlatformTree { draft, tree: tree()?, capture: None, scanned: None, steps });
        }
        for (made, lowered) in trees.iter_mut().zip(lowered) {
            if let Some(scan) = lowered.scan {
                let shown = Shown { progress: progress.clone(), vertex: graph.progress_digest(scan) };
                made.scanned = Some(Arc::new(self.read_scan(&tree()?, OUTPUT, &shown).await?));
            }
        }
        Ok(trees)
    }

    /// Keeps what was learned.
    async fn finish(self: &Arc<Self>, begun: std::time::Instant) {
        let services = self.clone();
        blocking(move || {
            services.save_memory();
            // What killed builds have left; this build's own work goes by itself.
            let _ = services.snapshots.sweep();
            if begun.elapsed() > SYNC_AFTER {
                // What a power loss takes is only built again; a long build deserves better.
                let _ = services.store.sync();
            }
        })
        .await;
    }
}

/// Returns the steps that a target of a solved graph needs, with the keys and trees that are known of them.
fn cached_steps(
    graph: &Graph<BuildOp>,
    target: VertexId,
    records: &StepRecords,
    job: &Job<BuildOp, StepRecords>,
) -> Vec<CachedStep> {
    let steps = graph.reachable(&[target]).into_iter().filter_map(|id| {
        let is_step = matches!(graph.op(id).kind, OpKind::File(_) | OpKind::Exec(_));
        let keys = if is_step { job.known_keys(id) } else { Vec::new() };
        let Output::Tree(tree) = keys.iter().find_map(|key| records.load(key))? else { return None };
        Some(CachedStep { keys, tree })
    });
    steps.collect()
}

pub(crate) fn parse(text: &DockerfileText) -> Result<Dockerfile, BuildError> {
    Dockerfile::parse_bytes(&text.bytes).map_err(|error| {
        let location = SourceLocation {
            file: text.name.clone(),
            text: String::from_utf8_lossy(&text.bytes).into(),
            lines: error.span.lines(),
        };
        // What was probably meant is part of the message.
        BuildError::new(ErrorKind::Dockerfile, error.to_string()).at(location)
    })
}

fn result(request: &BuildRequest, evaluated: &Evaluated, exported: Exported) -> BuildResult {
    let made = evaluated.trees.iter().zip(&evaluated.runs).enumerate();
    let platforms = made.map(|(at, (tree, (execution, duration)))| {
        let image = exported.images.get(at);
        PlatformResult {
            platform: tree.draft.platform.clone(),
            manifest: image.map(|image| image.descriptor()),
            config: image.map(|image| image.config.digest.clone()),
            size_bytes: image.map_or(0, |image| image.size_bytes()),
            execution: execution.clone(),
            duration: *duration,
        }
    });
    let provenance = evaluated.trees.iter().enumerate().filter_map(|(at, tree)| {
        let layers = exported.images.get(at).map(|image| image.manifest.value.layers.clone());
        Some(Provenance::new(tree.capture.clone()?, layers.unwrap_or_default()))
    });
    BuildResult {
        platforms: platforms.collect(),
        names: if exported.root.is_some() { request.names.clone() } else { Vec::new() },
        pushed: exported.pushed,
        root: exported.root,
        provenance: provenance.collect(),
    }
}
