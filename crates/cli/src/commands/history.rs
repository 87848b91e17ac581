// SPDX-License-Identifier: Apache-2.0
//! `polyarch history` and `polyarch image history`.

use clap::Args;
use polyarch_images::lookup::{self, SelectedImage};
use polyarch_oci::Platform;

use crate::CommandError;
use crate::past::{ago, parse_time};
use crate::progress::format::size;
use crate::session::Session;
use crate::template::{Listing, Value};
use crate::visible_text::visible_line;

/// Show how the layers of an image came to be
///
/// The newest comes first. Sizes are those of the layers as they are stored and pushed, which are compressed.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Print as "table", "table TEMPLATE", "json" (an object on each line) or with a Go template
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    format: String,
    /// Print sizes and dates for people, or with --human=false for programs
    #[arg(
        short = 'H',
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    human: bool,
    /// Don't cut anything short
    #[arg(long)]
    no_trunc: bool,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// Show the history of this platform's image [default: this machine's, or the only one]
    #[arg(long, value_name = "PLATFORM", value_parser = Platform::parse_known)]
    platform: Option<Platform>,
    /// Image by name, by digest, or by the beginning of an id
    #[arg(value_name = "IMAGE")]
    image: String,
}

const TITLES: [(&str, &str); 8] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
    ("LayerDigest", "LAYER DIGEST"),
    ("DiffID", "DIFF ID"),
];

/// What stands for the id of all but the newest step: only whole images have one.
const NO_ID: &str = "<missing>";

/// The widest command that a table shows in full.
const MAX_COMMAND_WIDTH: usize = 45;

/// Runs the command.
pub fn run(args: &HistoryArgs, session: &Session) -> Result<(), CommandError> {
    let is_plain_table = args.format == "table";
    let format = match args.format.as_str() {
        "table" if args.quiet => "{{.ID}}",
        "table" if args.human => r"table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
        "table" => r"table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
        "json" => "{{json .}}",
        other => other,
    };
    let listing = Listing::parse(format)?;
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    let (image, id) = engine.perform(|services| async move {
        let found = lookup::find(services.store(), &args.image)?;
        let image = found.select(services.store(), args.platform.as_ref())?;
        let is_one = args.platform.is_some() || found.image.is_some();
        let id = if is_one { image.descriptor.digest.clone() } else { found.root.digest };
        Ok((image, id))
    })?;
    let id = if args.no_trunc { id.to_string() } else { id.short().to_owned() };
    let rows = rows(&image, &id, args);
    let text = listing.render(&TITLES, &rows)?;
    let text =
        if is_plain_table { crate::visible_text::visible_text(&text) } else { session.shown_template(text) };
    session.printer.data(&text)
}

/// Makes a row of each step, the newest first.
fn rows(image: &SelectedImage, id: &str, args: &HistoryArgs) -> Vec<Value> {
    let mut layers = image.manifest.value.layers.iter().zip(
        // A manifest may have more layers than its config knows; each is shown all the same.
        image.config.value.rootfs.diff_ids.iter().map(Some).chain(std::iter::repeat(None)),
    );
    let mut steps: Vec<Step<'_>> = Vec::new();
    for entry in &image.config.value.history {
        let layer = if entry.empty_layer { None } else { layers.next() };
        steps.push(Step { entry: Some(entry), layer });
    }
    steps.extend(layers.map(|layer| Step { entry: None, layer: Some(layer) }));
    steps.reverse();
    let now = jiff::Timestamp::now();
    let row = |(at, step): (usize, &Step<'_>)| step.row(if at == 0 { id } else { NO_ID }, now, args);
    steps.iter().enumerate().map(row).collect()
}

struct Step<'a> {
    entry: Option<&'a polyarch_oci::config::History>,
    layer: Option<(&'a polyarch_oci::Descriptor, Option<&'a polyarch_oci::DiffId>)>,
}

impl Step<'_> {
    fn row(&self, id: &str, now: jiff::Timestamp, args: &HistoryArgs) -> Value {
        let text = |get: fn(&polyarch_oci::config::History) -> &str| self.entry.map(get).unwrap_or_default();
        let created = self.entry.and_then(|entry| parse_time(entry.created.as_deref()?));
        let created_at = created.map_or_else(|| "N/A".to_owned(), |time| time.to_string());
        let bytes = self.layer.map_or(0, |(layer, _)| layer.size);
        let command = text(|entry| &entry.created_by);
        let command = match args.no_trunc {
            true => command.replace('\t', " "),
            false => shortened(&visible_line(command.replace(['\n', '\t'], " ").as_bytes())),
        };
        let comment = text(|entry| &entry.comment);
        // In a table it is one cell, whatever it says.
        let comment = match args.format.starts_with("table") {
            true => comment.replace(['\n', '\t'], " "),
            false => comment.to_owned(),
        };
        Value::structure([
            ("Comment", Value::from(comment)),
            ("CreatedAt", created_at.clone().into()),
            ("CreatedBy", command.into()),
            (
                "CreatedSince",
                match created {
                    Some(created) if args.human => ago(created, now),
                    _ => created_at,
                }
                .into(),
            ),
            ("DiffID", self.layer.and_then(|(_, id)| id).map(ToString::to_string).unwrap_or_default().into()),
            ("ID", id.into()),
            ("LayerDigest", self.layer.map(|(layer, _)| layer.digest.to_string()).unwrap_or_default().into()),
            ("Size", if args.human { size(bytes) } else { bytes.to_string() }.into()),
        ])
    }
}

/// Cuts a command short, with a mark.
fn shortened(command: &str) -> String {
    use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};
    if command.width() <= MAX_COMMAND_WIDTH {
        return command.to_owned();
    }
    let mut width = 0;
    let fits = |c: &char| {
        width += c.width().unwrap_or(0);
        width < MAX_COMMAND_WIDTH
    };
    let mut short: String = command.chars().take_while(fits).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_are_cut_at_their_width() {
        assert_eq!(shortened(&"x".repeat(45)), "x".repeat(45));
        assert_eq!(shortened(&"x".repeat(46)), format!("{}…", "x".repeat(44)));
        assert_eq!(shortened(&"字".repeat(30)), format!("{}…", "字".repeat(22)));
    }
}
