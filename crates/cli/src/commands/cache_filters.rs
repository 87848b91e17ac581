// SPDX-License-Identifier: Apache-2.0
//! `--filter` of `prune` and `buildx du`.

use std::time::{Duration, SystemTime};

use polyarch_build::cache_filter::CacheFilter;
use polyarch_build::inventory::CacheKind;

use super::flag_values::unknown;

/// The keys of filters.
const KEYS: [&str; 10] = [
    "until",
    "unused-for",
    "type",
    "id",
    "description",
    "shared",
    "private",
    "inuse",
    "mutable",
    "immutable",
];
/// Types of BuildKit that a store here never holds.
const ABSENT_TYPES: [&str; 4] = ["internal", "frontend", "source.local", "source.git.checkout"];

/// Reads filters.
///
/// # Errors
/// What is wrong with one.
pub(super) fn read_filters(filters: &[String]) -> Result<CacheFilter, String> {
    let mut read = CacheFilter::default();
    for filter in filters {
        let wrong = |problem: String| format!("--filter {filter:?}: {problem}");
        read_filter(filter, &mut read).map_err(wrong)?;
    }
    Ok(read)
}

fn read_filter(filter: &str, read: &mut CacheFilter) -> Result<(), String> {
    let (key, value) = match filter.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (filter, None),
    };
    let needed = || value.ok_or_else(|| format!("write KEY=VALUE ({})", KEYS.join(", ")));
    let truth = || match value {
        None | Some("" | "true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(value) => Err(format!("{value:?} is neither true nor false")),
    };
    match key {
        "until" | "unused-for" => {
            let age = read_age(needed()?)?;
            if read.unused_for.replace(age).is_some() {
                return Err("one time is enough".to_owned());
            }
        }
        "type" => read.kinds.get_or_insert_default().extend(read_kind(needed()?)?),
        "type!" => read.excluded_kinds.extend(read_kind(needed()?)?),
        "id" | "id~" => read.ids.push(needed()?.to_owned()),
        "description" | "description~" => read.descriptions.push(needed()?.to_owned()),
        "shared" => read.is_shared = Some(truth()?),
        "private" => read.is_shared = Some(!truth()?),
        "inuse" => read.is_in_use = Some(truth()?),
        "mutable" => read.is_mutable = Some(truth()?),
        "immutable" => read.is_mutable = Some(!truth()?),
        "label" | "label!" => {
            return Err(
                "pieces of the build cache have no labels; images that have some are removed by name: \
                 polyarch rmi NAME"
                    .to_owned(),
            );
        }
        _ => return Err(unknown("filter", key, &KEYS)),
    }
    Ok(())
}

/// Reads the name of a kind; `None` for one that is never here.
fn read_kind(name: &str) -> Result<Option<CacheKind>, String> {
    if ABSENT_TYPES.contains(&name) {
        return Ok(None);
    }
    let names = CacheKind::ALL.map(CacheKind::as_str);
    let kind = CacheKind::ALL.into_iter().find(|kind| kind.as_str() == name);
    kind.map(Some).ok_or_else(|| unknown("type", name, &names))
}

/// Reads `24h` or a point in time.
/// Reads how long ago something was last used: a duration, or a time.
pub(super) fn read_age(text: &str) -> Result<Duration, String> {
    if let Ok(nanoseconds) = polyarch_dockerfile::value::duration::parse(text) {
        let nanoseconds = u64::try_from(nanoseconds).map_err(|_| "the time is negative".to_owned())?;
        return Ok(Duration::from_nanos(nanoseconds));
    }
    let then: jiff::Timestamp = text
        .parse()
        .map_err(|_| "write a duration such as 24h, or a time such as 2026-01-31T12:00:00Z".to_owned())?;
    Ok(SystemTime::now().duration_since(then.into()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(filters: &[&str]) -> Result<CacheFilter, String> {
        let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
        read_filters(&filters)
    }

    #[test]
    fn filters_are_read() {
        let filter = read(&["until=24h", "type=regular", "type=blob", "id=abc", "private"]).unwrap();
        let expected = CacheFilter {
            unused_for: Some(Duration::from_secs(24 * 3600)),
            kinds: Some(vec![CacheKind::Step, CacheKind::Blob]),
            ids: vec!["abc".to_owned()],
            is_shared: Some(false),
            ..CacheFilter::default()
        };
        assert_eq!(filter, expected);
        assert!(read(&["until=2020-01-01T00:00:00Z"]).unwrap().unused_for > Some(Duration::from_secs(1)));
        assert_eq!(read(&["type=source.local"]).unwrap().kinds, Some(Vec::new()), "there is none here");
        let filter = read(&["type!=record", "description~=apt", "inuse=false", "immutable=true"]).unwrap();
        assert_eq!(filter.excluded_kinds, [CacheKind::Record]);
        assert_eq!((filter.is_in_use, filter.is_mutable), (Some(false), Some(false)));
    }

    #[test]
    fn mistakes_are_named() {
        for (filter, text) in [
            ("until=soon", "24h"),
            ("until=-1h", "negative"),
            ("type=regulr", "regular"),
            ("age=1h", "until"),
            ("label=a=b", "polyarch rmi"),
            ("until", "KEY=VALUE"),
            ("shared=perhaps", "neither true nor false"),
        ] {
            let error = read(&[filter]).unwrap_err();
            assert!(error.contains(text) && error.contains(filter), "{error}");
        }
        assert!(read(&["until=1h", "unused-for=2h"]).unwrap_err().contains("one time"));
    }
}
