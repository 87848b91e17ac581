// SPDX-License-Identifier: Apache-2.0
//! How long ago something was, in the words that docker's listings have for it.

use jiff::Timestamp;

/// Times up to this one, the year 2000, are no dates but the mark of a reproducible image.
const FIRST_SHOWN: i64 = 946_684_800;

/// Reads a time of a document; `None` when it isn't one.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Says how long ago a time was: `3 hours ago`; `N/A` for times that are no dates.
pub fn ago(time: Timestamp, now: Timestamp) -> String {
    if time.as_second() <= FIRST_SHOWN {
        return "N/A".to_owned();
    }
    format!("{} ago", duration(now.as_second().saturating_sub(time.as_second())))
}

/// Rounds a number of seconds to one unit.
fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_words_of_docker() {
        let day = 86_400;
        let table = [
            (-5, "Less than a second ago"),
            (1, "1 second ago"),
            (59, "59 seconds ago"),
            (61, "About a minute ago"),
            (150, "2 minutes ago"),
            (3600, "About an hour ago"),
            (2 * 3600, "2 hours ago"),
            (3 * day, "3 days ago"),
            (20 * day, "2 weeks ago"),
            (90 * day, "3 months ago"),
            (800 * day, "2 years ago"),
        ];
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for (seconds, words) in table {
            let time = Timestamp::from_second(now.as_second() - seconds).unwrap();
            assert_eq!(ago(time, now), words);
        }
        assert_eq!(ago(Timestamp::UNIX_EPOCH, now), "N/A");
        assert!(parse_time("2024-05-01T10:00:00.123456789+02:00").is_some() && parse_time("soon").is_none());
    }
}
