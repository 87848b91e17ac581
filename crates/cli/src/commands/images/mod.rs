// SPDX-License-Identifier: Apache-2.0
//! `polyarch images` and `polyarch image ls`: lists the images of the store.

mod filter;
mod rows;

use clap::Args;

use crate::CommandError;
use crate::image_list::{list_images, main_config};
use crate::session::Session;
use crate::template::Listing;
use crate::visible_text::visible_text;
use filter::Filters;
use rows::Row;

/// List the images of the store
///
/// IMAGE ID is the digest of the index, which stands for all platforms of a name; --tree shows the digests of
/// each platform below it.
#[derive(Debug, Args)]
pub struct ImagesArgs {
    /// Has no effect: the store has no intermediate images
    #[arg(short, long, hide_short_help = true)]
    all: bool,
    /// Show the digests in full
    #[arg(long)]
    digests: bool,
    /// Show only some: reference=PATTERN, platform=PLATFORM, label=KEY[=VALUE], before=IMAGE, since=IMAGE,
    /// dangling=BOOL
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print as "table", "table TEMPLATE", "json" or with a Go template
    #[arg(long, value_name = "FORMAT", conflicts_with = "tree")]
    format: Option<String>,
    /// Don't cut ids short
    #[arg(long)]
    no_trunc: bool,
    /// Print only ids
    #[arg(short, long, conflicts_with = "tree")]
    quiet: bool,
    /// Show each platform on a line of its own, with its digests
    #[arg(long)]
    tree: bool,
    /// Show only the images of this name; * stands for any letters but /
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
}

const TITLES: [(&str, &str); 14] = [
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
    ("Name", "NAME"),
    ("Platforms", "PLATFORMS"),
    ("IndexDigest", "INDEX DIGEST"),
];

/// Runs the command.
pub fn run(args: &ImagesArgs, session: &Session) -> Result<(), CommandError> {
    let filters = Filters::parse(&args.filter, args.reference.as_deref())?;
    let listing = match args.format.as_deref() {
        Some("json") => None,
        None | Some("" | "table") => Some(Listing::parse(default_format(args))?),
        Some(format) => Some(Listing::parse(format)?),
    };
    let settings = session.settings()?;
    let engine = session.open_for_documents(&settings)?;
    let rows = engine.perform(|services| async move {
        let store = services.store();
        let images = list_images(store)?;
        let rows: Vec<Row> =
            images.into_iter().map(|image| Row { config: main_config(store, &image), image }).collect();
        filters.apply(store, rows)
    })?;
    let text = match listing {
        _ if args.tree => visible_text(&rows::tree(&rows, args.no_trunc)),
        None => rows::json(&rows),
        Some(listing) => {
            let now = jiff::Timestamp::now();
            let values: Vec<_> = rows.iter().map(|row| row.value(args.no_trunc, now)).collect();
            session.shown_template(listing.render(&TITLES, &values)?)
        }
    };
    session.printer.data(&text)
}

fn default_format(args: &ImagesArgs) -> &'static str {
    match (args.quiet, args.digests) {
        (true, _) => "{{.ID}}",
        (false, false) => {
            r"table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Platforms}}\t{{.CreatedSince}}\t{{.Size}}"
        }
        (false, true) => {
            r"table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.Platforms}}\t{{.CreatedSince}}\t{{.Size}}"
        }
    }
}
