// SPDX-License-Identifier: Apache-2.0
//! `buildx history ls`: the builds that are remembered.

use std::time::SystemTime;

use clap::Args;
use jiff::Timestamp;
use polyarch_buildkit::api::control::BuildHistoryRecord;
use polyarch_buildkit::history::{Filter, status_of};
use serde_json::{Value as Json, json};

use super::{name_of, time_of, with_history};
use crate::CommandError;
use crate::past::ago;
use crate::session::Session;
use crate::template::{Listing, Value};
use crate::visible_text::visible_line;

/// The fields of a row with their titles.
const TITLES: [(&str, &str); 5] = [
    ("Ref", "BUILD ID"),
    ("Name", "NAME"),
    ("Status", "STATUS"),
    ("CreatedAt", "CREATED AT"),
    ("Duration", "DURATION"),
];

const DEFAULT_FORMAT: &str = r"table {{.Ref}}\t{{.Name}}\t{{.Status}}\t{{.CreatedAt}}\t{{.Duration}}";

/// The longest name that a table shows in full.
const MAX_NAME: usize = 36;

/// List builds that are remembered, the newest first
#[derive(Debug, Args)]
pub struct LsArgs {
    /// `table`, `table TEMPLATE`, `json` (an object a line), or a Go template over .Ref .Name .Status .CreatedAt
    /// .Duration
    #[arg(long, value_name = "FORMAT", default_value = "table", hide_default_value = true)]
    format: String,
    /// Don't cut names short
    #[arg(long)]
    no_trunc: bool,
    /// Show only builds that meet conditions: ref=, status=completed|error|canceled, repository=, startedAt>=24h,
    /// completedAt<2026-01-02T03:04:05Z, duration>1m; several flags are alternatives, commas join conditions
    #[arg(long, value_name = "CONDITION[,CONDITION]")]
    filter: Vec<String>,
}

/// Runs the command.
pub(super) fn run(args: &LsArgs, session: &Session) -> Result<(), CommandError> {
    let listing = match args.format.as_str() {
        "json" => None,
        "table" | "" => Some(Listing::parse(DEFAULT_FORMAT)?),
        format => Some(Listing::parse(format)?),
    };
    let filter = Filter::parse(&args.filter, SystemTime::now())
        .map_err(|error| CommandError::usage(error.to_string()))?;
    let mut records = with_history(session, |history| history.list())?;
    records.retain(|record| filter.matches(record));
    let text = match listing {
        None => records.iter().map(|record| describe(record).to_string() + "\n").collect(),
        Some(listing) => {
            let is_short = !args.no_trunc && (args.format.is_empty() || args.format.starts_with("table"));
            let rows: Vec<Value> = records.iter().map(|record| row(record, is_short)).collect();
            session.shown_template(listing.render(&TITLES, &rows)?)
        }
    };
    session.printer.data(&text)
}

fn row(record: &BuildHistoryRecord, is_short: bool) -> Value {
    let name = visible_line(name_of(record).as_bytes());
    let name = if is_short { shortened(&name) } else { name };
    let started = time_of(record.created_at.as_ref());
    let cells = [
        visible_line(record.r#ref.as_bytes()),
        name,
        titled(status_of(record)),
        started.map(|time| ago(time, Timestamp::now())).unwrap_or_default(),
        duration(record),
    ];
    Value::structure(TITLES.iter().zip(cells).map(|((field, _), cell)| (*field, Value::from(cell.as_str()))))
}

/// Cuts the beginning of a name, as buildx does: contexts differ at their ends.
fn shortened(name: &str) -> String {
    let count = name.chars().count();
    if count <= MAX_NAME {
        return name.to_owned();
    }
    format!("..{}", name.chars().skip(count - MAX_NAME + 2).collect::<String>())
}

/// Writes a status with a capital letter, as buildx's tables do.
fn titled(status: &str) -> String {
    status[..1].to_uppercase() + &status[1..]
}

/// Says how long a build took.
pub(super) fn duration(record: &BuildHistoryRecord) -> String {
    let (Some(started), Some(ended)) =
        (time_of(record.created_at.as_ref()), time_of(record.completed_at.as_ref()))
    else {
        return String::new();
    };
    let seconds = ended.duration_since(started).as_secs_f64();
    match seconds < 60.0 {
        true => format!("{seconds:.1}s"),
        false => format!("{}m {:2}s", (seconds / 60.0) as u64, (seconds % 60.0) as u64),
    }
}

/// Writes a build as buildx's JSON does, and how it is called here.
fn describe(record: &BuildHistoryRecord) -> Json {
    let mut fields = json!({
        "ref": record.r#ref,
        "name": name_of(record),
        "status": titled(status_of(record)),
        "total_steps": record.num_total_steps,
        "completed_steps": record.num_completed_steps,
        "cached_steps": record.num_cached_steps,
    });
    let times = [("created_at", &record.created_at), ("completed_at", &record.completed_at)];
    for (key, time) in times {
        if let Some(time) = time_of(time.as_ref()) {
            fields[key] = time.to_string().into();
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_buildx() {
        let at = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        let mut record = BuildHistoryRecord {
            r#ref: "abc".to_owned(),
            created_at: at(1_000_000_000, 0),
            completed_at: at(1_000_000_001, 500_000_000),
            num_total_steps: 3,
            ..BuildHistoryRecord::default()
        };
        record.frontend_attrs.insert("context".to_owned(), format!("https://e.example/{}", "x".repeat(50)));
        assert_eq!(duration(&record), "1.5s");
        assert_eq!(shortened(&name_of(&record)), format!("..{}", "x".repeat(34)));
        let told = describe(&record);
        assert_eq!((&told["status"], &told["total_steps"]), (&json!("Completed"), &json!(3)));
        assert_eq!(told["completed_at"], "2001-09-09T01:46:41.5Z");
        record.completed_at = at(1_000_000_075, 0);
        assert_eq!(duration(&record), "1m 15s");
    }
}
