// SPDX-License-Identifier: Apache-2.0
//! Times.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use super::super::value::Value;
use super::date_format;
use super::{Function, Kind, function, number, parameter, text};

pub const FUNCTIONS: &[Function] = &[
    function("timestamp", &[], |_, world| {
        let now = Timestamp::from_second(world.now).map_err(|error| error.to_string())?;
        Ok(Value::String(rfc3339(&now.to_zoned(TimeZone::UTC))))
    }),
    function(
        "timeadd",
        &[parameter("timestamp", Kind::Text), parameter("duration", Kind::Text)],
        |args, _| {
            let time = parse(text(args, 0))?;
            let sum = time.checked_add(duration(text(args, 1))?).map_err(|error| error.to_string())?;
            Ok(Value::String(rfc3339(&sum)))
        },
    ),
    function("formatdate", &[parameter("format", Kind::Text), parameter("time", Kind::Text)], |args, _| {
        date_format::format(text(args, 0), &parse(text(args, 1))?).map(Value::String)
    }),
    function(
        "formattimestamp",
        &[parameter("format", Kind::Text), parameter("time", Kind::Any)],
        |args, _| {
            let time = match &args[1] {
                Value::String(text) => parse(text)?,
                Value::Number(_) => of_seconds(args, 1)?,
                _ => return Err("must be a string timestamp or a unix timestamp number".to_owned()),
            };
            if text(args, 0) == "X" {
                return Ok(Value::String(time.timestamp().as_second().to_string()));
            }
            date_format::format(text(args, 0), &time).map(Value::String)
        },
    ),
    function("unixtimestampparse", &[parameter("unix_timestamp", Kind::Number)], |args, _| {
        let time = of_seconds(args, 0)?;
        let week = time.date().iso_week_date();
        let weekday = time.weekday().to_sunday_zero_offset();
        let number = |value: i64| Value::number(value);
        Ok(Value::Object(BTreeMap::from(
            [
                ("year", number(time.year().into())),
                ("year_day", number(time.day_of_year().into())),
                ("day", number(time.day().into())),
                ("month", number(time.month().into())),
                ("month_name", Value::string(date_format::month_name(time.month()))),
                ("weekday", number(weekday.into())),
                ("weekday_name", Value::string(date_format::weekday_name(weekday))),
                ("hour", number(time.hour().into())),
                ("minute", number(time.minute().into())),
                ("second", number(time.second().into())),
                ("rfc3339", Value::String(rfc3339(&time))),
                ("iso_year", number(week.year().into())),
                ("iso_week", number(week.week().into())),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        )))
    }),
];

fn of_seconds(args: &[Value], at: usize) -> Result<Zoned, String> {
    let seconds = number(args, at).to_i64().ok_or_else(|| "unix timestamp must be an integer".to_owned())?;
    let time = Timestamp::from_second(seconds).map_err(|error| error.to_string())?;
    Ok(time.to_zoned(TimeZone::UTC))
}

/// Reads a time of RFC 3339, and keeps its offset.
fn parse(text: &str) -> Result<Zoned, String> {
    let wrong = || format!("not a valid RFC3339 timestamp: {text:?}");
    let bytes = text.as_bytes();
    if bytes.get(10) != Some(&b'T') {
        return Err(wrong());
    }
    let time: Timestamp = text.parse().map_err(|_| wrong())?;
    let zone = if text.ends_with('Z') {
        TimeZone::UTC
    } else {
        let offset = text.get(text.len().saturating_sub(6)..).unwrap_or("");
        let (sign, digits) = offset.split_at_checked(1).ok_or_else(wrong)?;
        let (hours, minutes) = digits.split_once(':').ok_or_else(wrong)?;
        let seconds = hours.parse::<i32>().map_err(|_| wrong())? * 3600
            + minutes.parse::<i32>().map_err(|_| wrong())? * 60;
        let seconds = if sign == "-" { -seconds } else { seconds };
        TimeZone::fixed(jiff::tz::Offset::from_seconds(seconds).map_err(|_| wrong())?)
    };
    Ok(time.to_zoned(zone))
}

fn rfc3339(time: &Zoned) -> String {
    date_format::format("YYYY-MM-DD'T'hh:mm:ssZ", time).unwrap_or_default()
}

/// Reads a duration like `1h30m` or `-1.5s`.
fn duration(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("invalid duration {text:?}");
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let value: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let length = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += value
            * match &rest[..length] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(wrong()),
            };
        rest = &rest[length..];
    }
    SignedDuration::try_from_secs_f64(sign * seconds).map_err(|_| wrong())
}
