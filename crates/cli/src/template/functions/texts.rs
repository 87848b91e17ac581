// SPDX-License-Identifier: Apache-2.0
//! The functions of templates that make texts of texts.

use super::MAX_PADDING;
use crate::template::{Value, printf};

pub(super) fn title(text: &str) -> String {
    let mut before = ' ';
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let is_start = if before.is_ascii() {
            !before.is_ascii_alphanumeric() && before != '_'
        } else {
            before.is_whitespace()
        };
        if is_start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        before = c;
    }
    out
}

pub(super) fn split(text: &str, separator: &str) -> Value {
    if separator.is_empty() {
        return Value::List(text.chars().map(|c| c.to_string().into()).collect());
    }
    Value::List(text.split(separator).map(Value::from).collect())
}

pub(super) fn join(list: &Value, separator: &str) -> Result<String, String> {
    let mut parts: Vec<String> = match list {
        Value::Null => return Ok(String::new()),
        Value::List(list) => list.iter().map(printf::print_one).collect(),
        Value::Object(object) if !object.is_structure() => {
            object.sorted().into_iter().map(|(_, value)| printf::print_one(value)).collect()
        }
        other => return Err(format!("join takes a list, not {}", other.kind())),
    };
    if matches!(list, Value::Object(_)) {
        parts.sort();
    }
    Ok(parts.join(separator))
}

pub(super) fn pad(text: &str, before: i64, after: i64) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let blanks = |count: i64| match count {
        0..=MAX_PADDING => Ok(" ".repeat(count as usize)),
        _ => Err(format!("pad takes numbers from 0 to {MAX_PADDING}, not {count}")),
    };
    Ok(format!("{}{text}{}", blanks(before)?, blanks(after)?))
}

pub(super) fn truncate(text: &str, length: i64) -> Result<String, String> {
    let length =
        usize::try_from(length).map_err(|_| format!("truncate takes no negative length: {length}"))?;
    match text.as_bytes().get(..length) {
        None => Ok(text.to_owned()),
        Some(bytes) => Ok(String::from_utf8_lossy(bytes).into_owned()),
    }
}

pub(super) fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

pub(super) fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

pub(super) fn escape_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
