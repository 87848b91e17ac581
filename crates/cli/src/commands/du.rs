// SPDX-License-Identifier: Apache-2.0
//! `polyarch buildx du`: the build cache, in the form of buildx.

use std::time::SystemTime;

use clap::Args;
use polyarch_build::PruneRequest;
use polyarch_build::inventory::{CacheItem, CacheKind};

use super::cache_rows::{json_lines, pretty, read_filters, table, value};
use crate::CommandError;
use crate::progress::format::size;
use crate::session::Session;
use crate::template::{Listing, Value};

/// Show what the build cache takes of the disk
///
/// `polyarch df` shows images and everything else as well.
#[derive(Debug, Args)]
pub struct DuArgs {
    /// Show only what matches: until=24h, type=regular|image|blob|record|temporary, id=TEXT, description=TEXT
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// The same as --format=pretty
    #[arg(long, conflicts_with = "format")]
    verbose: bool,
    /// `json` (a line each), `pretty`, `table`, or a Go template over .ID .Type .Size .Description .LastUsedAt …
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Runs the command.
pub fn run(args: &DuArgs, session: &Session) -> Result<(), CommandError> {
    let mut request = PruneRequest { all: true, ..PruneRequest::default() };
    read_filters(&args.filter, &mut request).map_err(CommandError::usage)?;
    let format = if args.verbose { "pretty" } else { args.format.as_deref().unwrap_or("table") };
    let listing = match format {
        "table" | "pretty" | "json" => None,
        template => Some(Listing::parse(template)?),
    };
    let settings = session.settings()?;
    let items = session.open(&settings)?.plan_prune(&request)?.items;
    let now = SystemTime::now();
    session.printer.data(&match (format, listing) {
        (_, Some(listing)) => {
            let rows: Vec<Value> = items.iter().map(|item| value(item, now)).collect();
            listing.render(&TITLES, &rows)?
        }
        ("json", None) => json_lines(&items, now),
        ("pretty", None) => pretty(&items, now) + &footer(&items),
        _ => table(&items, now) + &footer(&items),
    })
}

const TITLES: [(&str, &str); 9] = [
    ("ID", "ID"),
    ("Parents", "PARENTS"),
    ("CreatedAt", "CREATED AT"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Shared", "SHARED"),
    ("Size", "SIZE"),
    ("Description", "DESCRIPTION"),
    ("LastUsedAt", "LAST ACCESSED"),
    ("Type", "TYPE"),
];

fn footer(items: &[CacheItem]) -> String {
    let sum = |is_counted: fn(&CacheItem) -> bool| -> u64 {
        items.iter().filter(|item| is_counted(item)).map(|item| item.size_bytes).sum()
    };
    let (total, shared) = (sum(|_| true), sum(|item| item.is_shared));
    let reclaimable = sum(|item| item.kind != CacheKind::Temporary);
    let mut text = String::new();
    if shared > 0 {
        text.push_str(&format!("Shared:\t\t{}\nPrivate:\t{}\n", size(shared), size(total - shared)));
    }
    text + &format!("Reclaimable:\t{}\nTotal:\t\t{}\n", size(reclaimable), size(total))
}
