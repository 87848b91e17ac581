// SPDX-License-Identifier: Apache-2.0
//! Builds the targets: those that don't wait for each other at the same time, on one engine.
//!
//! A target that others link to is exported into a layout as well, which they get as a named context.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use polyarch_bake::{Resolved, Target};
use polyarch_build::named_context::{ContextSource, NamedContext};
use polyarch_build::request::{Destination, Output};
use polyarch_build::{BuildError, BuildRequest, BuildResult, ErrorKind, Services};
use polyarch_solver::CancelFlag;
use polyarch_solver::progress::Progress;
use tempfile::TempDir;

use super::super::build::request::BuildPlan;
use super::super::build::{metadata, nodes, show_progress, summary};
use super::super::{GlobalArgs, buildx_builder};
use super::target_progress::of_target;
use super::{BakeArgs, flags};
use crate::progress::ProgressMode;
use crate::session::Session;
use crate::{CommandError, Environment};

/// A target that is ready to be built once the targets that it links to are.
struct Planned {
    name: String,
    plan: BuildPlan,
    /// The names of its contexts that are targets.
    links: Vec<(String, String)>,
    /// Where its image is for those that link to it.
    layout: Option<TempDir>,
}

/// Builds all targets and says what was built.
///
/// # Errors
/// The first thing that makes no sense, or the first build that fails.
pub fn run(
    args: &BakeArgs,
    resolved: &Resolved,
    global: &GlobalArgs,
    session: &Session,
) -> Result<(), CommandError> {
    let environment = &session.environment;
    let mut planned = Vec::new();
    for (name, target) in &resolved.targets {
        planned.push(plan(name, target, args, resolved, environment)?);
    }
    let settings = session.settings()?;
    for target in &mut planned {
        target.plan.request.max_parallel = settings.max_parallel;
        target.plan.request.threads = settings.threads;
    }
    let builder = buildx_builder::of_build(global.builder.as_deref(), session)?;
    let is_remote = match &builder {
        Some(builder) => nodes::nodes_of(builder)?.iter().any(nodes::BuildNode::is_remote),
        None => false,
    };
    let engine = session.open(&settings)?;
    let mode = planned.first().map_or(ProgressMode::Plain, |target| target.plan.progress);
    let mut warnings: Vec<String> = engine.shortcoming().into_iter().collect();
    for target in &planned {
        for warning in &target.plan.warnings {
            warnings.push(format!("target {}: {warning}", target.name));
        }
    }
    if mode != ProgressMode::Quiet {
        warnings.iter().for_each(|warning| session.printer.warning(warning));
    }
    let names: Vec<&str> = planned.iter().map(|target| target.name.as_str()).collect();
    let description =
        format!("building targets {} with polyarch {}", names.join(", "), env!("CARGO_PKG_VERSION"));
    let (progress, display) = show_progress(session, mode, &description);
    let results = match builder.filter(|_| is_remote) {
        None => engine.perform_patiently(|services, cancel| all(&planned, services, cancel, &progress)),
        Some(builder) => one_by_one(
            &planned,
            |request, progress| {
                let nodes = nodes::nodes_of(&builder).map_err(|error| *error.error)?;
                nodes::build(&engine, nodes, request, false, session, &settings, progress)
            },
            &progress,
        ),
    };
    display.finish();
    let results = results.map_err(|error| CommandError::from(error).of_build())?;
    report(args, &planned, &results, mode, session)
}

/// Makes the request of one target, as `polyarch build` does.
fn plan(
    name: &str,
    target: &Target,
    args: &BakeArgs,
    resolved: &Resolved,
    environment: &Environment,
) -> Result<Planned, CommandError> {
    let named = |mut error: CommandError| {
        error.error.message = format!("target {name}: {}", error.error.message);
        error
    };
    let line = flags::build_line(name, target, args)?;
    let mut stdin = line.stdin.as_deref().unwrap_or("").as_bytes();
    let mut plan = BuildPlan::new(&line.args, environment, &mut stdin).map_err(named)?;
    let links = target.contexts.iter().filter_map(|(name, context)| {
        context.strip_prefix("target:").map(|linked| (name.clone(), linked.to_owned()))
    });
    let is_needed = resolved
        .targets
        .values()
        .any(|other| other.contexts.values().any(|context| context.strip_prefix("target:") == Some(name)));
    let layout =
        is_needed.then(|| tempfile::Builder::new().prefix("polyarch-bake-").tempdir()).transpose().map_err(
            |error| CommandError::io("can't make a directory for a target that others link to", "", &error),
        )?;
    if let Some(layout) = &layout {
        plan.request.outputs.retain(|output| *output != Output::CacheOnly);
        plan.request.outputs.push(layout_output(layout.path()));
    }
    Ok(Planned { name: name.to_owned(), plan, links: links.collect(), layout })
}

fn layout_output(directory: &Path) -> Output {
    Output::Oci { destination: Destination::Path(directory.to_path_buf()), tar: false }
}

/// The context that a finished target is for those that link to it.
fn context(name: &str, target: &Planned, result: &BuildResult) -> Result<NamedContext, BuildError> {
    let wrong = |problem: String| BuildError::new(ErrorKind::Usage, problem);
    let (Some(layout), Some(root)) = (&target.layout, &result.root) else {
        return Err(wrong(format!("target {} makes no image that others could link to", target.name)));
    };
    Ok(NamedContext {
        name: NamedContext::canonical_name(name).map_err(|error| wrong(error.to_string()))?,
        platform: None,
        source: ContextSource::OciLayout {
            directory: layout.path().to_path_buf(),
            tag: None,
            digest: Some(root.digest.clone()),
        },
    })
}

/// The request of a target, once all that it links to is there; `None` while something is missing.
fn ready(
    target: &Planned,
    planned: &[Planned],
    results: &BTreeMap<String, BuildResult>,
) -> Option<Result<BuildRequest, BuildError>> {
    let mut request = target.plan.request.clone();
    for (name, linked) in &target.links {
        let result = results.get(linked)?;
        let linked = planned.iter().find(|other| other.name == *linked)?;
        match context(name, linked, result) {
            Ok(context) => request.contexts.push(context),
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(request))
}

fn progress_of(target: &Planned, planned: &[Planned], progress: &Progress) -> Progress {
    if planned.len() == 1 { progress.clone() } else { of_target(&target.name, progress) }
}

fn of_target_error(target: &Planned, planned: &[Planned], mut error: BuildError) -> BuildError {
    if planned.len() > 1 && error.kind != ErrorKind::Cancelled {
        error.message = format!("target {}: {}", target.name, error.message);
    }
    error
}

/// Builds each target as soon as it is ready. After the first failure nothing more is begun, and what runs
/// is asked to stop.
async fn all(
    planned: &[Planned],
    services: Arc<Services>,
    cancel: CancelFlag,
    progress: &Progress,
) -> Result<BTreeMap<String, BuildResult>, BuildError> {
    let mut results = BTreeMap::new();
    let mut waiting: Vec<&Planned> = planned.iter().collect();
    let mut running = FuturesUnordered::new();
    let mut failure: Option<BuildError> = None;
    // The engine's own flag says that the user interrupts; a failure stops the other targets only.
    let stop = CancelFlag::default();
    loop {
        if failure.is_none() {
            let mut still = Vec::new();
            for target in waiting {
                match ready(target, planned, &results) {
                    None => still.push(target),
                    Some(Err(error)) => failure = Some(of_target_error(target, planned, error)),
                    Some(Ok(request)) => {
                        let progress = progress_of(target, planned, progress);
                        let (services, cancel) = (services.clone(), stop.clone());
                        // Boxed: the type of a build's future is too deep to be part of another one.
                        let build = async move { (target, services.build(request, progress, cancel).await) };
                        running.push(build.boxed_local());
                    }
                }
            }
            waiting = still;
        } else {
            waiting = Vec::new();
        }
        let next = tokio::select! {
            next = running.next() => next,
            () = cancel.cancelled(), if !stop.is_cancelled() => {
                stop.cancel();
                continue;
            }
        };
        match next {
            Some((target, Ok(result))) => {
                results.insert(target.name.clone(), result);
            }
            Some((target, Err(error))) => {
                stop.cancel();
                failure.get_or_insert(of_target_error(target, planned, error));
            }
            None => break,
        }
    }
    finished(results, waiting.first().copied(), failure)
}

fn finished(
    results: BTreeMap<String, BuildResult>,
    waiting: Option<&Planned>,
    failure: Option<BuildError>,
) -> Result<BTreeMap<String, BuildResult>, BuildError> {
    match (failure, waiting) {
        (Some(error), _) => Err(error),
        (None, Some(target)) => {
            let message = format!("target {} links to a target that is not built", target.name);
            Err(BuildError::new(ErrorKind::Usage, message))
        }
        (None, None) => Ok(results),
    }
}

/// Builds target by target, in an order that respects the links.
fn one_by_one(
    planned: &[Planned],
    build: impl Fn(&BuildRequest, &Progress) -> Result<BuildResult, BuildError>,
    progress: &Progress,
) -> Result<BTreeMap<String, BuildResult>, BuildError> {
    let mut results = BTreeMap::new();
    let mut waiting: Vec<&Planned> = planned.iter().collect();
    while let Some(at) = waiting.iter().position(|target| ready(target, planned, &results).is_some()) {
        let target = waiting.remove(at);
        let Some(request) = ready(target, planned, &results) else { continue };
        let progress = progress_of(target, planned, progress);
        let result = request
            .and_then(|request| build(&request, &progress))
            .map_err(|error| of_target_error(target, planned, error))?;
        results.insert(target.name.clone(), result);
    }
    finished(results, waiting.first().copied(), None)
}

/// Writes the file and the texts that tell about the results.
fn report(
    args: &BakeArgs,
    planned: &[Planned],
    results: &BTreeMap<String, BuildResult>,
    mode: ProgressMode,
    session: &Session,
) -> Result<(), CommandError> {
    if let Some(path) = &args.metadata_file {
        let provenance = metadata::MetadataProvenance::from_environment(&session.environment);
        let mut all = serde_json::Map::new();
        for (name, result) in results {
            let document = serde_json::from_str(&metadata::render(result, provenance)).unwrap_or_default();
            all.insert(name.clone(), document);
        }
        let text = polyarch_oci::json::to_indented(&all, "  ");
        metadata::write_file(&session.environment.resolve(path), &[text.as_slice(), b"\n"].concat())?;
    }
    if matches!(mode, ProgressMode::Quiet | ProgressMode::RawJson) {
        return Ok(());
    }
    for target in planned {
        let Some(result) = results.get(&target.name) else { continue };
        let summary = summary::render(&target.plan.request, result);
        if planned.len() == 1 {
            session.printer.message(&summary);
        } else {
            session.printer.message(&format!("{}:\n{summary}", target.name));
        }
    }
    Ok(())
}
