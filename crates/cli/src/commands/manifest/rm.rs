// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest rm`.

use clap::Args;
use polyarch_build::BuildError;
use polyarch_images::manifest_list;
use polyarch_oci::Reference;

use crate::CommandError;
use crate::commands::pull::parse_name;
use crate::session::Session;

/// Remove lists; images and registries are left alone
#[derive(Debug, Args)]
pub struct RmArgs {
    /// Names of the lists
    #[arg(value_name = "MANIFEST_LIST", required = true)]
    lists: Vec<String>,
}

/// Runs the command: every list is tried, whatever becomes of the others.
pub fn run(args: &RmArgs, session: &Session) -> Result<(), CommandError> {
    let names = args.lists.iter().map(|list| parse_name(list)).collect::<Result<Vec<_>, _>>()?;
    let engine = session.open_for_documents(&session.settings()?)?;
    let failed = engine.perform(|services| async move {
        let remove = |name: &Reference| manifest_list::remove(services.store(), name).err();
        Ok(names.iter().filter_map(remove).collect::<Vec<BuildError>>())
    })?;
    let mut failed = failed.into_iter();
    let Some(mut error) = failed.next() else { return Ok(()) };
    for other in failed {
        error.message = format!("{}\n{}", error.message, other.message);
    }
    Err(error.into())
}
