// SPDX-License-Identifier: Apache-2.0
//! `polyarch manifest inspect`.

use clap::Args;
use polyarch_images::manifest_list::{self, Inspect};

use super::Quiet;
use crate::CommandError;
use crate::commands::pull::parse_name;
use crate::session::Session;

/// Print a manifest or a list
///
/// A name is looked up among the lists that were created here, then in its registry, then in the store.
#[derive(Debug, Args)]
#[command(override_usage = "polyarch manifest inspect [OPTIONS] [MANIFEST_LIST] MANIFEST")]
pub struct InspectArgs {
    /// Accept registries without TLS, or with any certificate
    #[arg(long)]
    insecure: bool,
    /// Print names, descriptors and raw bytes as well
    #[arg(short, long)]
    verbose: bool,
    /// An image or a list; an image of a list that was created here stands after its list
    #[arg(value_name = "MANIFEST", required = true, num_args = 1..=2)]
    names: Vec<String>,
}

/// Runs the command.
pub fn run(args: &InspectArgs, session: &Session) -> Result<(), CommandError> {
    let (list, source) = match args.names.as_slice() {
        [list, source] => (Some(parse_name(list)?), source.clone()),
        [source] => (None, source.clone()),
        // The definition of the arguments lets no other number through.
        _ => return Err(CommandError::usage("give one or two names")),
    };
    let settings = super::settings(session, args.insecure, [source.as_str()])?;
    let engine = session.open_for_documents(&settings)?;
    let request = Inspect { list, source, verbose: args.verbose };
    let quiet = Quiet::default();
    let shown = quiet.shown();
    let result =
        engine.perform(|services| async move { manifest_list::inspect(&services, &request, &shown).await });
    let text = quiet.finish(session, result)?;
    // JSON is UTF-8: what is not would not have been parsed.
    let text = format!("{}\n", String::from_utf8_lossy(&text));
    session.printer.data(&session.shown_template(text))
}
