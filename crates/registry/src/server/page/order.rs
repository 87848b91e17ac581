// SPDX-License-Identifier: Apache-2.0
//! The order of tags: `latest`, then versions, the newest first, then names.

use std::cmp::Ordering;

use crate::server::names::Tag;

/// The most tags that are put in order.
pub(super) const MAX_SORTED: usize = 20_000;

/// Puts tags in order.
pub(super) fn newest_first<T>(tags: &mut [(&Tag, T)]) {
    tags.sort_by(|(a, _), (b, _)| {
        let (a, b) = (a.as_str(), b.as_str());
        rank(a).cmp(&rank(b)).then_with(|| compare(b, a))
    });
}

/// Tells `latest` from versions, and those from names.
fn rank(tag: &str) -> u8 {
    let number = tag.strip_prefix('v').unwrap_or(tag);
    match tag {
        "latest" => 0,
        _ if is_number(number) => 1,
        _ => 2,
    }
}

/// Compares texts with numbers in them by the numbers' values.
fn compare(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() && !b.is_empty() {
        let (run_a, rest_a) = run(a);
        let (run_b, rest_b) = run(b);
        let order = if is_number(run_a) && is_number(run_b) {
            let (value_a, value_b) = (run_a.trim_start_matches('0'), run_b.trim_start_matches('0'));
            value_a.len().cmp(&value_b.len()).then_with(|| value_a.cmp(value_b))
        } else {
            run_a.cmp(run_b)
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    a.len().cmp(&b.len())
}

/// Takes the digits, or what is before the next digit, off the beginning.
fn run(text: &str) -> (&str, &str) {
    let is_digits = is_number(text);
    let end = text.find(|c: char| c.is_ascii_digit() != is_digits).unwrap_or(text.len());
    text.split_at(end)
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        let names = ["3.9", "latest", "3.10", "edge", "3.10.1", "v2", "3.010", "v10"];
        let tags: Vec<Tag> = names.iter().map(|name| Tag::new(name).unwrap()).collect();
        let mut pairs: Vec<(&Tag, ())> = tags.iter().map(|tag| (tag, ())).collect();
        newest_first(&mut pairs);
        let names: Vec<&str> = pairs.iter().map(|(tag, ())| tag.as_str()).collect();
        assert_eq!(names, ["latest", "v10", "v2", "3.10.1", "3.10", "3.010", "3.9", "edge"]);
    }
}
