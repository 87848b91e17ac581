// SPDX-License-Identifier: Apache-2.0
//! `polyarch push`: sends an image of the store to its registry.

use clap::Args;
use polyarch_build::{PushRequest, PushResult};
use polyarch_oci::{Platform, Reference};

use super::pull::{count, kind_lines, parse_name};
use crate::CommandError;
use crate::engine::Engine;
use crate::session::Session;
use crate::transfer::{Direction, TransferDisplay};

/// Push an image of the store, with everything that its name stands for
///
/// An index is pushed byte for byte, with all its platforms and attestations, so its digest stays. What
/// the store lacks must be in the registry's repository already.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Push the manifest of this platform alone, without the index
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Push all names of the repository that the store has
    #[arg(short, long)]
    all_tags: bool,
    /// Print only the name
    #[arg(short, long)]
    quiet: bool,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

/// Runs the command.
pub fn run(args: &PushArgs, session: &Session) -> Result<(), CommandError> {
    // As with docker, DOCKER_DEFAULT_PLATFORM does not count here: it would drop the other platforms.
    let platform: Option<Platform> = match &args.platform {
        Some(text) => Some(
            Platform::parse_known(text)
                .map_err(|error| CommandError::usage(format!("--platform {text:?}: {error}")))?,
        ),
        None => None,
    };
    let name = parse_name(&args.name)?;
    let has_tag = args.name.parse::<Reference>().is_ok_and(|it| it.tag().is_some() || it.digest().is_some());
    if args.all_tags && has_tag {
        return Err(CommandError::usage("tag can't be used with --all-tags/-a"));
    }
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    if !args.all_tags {
        // Before docker's first line: a name that isn't there gets those that are like it.
        engine.perform(|services| async move { polyarch_images::names::find(&services, &args.name) })?;
    }
    if !args.quiet {
        let default = if has_tag || args.all_tags { "" } else { "Using default tag: latest\n" };
        session.printer.message(&format!("{default}The push refers to repository [{}]\n", name.name()));
    }
    let names = if args.all_tags { names_of(&engine, &name)? } else { vec![name] };
    for name in names {
        push_one(&engine, PushRequest { name, platform: platform.clone() }, args.quiet, session)?;
    }
    Ok(())
}

/// Returns the tagged names of a repository.
fn names_of(engine: &Engine, repository: &Reference) -> Result<Vec<Reference>, CommandError> {
    let wanted = repository.name();
    let names: Vec<Reference> = engine
        .images()?
        .into_iter()
        .map(|image| image.name)
        .filter(|name| name.name() == wanted && name.tag().is_some())
        .collect();
    if names.is_empty() {
        return Err(CommandError::usage(format!("the store has no image of {wanted}"))
            .with_hint("list the names that it has: polyarch images"));
    }
    Ok(names)
}

fn push_one(
    engine: &Engine,
    request: PushRequest,
    is_quiet: bool,
    session: &Session,
) -> Result<(), CommandError> {
    let (progress, display) = TransferDisplay::start(session, Direction::Push, is_quiet);
    let result = engine.push(&request, &progress);
    display.finish();
    let result = result?;
    let text = if is_quiet { format!("{}\n", request.name) } else { render(&request.name, &result) };
    session.printer.data(&text)
}

/// Docker's line, after what the digest is and those of the platforms.
fn render(name: &Reference, result: &PushResult) -> String {
    let version = name.tag().map_or_else(|| result.root.digest.to_string(), str::to_owned);
    let platforms = result.platforms.iter().map(|(platform, it)| (platform, &it.digest)).collect::<Vec<_>>();
    let lines = kind_lines(&result.root.digest, &count(platforms.len()), &platforms);
    format!("{lines}{version}: digest: {} size: {}\n", result.root.digest, result.root.size)
}
