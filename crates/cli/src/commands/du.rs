// SPDX-License-Identifier: Apache-2.0
//! `polyarch buildx du`: the build cache, in the form of buildx.

use std::time::SystemTime;

use clap::Args;

use super::buildx_builder::{self, node_cache};
use super::cache_filters::read_filters;
use super::cache_rows::{CacheRow, TITLES, json_lines, pretty, rows_of, table, value};
use crate::CommandError;
use crate::progress::format::short_size as size;
use crate::session::Session;
use crate::template::{Listing, Value};

/// Show what the build cache takes of the disk
///
/// Of a builder with nodes elsewhere, their caches are shown. `polyarch df` shows images and everything else as well.
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
pub fn run(args: &DuArgs, builder: Option<&str>, session: &Session) -> Result<(), CommandError> {
    let format = if args.verbose { "pretty" } else { args.format.as_deref().unwrap_or("table") };
    let listing = match format {
        "table" | "pretty" | "json" => None,
        template => Some(Listing::parse(template)?),
    };
    let nodes = match buildx_builder::of_build(builder, session)? {
        Some(builder) => node_cache::disk_usage(&builder, &args.filter, session)?,
        None => node_cache::Answers::of_this_machine(),
    };
    let now = SystemTime::now();
    let mut items = nodes.rows;
    if nodes.is_local_meant {
        let filter = read_filters(&args.filter).map_err(CommandError::usage)?;
        let settings = session.settings()?;
        let mut own = session.open(&settings)?.build_cache()?;
        own.retain(|item| filter.matches(item, now));
        items.extend(rows_of(&own));
    }
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
    })?;
    nodes.failure.map_or(Ok(()), Err)
}

fn footer(items: &[CacheRow]) -> String {
    let sum = |is_counted: fn(&CacheRow) -> bool| -> u64 {
        items.iter().filter(|item| is_counted(item)).map(|item| item.size_bytes).sum()
    };
    let (total, shared) = (sum(|_| true), sum(|item| item.is_shared));
    let reclaimable = sum(|item| !item.is_in_use);
    let mut text = String::new();
    if shared > 0 {
        text.push_str(&format!("Shared:\t\t{}\nPrivate:\t{}\n", size(shared), size(total - shared)));
    }
    text + &format!("Reclaimable:\t{}\nTotal:\t\t{}\n", size(reclaimable), size(total))
}
