// SPDX-License-Identifier: Apache-2.0
//! A target becomes the command line of `polyarch build` that builds it, so that both do the same.

use clap::Parser;
use polyarch_bake::Target;

use super::super::build::BuildArgs;
use super::BakeArgs;
use crate::CommandError;

/// A command line of `polyarch build`.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Line {
    #[command(flatten)]
    args: BuildArgs,
}

/// A command line of `polyarch build`, and what it reads from standard input.
#[derive(Debug)]
pub struct BuildLine {
    /// The flags.
    pub args: BuildArgs,
    /// The Dockerfile, if it stands in the bake file.
    pub stdin: Option<String>,
}

/// Makes the command line for a target. Contexts that are other targets are left out.
///
/// # Errors
/// The target asks for what builds don't have.
pub fn build_line(name: &str, target: &Target, args: &BakeArgs) -> Result<BuildLine, CommandError> {
    let words = words(target, args);
    let line = Line::try_parse_from(&words).map_err(|error| {
        let text = error.render().to_string();
        let problem = text.strip_prefix("error: ").unwrap_or(&text);
        let problem = problem.split("\n\n").next().unwrap_or(problem);
        CommandError::usage(format!("target {name}: {problem}"))
    })?;
    Ok(BuildLine { args: line.args, stdin: target.dockerfile_inline.clone() })
}

fn words(target: &Target, args: &BakeArgs) -> Vec<String> {
    let mut words = Vec::new();
    let mut flag = |name: &str, value: &str| words.push(format!("--{name}={value}"));
    let context = target.context.as_deref().unwrap_or(".");
    let dockerfile = target.dockerfile.as_deref().unwrap_or("Dockerfile");
    match (&target.dockerfile_inline, dockerfile.strip_prefix("cwd://")) {
        (Some(_), _) => flag("file", "-"),
        (None, Some(path)) => flag("file", path),
        (None, None) if context.contains("://") || context.starts_with("git@") => flag("file", dockerfile),
        (None, None) => {
            flag("file", &std::path::Path::new(context).join(dockerfile).to_string_lossy());
        }
    }
    for platform in target.platforms.iter().flatten() {
        flag("platform", platform);
    }
    for tag in target.tags.iter().flatten() {
        flag("tag", tag);
    }
    if let Some(stage) = target.target.as_deref().filter(|stage| !stage.is_empty()) {
        flag("target", stage);
    }
    for (key, value) in target.args.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        flag("build-arg", &format!("{key}={value}"));
    }
    for (key, value) in target.labels.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        flag("label", &format!("{key}={value}"));
    }
    for annotation in target.annotations.iter().flatten() {
        flag("annotation", annotation);
    }
    for (key, value) in target.contexts.iter().filter(|(_, value)| !value.starts_with("target:")) {
        flag("build-context", &format!("{key}={}", value.strip_prefix("cwd://").unwrap_or(value)));
    }
    for output in target.outputs.iter().flatten() {
        flag("output", &output.text());
    }
    for attest in target.attest.iter().flatten() {
        flag("attest", &attest.text());
    }
    for cache in target.cache_from.iter().flatten() {
        flag("cache-from", &cache.text());
    }
    for cache in target.cache_to.iter().flatten() {
        flag("cache-to", &cache.text());
    }
    for secret in target.secrets.iter().flatten() {
        flag("secret", &secret.text());
    }
    for ssh in target.ssh.iter().flatten() {
        flag("ssh", &ssh.text());
    }
    for (host, address) in target.extra_hosts.iter().filter_map(|(host, value)| Some((host, value.as_ref()?)))
    {
        flag("add-host", &format!("{host}={address}"));
    }
    for ulimit in target.ulimits.iter().flatten() {
        flag("ulimit", ulimit);
    }
    for stage in target.no_cache_filter.iter().flatten() {
        flag("no-cache-filter", stage);
    }
    for entitlement in target.entitlements.iter().flatten() {
        flag("allow", entitlement);
    }
    for policy in target.policy.iter().flatten() {
        flag("policy", &policy.text());
    }
    for (name, value) in target.resources.iter().flat_map(|resources| &resources.limits) {
        flag("resource", &format!("{name}={value}"));
    }
    if let Some(network) = target.network.as_deref().filter(|network| !network.is_empty()) {
        flag("network", network);
    }
    if let Some(size) = target.shm_size.as_deref().filter(|size| !size.is_empty()) {
        flag("shm-size", size);
    }
    if target.no_cache == Some(true) {
        flag("no-cache", "true");
    }
    if target.pull == Some(true) {
        flag("pull", "true");
    }
    if let Some(call) = target.call.as_deref().filter(|call| !matches!(*call, "" | "build")) {
        let fields = args.call.as_deref().and_then(|given| given.split_once(',')).map(|(_, fields)| fields);
        flag("call", [call, fields.unwrap_or("")].join(",").trim_end_matches(','));
    }
    if let Some(progress) = &args.progress {
        flag("progress", progress);
    }
    words.push("--".to_owned());
    words.push(context.to_owned());
    words
}
