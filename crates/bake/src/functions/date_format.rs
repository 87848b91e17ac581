// SPDX-License-Identifier: Apache-2.0
//! The format of `formatdate`: runs of one letter stand for a part of a time.

use jiff::Zoned;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The name of a month, from 1.
pub fn month_name(month: i8) -> &'static str {
    usize::try_from(month - 1).ok().and_then(|at| MONTHS.get(at)).copied().unwrap_or("")
}

/// The name of a day of the week, from Sunday as 0.
pub fn weekday_name(day: i8) -> &'static str {
    usize::try_from(day).ok().and_then(|at| WEEKDAYS.get(at)).copied().unwrap_or("")
}

/// Writes a time.
///
/// # Errors
/// A run of letters that means nothing, or a quote that doesn't close.
pub fn format(format: &str, time: &Zoned) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = format;
    while let Some(first) = rest.chars().next() {
        if first == '\'' {
            rest = quoted(&rest[1..], &mut out)?;
            continue;
        }
        let length = rest.find(|c| c != first).unwrap_or(rest.len());
        let (run, after) = rest.split_at(length);
        rest = after;
        if !first.is_ascii_alphabetic() {
            out.push_str(run);
            continue;
        }
        out.push_str(&part(run, time)?);
    }
    Ok(out)
}

/// Takes a text in quotes; two quotes stand for one.
fn quoted<'a>(mut rest: &'a str, out: &mut String) -> Result<&'a str, String> {
    loop {
        let end = rest.find('\'').ok_or_else(|| "unterminated literal '".to_owned())?;
        out.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(after) => {
                out.push('\'');
                rest = after;
            }
            None => return Ok(rest),
        }
    }
}

fn part(run: &str, time: &Zoned) -> Result<String, String> {
    let short = |name: &str| name.chars().take(3).collect::<String>();
    let hour12 = match time.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    let seconds = time.offset().seconds();
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
    let weekday = weekday_name(time.weekday().to_sunday_zero_offset());
    Ok(match run {
        "YYYY" => format!("{:04}", time.year()),
        "YY" => format!("{:02}", time.year().rem_euclid(100)),
        "MMMM" => month_name(time.month()).to_owned(),
        "MMM" => short(month_name(time.month())),
        "MM" => format!("{:02}", time.month()),
        "M" => time.month().to_string(),
        "DD" => format!("{:02}", time.day()),
        "D" => time.day().to_string(),
        "EEEE" => weekday.to_owned(),
        "EEE" => short(weekday),
        "hh" => format!("{:02}", time.hour()),
        "h" => time.hour().to_string(),
        "HH" => format!("{hour12:02}"),
        "H" => hour12.to_string(),
        "AA" => if time.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        "aa" => if time.hour() < 12 { "am" } else { "pm" }.to_owned(),
        "mm" => format!("{:02}", time.minute()),
        "m" => time.minute().to_string(),
        "ss" => format!("{:02}", time.second()),
        "s" => time.second().to_string(),
        "Z" | "ZZZ" if seconds == 0 => if run == "Z" { "Z" } else { "UTC" }.to_owned(),
        "ZZZZ" | "ZZZ" => format!("{sign}{hours:02}{minutes:02}"),
        "ZZZZZ" | "Z" => format!("{sign}{hours:02}:{minutes:02}"),
        _ => return Err(format!("invalid format verb {run:?}")),
    })
}
