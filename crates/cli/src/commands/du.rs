// SPDX-License-Identifier: Apache-2.0
//! `polyarch buildx du`: the build cache, in the form of buildx.

use std::time::SystemTime;

use clap::Args;
use polyarch_build::inventory::CacheItem;

use super::cache_filters::read_filters;
use super::cache_rows::{TITLES, json_lines, pretty, table, value};
use crate::CommandError;
use crate::progress::format::short_size as size;
use crate::session::Session;
use crate::template::{Listing, Value};

/// Show what the build cache takes of the disk
///
/// `polyarch df` shows images and everything else as well.
#[derive(Debug, Args)]
pub struct DuArgs {
    /// Show only what matches: until=24h (not used for so long),
    /// type=regular|image|blob|record|exec.cachemount|temporary, type!=…, id=TEXT, description=TEXT, shared, private, inuse, mutable, immutable
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
    let filter = read_filters(&args.filter).map_err(CommandError::usage)?;
    let format = if args.verbose { "pretty" } else { args.format.as_deref().unwrap_or("table") };
    let listing = match format {
        "table" | "pretty" | "json" => None,
        template => Some(Listing::parse(template)?),
    };
    let settings = session.settings()?;
    let mut items = session.open(&settings)?.build_cache()?;
    let now = SystemTime::now();
    items.retain(|item| filter.matches(item, now));
    items.sort_by_key(|item| std::cmp::Reverse(item.used));
    // As in buildx, a sum is of everything.
    let footer = if args.filter.is_empty() { footer(&items) } else { String::new() };
    session.printer.data(&match (format, listing) {
        (_, Some(listing)) => {
            let rows: Vec<Value> = items.iter().map(|item| value(item, now)).collect();
            listing.render(&TITLES, &rows)?
        }
        ("json", None) => json_lines(&items, now),
        ("pretty", None) => pretty(&items, now) + &footer,
        _ => table(&items, now) + &footer,
    })
}

fn footer(items: &[CacheItem]) -> String {
    let sum = |is_counted: fn(&CacheItem) -> bool| -> u64 {
        items.iter().filter(|item| is_counted(item)).map(|item| item.size_bytes).sum()
    };
    let (total, shared) = (sum(|_| true), sum(|item| item.is_shared));
    let reclaimable = sum(|item| !item.is_in_use());
    let mut text = String::new();
    if shared > 0 {
        text.push_str(&format!("Shared:\t\t{}\nPrivate:\t{}\n", size(shared), size(total - shared)));
    }
    text + &format!("Reclaimable:\t{}\nTotal:\t\t{}\n", size(reclaimable), size(total))
}
