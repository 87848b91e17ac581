// SPDX-License-Identifier: Apache-2.0
//! The functions of templates: Go's own, and docker's.

use std::borrow::Cow;
use std::cmp::Ordering;

use polyarch_oci::platform::did_you_mean;

use super::{Value, printf};

mod texts;

use texts::{escape_html, escape_js, escape_query, join, pad, split, title, truncate};

/// How the function `json` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonStyle {
    /// As docker: on one line, nothing escaped that need not be.
    Compact,
    /// As buildx: over several lines, with Go's escapes for HTML.
    Indented,
}

/// Which functions a template gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Functions {
    json: JsonStyle,
    /// For the header of a table, the functions that would change the titles do nothing.
    is_header: bool,
}

/// A value that may belong to what is rendered.
pub(super) type Shared<'v> = Cow<'v, Value>;

const NAMES: &[&str] = &[
    "and", "eq", "ge", "gt", "html", "index", "join", "js", "json", "le", "len", "lower", "lt", "ne", "not",
    "or", "pad", "print", "printf", "println", "slice", "split", "title", "truncate", "upper", "urlquery",
];

/// The widest that `pad` makes something.
const MAX_PADDING: i64 = 10_000;

impl Functions {
    /// The functions of docker's `--format`.
    pub fn docker() -> Functions {
        Functions { json: JsonStyle::Compact, is_header: false }
    }

    /// The same with the `json` of buildx.
    pub fn buildx() -> Functions {
        Functions { json: JsonStyle::Indented, is_header: false }
    }

    /// The same for the header of a table.
    pub(super) fn header(self) -> Functions {
        Functions { is_header: true, ..self }
    }

    pub(super) fn exists(name: &str) -> bool {
        NAMES.contains(&name)
    }

    pub(super) fn unknown(name: &str) -> String {
        let hint = did_you_mean(name, NAMES);
        format!("there is no function {name:?}{hint}; there are {}", NAMES.join(", "))
    }

    /// Calls a function; `and` and `or` are not among them, because they don't look at all of their arguments.
    pub(super) fn call<'v>(self, name: &str, arguments: Vec<Shared<'v>>) -> Result<Shared<'v>, String> {
        if self.is_header
            && matches!(name, "json" | "split" | "join" | "title" | "lower" | "upper" | "truncate")
        {
            return arguments.into_iter().next().ok_or_else(|| format!("{name} needs an argument"));
        }
        match name {
            "index" => return index(arguments),
            "printf" => return printf::printf(&arguments).map(owned),
            "print" => return Ok(owned(printf::print(&arguments))),
            "println" => return Ok(owned(printf::println(&arguments))),
            "eq" => return equals_any(&arguments).map(owned),
            "slice" => return slice(&arguments).map(Cow::Owned),
            "html" => return Ok(owned(escape_html(&printf::print(&arguments)))),
            "js" => return Ok(owned(escape_js(&printf::print(&arguments)))),
            "urlquery" => return Ok(owned(escape_query(&printf::print(&arguments)))),
            _ => {}
        }
        let result = match (name, &arguments[..]) {
            ("json", [value]) => self.json(value),
            ("len", [value]) => length(value)?.into(),
            ("not", [value]) => (!value.is_true()).into(),
            ("ne", [a, b]) => (!equals(a, b)?).into(),
            ("lt", [a, b]) => (order(a, b)? == Ordering::Less).into(),
            ("le", [a, b]) => (order(a, b)? != Ordering::Greater).into(),
            ("gt", [a, b]) => (order(a, b)? == Ordering::Greater).into(),
            ("ge", [a, b]) => (order(a, b)? != Ordering::Less).into(),
            ("lower", [value]) => text(value)?.to_lowercase().into(),
            ("upper", [value]) => text(value)?.to_uppercase().into(),
            ("title", [value]) => title(text(value)?).into(),
            ("split", [value, separator]) => split(text(value)?, text(separator)?),
            ("join", [list, separator]) => join(list, text(separator)?)?.into(),
            ("pad", [value, before, after]) => pad(text(value)?, whole(before)?, whole(after)?)?.into(),
            ("truncate", [value, length]) => truncate(text(value)?, whole(length)?)?.into(),
            _ => {
                let wanted = match name {
                    "json" | "len" | "not" | "lower" | "upper" | "title" => 1,
                    "pad" => 3,
                    _ => 2,
                };
                let s = if wanted == 1 { "" } else { "s" };
                return Err(format!("{name} takes {wanted} argument{s}, it got {}", arguments.len()));
            }
        };
        Ok(Cow::Owned(result))
    }

    fn json(self, value: &Value) -> Value {
        match self.json {
            // A value has text for keys, and writing to memory does not fail.
            JsonStyle::Compact => serde_json::to_string(value).unwrap_or_default().into(),
            JsonStyle::Indented => {
                let bytes = polyarch_oci::json::to_indented(value, "  ");
                String::from_utf8_lossy(&bytes).into_owned().into()
            }
        }
    }
}

fn owned<'v>(value: impl Into<Value>) -> Shared<'v> {
    Cow::Owned(value.into())
}

fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null => Ok(""),
        other => Err(format!("a text is needed here, this is {}", other.kind())),
    }
}

fn whole(value: &Value) -> Result<i64, String> {
    match value {
        Value::Number(number) if number.is_i64() => Ok(number.as_i64().unwrap_or_default()),
        other => Err(format!("a whole number is needed here, this is {}", other.print())),
    }
}

fn length(value: &Value) -> Result<u64, String> {
    Ok(match value {
        Value::String(text) => text.len(),
        Value::List(list) => list.len(),
        Value::Object(object) if !object.is_structure() => object.len(),
        other => return Err(format!("{} has no length", other.kind())),
    } as u64)
}

/// Goes into a value by keys and positions, one after the other.
fn index<'v>(arguments: Vec<Shared<'v>>) -> Result<Shared<'v>, String> {
    let mut arguments = arguments.into_iter();
    let mut value = arguments.next().ok_or("index needs a value to look into")?;
    for key in arguments {
        value = match value {
            Cow::Borrowed(value) => Cow::Borrowed(entry(value, &key)?.unwrap_or(zero(value))),
            Cow::Owned(value) => Cow::Owned(entry(&value, &key)?.unwrap_or(zero(&value)).clone()),
        };
    }
    Ok(value)
}

/// Returns what a map that lacks a key gives: empty text, when it is one of texts.
fn zero(map: &Value) -> &'static Value {
    static NOTHING: Value = Value::Null;
    static EMPTY: Value = Value::String(String::new());
    match map {
        Value::Object(object) if object.is_of_texts() => &EMPTY,
        _ => &NOTHING,
    }
}

fn entry<'a>(value: &'a Value, key: &Value) -> Result<Option<&'a Value>, String> {
    match (value, key) {
        (Value::Object(object), Value::String(name)) if !object.is_structure() => Ok(object.get(name)),
        (Value::Object(object), _) if object.is_structure() => {
            Err("index looks into lists and maps; a field is written .Name".to_owned())
        }
        (Value::List(list), key) => {
            let at = whole(key)?;
            let found = usize::try_from(at).ok().and_then(|at| list.get(at));
            found.map(Some).ok_or_else(|| format!("there is no position {at} in a list of {}", list.len()))
        }
        // The list or the map may be left out where it is empty.
        (Value::Null, _) => Ok(None),
        (Value::Object(_), key) => Err(format!("the key of a map is a text, not {}", key.kind())),
        (other, _) => Err(format!("index looks into lists and maps, not into {}", other.kind())),
    }
}

fn slice(arguments: &[Shared<'_>]) -> Result<Value, String> {
    let (Some(value), 2..=3) = (arguments.first(), arguments.len().max(2)) else {
        return Err("slice takes a value, a start and an end".to_owned());
    };
    let length = match &**value {
        Value::String(text) => text.len(),
        Value::List(list) => list.len(),
        other => return Err(format!("{} can't be sliced", other.kind())),
    };
    let bound = |at: usize, default: usize| match arguments.get(at) {
        None => Ok(default),
        Some(value) => {
            let number = whole(value)?;
            usize::try_from(number)
                .ok()
                .filter(|number| *number <= length)
                .ok_or_else(|| format!("there is no position {number}, the length is {length}"))
        }
    };
    let (start, end) = (bound(1, 0)?, bound(2, length)?);
    if start > end {
        return Err(format!("the slice ends at {end}, before its start {start}"));
    }
    Ok(match &**value {
        Value::List(list) => Value::List(list[start..end].to_vec()),
        // Positions are bytes; half a character is shown as a replacement.
        Value::String(text) => String::from_utf8_lossy(&text.as_bytes()[start..end]).into_owned().into(),
        _ => Value::Null,
    })
}

fn equals_any(arguments: &[Shared<'_>]) -> Result<bool, String> {
    let (first, others) = arguments.split_first().ok_or("eq needs two arguments")?;
    if others.is_empty() {
        return Err("eq needs two arguments".to_owned());
    }
    for other in others {
        if equals(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn equals(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => Ok(a == b),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::String(a), Value::String(b)) => Ok(a == b),
        (Value::Number(_), Value::Number(_)) => Ok(order(a, b)? == Ordering::Equal),
        _ => Err(format!("{} and {} can't be compared", a.kind(), b.kind())),
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => {
            let wide = |number: &serde_json::Number| {
                number.as_i64().map(i128::from).or(number.as_u64().map(i128::from))
            };
            match (wide(a), wide(b)) {
                (Some(a), Some(b)) => Ok(a.cmp(&b)),
                _ => {
                    let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
                    Ok(a.total_cmp(&b))
                }
            }
        }
        _ => Err(format!("{} and {} have no order", a.kind(), b.kind())),
    }
}
