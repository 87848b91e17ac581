// SPDX-License-Identifier: Apache-2.0
//! Reads `/etc/subuid`, `/etc/subgid` and `/etc/passwd`.
//!
//! The C library's name service is not asked: a static binary must not load its modules. Users that only a
//! directory service knows are found by their number.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Files larger than this are not read further.
const FILE_LIMIT_BYTES: u64 = 4 << 20;

/// The kernel takes 340 lines in a map; one of them is the user's own identifier.
const RANGE_LIMIT: usize = 339;

/// A row of identifiers of the parent namespace that belong to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    start: u32,
    count: u32,
}

/// Returns the ranges of a user, named by login name or by number. A file that can't be read has none.
pub(super) fn read(file: &Path, name: Option<&str>, uid: u32) -> Vec<Range> {
    parse(&read_text(file), name, uid)
}

/// Returns the login name of a user.
pub(super) fn user_name(passwd: &Path, uid: u32) -> Option<String> {
    let text = read_text(passwd);
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == uid && !name.is_empty()).then(|| name.to_owned())
    })
}

/// Returns the arguments of `newuidmap` after the process: inside, outside, count, for the user and each range.
pub(super) fn triples(own: u32, ranges: &[Range]) -> Vec<String> {
    let mut words = vec!["0".to_owned(), own.to_string(), "1".to_owned()];
    let mut inside = 1u64;
    for range in ranges {
        words.extend([inside.to_string(), range.start.to_string(), range.count.to_string()]);
        inside += u64::from(range.count);
    }
    words
}

/// Returns how many identifiers there are with these ranges, the user's own included.
pub(super) fn count(ranges: &[Range]) -> u64 {
    1 + ranges.iter().map(|range| u64::from(range.count)).sum::<u64>()
}

/// Returns the first and last of as many identifiers as users usually get, which neither file gives to anybody:
/// who shares identifiers with another can reach that one's files.
pub(super) fn free_range(files: [&Path; 2]) -> (u32, u32) {
    const FIRST: u32 = 100_000;
    const COUNT: u32 = 65_536;
    let texts = files.map(read_text);
    let ends = texts.iter().flat_map(|text| text.lines()).filter_map(|line| {
        let mut numbers = line.trim().split(':').skip(1).map(str::parse::<u32>);
        numbers.next()?.ok()?.checked_add(numbers.next()?.ok()?)
    });
    let start = ends.max().unwrap_or(FIRST).max(FIRST);
    // Where the numbers come to an end, somebody has to look for a gap.
    start.checked_add(COUNT - 1).map_or((FIRST, FIRST + COUNT - 1), |last| (start, last))
}

fn read_text(file: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(file) {
        // What was read before an error still counts; a file of nonsense gives no ranges.
        let _ = file.take(FILE_LIMIT_BYTES).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn parse(text: &str, name: Option<&str>, uid: u32) -> Vec<Range> {
    let number = uid.to_string();
    let mut total = 1u64;
    let mut ranges = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let (Some(owner), Some(start), Some(count), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if Some(owner) != name && owner != number {
            continue;
        }
        let (Ok(start), Ok(count)) = (start.parse::<u32>(), count.parse::<u32>()) else { continue };
        total += u64::from(count);
        // Neither the outer nor the inner identifiers may pass the largest one (and -1 is none).
        let is_valid = count > 0 && start.checked_add(count).is_some() && total < u64::from(u32::MAX);
        if is_valid && ranges.len() < RANGE_LIMIT {
            ranges.push(Range { start, count });
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "bob:1:2\nann:100000:65536\n\n# no\n1000:300000:10\nann:x:1\nann:5:0\nann:4294967290:10\n";
        let ranges = parse(text, Some("ann"), 1000);
        assert_eq!(ranges, [Range { start: 100000, count: 65536 }, Range { start: 300000, count: 10 }]);
        assert_eq!(triples(7, &ranges), ["0", "7", "1", "1", "100000", "65536", "65537", "300000", "10"]);
        assert_eq!(count(&ranges), 65547);
        assert_eq!(parse(text, None, 1000).len(), 1);
        assert!(parse(text, Some(""), 7).is_empty());
    }

    #[test]
    fn a_range_that_is_proposed_belongs_to_nobody() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (users, groups) = (dir.path().join("subuid"), dir.path().join("subgid"));
        let propose = || free_range([&users, &groups]);
        assert_eq!(propose(), (100_000, 165_535));
        std::fs::write(&users, "ann:100000:65536\nbroken:x:y\nbob:50:10\n").expect("write");
        assert_eq!(propose(), (165_536, 231_071));
        std::fs::write(&groups, "ann:231072:65536\n").expect("write");
        assert_eq!(propose(), (296_608, 362_143));
        std::fs::write(&groups, "ann:4294900000:65536\n").expect("write");
        assert_eq!(propose(), (100_000, 165_535));
    }

    #[test]
    fn a_flood_of_ranges_is_cut_to_what_the_kernel_takes() {
        let text: String = (0..1000).map(|index| format!("ann:{}:10\n", 100000 + index * 10)).collect();
        assert_eq!(parse(&text, Some("ann"), 1).len(), RANGE_LIMIT);
    }

    #[test]
    fn a_user_has_the_name_of_its_number() {
        let dir = tempfile::tempdir().expect("tempdir");
        let passwd = dir.path().join("passwd");
        std::fs::write(&passwd, "root:x:0:0::/:/bin/sh\nbroken\n:x:5:5::/:\nann:x:1000:1000::/:/bin/sh\n")
            .expect("write");
        assert_eq!(user_name(&passwd, 1000).as_deref(), Some("ann"));
        assert_eq!(user_name(&passwd, 5), None);
        assert_eq!(user_name(&dir.path().join("absent"), 0), None);
    }
}
