// SPDX-License-Identifier: Apache-2.0
//! `polyarch pull`: fetches an image into the store.

use clap::Args;
use polyarch_build::PullRequest;
use polyarch_oci::Reference;

use super::build::platforms::parse_platforms;
use crate::CommandError;
use crate::progress::ProgressMode;
use crate::session::Session;

/// Fetch an image into the store
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Platform to fetch [default: this machine's] [env: DOCKER_DEFAULT_PLATFORM]
    #[arg(long, value_name = "PLATFORM", conflicts_with = "all_platforms")]
    platform: Option<String>,
    /// Fetch every platform
    #[arg(long)]
    all_platforms: bool,
    /// Print only the digest
    #[arg(short, long)]
    quiet: bool,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

/// Runs the command.
pub fn run(args: &PullArgs, session: &Session) -> Result<(), CommandError> {
    let platforms = parse_platforms(args.platform.as_slice(), &session.environment)?;
    if platforms.len() > 1 {
        return Err(CommandError::usage("--platform: name one platform")
            .with_hint("--all-platforms fetches every one"));
    }
    let request = PullRequest {
        reference: parse_name(&args.name)?,
        platform: platforms.into_iter().next(),
        all_platforms: args.all_platforms,
    };
    let settings = session.settings()?;
    let engine = session.open(&settings)?;
    let mode = if args.quiet { ProgressMode::Quiet } else { ProgressMode::Auto };
    let (progress, display) = super::build::show_progress(session, mode, "");
    let result = engine.pull(&request, &progress);
    display.finish();
    let result = result?;
    if args.quiet {
        return session.printer.data(&format!("{}\n", result.root.digest));
    }
    let platforms: Vec<String> = result.platforms.iter().map(|(platform, _)| platform.to_string()).collect();
    let state = if result.was_current { "Image is up to date" } else { "Downloaded image" };
    session.printer.data(&format!(
        "Digest: {}\nPlatforms: {}\nStatus: {state} for {}\n{}\n",
        result.root.digest,
        platforms.join(", "),
        request.reference.familiar(),
        request.reference
    ))
}

/// Reads the name of an image; without a tag it is `latest`.
pub fn parse_name(text: &str) -> Result<Reference, CommandError> {
    let name: Reference =
        text.parse().map_err(|error| CommandError::usage(polyarch_build::error::chain_of(&error)))?;
    Ok(name.with_default_tag())
}
