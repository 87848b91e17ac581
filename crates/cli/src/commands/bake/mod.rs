// SPDX-License-Identifier: Apache-2.0
//! `polyarch bake`: builds what bake files define.

mod allow;
mod build_targets;
mod files;
mod flags;
mod list;
mod target_progress;

use std::path::PathBuf;

use clap::{ArgAction, Args};
use polyarch_bake::{BakeError, Resolved};
use polyarch_build::error::SourceLocation;
use polyarch_build::{BuildError, ErrorKind};

use super::GlobalArgs;
use super::build;
use super::flag_values::go_bool;
use crate::session::Session;
use crate::visible_text::visible_text;
use crate::{CommandError, ExitCode};

/// Build the targets of bake files
///
/// Files are HCL, JSON or Compose; without --file these are read, those that are there: compose.yaml,
/// compose.yml, docker-compose.yml, docker-compose.yaml, docker-bake.json, docker-bake.hcl,
/// docker-bake.override.json, docker-bake.override.hcl. Without a target it is `default`. Flags are those of
/// docker buildx bake.
#[derive(Debug, Args)]
#[command(override_usage = "polyarch bake [OPTIONS] [TARGET...]")]
pub struct BakeArgs {
    /// Bake file, `-` for standard input; may be repeated [env: BUILDX_BAKE_FILE]
    #[arg(short, long, value_name = "FILE")]
    file: Vec<String>,
    /// Set a value of targets; `+=` adds to a list
    #[arg(long, value_name = "PATTERN.KEY[+]=VALUE")]
    set: Vec<String>,
    /// Set a variable
    #[arg(long, value_name = "NAME=VALUE")]
    var: Vec<String>,
    /// Print the targets as JSON and build nothing
    #[arg(long)]
    print: bool,
    /// List targets or variables: `targets`, `variables`, `type=targets,format=json`
    #[arg(long, value_name = "WHAT")]
    list: Option<String>,
    /// Push the images, as --set=*.output=type=registry does for targets without another output
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    push: bool,
    /// Keep the images in the local store, as --set=*.output=type=docker does
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          default_value = "false", hide_default_value = true, value_name = "BOOL",
          value_parser = go_bool, action = ArgAction::Set)]
    load: bool,
    /// Execute every step, whatever was executed before
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = go_bool)]
    no_cache: Option<bool>,
    /// Ask registries for newer base images
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_name = "BOOL", value_parser = go_bool)]
    pull: Option<bool>,
    /// Provenance attestation, as --set=*.attest=type=provenance
    #[arg(long, value_name = "ATTRIBUTES")]
    provenance: Option<String>,
    /// Bill of materials, as --set=*.attest=type=sbom
    #[arg(long, value_name = "ATTRIBUTES")]
    sbom: Option<String>,
    /// Policy of sources for every target
    #[arg(long, value_name = "ATTRIBUTES")]
    policy: Vec<String>,
    /// Allow what targets ask for: network.host, security.insecure, ssh, fs.read=PATH, fs.write=PATH, fs=PATH
    #[arg(long, value_name = "WHAT")]
    allow: Vec<String>,
    /// How targets are evaluated: build, check, outline or targets [default: build]
    #[arg(long, value_name = "METHOD")]
    call: Option<String>,
    /// The same as --call=check
    #[arg(long)]
    check: bool,
    /// Write what was built to a file, as JSON by target
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// How to show progress: auto, plain, tty, rawjson or quiet [default: auto] [env: BUILDKIT_PROGRESS]
    #[arg(long, value_name = "MODE")]
    progress: Option<String>,
    /// Targets, groups, or patterns of them [default: default]
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// How the files or the arguments were wrong, or how a build failed.
pub fn run(args: &BakeArgs, global: &GlobalArgs, session: &Session) -> Result<u8, CommandError> {
    if args.print && args.list.is_some() {
        return Err(CommandError::usage("--print and --list are mutually exclusive"));
    }
    if let Some(remote) = args.targets.first().filter(|target| target.contains("://")) {
        return Err(CommandError::usage(format!(
            "{remote:?}: bake files of a repository are not available in this version"
        ))
        .with_hint("clone it, then run polyarch bake in its directory"));
    }
    let environment = &session.environment;
    let files = files::read(&args.file, environment, &mut std::io::stdin().lock())?;
    let inputs = files::inputs(&args.var, environment)?;
    let config = polyarch_bake::parse(&files, &inputs).map_err(|error| of_definition(&error))?;
    if let Some(what) = &args.list {
        return print(&list::render(what, &config)?, session);
    }
    let default = ["default".to_owned()];
    let targets = if args.targets.is_empty() { &default[..] } else { &args.targets };
    let lookup = |name: &str| environment.exact(name).map(str::to_owned);
    let mut resolved =
        config.resolve(targets, &settings(args), &lookup).map_err(|error| of_definition(&error))?;
    resolved.finish(environment.text("SOURCE_DATE_EPOCH")).map_err(|error| of_definition(&error))?;
    if args.print {
        return print(&resolved.print(), session);
    }
    allow::check(&resolved, &args.allow, environment)?;
    if resolved.targets.values().any(|target| is_call(target.call.as_deref())) {
        return call(args, &resolved, session);
    }
    build_targets::run(args, &resolved, global, session).map(|()| ExitCode::Done.number())
}

fn print(text: &str, session: &Session) -> Result<u8, CommandError> {
    session.printer.data(text).map(|()| ExitCode::Done.number())
}

/// The flags that are short for `--set`.
fn settings(args: &BakeArgs) -> Vec<String> {
    let mut set = args.set.clone();
    let mut add = |key: &str, value: String| set.push(format!("*.{key}={value}"));
    if args.push {
        add("push", "true".to_owned());
    }
    if args.load {
        add("load", "true".to_owned());
    }
    let method = args.call.as_deref().and_then(|call| call.split(',').next());
    match method {
        _ if args.check => add("call", "lint".to_owned()),
        Some("check") => add("call", "lint".to_owned()),
        Some("build" | "") | None => {}
        Some(method) => add("call", method.to_owned()),
    }
    if let Some(no_cache) = args.no_cache {
        add("no-cache", no_cache.to_string());
    }
    if let Some(pull) = args.pull {
        add("pull", pull.to_string());
    }
    for (kind, value) in [("sbom", &args.sbom), ("provenance", &args.provenance)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            let attributes = match go_bool(value) {
                Ok(is_on) => format!("disabled={}", !is_on),
                Err(_) => value.to_owned(),
            };
            add("attest", format!("type={kind},{attributes}"));
        }
    }
    for policy in &args.policy {
        add("policy+", policy.clone());
    }
    set
}

fn is_call(call: Option<&str>) -> bool {
    call.is_some_and(|method| !matches!(method, "" | "build"))
}

/// Evaluates targets without building them, one after the other, as `polyarch build --call` does.
fn call(args: &BakeArgs, resolved: &Resolved, session: &Session) -> Result<u8, CommandError> {
    let mut code = ExitCode::Done.number();
    let mut first = true;
    for (name, target) in resolved.targets.iter().filter(|(_, target)| is_call(target.call.as_deref())) {
        let line = flags::build_line(name, target, args)?;
        let description = match target.description.as_str() {
            "" => String::new(),
            text => format!("{}\n", visible_text(text)),
        };
        let gap = if first { "" } else { "\n" };
        session.printer.data(&format!("{gap}{name}\n{description}\n"))?;
        first = false;
        let mut stdin = line.stdin.as_deref().unwrap_or("").as_bytes();
        let answer = build::answer(&line.args, &mut stdin, session)?.unwrap_or_default();
        if code == ExitCode::Done.number() {
            code = answer;
        }
    }
    Ok(code)
}

/// Tells what is wrong with a definition, with the lines where it is.
fn of_definition(error: &BakeError) -> CommandError {
    let mut result = BuildError::new(ErrorKind::Usage, error.to_string());
    if let Some(place) = error.place() {
        result = result.at(SourceLocation {
            file: place.file.clone(),
            text: place.text.as_str().into(),
            lines: place.line..=place.last_line,
        });
    }
    CommandError::from(result)
}
