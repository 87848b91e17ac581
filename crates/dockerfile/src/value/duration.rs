// SPDX-License-Identifier: Apache-2.0
//! Durations in the form of Go's `time.ParseDuration`.

use super::ValueError;

/// Reads a duration in nanoseconds: numbers with units (`h`, `m`, `s`, `ms`, `us`, `ns`), fractions and a sign
/// allowed, such as `1m30s` or `1.5h`.
///
/// # Errors
/// Not such a text, or more than 63 bits hold.
pub fn parse(text: &str) -> Result<i64, ValueError> {
    nanoseconds(text).ok_or_else(|| ValueError::Duration { text: text.to_owned() })
}

fn nanoseconds(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|character: char| character == '.' || character.is_ascii_digit());
        let (unit, after) = after.split_at(end.unwrap_or(after.len()));
        let unit = unit_nanoseconds(unit)?;
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        total = total.checked_add(fraction_of(fraction, unit))?;
        rest = after;
    }
    Some(sign * total)
}

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

fn unit_nanoseconds(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Returns a decimal fraction of a unit; digits beyond the fifteenth are less than a nanosecond.
fn fraction_of(fraction: &str, unit: i64) -> i64 {
    let (mut number, mut scale) = (0i128, 1i128);
    for digit in fraction.bytes().take(15) {
        number = number * 10 + i128::from(digit - b'0');
        scale *= 10;
    }
    // Less than the unit, so it fits.
    i64::try_from(number * i128::from(unit) / scale).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("30s", 30_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("1h1m1s1ms1us1ns", 3_661_001_001_001),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("-1s", -1_000_000_000),
            ("+1s", 1_000_000_000),
            ("1\u{b5}s", 1_000),
            ("0.1ns", 0),
            ("0.3333333333333333333s", 333_333_333),
        ] {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
        }
        for text in ["", "3", "s", "-", ".", ".s", "1x", "1 s", "1s ", "9999999h", "1m2", "1\u{e9}"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
