// SPDX-License-Identifier: Apache-2.0
//! What a registry says while it serves: a line for each request, and for what happens besides.

use std::sync::Arc;

use clap::ValueEnum;
use jiff::Timestamp;
use polyarch_registry::server::{RequestRecord, ServerEvent, ServerLog};
use serde::Serialize;

use crate::printer::Printer;
use crate::progress::format::short_size;
use crate::visible_text::visible_line;

/// How requests are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object.
    Json,
    /// Only what failed inside.
    None,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    time: String,
    remote: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    method: &'a str,
    target: &'a str,
    status: u16,
    sent_bytes: u64,
    milliseconds: f64,
    agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    served_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
}

/// Makes a log on standard error.
pub fn server_log(format: LogFormat, printer: Printer) -> ServerLog {
    Arc::new(move |event: ServerEvent<'_>| match event {
        ServerEvent::Request(record) if format != LogFormat::None || record.cause.is_some() => {
            printer.message(&line(format, record));
        }
        ServerEvent::Collected(collected) => {
            if collected.bytes > 0 {
                let (blobs, size) = (collected.blobs, short_size(collected.bytes));
                printer.message(&format!("removed {blobs} blobs that nothing leads to: {size}\n"));
            }
            for (repository, reason) in &collected.left_alone {
                printer.warning(&format!("{repository} was left alone by the collection: {reason}"));
            }
        }
        ServerEvent::Trouble(text) => printer.warning(&text),
        _ => {}
    })
}

fn line(format: LogFormat, record: &RequestRecord) -> String {
    let time = Timestamp::try_from(record.time).map_or_else(|_| "-".to_owned(), |time| format!("{time:.3}"));
    let milliseconds = (record.duration.as_secs_f64() * 1e6).round() / 1e3;
    if format == LogFormat::Json {
        let line = Line {
            time,
            remote: record.remote.to_string(),
            user: record.user.as_deref(),
            method: &record.method,
            target: &record.target,
            status: record.status,
            sent_bytes: record.sent_bytes,
            milliseconds,
            agent: &record.agent,
            served_by: record.served_by.as_deref(),
            cause: record.cause.as_deref(),
        };
        return serde_json::to_string(&line).expect("texts and numbers can be written as JSON") + "\n";
    }
    let mut text = format!(
        "{time} {} {} {} {} {} {}B {milliseconds}ms {:?}",
        record.remote.to_canonical(),
        record.user.as_deref().unwrap_or("-"),
        record.method,
        record.target,
        record.status,
        record.sent_bytes,
        record.agent,
    );
    for (name, value) in [("served by", &record.served_by), ("failed", &record.cause)] {
        if let Some(value) = value {
            text.push_str(&format!(" ({name}: {value})"));
        }
    }
    visible_line(text.as_bytes()) + "\n"
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_line_shows_only_what_is_visible() {
        let record = RequestRecord {
            time: UNIX_EPOCH + Duration::from_millis(1500),
            remote: "127.0.0.1".parse().unwrap(),
            user: Some("ann\u{1b}[2J".to_owned()),
            method: "GET".to_owned(),
            target: "/v2/".to_owned(),
            agent: "a \"b\"".to_owned(),
            status: 200,
            sent_bytes: 2,
            duration: Duration::from_micros(1234),
            served_by: Some("mirror.example".to_owned()),
            cause: None,
        };
        assert_eq!(
            line(LogFormat::Text, &record),
            "1970-01-01T00:00:01.500Z 127.0.0.1 ann GET /v2/ 200 2B 1.234ms \"a \\\"b\\\"\" (served by: mirror.example)\n"
        );
        let json: serde_json::Value = serde_json::from_str(&line(LogFormat::Json, &record)).unwrap();
        assert_eq!((&json["status"], &json["servedBy"]), (&200.into(), &"mirror.example".into()));
    }
}
