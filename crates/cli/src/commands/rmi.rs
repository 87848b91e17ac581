// SPDX-License-Identifier: Apache-2.0
//! `polyarch rmi`: takes names away.

use clap::Args;

use crate::CommandError;
use crate::session::Session;

/// Remove names of images from the store
///
/// Blobs that no name needs any more stay until `polyarch prune`.
#[derive(Debug, Args)]
pub struct RmiArgs {
    /// Remove all names of a digest, and take a missing image for removed
    #[arg(short, long)]
    force: bool,
    /// Accepted for compatibility: blobs always stay until a prune
    #[arg(long, hide_short_help = true)]
    no_prune: bool,
    /// Names, digests or ids of images
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Runs the command: removes what it can, and fails when something could not be removed.
pub fn run(args: &RmiArgs, session: &Session) -> Result<(), CommandError> {
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    let mut failures: Vec<CommandError> = Vec::new();
    for image in &args.images {
        let removed = engine
            .perform(|services| async move { polyarch_images::names::remove(&services, image, args.force) });
        match removed {
            Ok(names) if names.is_empty() => {
                session.printer.warning(&format!("no such image: {image}"));
            }
            Ok(names) => {
                let lines: String =
                    names.iter().map(|name| format!("Untagged: {}\n", name.familiar())).collect();
                session.printer.data(&lines)?;
            }
            Err(error) => failures.push(error.into()),
        }
    }
    let last = failures.pop();
    for failure in failures {
        session.printer.message(&failure.render());
    }
    last.map_or(Ok(()), Err)
}
