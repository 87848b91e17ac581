// SPDX-License-Identifier: Apache-2.0
//! Choosing records: `status==error,duration>10s`, as clients of BuildKit ask.
//!
//! A text is a list of conditions, all of which a record must meet; of several texts one is enough.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::api::control::BuildHistoryRecord;

/// The most conditions.
const MAX_CONDITIONS: usize = 100;

/// Chooses records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter(Vec<Vec<Condition>>);

/// Says why a filter makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid filter {text:?}: {problem}")]
pub struct FilterError {
    text: String,
    problem: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// What a field says is this, is not this, or has it within.
    Text { field: Field, relation: Relation, value: String },
    /// A time or a duration, in milliseconds.
    Number { field: Field, relation: Relation, value: i128 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Status,
    Repository,
    Started,
    Completed,
    Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Is,
    IsNot,
    Has,
    AtLeast,
    AtMost,
    Over,
    Under,
}

/// Relations as they are written, those that begin like others first.
const RELATIONS: [(&str, Relation); 8] = [
    ("!=", Relation::IsNot),
    ("~=", Relation::Has),
    ("==", Relation::Is),
    (">=", Relation::AtLeast),
    ("<=", Relation::AtMost),
    (">", Relation::Over),
    ("<", Relation::Under),
    ("=", Relation::Is),
];

impl Filter {
    /// Reads filters; `now` is what ages count from.
    ///
    /// # Errors
    /// When a field is not known, or is compared with what it can't be.
    pub fn parse(texts: &[String], now: SystemTime) -> Result<Filter, FilterError> {
        let mut all = Vec::new();
        let mut count = 0;
        for text in texts {
            let mut conditions = Vec::new();
            for part in text.split(',').map(|part| part.trim().trim_matches('"')).filter(|it| !it.is_empty())
            {
                count += 1;
                let wrong = |problem| FilterError { text: part.to_owned(), problem };
                if count > MAX_CONDITIONS {
                    return Err(wrong("there are too many conditions"));
                }
                conditions.push(condition(part, now).map_err(wrong)?);
            }
            all.push(conditions);
        }
        Ok(Filter(all))
    }

    /// Tells whether a record is chosen.
    pub fn matches(&self, record: &BuildHistoryRecord) -> bool {
        self.0.is_empty() || self.0.iter().any(|all| all.iter().all(|it| it.matches(record)))
    }
}

fn condition(text: &str, now: SystemTime) -> Result<Condition, &'static str> {
    let at = |sign: &str| text.find(sign).map(|at| (at, sign.len()));
    let found = RELATIONS.iter().filter_map(|(sign, relation)| Some((at(sign)?, *relation)));
    // The first sign in the text, and of those at one place the longest.
    let ((at, len), relation) = found
        .min_by_key(|((at, len), _)| (*at, std::cmp::Reverse(*len)))
        .ok_or("write FIELD, a relation such as = or >=, and a value")?;
    let value = text[at + len..].trim_matches('"');
    let field = match &text[..at] {
        "ref" => Field::Name,
        "status" => Field::Status,
        "repository" => Field::Repository,
        "startedAt" => Field::Started,
        "completedAt" => Field::Completed,
        "duration" => Field::Duration,
        _ => return Err("there are ref, repository, status, startedAt, completedAt and duration"),
    };
    let is_text = matches!(field, Field::Name | Field::Status | Field::Repository);
    let compares_text = matches!(relation, Relation::Is | Relation::IsNot | Relation::Has);
    if is_text != compares_text {
        return Err("texts are compared by = and !=, times and durations by >=, >, <= and <");
    }
    if is_text {
        return Ok(Condition::Text { field, relation, value: value.to_owned() });
    }
    let value = match (field, go_duration(value)) {
        (Field::Duration, Some(duration)) => millis(duration),
        (Field::Duration, None) => return Err("the value is not a duration such as 1m30s"),
        (_, Some(age)) => Timestamp::try_from(now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH))
            .map_or(0, |time| i128::from(time.as_millisecond())),
        (_, None) => match value.parse::<Timestamp>() {
            Ok(time) => i128::from(time.as_millisecond()),
            Err(_) => return Err("the value is neither a time (RFC 3339) nor an age such as 24h"),
        },
    };
    Ok(Condition::Number { field, relation, value })
}

impl Condition {
    fn matches(&self, record: &BuildHistoryRecord) -> bool {
        match self {
            Condition::Text { field, relation, value } => {
                let found = match field {
                    Field::Name => &record.r#ref,
                    Field::Status => status_of(record),
                    _ => repository_of(record),
                };
                match relation {
                    Relation::IsNot => found != value,
                    Relation::Has => found.contains(value),
                    _ => found == value,
                }
            }
            Condition::Number { field, relation, value } => {
                let time = |time: &prost_types::Timestamp| {
                    i128::from(time.seconds) * 1000 + i128::from(time.nanos / 1_000_000)
                };
                let started = record.created_at.as_ref().map_or(0, time);
                let completed = record.completed_at.as_ref().map(time);
                let found = match field {
                    Field::Started => started,
                    Field::Completed => completed.unwrap_or(0),
                    _ => completed.map_or(0, |completed| completed - started),
                };
                match relation {
                    Relation::AtLeast => found >= *value,
                    Relation::AtMost => found <= *value,
                    Relation::Over => found > *value,
                    _ => found < *value,
                }
            }
        }
    }
}

/// Returns how a build stands, in the words of buildx.
pub fn status_of(record: &BuildHistoryRecord) -> &'static str {
    match (&record.completed_at, &record.error) {
        (None, _) => "running",
        (_, None) => "completed",
        // A build that was stopped says so by its code; those of BuildKit by their text.
        (_, Some(error))
            if error.code == i32::from(tonic::Code::Cancelled)
                || error.message.contains("context canceled") =>
        {
            "canceled"
        }
        (_, Some(_)) => "error",
    }
}

fn repository_of(record: &BuildHistoryRecord) -> &str {
    let attributes = &record.frontend_attrs;
    attributes.get("vcs:source").or_else(|| attributes.get("context")).map_or("", String::as_str)
}

fn millis(duration: Duration) -> i128 {
    i128::try_from(duration.as_millis()).unwrap_or(i128::MAX)
}

/// Reads a duration as Go writes it, `1h2m3.5s`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..]
            .find(|letter: char| letter.is_ascii_digit() || letter == '.')
            .map_or(rest.len(), |at| end + at);
        let seconds = match &rest[end..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::rpc;

    fn matches(text: &str, record: &BuildHistoryRecord) -> bool {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        Filter::parse(&[text.to_owned()], now).unwrap().matches(record)
    }

    #[test]
    fn records_are_chosen_by_all_conditions_of_a_filter() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let record = BuildHistoryRecord {
            r#ref: "abc".to_owned(),
            frontend_attrs: [("vcs:source".to_owned(), "https://e.example/r.git".to_owned())].into(),
            created_at: at(9_000),
            completed_at: at(9_090),
            error: Some(rpc::Status { code: 2, message: "x".to_owned(), details: Vec::new() }),
            ..BuildHistoryRecord::default()
        };
        for text in [
            "ref==abc",
            "ref~=b",
            "status!=completed",
            "status=error,duration>1m",
            "\"repository~=e.example\"",
            "startedAt>=1h",
            "startedAt<10m",
            "completedAt<=1970-01-01T03:00:00Z",
            "duration<=1m30s",
            "",
        ] {
            assert!(matches(text, &record), "{text}");
        }
        for text in ["ref==ab", "status==error,duration>2m", "startedAt>=10m", "duration<1500ms"] {
            assert!(!matches(text, &record), "{text}");
        }
        let both = ["ref==x".to_owned(), "ref==abc".to_owned()];
        assert!(Filter::parse(&both, SystemTime::now()).unwrap().matches(&record));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in
            ["ref", "name=x", "ref>x", "duration=1s", "duration>soon", "startedAt>yesterday", "duration>1"]
        {
            assert!(Filter::parse(&[text.to_owned()], SystemTime::now()).is_err(), "{text}");
        }
        assert!(Filter::parse(&["ref=x,".repeat(200)], SystemTime::now()).is_err());
    }
}
