// SPDX-License-Identifier: Apache-2.0
//! `buildx create`: makes a builder, adds or changes a node, or takes one out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::Platform;

use super::examine::{NodeStatus, examine, judge_claims};

use super::{TIMEOUT, go_duration, open};
use crate::CommandError;
use crate::builders::change::{self, Changed, CreateRequest, Surroundings};
use crate::builders::driver::{self, NodeKind, node_kind};
use crate::builders::files::{BuilderFiles, Use};
use crate::builders::{Builder, name, pods};
use crate::session::Session;

/// The largest configuration file of a daemon that is read, in bytes.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Make a builder of one or more nodes
///
/// A node is this machine (local; docker-container means the same) or a machine that speaks BuildKit's protocol
/// (remote): polyarch or buildkitd behind unix://PATH, tcp://HOST:PORT or ssh://USER@HOST.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the builder; one is made up when absent
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Name of the node to make or change
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// What its nodes are: local, docker-container, remote, kubernetes
    #[arg(long, value_name = "DRIVER")]
    driver: Option<String>,
    /// Options of the driver, KEY=VALUE,…: for remote cacert, cert, key, servername, insecure
    #[arg(long, value_name = "KEY=VALUE")]
    driver_opt: Vec<String>,
    /// Platforms fixed for the node, which are built on no other
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<String>,
    /// Add a node to a builder
    #[arg(long, conflicts_with = "leave")]
    append: bool,
    /// Take a node out of a builder
    #[arg(long, requires_all = ["name", "node"])]
    leave: bool,
    /// Make it the current builder
    #[arg(long = "use")]
    is_used: bool,
    /// Fail unless every node answers
    #[arg(long)]
    bootstrap: bool,
    /// Flags for a daemon that the driver starts
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true, hide_short_help = true)]
    buildkitd_flags: Option<String>,
    /// Configuration file for a daemon that the driver starts
    #[arg(long, value_name = "FILE", alias = "config", hide_short_help = true)]
    buildkitd_config: Option<PathBuf>,
    /// How long to wait for nodes
    #[arg(long, value_name = "DURATION", default_value = TIMEOUT, value_parser = go_duration, hide_short_help = true)]
    timeout: Duration,
    /// Where the node is
    #[arg(value_name = "CONTEXT|ENDPOINT")]
    endpoint: Option<String>,
}

/// Runs the command.
pub fn run(args: &CreateArgs, session: &Session) -> Result<(), CommandError> {
    let files = open(session)?;
    if args.leave {
        return leave(args, &files);
    }
    if args.append && args.name.is_none() {
        return Err(CommandError::usage("--append needs the --name of a builder"));
    }
    let name = match &args.name {
        Some(name) => name::validate(name)?,
        None => free_name(&files)?,
    };
    let existing = files.get(&name)?;
    if args.append && existing.is_none() {
        return Err(CommandError::usage(format!("failed to find instance {name:?} for append"))
            .with_hint(format!("make it first: polyarch buildx create --name {name}")));
    }
    let request = request(args, existing.as_ref(), session)?;
    drop(files);
    let wishes = Wishes { is_used: args.is_used, must_answer: args.bootstrap, timeout: args.timeout };
    change_builder(&name, existing.as_ref(), &request, &wishes, session)
}

/// Adds a node that must answer to a builder, or makes a builder of it.
///
/// # Errors
/// When it does not answer, or can't be one of the builder.
pub fn add_node(
    name: &str,
    node: Option<String>,
    endpoint: &str,
    is_append: bool,
    session: &Session,
) -> Result<(), CommandError> {
    let name = name::validate(name)?;
    let existing = open(session)?.get(&name)?;
    let request = CreateRequest {
        name: Some(name.clone()),
        node,
        endpoint: Some(endpoint.to_owned()),
        is_append,
        ..CreateRequest::default()
    };
    let timeout = go_duration(TIMEOUT).map_err(CommandError::usage)?;
    let wishes = Wishes { is_used: false, must_answer: true, timeout };
    change_builder(&name, existing.as_ref(), &request, &wishes, session)
}

/// What else is wanted of a change.
struct Wishes {
    is_used: bool,
    must_answer: bool,
    timeout: Duration,
}

/// Changes a builder after its node was asked.
fn change_builder(
    name: &str,
    existing: Option<&Builder>,
    request: &CreateRequest,
    wishes: &Wishes,
    session: &Session,
) -> Result<(), CommandError> {
    let environment = &session.environment;
    let surroundings = Surroundings {
        buildkit_host: environment.text("BUILDKIT_HOST").map(str::to_owned),
        docker_host: environment.text("DOCKER_HOST").map(str::to_owned),
        kubeconfig: environment.text("KUBECONFIG").map(str::to_owned),
    };
    let changed = change::create(name, existing, request, &surroundings)?;
    let is_pods = changed.builder.driver == driver::KUBERNETES;
    if !is_pods {
        // The builder is kept only when its node can be what was asked for; others may go on meanwhile.
        let status = ask_node(&changed, session, wishes.timeout)?;
        report(&changed, &status, wishes.must_answer, session)?;
    }
    let files = open(session)?;
    if files.get(name)?.as_ref() != existing {
        return Err(CommandError::usage(format!("somebody else has changed the builder {name} meanwhile"))
            .with_hint("look at it with `polyarch buildx ls`, and try again"));
    }
    files.save(&changed.builder)?;
    if wishes.is_used {
        files.set_current(name, Use::Now)?;
    }
    drop(files);
    match (is_pods, wishes.must_answer) {
        // Pods that are there already, ready or not, are removed with their builder.
        (true, true) => {
            pods::boot_builder(&only_node(&changed), session)?;
            report(&changed, &ask_node(&changed, session, wishes.timeout)?, true, session)?;
        }
        (true, false) => session.printer.message(&format!(
            "the pods of {name} are made with the first build, or now: polyarch buildx inspect --bootstrap {name}\n"
        )),
        (false, _) => {}
    }
    session.printer.data(&format!("{name}\n"))
}

fn leave(args: &CreateArgs, files: &BuilderFiles) -> Result<(), CommandError> {
    // Both are required by the definition of the flag.
    let (name, node) = (args.name.as_deref().unwrap_or_default(), args.node.as_deref().unwrap_or_default());
    let Some(builder) = files.get(name)? else {
        return Err(CommandError::usage(format!("failed to find instance {name:?} for leave"))
            .with_hint("see the builders with `polyarch buildx ls`"));
    };
    files.save(&change::leave(&builder, node)?)
}

fn free_name(files: &BuilderFiles) -> Result<String, CommandError> {
    let mut seed = [0; 1];
    // Without random bytes names are merely less surprising.
    let _ = getrandom::fill(&mut seed);
    for number in u64::from(seed[0]).. {
        let name = name::of_number(number);
        if files.get(&name)?.is_none() {
            return Ok(name);
        }
    }
    Err(CommandError::usage("every name is taken").with_hint("name the builder with --name"))
}

fn request(
    args: &CreateArgs,
    existing: Option<&Builder>,
    session: &Session,
) -> Result<CreateRequest, CommandError> {
    let driver = args.driver.as_deref().or(existing.map(|builder| builder.driver.as_str()));
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in args.platform.iter().flat_map(|list| list.split(',')) {
        let platform = Platform::parse_known(platform.trim())
            .map_err(|error| CommandError::usage(format!("--platform: {error}")))?
            .normalized();
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    // Without a driver being named, options tell which is meant.
    let driver = driver.unwrap_or(match (&args.endpoint, args.driver_opt.is_empty()) {
        (Some(_), false) => driver::REMOTE,
        _ => driver::DOCKER_CONTAINER,
    });
    Ok(CreateRequest {
        name: args.name.clone(),
        node: args.node.clone(),
        driver: args.driver.clone(),
        endpoint: args.endpoint.clone(),
        platforms,
        driver_opts: driver::options(driver, &args.driver_opt)?,
        buildkitd_flags: args
            .buildkitd_flags
            .as_deref()
            .map(|flags| flags.split_whitespace().map(str::to_owned).collect()),
        files: match &args.buildkitd_config {
            Some(path) => config_file(&session.environment.resolve(path))?,
            None => BTreeMap::new(),
        },
        is_append: args.append,
    })
}

fn config_file(path: &Path) -> Result<BTreeMap<String, String>, CommandError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_CONFIG_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| CommandError::io("can't read", path, &error))?;
    Ok(BTreeMap::from([("buildkitd.toml".to_owned(), STANDARD.encode(bytes))]))
}

/// Asks the node that was made or changed.
fn ask_node(changed: &Changed, session: &Session, timeout: Duration) -> Result<NodeStatus, CommandError> {
    let mut statuses = examine(session, &session.settings()?, &[only_node(changed)], timeout)?;
    Ok(statuses.pop().and_then(|mut nodes| nodes.pop()).unwrap_or_default())
}

/// Returns the builder with nothing but the node that was made or changed.
fn only_node(changed: &Changed) -> Builder {
    Builder { nodes: vec![changed.builder.nodes[changed.node].clone()], ..changed.builder.clone() }
}

/// Says what is worth knowing of the node, or why it can't be one.
fn report(
    changed: &Changed,
    status: &NodeStatus,
    must_answer: bool,
    session: &Session,
) -> Result<(), CommandError> {
    let (builder, node) = (&changed.builder, &changed.builder.nodes[changed.node]);
    let printer = session.printer;
    if let Some(error) = &status.error {
        let message = format!("failed to initialize builder {} ({}): {error}", builder.name, node.name);
        if status.state == "error" {
            let error = CommandError::usage(message);
            return Err(match node.endpoint.starts_with("tcp://") {
                true => error.with_hint(format!(
                    "or let ssh do it: polyarch node add --builder {} USER@HOST",
                    builder.name
                )),
                false => error,
            });
        }
        if must_answer {
            return Err(BuildError::new(ErrorKind::Registry, message)
                .with_hint("check that the node runs and that the address is right")
                .into());
        }
        printer.warning(&format!("the node {} does not answer now: {error}", node.name));
    }
    for warning in judge_claims(&node.name, &node.platforms, status)? {
        printer.warning(&warning);
    }
    let is_local = node_kind(&builder.driver, &node.endpoint)? == NodeKind::Local;
    if builder.driver == driver::DOCKER_CONTAINER && is_local && !changed.is_changed_node {
        printer.message("polyarch builds by itself: the driver docker-container needs no container here\n");
    }
    Ok(())
}
