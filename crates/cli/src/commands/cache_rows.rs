// SPDX-License-Identifier: Apache-2.0
//! Pieces of the build cache, of this machine or of a node, as rows in the columns of buildx.

use std::time::SystemTime;

use jiff::Timestamp;
use polyarch_build::inventory::{CacheItem, CacheKind};

use super::build::table::render_table;
use crate::past;
use crate::progress::format::short_size;
use crate::template::Value;
use crate::visible_text::visible_line;

/// How much of a name a table shows.
const SHOWN_ID_CHARS: usize = 25;

/// The fields of a row and their titles in tables.
pub(super) const TITLES: [(&str, &str); 10] = [
    ("ID", "ID"),
    ("Parents", "PARENTS"),
    ("CreatedAt", "CREATED AT"),
    ("Mutable", "MUTABLE"),
    ("Reclaimable", "RECLAIMABLE"),
    ("Shared", "SHARED"),
    ("Size", "SIZE"),
    ("Description", "DESCRIPTION"),
    ("LastUsedAt", "LAST ACCESSED"),
    ("Type", "TYPE"),
];

/// A piece of a cache.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CacheRow {
    /// Its name.
    pub(super) id: String,
    /// What it is, in the words of filters.
    pub(super) kind: String,
    /// What people read.
    pub(super) description: String,
    /// What it takes of the disk.
    pub(super) size_bytes: u64,
    /// When it was made.
    pub(super) created: SystemTime,
    /// When it was last used.
    pub(super) used: SystemTime,
    /// Whether something uses it now, so that nothing removes it.
    pub(super) is_in_use: bool,
    /// Whether it changes.
    pub(super) is_mutable: bool,
    /// Whether more than one step needs it.
    pub(super) is_shared: bool,
    /// Whether a build may use it again as it is; a node does not say.
    pub(super) is_wanted: Option<bool>,
    /// What it lies upon.
    pub(super) parents: Vec<String>,
    /// The node that has it; `None` stands for this machine.
    pub(super) node: Option<String>,
}

impl From<&CacheItem> for CacheRow {
    fn from(item: &CacheItem) -> CacheRow {
        CacheRow {
            id: item.id.clone(),
            kind: item.kind.as_str().to_owned(),
            description: item.description.clone(),
            size_bytes: item.size_bytes,
            created: item.created,
            used: item.used,
            is_in_use: item.is_in_use(),
            is_mutable: item.is_mutable(),
            is_shared: item.is_shared,
            is_wanted: Some(item.is_wanted),
            parents: item.parents.clone(),
            node: None,
        }
    }
}

/// Makes rows of this machine's pieces.
pub(super) fn rows_of(items: &[CacheItem]) -> Vec<CacheRow> {
    items.iter().map(CacheRow::from).collect()
}

/// Writes a table with the columns of buildx, and what a piece is after them; records stand in one row.
pub(super) fn table(items: &[CacheRow], now: SystemTime) -> String {
    let mut rows = vec![
        ["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED", "TYPE", "DESCRIPTION"].map(str::to_owned).to_vec(),
    ];
    let (mut records, mut record_bytes) = (0, 0);
    for item in items {
        if item.kind == CacheKind::Record.as_str() {
            records += 1;
            record_bytes += item.size_bytes;
            continue;
        }
        rows.push(vec![
            short_id(item),
            (!item.is_in_use).to_string(),
            short_size(item.size_bytes) + if item.is_shared { "*" } else { "" },
            ago(item.used, now),
            item.kind.clone(),
            clip(&visible_line(item.description.as_bytes())),
        ]);
    }
    if records > 0 {
        let id = if records == 1 { "1 record".to_owned() } else { format!("{records} records") };
        let kind = CacheKind::Record.as_str().to_owned();
        rows.push(vec![id, "true".to_owned(), short_size(record_bytes), String::new(), kind, String::new()]);
    }
    render_table(&rows)
}

/// Writes each piece on lines of its own, as buildx does with `--verbose`.
pub(super) fn pretty(items: &[CacheRow], now: SystemTime) -> String {
    let mut text = String::new();
    for item in items {
        text.push_str(&format!("ID:           {}\n", visible_line(item.id.as_bytes())));
        if !item.parents.is_empty() {
            text.push_str("Parents:\n");
            for parent in &item.parents {
                text.push_str(&format!(" - {}\n", visible_line(parent.as_bytes())));
            }
        }
        text.push_str(&format!(
            "Created at:   {}\nMutable:      {}\nReclaimable:  {}\nShared:       {}\nSize:         {}\n",
            go_time(item.created),
            item.is_mutable,
            !item.is_in_use,
            item.is_shared,
            short_size(item.size_bytes)
        ));
        if !item.description.is_empty() {
            text.push_str(&format!("Description:  {}\n", visible_line(item.description.as_bytes())));
        }
        text.push_str(&format!("Last used:    {}\n", ago(item.used, now)));
        text.push_str(&format!("Type:         {}\n\n", visible_line(item.kind.as_bytes())));
    }
    text
}

/// Returns the fields of a row under the names of buildx, for templates.
pub(super) fn value(item: &CacheRow, now: SystemTime) -> Value {
    Value::from(json(item, now))
}

/// Writes rows as one JSON object per line.
pub(super) fn json_lines(items: &[CacheRow], now: SystemTime) -> String {
    items.iter().map(|item| json(item, now).to_string() + "\n").collect()
}

/// Returns the fields of a row: those of buildx, and for programs the numbers and times behind them.
pub(super) fn json(item: &CacheRow, now: SystemTime) -> serde_json::Value {
    let mut row = serde_json::json!({
        "CreatedAt": go_time(item.created),
        "Description": item.description,
        "ID": item.id,
        "LastUsed": Timestamp::try_from(item.used).map(|time| time.to_string()).unwrap_or_default(),
        "LastUsedAt": ago(item.used, now),
        "Mutable": item.is_mutable,
        "Parents": item.parents,
        "Reclaimable": !item.is_in_use,
        "Shared": item.is_shared,
        "Size": short_size(item.size_bytes),
        "SizeBytes": item.size_bytes,
        "Type": item.kind,
    });
    if let Some(is_wanted) = item.is_wanted {
        row["Reusable"] = is_wanted.into();
    }
    if let Some(node) = &item.node {
        row["Node"] = node.as_str().into();
    }
    row
}

fn short_id(item: &CacheRow) -> String {
    let mut short: String = item.id.chars().take(SHOWN_ID_CHARS).collect();
    if item.is_mutable {
        short.push('*');
    }
    visible_line(short.as_bytes())
}

fn clip(text: &str) -> String {
    const LIMIT: usize = 60;
    if text.chars().count() <= LIMIT {
        return text.to_owned();
    }
    let clipped: String = text.chars().take(LIMIT - 1).collect();
    clipped + "…"
}

/// Writes a time as Go prints one.
fn go_time(time: SystemTime) -> String {
    let text = |time: Timestamp| time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string();
    Timestamp::try_from(time).map(text).unwrap_or_default()
}

fn ago(then: SystemTime, now: SystemTime) -> String {
    let times = Timestamp::try_from(then).and_then(|then| Ok((then, Timestamp::try_from(now)?)));
    times.map(|(then, now)| past::ago(then, now)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_buildx_writes_them() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(1_749_743_042_715_795_569);
        assert_eq!(go_time(time), "2025-06-12 15:44:02.715795569 +0000 UTC");
        assert_eq!(go_time(time - Duration::from_nanos(715_795_569)), "2025-06-12 15:44:02 +0000 UTC");
        assert_eq!(ago(time, time + Duration::from_secs(13 * 24 * 3600)), "13 days ago");
    }
}
