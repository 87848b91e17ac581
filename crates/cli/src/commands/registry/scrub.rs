// SPDX-License-Identifier: Apache-2.0
//! `polyarch registry scrub`: reads all of a registry and says what is damaged.

use std::fmt::Write as _;

use clap::Args;
use polyarch_registry::server::{ScrubOptions, Scrubbed};

use super::{Format, RootArg, storage_error};
use crate::progress::format::short_size;
use crate::session::Session;
use crate::visible_text::visible_text;
use crate::{CommandError, ExitCode};

/// Verify every digest of a registry
///
/// A server may run meanwhile. Ends with 6 when something is damaged.
#[derive(Debug, Args)]
pub struct ScrubArgs {
    #[command(flatten)]
    root: RootArg,
    /// Move damaged files to `quarantine` in the directory or bucket, so that pushing an image again mends it
    #[arg(long)]
    quarantine: bool,
    /// How to say it
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// Runs the command.
pub fn run(args: &ScrubArgs, session: &Session) -> Result<u8, CommandError> {
    let storage = args.root.open_existing(session)?;
    let options = ScrubOptions { quarantines: args.quarantine };
    let scrubbed = storage.scrub(&options, |_| {}).map_err(|error| storage_error(&error))?;
    let text = match args.format {
        Format::Json => {
            let text = serde_json::to_string(&scrubbed).expect("texts and numbers can be written as JSON");
            format!("{text}\n")
        }
        Format::Text => visible_text(&report(&scrubbed)),
    };
    session.printer.data(&text)?;
    if scrubbed.damage.is_empty() {
        return Ok(ExitCode::Done.number());
    }
    if !args.quarantine {
        session
            .printer
            .message("hint: with --quarantine, damaged files are put aside; then push the images again\n");
    }
    Ok(ExitCode::Storage.number())
}

fn report(scrubbed: &Scrubbed) -> String {
    let mut text = String::new();
    for damage in &scrubbed.damage {
        let repository = damage.repository.as_deref().unwrap_or("(pool)");
        let digest = damage.digest.as_deref().unwrap_or("-");
        // Writing to a String can't fail, here and below.
        let _ = writeln!(text, "{repository}  {digest}  {}", damage.message);
        if let Some(path) = &damage.quarantined {
            let _ = writeln!(text, "  now {}", path.display());
        }
    }
    let damaged = match scrubbed.damage.len() {
        0 => "nothing is damaged".to_owned(),
        1 => "1 thing is damaged".to_owned(),
        number => format!("{number} things are damaged"),
    };
    let _ = writeln!(
        text,
        "{} repositories, {} blobs, {}: {damaged}",
        scrubbed.repositories,
        scrubbed.blobs,
        short_size(scrubbed.bytes),
    );
    text
}
