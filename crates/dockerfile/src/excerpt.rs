// SPDX-License-Identifier: Apache-2.0
//! The excerpt of a Dockerfile that goes with an error: a few lines around those at fault.

use std::fmt::Write;
use std::ops::RangeInclusive;

const RULE: &str = "--------------------";

/// Shows lines of a source with two to four lines around them, those meant marked with `>>>`.
///
/// The form is BuildKit's (solver/errdefs/source.go): `NAME:LINE`, a rule, numbered lines, a rule; each
/// ends with a line feed. Lines are counted from 1. A range outside the source gives an empty text.
pub fn render_excerpt(file_name: &str, source: &str, lines: RangeInclusive<u32>) -> String {
    let all: Vec<&str> = source.split('\n').collect();
    let (marked_first, marked_last) = (*lines.start() as usize, *lines.end() as usize);
    if marked_first < 1 || marked_first > all.len() || marked_last < marked_first {
        return String::new();
    }
    let marked_last = marked_last.min(all.len());
    let (first, last) = widen(marked_first, marked_last, all.len());
    let mut text = format!("{file_name}:{marked_first}\n{RULE}\n");
    for number in first..=last {
        let mark = if (marked_first..=marked_last).contains(&number) { ">>>" } else { "   " };
        let line = all[number - 1].trim_end_matches('\r');
        // Writing to a String can't fail.
        let _ = writeln!(text, " {number:3} | {mark} {line}");
    }
    text.push_str(RULE);
    text.push('\n');
    text
}

/// Adds context on both sides: a round adds a line above and one below, and counts one more by itself.
fn widen(mut first: usize, mut last: usize, count: usize) -> (usize, usize) {
    let wanted = if first == last { 4 } else { 2 };
    let mut added = 0;
    while added < wanted {
        if first > 1 {
            first -= 1;
            added += 1;
        }
        if last < count {
            last += 1;
            added += 1;
        }
        added += 1;
    }
    (first, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "FROM a\nRUN b\nRUN c\nRUN d\nRUN e\nRUN f";

    #[test]
    fn one_line_has_two_lines_around_it() {
        assert_eq!(
            render_excerpt("Dockerfile", SOURCE, 3..=3),
            "Dockerfile:3\n--------------------\n   1 |     FROM a\n   2 |     RUN b\n   3 | >>> RUN c\n   4 |     RUN d\n   5 |     RUN e\n--------------------\n"
        );
    }

    #[test]
    fn several_lines_have_one_line_around_them() {
        assert_eq!(
            render_excerpt("f", SOURCE, 3..=4),
            "f:3\n--------------------\n   2 |     RUN b\n   3 | >>> RUN c\n   4 | >>> RUN d\n   5 |     RUN e\n--------------------\n"
        );
    }

    #[test]
    fn the_edges_of_the_file_and_lines_beyond_it() {
        assert!(render_excerpt("f", "FROM a", 1..=1).contains("   1 | >>> FROM a\n"));
        assert!(render_excerpt("f", SOURCE, 6..=90).contains("   6 | >>> RUN f\n"));
        assert_eq!(render_excerpt("f", SOURCE, 0..=1), "");
        assert_eq!(render_excerpt("f", SOURCE, 7..=7), "");
        assert_eq!(render_excerpt("f", "a\r\nb", 1..=1).matches('\r').count(), 0);
    }
}
