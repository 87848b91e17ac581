// SPDX-License-Identifier: Apache-2.0
//! `polyarch df` and `system df`: what the store takes of the disk. The sums are those of `du`.

use std::time::SystemTime;

use clap::Args;
use jiff::Timestamp;
use polyarch_build::inventory::{CacheItem, CacheKind};
use polyarch_build::store_usage::StoreUsage;

use super::build::table::render_table;
use super::cache_rows::{CacheRow, json, rows_of, table};
use crate::CommandError;
use crate::past::ago;
use crate::progress::format::short_size as size;
use crate::session::Session;
use crate::template::{Listing, Value};
use crate::visible_text::visible_line;

/// Show what the store takes of the disk
///
/// Sizes are allocated bytes, files with several names counted once: the total is what `du -s --block-size=1`
/// says of the store's directory. Of the cache, ACTIVE counts what a build may use again; RECLAIMABLE is what
/// `polyarch prune --all` removes. Images go with their names: `polyarch rmi`.
#[derive(Debug, Args)]
pub struct DfArgs {
    /// Show each image and each piece of the cache
    #[arg(short, long)]
    verbose: bool,
    /// `json`, `table TEMPLATE`, or a Go template over .Type .TotalCount .Active .Size .Reclaimable (and, in bytes,
    /// .SizeBytes .ReclaimableBytes)
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Runs the command.
pub fn run(args: &DfArgs, session: &Session) -> Result<(), CommandError> {
    let listing = match args.format.as_deref() {
        None | Some("json" | "table") => None,
        Some(format) => Some(Listing::parse(format)?),
    };
    let settings = session.settings()?;
    let usage = session.open(&settings)?.store_usage()?;
    let now = SystemTime::now();
    let rows = summarize(&usage);
    session.printer.data(&match (args.format.as_deref(), &listing) {
        (Some("json"), _) if args.verbose => render_json(&usage, &rows),
        (Some("json"), _) => rows.iter().map(|row| row.json().to_string() + "\n").collect(),
        (_, Some(listing)) => {
            let rows: Vec<Value> = rows.iter().map(|row| Value::from(row.json())).collect();
            listing.render(&TITLES, &rows)?
        }
        _ if args.verbose => render_verbose(&usage, &rows, now) + &total_line(&usage, &settings.root),
        _ => render_summary(&rows) + &total_line(&usage, &settings.root),
    })
}

const TITLES: [(&str, &str); 5] = [
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

/// A row of the summary.
struct Row {
    name: &'static str,
    total: usize,
    active: usize,
    size_bytes: u64,
    reclaimable_bytes: u64,
}

impl Row {
    fn of_cache(name: &'static str, items: &[&CacheItem]) -> Row {
        Row {
            name,
            total: items.len(),
            active: items.iter().filter(|item| item.is_wanted).count(),
            size_bytes: items.iter().map(|item| item.size_bytes).sum(),
            reclaimable_bytes: items
                .iter()
                .filter(|item| !item.is_in_use())
                .map(|item| item.size_bytes)
                .sum(),
        }
    }

    fn reclaimable(&self) -> String {
        let bytes = size(self.reclaimable_bytes);
        match (self.reclaimable_bytes * 100).checked_div(self.size_bytes) {
            Some(percent) => format!("{bytes} ({percent}%)"),
            None => bytes,
        }
    }

    fn json(&self) -> serde_json::Value {
        // Docker's are texts; the numbers are for programs.
        serde_json::json!({
            "Type": self.name,
            "TotalCount": self.total.to_string(),
            "Active": self.active.to_string(),
            "Size": size(self.size_bytes),
            "Reclaimable": self.reclaimable(),
            "SizeBytes": self.size_bytes,
            "ReclaimableBytes": self.reclaimable_bytes,
        })
    }
}

fn summarize(usage: &StoreUsage) -> Vec<Row> {
    let of = |kinds: &[CacheKind]| -> Vec<&CacheItem> {
        usage.cache.iter().filter(|item| kinds.contains(&item.kind)).collect()
    };
    let count = usage.images.len();
    let images_bytes = usage.images_bytes;
    let mut rows = vec![
        Row { name: "Images", total: count, active: count, size_bytes: images_bytes, reclaimable_bytes: 0 },
        Row::of_cache("Build Cache", &of(&[CacheKind::Step, CacheKind::Image, CacheKind::Blob])),
        Row::of_cache("Cache Mounts", &of(&[CacheKind::CacheMount])),
        Row::of_cache("Records", &of(&[CacheKind::Record])),
        Row::of_cache("Temporary", &of(&[CacheKind::Temporary])),
    ];
    for other in &usage.others {
        let size_bytes = other.size_bytes;
        let count = usize::from(size_bytes > 0);
        rows.push(Row { name: other.name, total: count, active: count, size_bytes, reclaimable_bytes: 0 });
    }
    rows
}

fn render_summary(rows: &[Row]) -> String {
    let mut cells = vec![TITLES.map(|(_, title)| title.to_owned()).to_vec()];
    cells.extend(rows.iter().map(|row| {
        let (total, active) = (row.total.to_string(), row.active.to_string());
        vec![row.name.to_owned(), total, active, size(row.size_bytes), row.reclaimable()]
    }));
    render_table(&cells)
}

fn total_line(usage: &StoreUsage, root: &std::path::Path) -> String {
    format!("\nTotal: {} ({} bytes) in {}\n", size(usage.total_bytes), usage.total_bytes, root.display())
}

fn render_verbose(usage: &StoreUsage, rows: &[Row], now: SystemTime) -> String {
    let mut images =
        vec![["NAME", "DIGEST", "UPDATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE"].map(str::to_owned).to_vec()];
    for image in &usage.images {
        let digest = image
            .digest
            .as_ref()
            .map(|digest| format!("{}:{:.12}", digest.algorithm().as_str(), digest.hex()));
        images.push(vec![
            visible_line(image.name.as_bytes()),
            digest.unwrap_or_default(),
            ago(image.updated, Timestamp::try_from(now).unwrap_or_default()),
            size(image.size_bytes),
            size(image.shared_bytes),
            size(image.size_bytes - image.shared_bytes),
        ]);
    }
    let cache: u64 = usage.cache.iter().map(|item| item.size_bytes).sum();
    let mut text = format!("Images space usage: {}\n\n{}", size(usage.images_bytes), render_table(&images));
    text.push_str(&format!("\nBuild cache usage: {}\n\n{}", size(cache), table(&rows_of(&usage.cache), now)));
    text.push_str(&format!("\n{}", render_summary(rows)));
    text
}

fn render_json(usage: &StoreUsage, rows: &[Row]) -> String {
    let images: Vec<serde_json::Value> = usage
        .images
        .iter()
        .map(|image| {
            serde_json::json!({
                "Name": image.name,
                "Digest": image.digest,
                "Updated": image.updated.to_string(),
                "Size": size(image.size_bytes),
                "SharedSize": size(image.shared_bytes),
                "UniqueSize": size(image.size_bytes - image.shared_bytes),
                "SizeBytes": image.size_bytes,
                "SharedSizeBytes": image.shared_bytes,
            })
        })
        .collect();
    let now = SystemTime::now();
    let cache: Vec<serde_json::Value> =
        usage.cache.iter().map(|item| json(&CacheRow::from(item), now)).collect();
    let value = serde_json::json!({
        "Images": images,
        "ImagesSizeBytes": usage.images_bytes,
        "BuildCache": cache,
        "Summary": rows.iter().map(Row::json).collect::<Vec<_>>(),
        "TotalSizeBytes": usage.total_bytes,
    });
    format!("{value:#}\n")
}
