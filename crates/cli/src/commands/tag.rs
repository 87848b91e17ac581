// SPDX-License-Identifier: Apache-2.0
//! `polyarch tag`: another name for an image of the store.

use clap::Args;

use super::pull::parse_name;
use crate::CommandError;
use crate::session::Session;

/// Give an image of the store another name
///
/// The new name means the same document: an index with all its platforms.
#[derive(Debug, Args)]
pub struct TagArgs {
    /// Name, digest or id of the image
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    /// New name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

/// Runs the command.
pub fn run(args: &TagArgs, session: &Session) -> Result<(), CommandError> {
    let target = parse_name(&args.target)?;
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    engine
        .perform(|services| async move { polyarch_images::names::tag(&services, &args.source, &target) })?;
    Ok(())
}
