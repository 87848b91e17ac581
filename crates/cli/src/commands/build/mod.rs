// SPDX-License-Identifier: Apache-2.0
//! `polyarch build`: from flags to an image, and what is said about it.

mod attestations;
mod cache;
mod call;
pub mod contexts;
mod key_agent;
pub(super) mod metadata;
pub(super) mod nodes;
pub mod outputs;
pub mod platforms;
mod policy;
pub mod request;
mod secrets;
mod standard_input;
mod steps;
pub(super) mod summary;
pub mod table;
mod unavailable;

use std::path::PathBuf;

use clap::{ArgAction, Args};
use polyarch_build::BuildResult;
use polyarch_buildkit::history::Outcome;
use polyarch_solver::progress::Progress;

use super::flag_values::go_bool;
use super::{GlobalArgs, buildx_builder};
use crate::progress::{Colors, Display, DisplayOptions, LogLimits, ProgressMode};
use crate::session::Session;
use crate::{CommandError, ExitCode};
use request::BuildPlan;

/// Build an image for one or many platforms
///
/// The result is one index in the local store, under its names, for all platforms. Flags are those of
/// docker buildx build.
#[derive(Debug, Args)]
#[command(override_usage = "polyarch build [OPTIONS] PATH | URL | -")]
pub struct BuildArgs {
    /// Platforms to build for [default: this machine's] [env: DOCKER_DEFAULT_PLATFORM]
    #[arg(long, value_name = "PLATFORM[,PLATFORM]")]
    pub platform: Vec<String>,
    /// Name of the image; may be repeated
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub tag: Vec<String>,
    /// Dockerfile: a path, a URL, or `-` for standard input [default: PATH/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Value of an ARG; without a value it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Files for FROM and `--from` under a name: a directory, docker-image://NAME, oci-layout://PATH or a URL
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_context: Vec<String>,
    /// Label for the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Annotation for the manifests or the index
    #[arg(long, value_name = "[manifest:|index:]KEY=VALUE")]
    pub annotation: Vec<String>,
    /// Push the image to the registries of its names
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    pub push: bool,
    /// Keep the image in the local store, which is done in any case
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    pub load: bool,
    /// What becomes of the result: type=image|registry|oci|docker|local|tar|cacheonly[,KEY=VALUE], a
    /// directory for the file tree, or `-` for the file tree as tar on standard output
    #[arg(short, long, value_name = "OUTPUT")]
    pub output: Vec<String>,
    /// Execute every step, whatever was executed before
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    pub no_cache: bool,
    /// Ask registries for newer base images, and fail when they can't be reached
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    pub pull: bool,
    /// Build also when a step brought programs of another platform
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    pub no_verify: bool,
    /// Write the digest of the image to a file: of the config for one platform, of the index for several
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// How to show progress: auto, plain, tty, rawjson or quiet [default: auto] [env: BUILDKIT_PROGRESS]
    #[arg(long, value_name = "MODE")]
    pub progress: Option<String>,
    /// Show nothing but the digest of the image, on standard output
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    pub quiet: bool,
    /// Network of steps: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub network: String,
    /// Line for /etc/hosts of steps
    #[arg(long, value_name = "HOST:ADDRESS")]
    pub add_host: Vec<String>,
    /// Size of /dev/shm of steps [default: 64m]
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// Secret for steps that mount it: id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long, value_name = "id=NAME[,src=FILE|,env=VARIABLE]")]
    pub secret: Vec<String>,
    /// SSH agent or keys for steps that mount one: default, or NAME=SOCKET, or NAME=KEY,KEY…
    #[arg(long, value_name = "default|NAME[=SOCKET|KEY[,KEY]]")]
    pub ssh: Vec<String>,
    /// What steps may do beyond the sandbox: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT")]
    pub allow: Vec<String>,
    /// Limit of steps' processes; -1 is unlimited
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// Execute every step of these stages, whatever was executed before
    #[arg(long, value_name = "STAGE[,STAGE]")]
    pub no_cache_filter: Vec<String>,
    /// Parent of steps' control groups; nodes with BuildKit heed it, steps here stay in this command's own
    #[arg(long, value_name = "CGROUP")]
    pub cgroup_parent: Option<String>,
    /// Let a node emulate a platform that no node of the builder runs by itself
    #[arg(long)]
    pub allow_emulation: bool,
    /// Take results of steps from NAME (a cache, or an image that holds its own), or `type=registry,ref=NAME` or
    /// `type=local,src=DIR[,tag=TAG][,digest=DIGEST]`; may be repeated
    #[arg(long, value_name = "NAME|ATTRIBUTES")]
    pub cache_from: Vec<String>,
    /// Send results of steps to NAME, or `type=registry,ref=NAME` or `type=local,dest=DIR[,tag=TAG]`, with
    /// `[,mode=min|max]` `[,compression=gzip|zstd|uncompressed]` `[,ignore-error=BOOL]`, or into the image itself:
    /// `type=inline`; may be repeated
    #[arg(long, value_name = "NAME|ATTRIBUTES")]
    pub cache_to: Vec<String>,
    /// Attest how the image was built: true, false, or mode=min|max[,KEY=VALUE]; short for --attest
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL|ATTRIBUTES")]
    pub provenance: Option<String>,
    /// Attest what is in the image: true, false, or generator=IMAGE[,KEY=VALUE] for a scanner; true tells the packages of
    /// dpkg and apk; short for --attest
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL|ATTRIBUTES")]
    pub sbom: Option<String>,
    /// Attestation: type=provenance|sbom[,KEY=VALUE]; may be repeated
    #[arg(long, value_name = "ATTRIBUTES")]
    pub attest: Vec<String>,
    /// Answer a question about the Dockerfile instead of building: check, outline, targets or
    /// subrequests.describe
    #[arg(long, value_name = "METHOD[,format=json|text][,ignorestatus=BOOL]")]
    pub call: Option<String>,
    /// The same as --call=check: what rules find in the Dockerfile
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    pub check: bool,
    /// The old name of --call
    #[arg(long, value_name = "METHOD", hide = true)]
    pub print: Option<String>,
    #[command(flatten)]
    unavailable: unavailable::UnavailableFlags,
    /// Context: a directory, a git repository, the URL of an archive, or `-` for a tar archive or a Dockerfile
    /// on standard input
    #[arg(value_name = "PATH | URL | -", required = false)]
    pub context: Vec<String>,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// How the arguments were wrong, or how the build failed.
pub fn run(args: &BuildArgs, global: &GlobalArgs, session: &Session) -> Result<u8, CommandError> {
    let call = call::Call::of(args)?;
    let mut plan = BuildPlan::new(args, &session.environment, &mut std::io::stdin().lock())?;
    let builder = buildx_builder::of_build(global.builder.as_deref(), session)?;
    let settings = session.settings()?;
    if let Some(call) = call {
        return call::run(&call, &plan, session, &settings);
    }
    plan.request.max_parallel = settings.max_parallel;
    plan.request.threads = settings.threads;
    let mut nodes = builder
        .as_ref()
        .map(nodes::nodes_of)
        .transpose()?
        .filter(|nodes| nodes.iter().any(nodes::BuildNode::is_remote));
    let engine = match &mut nodes {
        Some(nodes) if nodes::need_documents_only(nodes, &plan.request) => {
            session.open_for_documents(&settings)?
        }
        Some(nodes) => {
            nodes::dial_ahead(nodes, session)?;
            session.open(&settings)?
        }
        None => session.open(&settings)?,
    };
    if nodes.is_some() && !plan.request.attestations.is_empty() {
        return Err(CommandError::usage("attestations of images that other nodes build are not available")
            .with_hint("leave out --attest, --provenance and --sbom, or build here: --builder default"));
    }
    plan.warnings.extend(engine.shortcoming());
    if !plan.is_quiet {
        for warning in &plan.warnings {
            session.printer.warning(warning);
        }
    }
    let (progress, display) = show_progress(session, plan.progress, &plan.description());
    let recorder = engine.remember(&plan.request);
    let progress = match &recorder {
        Some(recorder) => both(progress, recorder.progress()),
        None => progress,
    };
    let result = match nodes {
        None => engine.build(plan.request.clone(), &progress),
        Some(nodes) => {
            nodes::build(&engine, nodes, &plan.request, args.allow_emulation, session, &settings, &progress)
        }
    };
    display.finish();
    if let Some(Err(error)) = recorder.map(|recorder| recorder.finish(Outcome::of(&result))) {
        session.printer.warning(&format!("the build is not remembered: {error}"));
    }
    let result = result.map_err(|error| CommandError::from(error).of_build())?;
    report(&plan, &result, session)?;
    Ok(ExitCode::Done.number())
}

/// Sends events to two who want them.
fn both(one: Progress, other: Progress) -> Progress {
    Progress::new(move |event| {
        one.send(event.clone());
        other.send(event);
    })
}

/// Answers the question that the flags ask; `None` when they ask for a build. What the flags read from standard
/// input comes from `stdin`.
///
/// # Errors
/// How the arguments were wrong, or why there is no answer.
pub(super) fn answer(
    args: &BuildArgs,
    stdin: &mut dyn std::io::Read,
    session: &Session,
) -> Result<Option<u8>, CommandError> {
    let Some(call) = call::Call::of(args)? else { return Ok(None) };
    let plan = BuildPlan::new(args, &session.environment, stdin)?;
    call::run(&call, &plan, session, &session.settings()?).map(Some)
}

/// Writes the files and texts that tell about a result.
fn report(plan: &BuildPlan, result: &BuildResult, session: &Session) -> Result<(), CommandError> {
    if let Some(path) = &plan.iidfile {
        metadata::write_file(path, metadata::image_id(result).unwrap_or_default().as_bytes())?;
    }
    if let Some(path) = &plan.metadata_file {
        let provenance = metadata::MetadataProvenance::from_environment(&session.environment);
        metadata::write_file(path, metadata::render(result, provenance).as_bytes())?;
    }
    if plan.is_quiet {
        return match &result.root {
            Some(root) => session.printer.data(&format!("{}\n", root.digest)),
            None => Ok(()),
        };
    }
    if plan.progress != ProgressMode::Quiet && plan.progress != ProgressMode::RawJson {
        session.printer.message(&summary::render(&plan.request, result));
    }
    Ok(())
}

/// Starts showing progress on standard error.
pub fn show_progress(session: &Session, mode: ProgressMode, description: &str) -> (Progress, Display) {
    let environment = &session.environment;
    let (colors, problems) = Colors::from_environment(environment);
    let mode = mode.resolve(environment.stderr_is_terminal);
    if mode == ProgressMode::Tty {
        for problem in problems {
            session.printer.warning(&problem);
        }
    }
    let log_lines = environment.text("BUILDKIT_TTY_LOG_LINES").and_then(|text| text.parse().ok());
    let options = DisplayOptions {
        mode,
        colors,
        limits: LogLimits::from_environment(environment),
        log_lines: log_lines.unwrap_or(6),
        corner: "polyarch:local".to_owned(),
        description: description.to_owned(),
        is_debug: session.is_debug,
    };
    Display::start(options, Box::new(std::io::stderr()))
}
