// SPDX-License-Identifier: Apache-2.0
//! `--filter` of `polyarch images`, with docker's keys.

use jiff::Timestamp;
use polyarch_build::BuildError;
use polyarch_images::lookup;
use polyarch_oci::platform::did_you_mean;
use polyarch_oci::{Platform, PlatformMatcher, Reference};
use polyarch_store::Store;

use super::rows::Row;
use crate::CommandError;
use crate::image_list::{list_images, main_config};

/// Which images are listed: all that meet every kind of condition.
#[derive(Debug, Default)]
pub(super) struct Filters {
    /// Patterns of which one must match the name.
    references: Vec<String>,
    /// Platforms of which one must be here.
    platforms: Vec<Platform>,
    /// Labels that all must be there.
    labels: Vec<(String, Option<String>)>,
    /// Images that all must be younger.
    before: Vec<String>,
    /// Images that all must be older.
    since: Vec<String>,
    dangling: Option<bool>,
}

const KEYS: [&str; 6] = ["before", "dangling", "label", "platform", "reference", "since"];

impl Filters {
    /// Reads `KEY=VALUE` conditions and the pattern that stands alone.
    pub(super) fn parse(filters: &[String], reference: Option<&str>) -> Result<Filters, CommandError> {
        let mut result = Filters::default();
        result.references.extend(reference.map(str::to_owned));
        for filter in filters {
            let Some((key, value)) = filter.split_once('=') else {
                let message = format!("--filter {filter:?} has no value");
                return Err(CommandError::usage(message).with_hint("--filter reference='user/*'"));
            };
            let value = value.to_owned();
            match key {
                "reference" => result.references.push(value),
                "before" => result.before.push(value),
                "since" => result.since.push(value),
                "label" => result.labels.push(match value.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (value, None),
                }),
                "platform" => {
                    let platform = Platform::parse_known(&value);
                    let platform = platform
                        .map_err(|error| CommandError::usage(format!("--filter platform: {error}")))?;
                    result.platforms.push(platform);
                }
                "dangling" => {
                    result.dangling = Some(match value.as_str() {
                        "true" | "1" => true,
                        "false" | "0" => false,
                        _ => {
                            let message = format!("--filter dangling is true or false, not {value:?}");
                            return Err(CommandError::usage(message));
                        }
                    });
                }
                _ => {
                    let hint = did_you_mean(key, &KEYS);
                    let message = format!("there is no filter {key:?}{hint}; there are {}", KEYS.join(", "));
                    return Err(CommandError::usage(message));
                }
            }
        }
        Ok(result)
    }

    /// Keeps the images that meet the conditions.
    ///
    /// # Errors
    /// When an image that others are compared with isn't there.
    pub(super) fn apply(&self, store: &Store, rows: Vec<Row>) -> Result<Vec<Row>, BuildError> {
        let times = |names: &[String]| -> Result<Vec<Option<Timestamp>>, BuildError> {
            names.iter().map(|name| created(store, name)).collect()
        };
        let (before, since) = (times(&self.before)?, times(&self.since)?);
        let is_kept = |row: &Row| {
            let created = row.created();
            // What has no date is neither before nor after anything.
            let is_before =
                |other: &Option<Timestamp>| created.zip(*other).is_some_and(|(own, other)| own < other);
            let is_after =
                |other: &Option<Timestamp>| created.zip(*other).is_some_and(|(own, other)| own > other);
            // All images here have names.
            self.dangling != Some(true)
                && self.has_name(&row.image.name)
                && self.has_platform(row)
                && self.has_labels(row)
                && before.iter().all(is_before)
                && since.iter().all(is_after)
        };
        Ok(rows.into_iter().filter(is_kept).collect())
    }

    fn has_name(&self, name: &Reference) -> bool {
        self.references.is_empty() || self.references.iter().any(|pattern| is_match_of_name(pattern, name))
    }

    fn has_platform(&self, row: &Row) -> bool {
        let mut here = row.image.platforms.iter().filter(|platform| platform.is_complete);
        self.platforms.is_empty()
            || here.any(|platform| {
                let is_it =
                    |wanted: &Platform| PlatformMatcher::strict(wanted).rank(&platform.platform) == Some(0);
                self.platforms.iter().any(is_it)
            })
    }

    fn has_labels(&self, row: &Row) -> bool {
        let labels = row.config.as_ref().map(|config| &config.config.labels);
        self.labels.iter().all(|(name, value)| {
            let found = labels.and_then(|labels| labels.get(name));
            found.is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
        })
    }
}

fn created(store: &Store, name: &str) -> Result<Option<Timestamp>, BuildError> {
    let found = lookup::find(store, name)?;
    let images = list_images(store)?;
    let image = images.into_iter().find(|image| image.descriptor.digest == found.root.digest);
    Ok(image.and_then(|image| Row { config: main_config(store, &image), image }.created()))
}

/// Tells whether a name matches a pattern: its short or its full form, with or without the tag.
fn is_match_of_name(pattern: &str, name: &Reference) -> bool {
    let bare = |text: String| {
        let end = name.tag().map_or(0, |tag| tag.len() + 1);
        let digest = name.digest().map_or(0, |digest| digest.to_string().len() + 1);
        text[..text.len().saturating_sub(end + digest)].to_owned()
    };
    let forms = [name.familiar(), name.to_string(), bare(name.familiar()), bare(name.to_string())];
    let pattern: Vec<char> = pattern.chars().collect();
    forms.iter().any(|form| matches(&pattern, &form.chars().collect::<Vec<char>>()))
}

/// Tells whether a text matches a pattern of `*` (no slash), `?` and `[a-z]`.
fn matches(pattern: &[char], text: &[char]) -> bool {
    // Where the last star stands, and what it has taken so far.
    let (mut at, mut in_text) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&'*') {
            star = Some((at, in_text));
            at += 1;
            continue;
        }
        if in_text == text.len() && at == pattern.len() {
            return true;
        }
        if let Some((next, true)) = text.get(in_text).and_then(|c| one(&pattern[at.min(pattern.len())..], *c))
        {
            at += next;
            in_text += 1;
            continue;
        }
        // The star takes one more, but never a slash.
        match star {
            Some((place, taken)) if text.get(taken).is_some_and(|c| *c != '/') => {
                star = Some((place, taken + 1));
                (at, in_text) = (place + 1, taken + 1);
            }
            _ => return false,
        }
    }
}

/// Matches one character; returns how much of the pattern that took.
fn one(pattern: &[char], c: char) -> Option<(usize, bool)> {
    match pattern.first()? {
        '?' => Some((1, c != '/')),
        '[' => {
            let end = pattern.iter().skip(2).position(|it| *it == ']')? + 2;
            let set = &pattern[1..end];
            let (is_negated, set) = match set.first() {
                Some('^' | '!') => (true, &set[1..]),
                _ => (false, set),
            };
            let mut is_in = false;
            let mut at = 0;
            while at < set.len() {
                if set.get(at + 1) == Some(&'-') && at + 2 < set.len() {
                    is_in |= (set[at]..=set[at + 2]).contains(&c);
                    at += 3;
                } else {
                    is_in |= set[at] == c;
                    at += 1;
                }
            }
            Some((end + 1, is_in != is_negated && c != '/'))
        }
        '\\' => Some((2, pattern.get(1) == Some(&c))),
        other => Some((1, *other == c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_as_in_docker() {
        let table = [
            ("user/app", "user/app:v1", true),
            ("user/app:v1", "user/app:v1", true),
            ("user/app:v2", "user/app:v1", false),
            ("user/*", "user/app:v1", true),
            ("*", "user/app:v1", false),
            ("*", "alpine:3", true),
            ("alp*:3*", "alpine:3.20", true),
            ("*/*:v[0-9]", "user/app:v1", true),
            ("*/*:v[^0-9]", "user/app:v1", false),
            ("docker.io/user/a??", "user/app:v1", true),
            ("*a*b*c", "xaybzc:latest", true),
            ("app", "user/app:v1", false),
            ("localhost:5000/*", "localhost:5000/x:y", true),
        ];
        for (pattern, name, expected) in table {
            assert_eq!(is_match_of_name(pattern, &name.parse().unwrap()), expected, "{pattern} {name}");
        }
        // A pattern of many stars comes to an end.
        let stars: Vec<char> = "*a".repeat(40).chars().collect();
        assert!(!matches(&stars, &['a'; 30]));
        assert!(!matches(&['['], &['x']) && !matches(&['\\'], &['x']));
    }

    #[test]
    fn unknown_filters_are_told_with_those_that_there_are() {
        let error = |filter: &str| Filters::parse(&[filter.to_owned()], None).unwrap_err().error.message;
        assert!(error("lable=x").contains("did you mean label?"));
        assert!(error("label").contains("has no value"));
        assert!(error("dangling=maybe").contains("true or false"));
        assert!(error("platform=linux/amd46").contains("platform"));
    }
}
