// SPDX-License-Identifier: Apache-2.0
//! Texts.

use std::collections::BTreeMap;

use regex::{Captures, Regex, RegexBuilder};

use super::super::bounds::{self, MAX_VALUE_BYTES, Tally};
use super::super::paths::clean;
use super::super::value::{Type, Value};
use super::{Function, Kind, Parameter, function, integer, parameter, text, texts_of, variadic};

const STR: Parameter = parameter("str", Kind::Text);

fn done(text: impl Into<String>) -> Result<Value, String> {
    Ok(Value::string(text))
}

pub const FUNCTIONS: &[Function] = &[
    function("upper", &[STR], |args, _| done(text(args, 0).to_uppercase())),
    function("lower", &[STR], |args, _| done(text(args, 0).to_lowercase())),
    function("title", &[STR], |args, _| {
        let mut titled = String::new();
        let mut starts = true;
        for c in text(args, 0).chars() {
            if starts {
                titled.extend(c.to_uppercase());
            } else {
                titled.push(c);
            }
            starts = !(c.is_alphanumeric() || c == '_');
        }
        done(titled)
    }),
    function("reverse", &[STR], |args, _| done(text(args, 0).chars().rev().collect::<String>())),
    function("strlen", &[STR], |args, _| Ok(Value::number(text(args, 0).chars().count()))),
    function(
        "substr",
        &[STR, parameter("offset", Kind::Number), parameter("length", Kind::Number)],
        |args, _| {
            let letters: Vec<char> = text(args, 0).chars().collect();
            let length = i64::try_from(letters.len()).map_err(|_| "the text is too long".to_owned())?;
            let offset = integer(args, 1)?;
            let offset = if offset < 0 { (offset + length).max(0) } else { offset.min(length) };
            let count = integer(args, 2)?;
            let end = if count < 0 { length } else { offset.saturating_add(count).min(length) };
            let (start, end) = (usize::try_from(offset).unwrap_or(0), usize::try_from(end).unwrap_or(0));
            done(letters[start..end].iter().collect::<String>())
        },
    ),
    variadic("join", &[parameter("separator", Kind::Text)], parameter("lists", Kind::Texts), |args, _| {
        if args.len() < 2 {
            return Err("at least one list is required".to_owned());
        }
        let texts: Vec<&str> = (1..args.len()).flat_map(|at| texts_of(args, at)).collect();
        let mut tally = Tally::default();
        texts.iter().try_for_each(|part| tally.add_bytes(part.len() + text(args, 0).len()))?;
        done(texts.join(text(args, 0)))
    }),
    function("split", &[parameter("separator", Kind::Text), STR], |args, _| {
        let (separator, whole) = (text(args, 0), text(args, 1));
        if separator.is_empty() {
            return list(whole.chars().map(|c| Ok(Value::string(c))));
        }
        list(whole.split(separator).map(|part| Ok(Value::string(part))))
    }),
    function("chomp", &[STR], |args, _| done(text(args, 0).trim_end_matches(['\r', '\n']))),
    function("indent", &[parameter("spaces", Kind::Number), STR], |args, _| {
        let spaces = usize::try_from(integer(args, 0)?).ok().filter(|spaces| *spaces <= 1024);
        let spaces = spaces.ok_or_else(|| "the number of spaces must be between 0 and 1024".to_owned())?;
        let lines = text(args, 1).matches('\n').count();
        check_length(text(args, 1).len().saturating_add(lines.saturating_mul(spaces)))?;
        done(text(args, 1).replace('\n', &format!("\n{}", " ".repeat(spaces))))
    }),
    function("trim", &[STR, parameter("cutset", Kind::Text)], |args, _| {
        let cut: Vec<char> = text(args, 1).chars().collect();
        done(text(args, 0).trim_matches(cut.as_slice()))
    }),
    function("trimprefix", &[STR, parameter("prefix", Kind::Text)], |args, _| {
        let whole = text(args, 0);
        done(whole.strip_prefix(text(args, 1)).unwrap_or(whole))
    }),
    function("trimsuffix", &[STR, parameter("suffix", Kind::Text)], |args, _| {
        let whole = text(args, 0);
        done(whole.strip_suffix(text(args, 1)).unwrap_or(whole))
    }),
    function("trimspace", &[STR], |args, _| done(text(args, 0).trim())),
    function(
        "replace",
        &[STR, parameter("substr", Kind::Text), parameter("replace", Kind::Text)],
        |args, _| {
            let (whole, part, new) = (text(args, 0), text(args, 1), text(args, 2));
            let count = whole.matches(part).count();
            check_length(whole.len().saturating_add(count.saturating_mul(new.len())))?;
            done(whole.replace(part, new))
        },
    ),
    function("regex", &[parameter("pattern", Kind::Text), parameter("string", Kind::Text)], |args, _| {
        let pattern = pattern(text(args, 0))?;
        let found = pattern.captures(text(args, 1));
        let found = found.ok_or_else(|| "pattern did not match any part of the given string".to_owned())?;
        captured(&pattern, &found)
    }),
    function("regexall", &[parameter("pattern", Kind::Text), parameter("string", Kind::Text)], |args, _| {
        let pattern = pattern(text(args, 0))?;
        let all = pattern.captures_iter(text(args, 1)).map(|found| captured(&pattern, &found));
        let all = bounds::collect(all)?;
        let element = all.first().map_or(Type::Dynamic, Value::ty);
        Ok(Value::List(element, all))
    }),
    function(
        "regex_replace",
        &[STR, parameter("pattern", Kind::Text), parameter("replace", Kind::Text)],
        |args, _| {
            let pattern = pattern(text(args, 1))?;
            let whole = text(args, 0);
            let count = pattern.find_iter(whole).count();
            // Each group that the replacement names brings at most its match, and all matches the whole.
            let (new, groups) = (text(args, 2).len(), text(args, 2).matches('$').count());
            check_length(count.saturating_mul(new).saturating_add((groups + 1).saturating_mul(whole.len())))?;
            done(pattern.replace_all(whole, text(args, 2)).into_owned())
        },
    ),
    function("sanitize", &[parameter("name", Kind::Text)], |args, _| {
        let letter = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
        done(text(args, 0).chars().map(letter).collect::<String>())
    }),
    function("basename", &[parameter("path", Kind::Text)], |args, _| {
        let path = text(args, 0);
        let trimmed = path.trim_end_matches('/');
        done(match (path, trimmed) {
            ("", _) => ".",
            (_, "") => "/",
            (_, trimmed) => trimmed.rsplit('/').next().unwrap_or(trimmed),
        })
    }),
    function("dirname", &[parameter("path", Kind::Text)], |args, _| {
        let path = text(args, 0);
        done(clean(path.rfind('/').map_or("", |at| &path[..=at])))
    }),
    function("homedir", &[], |_, world| done(world.home.as_str())),
];

fn list(parts: impl Iterator<Item = Result<Value, String>>) -> Result<Value, String> {
    bounds::collect(parts).map(|parts| Value::List(Type::String, parts))
}

fn check_length(length: usize) -> Result<(), String> {
    if length > MAX_VALUE_BYTES { Err(bounds::too_large()) } else { Ok(()) }
}

fn pattern(text: &str) -> Result<Regex, String> {
    let pattern = RegexBuilder::new(text).size_limit(1 << 20).dfa_size_limit(1 << 20).build();
    pattern.map_err(|error| format!("invalid regexp pattern: {error}"))
}

/// What a match gives: its text, the texts of its groups, or an object of its named groups.
fn captured(pattern: &Regex, found: &Captures<'_>) -> Result<Value, String> {
    let mut tally = Tally::default();
    found.iter().flatten().try_for_each(|group| tally.add_bytes(group.len()))?;
    let group = |at: usize| match found.get(at) {
        Some(text) => Value::string(text.as_str()),
        None => Value::Null(Type::String),
    };
    let names: Vec<Option<&str>> = pattern.capture_names().skip(1).collect();
    if names.is_empty() {
        return Ok(group(0));
    }
    if names.iter().all(Option::is_none) {
        return Ok(Value::Tuple((1..=names.len()).map(group).collect()));
    }
    let named = |(at, name): (usize, &Option<&str>)| name.map(|name| (name.to_owned(), group(at + 1)));
    let object: Option<BTreeMap<String, Value>> = names.iter().enumerate().map(named).collect();
    object.map(Value::Object).ok_or_else(|| "cannot mix both named and unnamed capture groups".to_owned())
}
