// SPDX-License-Identifier: Apache-2.0
//! Pieces of the build cache as rows, in the columns of buildx; and the filters that choose among them.

use std::time::{Duration, SystemTime};

use polyarch_build::PruneRequest;
use polyarch_build::inventory::{CacheItem, CacheKind};

use super::build::table::render_table;
use super::flag_values::unknown;
use crate::progress::format::size;
use crate::template::Value;
use crate::visible_text::visible_line;

/// The keys of filters.
const KEYS: [&str; 5] = ["until", "unused-for", "type", "id", "description"];
/// How much of a name a table shows.
const SHOWN_ID_CHARS: usize = 25;

/// Writes a table with the columns of buildx; records stand in one row.
pub(super) fn table(items: &[CacheItem], now: SystemTime) -> String {
    let mut rows = vec![
        ["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED", "TYPE", "DESCRIPTION"].map(str::to_owned).to_vec(),
    ];
    let (mut records, mut record_bytes) = (0, 0);
    for item in items {
        if item.kind == CacheKind::Record {
            records += 1;
            record_bytes += item.size_bytes;
            continue;
        }
        rows.push(vec![
            short_id(&item.id),
            "true".to_owned(),
            size(item.size_bytes) + if item.is_shared { "*" } else { "" },
            ago(item.used, now),
            item.kind.as_str().to_owned(),
            clip(&visible_line(item.description.as_bytes())),
        ]);
    }
    if records > 0 {
        let id = format!("{records} records");
        let kind = CacheKind::Record.as_str().to_owned();
        rows.push(vec![id, "true".to_owned(), size(record_bytes), String::new(), kind, String::new()]);
    }
    render_table(&rows)
}

/// Writes each piece on lines of its own, as buildx does with `--verbose`.
pub(super) fn pretty(items: &[CacheItem], now: SystemTime) -> String {
    let mut text = String::new();
    for item in items {
        text.push_str(&format!("ID:           {}\n", item.id));
        if !item.parents.is_empty() {
            text.push_str("Parents:\n");
            for parent in &item.parents {
                text.push_str(&format!(" - {parent}\n"));
            }
        }
        text.push_str(&format!(
            "Created at:   {}\nMutable:      false\nReclaimable:  true\nShared:       {}\nSize:         {}\n",
            timestamp(item.created),
            item.is_shared,
            size(item.size_bytes)
        ));
        if !item.description.is_empty() {
            text.push_str(&format!("Description:  {}\n", visible_line(item.description.as_bytes())));
        }
        text.push_str(&format!("Last used:    {}\n", ago(item.used, now)));
        text.push_str(&format!("Type:         {}\n\n", item.kind.as_str()));
    }
    text
}

/// Returns the fields of a row, under the names of buildx.
pub(super) fn value(item: &CacheItem, now: SystemTime) -> Value {
    Value::from(serde_json::json!({
        "CreatedAt": timestamp(item.created),
        "Description": item.description,
        "ID": item.id,
        "LastUsedAt": ago(item.used, now),
        "LastUsed": timestamp(item.used),
        "Mutable": false,
        "Parents": item.parents,
        "Reclaimable": true,
        "Shared": item.is_shared,
        "Size": size(item.size_bytes),
        "SizeBytes": item.size_bytes,
        "Type": item.kind.as_str(),
        "InUse": item.is_wanted,
    }))
}

/// Writes rows as one JSON object per line.
pub(super) fn json_lines(items: &[CacheItem], now: SystemTime) -> String {
    items.iter().map(|item| json(item, now).to_string() + "\n").collect()
}

fn json(item: &CacheItem, now: SystemTime) -> serde_json::Value {
    serde_json::json!({
        "ID": item.id,
        "Type": item.kind.as_str(),
        "Description": item.description,
        "Size": item.size_bytes,
        "CreatedAt": timestamp(item.created),
        "LastUsedAt": timestamp(item.used),
        "LastUsedSince": ago(item.used, now),
        "Parents": item.parents,
        "Reclaimable": true,
        "Shared": item.is_shared,
        "InUse": item.is_wanted,
    })
}

/// Reads filters into a request.
///
/// # Errors
/// What is wrong with one.
pub(super) fn read_filters(filters: &[String], request: &mut PruneRequest) -> Result<(), String> {
    for filter in filters {
        let (key, value) = filter
            .split_once('=')
            .ok_or_else(|| format!("--filter {filter:?}: write KEY=VALUE ({})", KEYS.join(", ")))?;
        let wrong = |problem: String| format!("--filter {filter:?}: {problem}");
        match key {
            "until" | "unused-for" => request.unused_for = Some(read_age(value).map_err(wrong)?),
            "type" => {
                let names = CacheKind::ALL.map(CacheKind::as_str);
                let kind = CacheKind::ALL.into_iter().find(|kind| kind.as_str() == value);
                request.kinds.push(kind.ok_or_else(|| wrong(unknown("type", value, &names)))?);
            }
            "id" | "id~" => request.ids.push(value.to_owned()),
            "description" | "description~" => request.descriptions.push(value.to_owned()),
            "label" | "label!" => {
                return Err(wrong(
                    "pieces of the build cache have no labels; images that have some are removed by name: polyarch rmi NAME"
                        .to_owned(),
                ));
            }
            _ => return Err(wrong(unknown("filter", key, &KEYS))),
        }
    }
    Ok(())
}

/// Reads `24h` or a point in time.
fn read_age(text: &str) -> Result<Duration, String> {
    if let Ok(nanoseconds) = polyarch_dockerfile::value::duration::parse(text) {
        let nanoseconds = u64::try_from(nanoseconds).map_err(|_| "the time is negative".to_owned())?;
        return Ok(Duration::from_nanos(nanoseconds));
    }
    let then: jiff::Timestamp = text
        .parse()
        .map_err(|_| "write a duration such as 24h, or a time such as 2026-01-31T12:00:00Z".to_owned())?;
    Ok(SystemTime::now().duration_since(then.into()).unwrap_or_default())
}

fn short_id(id: &str) -> String {
    let short: String = id.chars().take(SHOWN_ID_CHARS).collect();
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

fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| time.to_string()).unwrap_or_default()
}

/// Tells how long ago something was, in the words of docker.
pub(super) fn ago(then: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(then).unwrap_or_default().as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    let text = match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    };
    text + " ago"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_and_mistakes_are_named() {
        let read = |filters: &[&str]| {
            let mut request = PruneRequest::default();
            let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            read_filters(&filters, &mut request).map(|()| request)
        };
        let request = read(&["until=24h", "type=regular", "type=blob", "id=abc"]).unwrap();
        assert_eq!(request.unused_for, Some(Duration::from_secs(24 * 3600)));
        assert_eq!(request.kinds, [CacheKind::Step, CacheKind::Blob]);
        assert!(read(&["until=2020-01-01T00:00:00Z"]).unwrap().unused_for > Some(Duration::from_secs(1)));
        for (filter, text) in [
            ("until=soon", "24h"),
            ("type=regulr", "regular"),
            ("age=1h", "until"),
            ("label=a=b", "polyarch rmi"),
            ("until", "KEY=VALUE"),
        ] {
            let error = read(&[filter]).unwrap_err();
            assert!(error.contains(text) && error.contains(filter), "{error}");
        }
    }

    #[test]
    fn times_are_told_as_docker_tells_them() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let table = [
            (0, "Less than a second ago"),
            (42, "42 seconds ago"),
            (61, "About a minute ago"),
            (600, "10 minutes ago"),
            (3600, "About an hour ago"),
            (3 * 3600, "3 hours ago"),
            (72 * 3600, "3 days ago"),
            (40 * 24 * 3600, "5 weeks ago"),
            (100 * 24 * 3600, "3 months ago"),
        ];
        for (seconds, text) in table {
            assert_eq!(ago(now - Duration::from_secs(seconds), now), text);
        }
    }
}
