// SPDX-License-Identifier: Apache-2.0
//! Sizes and durations as BuildKit writes them.

use std::time::{Duration, SystemTime};

/// Writes a number of bytes with a decimal unit: `378B`, `1.23kB`, `12.35MB`.
pub fn size(bytes: u64) -> String {
    with_unit(bytes, 1000, &["kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Writes a number of bytes with a binary unit, without decimals where there are none: `2MiB`.
pub fn binary_size(bytes: u64) -> String {
    let text = with_unit(bytes, 1024, &["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]);
    text.replacen(".00", "", 1)
}

/// Writes a number of bytes in four digits at most, as docker's and buildx's listings do: `8.192kB`, `318MB`.
pub fn short_size(bytes: u64) -> String {
    let (scale, unit) = scale(bytes, 1000, &["kB", "MB", "GB", "TB", "PB", "EB"]);
    let value = bytes as f64 / scale as f64;
    let decimals = match bytes / scale {
        0..10 => 3,
        10..100 => 2,
        _ => 1,
    };
    let text = format!("{value:.decimals$}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

fn with_unit(bytes: u64, step: u64, units: &[&str]) -> String {
    let (scale, unit) = scale(bytes, step, units);
    if scale == 1 {
        return format!("{bytes}B");
    }
    // Lost precision is far below the two decimals shown.
    format!("{:.2}{unit}", bytes as f64 / scale as f64)
}

fn scale<'a>(bytes: u64, step: u64, units: &[&'a str]) -> (u64, &'a str) {
    let (mut unit, mut scale) = ("B", 1);
    for name in units {
        if bytes / scale < step {
            break;
        }
        (unit, scale) = (*name, scale * step);
    }
    (scale, unit)
}

/// Returns ` CURRENT / TOTAL`, ` CURRENT`, or nothing.
pub fn amount(current: u64, total: u64) -> String {
    match (current, total) {
        (0, 0) => String::new(),
        (current, 0) => format!(" {}", size(current)),
        (current, total) => format!(" {} / {}", size(current), size(total)),
    }
}

/// Returns the time from one moment to another; nothing when clocks went backwards.
pub fn between(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

/// Writes the time of a log line since its step began: three decimals below ten seconds, then fewer.
pub fn log_time(since_start: Duration) -> String {
    let seconds = since_start.as_secs_f64();
    let decimals = match seconds {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_listings_have_four_digits_at_most() {
        let table = [
            (0, "0B"),
            (378, "378B"),
            (8192, "8.192kB"),
            (12_288, "12.29kB"),
            (318_000_000, "318MB"),
            (811_700_000, "811.7MB"),
            (1_000_000, "1MB"),
            (10_360_000_000, "10.36GB"),
            (u64::MAX, "18.45EB"),
        ];
        for (bytes, text) in table {
            assert_eq!(short_size(bytes), text);
        }
    }

    #[test]
    fn sizes_have_the_unit_that_keeps_them_short() {
        let table = [
            (0, "0B"),
            (378, "378B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (12_345_678, "12.35MB"),
            (3_000_000_000, "3.00GB"),
            (u64::MAX, "18.45EB"),
        ];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(binary_size(2 << 20), "2MiB");
        assert_eq!(binary_size(200 << 10), "200KiB");
        assert_eq!(binary_size(1536), "1.50KiB");
        assert_eq!(amount(5, 0), " 5B");
        assert_eq!(amount(0, 7), " 0B / 7B");
        assert_eq!(amount(0, 0), "");
    }

    #[test]
    fn log_times_lose_decimals_as_they_grow() {
        assert_eq!(log_time(Duration::from_millis(512)), "0.512");
        assert_eq!(log_time(Duration::from_millis(12_345)), "12.35");
        assert_eq!(log_time(Duration::from_millis(123_456)), "123.5");
    }
}
