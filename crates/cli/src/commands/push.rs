// SPDX-License-Identifier: Apache-2.0
//! `polyarch push`: sends an image of the store to its registry.

use clap::Args;

use super::pull::parse_name;
use crate::CommandError;
use crate::progress::ProgressMode;
use crate::session::Session;

/// Push an image of the store, with all its platforms
#[derive(Debug, Args)]
pub struct PushArgs {
    /// Print only the digest
    #[arg(short, long)]
    quiet: bool,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

/// Runs the command.
pub fn run(args: &PushArgs, session: &Session) -> Result<(), CommandError> {
    let name = parse_name(&args.name)?;
    let settings = session.settings()?;
    let engine = session.open(&settings)?;
    let mode = if args.quiet { ProgressMode::Quiet } else { ProgressMode::Auto };
    let (progress, display) = super::build::show_progress(session, mode, "");
    let result = engine.push(&name, &progress);
    display.finish();
    let descriptor = result?;
    if args.quiet {
        return session.printer.data(&format!("{}\n", descriptor.digest));
    }
    session.printer.data(&format!("{name}@{}\n", descriptor.digest))
}
