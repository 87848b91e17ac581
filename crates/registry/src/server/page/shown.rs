// SPDX-License-Identifier: Apache-2.0
//! How values are written on the page: sizes, digests, times, and texts that came from outside.
//!
//! The templates escape what is HTML; here goes what could deceive a reader's eye.

use std::collections::BTreeMap;

use polyarch_oci::Platform;

/// The longest text from outside, in characters.
const MAX_TEXT: usize = 2000;
/// The most annotations, labels or variables of one list.
const MAX_PAIRS: usize = 60;

/// A name with its value, and the address that the value is, if it is one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) link: Option<String>,
}

/// A list that may have been cut.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Pairs {
    pub(super) list: Vec<Pair>,
    /// How many are left out.
    pub(super) omitted: usize,
}

impl Pairs {
    /// Makes a list of annotations or labels.
    pub(super) fn of(map: Option<&BTreeMap<String, String>>) -> Pairs {
        let all = map.map_or(0, BTreeMap::len);
        let list: Vec<Pair> = map
            .into_iter()
            .flatten()
            .take(MAX_PAIRS)
            .map(|(name, value)| Pair {
                name: visible(name),
                value: visible(value),
                link: web_address(value),
            })
            .collect();
        Pairs { omitted: all - list.len(), list }
    }
}

/// Makes a text from outside fit to be seen: neither control characters nor those that turn the direction of writing,
/// and not too long. Line breaks stay.
pub(super) fn visible(text: &str) -> String {
    let is_deceiving = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}')
    };
    let mut characters = text.chars();
    let mut shown: String =
        characters.by_ref().take(MAX_TEXT).map(|c| if is_deceiving(c) { '\u{fffd}' } else { c }).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Returns a text that is a web address, as the address of a link.
fn web_address(text: &str) -> Option<String> {
    let is_plain = text.len() <= MAX_TEXT && text.chars().all(|c| c.is_ascii_graphic());
    let address = url::Url::parse(text).ok().filter(|_| is_plain)?;
    let is_web = matches!(address.scheme(), "http" | "https") && address.has_host();
    let is_honest = address.username().is_empty() && address.password().is_none();
    (is_web && is_honest).then(|| address.into())
}

/// Writes a number of bytes as people read it, in powers of ten as the command line does.
pub(super) fn size(bytes: u64) -> String {
    let (mut unit, mut divisor) = ("kB", 1000_u64);
    if bytes < divisor {
        return format!("{bytes} B");
    }
    for larger in ["MB", "GB", "TB", "PB", "EB"] {
        // The next unit begins where this one would write 1000.
        if bytes < divisor.saturating_mul(999_950) / 1000 {
            break;
        }
        (unit, divisor) = (larger, divisor * 1000);
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(divisor) / 2) / u128::from(divisor);
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// Writes a time of RFC 3339 to the minute; `None` for what is no time, or the epoch that reproducible builds write.
pub(super) fn time(text: Option<&str>) -> Option<String> {
    let time: jiff::Timestamp = text?.parse().ok()?;
    (time.as_second() > 0).then(|| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// Writes what a list of arguments is, as JSON, as a Dockerfile's exec form has it.
pub(super) fn arguments(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().take(200).map(|word| format!("{:?}", visible(word))).collect();
    visible(&format!("[{}]", quoted.join(", ")))
}

/// Writes a platform for a shell; `None` for one that has other characters than platforms have.
pub(super) fn platform_argument(platform: &Platform) -> Option<String> {
    let name = platform.to_string();
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-');
    if platform.os.is_empty() || platform.architecture.is_empty() || name.starts_with('-') || name.len() > 200
    {
        return None;
    }
    if name.chars().all(is_word) {
        return Some(name);
    }
    // Versions of Windows stand in parentheses, which a shell must not see.
    name.chars().all(|c| is_word(c) || matches!(c, '(' | ')' | '+')).then(|| format!("'{name}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_digit_after_the_point() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (3_623_807, "3.6 MB"),
            (5_000_000_000, "5.0 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn only_plain_web_addresses_become_links() {
        assert_eq!(web_address("https://a.example/b?c=d"), Some("https://a.example/b?c=d".to_owned()));
        for text in [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "data:text/html,x",
            "//a.example",
            "https://user:word@a.example",
            "https://bank.example@evil.example",
            "https:// a",
            "http:",
            "a",
        ] {
            assert_eq!(web_address(text), None, "{text}");
        }
    }

    #[test]
    fn what_turns_the_writing_round_is_not_shown() {
        assert_eq!(visible("a\u{202e}b\u{1b}[1m\nc"), "a\u{fffd}b\u{fffd}[1m\nc");
        assert_eq!(visible(&"x".repeat(3000)).chars().count(), 2001);
    }

    #[test]
    fn a_platform_is_one_word_of_a_shell() {
        let platform = |os: &str, architecture: &str| Platform::new(os, architecture, "");
        assert_eq!(platform_argument(&platform("linux", "arm64")).as_deref(), Some("linux/arm64"));
        assert_eq!(platform_argument(&platform("linux", "a; rm -rf ~")), None);
        assert_eq!(platform_argument(&platform("linux", "$(id)")), None);
        assert_eq!(platform_argument(&platform("linux", "")), None);
        let mut windows = platform("windows", "amd64");
        windows.os_version = "10.0.1".to_owned();
        assert_eq!(platform_argument(&windows).as_deref(), Some("'windows(10.0.1)/amd64'"));
    }

    #[test]
    fn the_epoch_is_no_time() {
        assert_eq!(time(Some("2026-11-22T10:11:12Z")).as_deref(), Some("2026-11-22 10:11 UTC"));
        assert_eq!((time(Some("1970-01-01T00:00:00Z")), time(Some("x")), time(None)), (None, None, None));
    }
}
