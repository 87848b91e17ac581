// SPDX-License-Identifier: Apache-2.0
//! From the flags of a build to one validated request.

use std::io::Read;
use std::path::{Path, PathBuf};

use polyarch_build::BuildRequest;
use polyarch_build::remote::{GitReference, is_http, redacted};
use polyarch_build::request::{Context, Destination, DockerfileSource, ImageOptions, Output, PullPolicy};
use polyarch_oci::Reference;
use tempfile::TempPath;

use super::super::flag_values::{parse_pair, parse_size, set_pair, unknown};
use super::super::run::parse_network;
use super::BuildArgs;
use super::contexts::named_contexts;
use super::outputs::{ImageEdits, OutputSpec, parse_output, parse_tag};
use super::platforms::parse_platforms;
use super::standard_input::{Input, read_any, read_text};
use super::steps::step_options;
use crate::progress::ProgressMode;
use crate::{CommandError, Environment};

const USAGE: &str = "Usage:  polyarch build [OPTIONS] PATH | URL | -\n\n\
                     Run 'polyarch build --help' for more information\n";

/// A build as asked for: the request, and what is done around it.
#[derive(Debug)]
pub struct BuildPlan {
    /// What the engine gets.
    pub request: BuildRequest,
    /// How progress is shown.
    pub progress: ProgressMode,
    /// Only the digest is wanted.
    pub is_quiet: bool,
    /// Where the digest is written.
    pub iidfile: Option<PathBuf>,
    /// Where the metadata is written.
    pub metadata_file: Option<PathBuf>,
    /// What the user should know before the build.
    pub warnings: Vec<String>,
    /// The context that came on standard input; it goes away with the plan.
    _archive: Option<TempPath>,
}

impl BuildPlan {
    /// Validates the flags and reads standard input where they ask for it.
    ///
    /// # Errors
    /// The first thing that makes no sense, naming its flag.
    pub fn new(
        args: &BuildArgs,
        environment: &Environment,
        stdin: &mut dyn Read,
    ) -> Result<BuildPlan, CommandError> {
        let warnings = args.unavailable.check().map_err(CommandError::usage)?;
        let attestations = super::attestations::attestations(args)?;
        let cache = super::cache::remote_cache(args, environment)?;
        let path = single_context(&args.context)?;
        let mut image = ImageOptions::default();
        let mut names = tags(&args.tag)?;
        let outputs = outputs(args, environment, &mut names, &mut image)?;
        annotations(&args.annotation, &mut image)?;
        let build_args = build_args(&args.build_arg, environment)?;
        let is_quiet = args.quiet;
        let progress = progress_mode(args, environment)?;
        check_outputs(args, &outputs, &names, is_quiet)?;
        let platforms = parse_platforms(&args.platform, environment)?;
        if platforms.len() > 1
            && outputs.iter().any(|output| matches!(output, Output::Docker { destination: Some(_) }))
        {
            return Err(CommandError::usage("--output type=docker: the archive holds one platform only")
                .with_hint("type=oci holds all platforms; --load keeps them in the local store"));
        }
        let network = parse_network(&args.network)?;
        let shm_size_bytes = args.shm_size.as_deref().map(parse_size).transpose();
        let request = BuildRequest {
            // Replaced below: standard input is read last, when nothing else can be wrong.
            context: Context::Empty,
            contexts: named_contexts(&args.build_context, environment)?,
            dockerfile: DockerfileSource::Default,
            platforms,
            names,
            keeps_names: true,
            target: args.target.clone().filter(|target| !target.is_empty()),
            source_date_epoch: source_date_epoch(&build_args),
            build_args,
            labels: labels(&args.label)?,
            outputs,
            no_cache: args.no_cache,
            policies: super::policy::source_policies(environment)?,
            cache,
            pull: if args.pull { PullPolicy::Always } else { PullPolicy::Default },
            network,
            extra_hosts: extra_hosts(&args.add_host)?,
            shm_size_bytes: shm_size_bytes
                .map_err(|problem| CommandError::usage(format!("--shm-size {problem}")))?,
            steps: step_options(args, network, environment)?,
            image,
            attestations,
            verify: !args.no_verify,
            max_parallel: 0,
            threads: 0,
        };
        let (context, dockerfile, archive) = context(path, args.file.as_deref(), environment, stdin)?;
        Ok(BuildPlan {
            request: BuildRequest { context, dockerfile, ..request },
            progress,
            is_quiet,
            iidfile: args.iidfile.as_deref().map(|path| environment.resolve(path)),
            metadata_file: args.metadata_file.as_deref().map(|path| environment.resolve(path)),
            warnings,
            _archive: archive,
        })
    }

    /// Says what is built, in one line.
    pub fn description(&self) -> String {
        let platforms: Vec<String> = self.request.platforms.iter().map(ToString::to_string).collect();
        let platforms =
            if platforms.is_empty() { "this machine's platform".to_owned() } else { platforms.join(", ") };
        format!("building for {platforms} with polyarch {}", env!("CARGO_PKG_VERSION"))
    }
}

fn single_context(paths: &[String]) -> Result<&str, CommandError> {
    match paths {
        [path] => Ok(path),
        _ => Err(CommandError::usage("'polyarch build' requires 1 argument").with_usage(USAGE)),
    }
}

fn tags(values: &[String]) -> Result<Vec<Reference>, CommandError> {
    let mut names = Vec::new();
    for value in values {
        let name = parse_tag(value).map_err(|problem| CommandError::usage(format!("--tag: {problem}")))?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Joins `--output`, `--push` and `--load`: the latter two are short for outputs, or change those given.
fn outputs(
    args: &BuildArgs,
    environment: &Environment,
    names: &mut Vec<Reference>,
    image: &mut ImageOptions,
) -> Result<Vec<Output>, CommandError> {
    let mut outputs = Vec::new();
    let mut edits = ImageEdits::default();
    for value in &args.output {
        let OutputSpec { output, names: more, image: changes } = parse_output(value, environment)?;
        changes.apply(&mut edits, image)?;
        for name in more {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    if args.push {
        let mut is_there = false;
        for output in &mut outputs {
            if let Output::Image { push, .. } = output {
                *push = true;
                is_there = true;
            }
        }
        if !is_there {
            outputs.push(Output::Image { push: true, by_digest: false });
        }
    }
    let load = Output::Docker { destination: None };
    if args.load && !outputs.contains(&load) {
        outputs.push(load);
    }
    Ok(outputs)
}

/// Finds contradictions between outputs and other flags.
fn check_outputs(
    args: &BuildArgs,
    outputs: &[Output],
    names: &[Reference],
    is_quiet: bool,
) -> Result<(), CommandError> {
    let pushes = outputs.iter().any(|output| matches!(output, Output::Image { push: true, .. }));
    if pushes && names.is_empty() {
        return Err(
            CommandError::usage("a name is needed to push").with_hint("give one with --tag HOST/NAME:TAG")
        );
    }
    let is_stdout = |output: &&Output| {
        matches!(
            output,
            Output::Oci { destination: Destination::Stdout, .. }
                | Output::Docker { destination: Some(Destination::Stdout) }
                | Output::Tar { destination: Destination::Stdout, .. }
        )
    };
    match outputs.iter().filter(is_stdout).count() {
        0 => {}
        1 if is_quiet => {
            return Err(CommandError::usage(
                "--quiet writes the digest to standard output, where --output already writes",
            ));
        }
        1 => {}
        _ => return Err(CommandError::usage("only one output can go to standard output")),
    }
    if args.iidfile.is_some() && !outputs.is_empty() && !outputs.iter().any(Output::is_image) {
        return Err(CommandError::usage(
            "--iidfile: the outputs make no image whose digest could be written",
        ));
    }
    Ok(())
}

fn annotations(values: &[String], image: &mut ImageOptions) -> Result<(), CommandError> {
    for value in values {
        let wrong = |problem: &str| CommandError::usage(format!("--annotation {value:?}: {problem}"));
        let (before, content) = value.split_once('=').ok_or_else(|| wrong("write KEY=VALUE"))?;
        let (kinds, key) = before.split_once(':').unwrap_or(("manifest", before));
        if kinds.contains('[') {
            return Err(wrong("annotations of single platforms are not available in this version"));
        }
        if key.is_empty() {
            return Err(wrong("the key is empty"));
        }
        for kind in kinds.split(',') {
            let list = match kind {
                "manifest" => &mut image.manifest_annotations,
                "index" => &mut image.index_annotations,
                "manifest-descriptor" | "index-descriptor" => {
                    return Err(wrong("annotations of descriptors are not available in this version"));
                }
                _ => return Err(wrong(&unknown("kind", kind, &["manifest", "index"]))),
            };
            set_pair(list, key.to_owned(), content.to_owned());
        }
    }
    Ok(())
}

/// Reads `--build-arg`; a name alone takes its value from the environment, and is left out when there is
/// none. `SOURCE_DATE_EPOCH` comes from the environment by itself.
fn build_args(values: &[String], environment: &Environment) -> Result<Vec<(String, String)>, CommandError> {
    let mut args = Vec::new();
    for text in values {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text.as_str(), environment.exact(text)),
        };
        if name.is_empty() {
            return Err(CommandError::usage(format!("--build-arg {text:?}: the name is empty")));
        }
        if let Some(value) = value {
            set_pair(&mut args, name.to_owned(), value.to_owned());
        }
    }
    if let Some(epoch) = environment.text("SOURCE_DATE_EPOCH")
        && !args.iter().any(|(name, _)| name == "SOURCE_DATE_EPOCH")
    {
        set_pair(&mut args, "SOURCE_DATE_EPOCH".to_owned(), epoch.to_owned());
    }
    Ok(args)
}

/// Returns the time when it is given as such; `context` and other names mean something to the Dockerfile.
fn source_date_epoch(build_args: &[(String, String)]) -> Option<i64> {
    let value = build_args.iter().find(|(name, _)| name == "SOURCE_DATE_EPOCH");
    value.and_then(|(_, value)| value.parse().ok())
}

fn labels(values: &[String]) -> Result<Vec<(String, String)>, CommandError> {
    let mut labels = Vec::new();
    for text in values {
        let (key, value) = parse_pair("--label", text).map_err(CommandError::usage)?;
        set_pair(&mut labels, key, value);
    }
    Ok(labels)
}

/// Reads the values of `--add-host`.
pub fn extra_hosts(values: &[String]) -> Result<Vec<(String, String)>, CommandError> {
    let mut hosts = Vec::new();
    for text in values {
        let wrong = |problem: &str| CommandError::usage(format!("--add-host {text:?}: {problem}"));
        // `=` may stand for the first colon, which IPv6 addresses make hard to see.
        let split = text.split_once('=').or_else(|| text.split_once(':'));
        let (host, address) = split.ok_or_else(|| wrong("write HOST:ADDRESS"))?;
        if address == "host-gateway" {
            return Err(wrong(
                "host-gateway is not available in this version: programs use the host's network, where it is 127.0.0.1",
            ));
        }
        let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
        let address: std::net::IpAddr = address.parse().map_err(|_| wrong("that is not an IP address"))?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || !host.chars().all(is_name) {
            return Err(wrong("that is not a host name"));
        }
        hosts.push((host.to_owned(), address.to_string()));
    }
    Ok(hosts)
}

fn progress_mode(args: &BuildArgs, environment: &Environment) -> Result<ProgressMode, CommandError> {
    let known = ["auto", "plain", "tty", "rawjson", "quiet", "none"];
    let (origin, word) = match (&args.progress, environment.text("BUILDKIT_PROGRESS")) {
        (Some(word), _) => ("--progress", word.as_str()),
        (None, Some(word)) => ("BUILDKIT_PROGRESS", word),
        (None, None) => ("", "auto"),
    };
    let mode = ProgressMode::parse(word).ok_or_else(|| CommandError::usage(unknown(origin, word, &known)))?;
    Ok(if args.quiet { ProgressMode::Quiet } else { mode })
}

type FoundContext = (Context, DockerfileSource, Option<TempPath>);

/// Finds context and Dockerfile.
fn context(
    path: &str,
    file: Option<&str>,
    environment: &Environment,
    stdin: &mut dyn Read,
) -> Result<FoundContext, CommandError> {
    let file = file.filter(|file| !file.is_empty());
    if path == "-" {
        return stdin_context(file, environment, stdin);
    }
    let directory = environment.resolve(Path::new(path));
    match std::fs::metadata(&directory) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(CommandError::usage(format!("the context {path:?} is a file, not a directory"))
                .with_hint("an archive can be given on standard input: polyarch build - < FILE"));
        }
        Err(_) if is_remote(path) => return remote_context(path, file, environment, stdin),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(CommandError::usage(format!("the context {path:?} does not exist")));
        }
        Err(error) => return Err(CommandError::io("can't open the context", directory, &error)),
    }
    let dockerfile = match file {
        None => DockerfileSource::Default,
        Some("-") => DockerfileSource::Text(read_text(stdin)?),
        Some(file) if is_http(file) && !environment.resolve(Path::new(file)).exists() => {
            DockerfileSource::Url(file.to_owned())
        }
        Some(file) => DockerfileSource::File(environment.resolve(Path::new(file))),
    };
    Ok((Context::Directory(directory), dockerfile, None))
}

/// A context that is fetched: a repository, an archive, or a Dockerfile alone.
fn remote_context(
    url: &str,
    file: Option<&str>,
    environment: &Environment,
    stdin: &mut dyn Read,
) -> Result<FoundContext, CommandError> {
    let parsed = GitReference::parse(url);
    let parsed = parsed.map_err(|error| {
        let url = redacted(url);
        CommandError::usage(format!("the context {url:?}: {error}"))
    })?;
    let context = match parsed {
        Some(_) => Context::Git(url.to_owned()),
        None => Context::Http(url.to_owned()),
    };
    let dockerfile = match file {
        None => DockerfileSource::Default,
        Some("-") => DockerfileSource::Text(read_text(stdin)?),
        Some(file) if is_http(file) => DockerfileSource::Url(file.to_owned()),
        // As docker buildx: a file of this machine where there is one, else one of the context.
        Some(file) if environment.resolve(Path::new(file)).is_file() => {
            DockerfileSource::File(environment.resolve(Path::new(file)))
        }
        Some(file) => DockerfileSource::InContext(file.to_owned()),
    };
    Ok((context, dockerfile, None))
}

fn stdin_context(
    file: Option<&str>,
    environment: &Environment,
    stdin: &mut dyn Read,
) -> Result<FoundContext, CommandError> {
    if file == Some("-") {
        return Err(CommandError::usage("standard input can't be both the context and the Dockerfile"));
    }
    if environment.stdin_is_terminal {
        return Err(CommandError::usage("the context `-` is read from standard input, which is a terminal")
            .with_hint("redirect it: polyarch build - < Dockerfile"));
    }
    let directory = environment.path("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp"));
    Ok(match (read_any(stdin, &directory)?, file) {
        (Input::Text(text), None) => (Context::Empty, DockerfileSource::Text(text), None),
        (Input::Text(_), Some(_)) => {
            return Err(CommandError::usage(
                "--file names a file, but standard input is not an archive that has it",
            ));
        }
        (Input::Archive(path), file) => {
            let dockerfile = match file {
                Some(file) => DockerfileSource::InContext(file.to_owned()),
                None => DockerfileSource::Default,
            };
            (Context::Archive(path.to_path_buf()), dockerfile, Some(path))
        }
    })
}

/// Tells the forms in which buildx takes git repositories and URLs.
fn is_remote(path: &str) -> bool {
    is_http(path) || !matches!(GitReference::parse(path), Ok(None))
}
