// SPDX-License-Identifier: Apache-2.0
//! Variables in the texts of Compose files: `$NAME`, `${NAME:-default}` and their like, and the file `.env`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// How deep defaults may be nested.
const MAX_DEPTH: usize = 16;

/// Fills in the variables of every text in a document; keys stay as they are.
///
/// # Errors
/// A variable that must be set and isn't, or a form that is none.
pub fn fill(value: &mut Json, variables: &BTreeMap<String, String>) -> Result<(), String> {
    match value {
        Json::String(text) => *text = expand(text, variables, 0)?,
        Json::Array(elements) => elements.iter_mut().try_for_each(|element| fill(element, variables))?,
        Json::Object(members) => members.values_mut().try_for_each(|member| fill(member, variables))?,
        _ => {}
    }
    Ok(())
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn expand(text: &str, variables: &BTreeMap<String, String>, depth: usize) -> Result<String, String> {
    let wrong =
        || format!("invalid interpolation format in {text:?}; you may need to escape any $ with another $");
    if depth > MAX_DEPTH {
        return Err(format!("defaults in {text:?} are nested too deeply"));
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = closing(after).ok_or_else(wrong)?;
            out.push_str(&braced(&after[..end], variables, depth)?);
            rest = &after[end + 1..];
        } else {
            let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            if length == 0 || rest.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(wrong());
            }
            out.push_str(variables.get(&rest[..length]).map_or("", String::as_str));
            rest = &rest[length..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The position of the brace that closes an open one.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn braced(inner: &str, variables: &BTreeMap<String, String>, depth: usize) -> Result<String, String> {
    let length = inner.find(|c| !is_name(c)).unwrap_or(inner.len());
    let (name, operation) = inner.split_at(length);
    if name.is_empty() {
        return Err(format!("invalid interpolation format: \"${{{inner}}}\""));
    }
    let (counts_empty, operation) = match operation.strip_prefix(':') {
        Some(operation) => (false, operation),
        None => (true, operation),
    };
    let value = variables.get(name).filter(|value| counts_empty || !value.is_empty());
    let word = |operation: &str| expand(operation.get(1..).unwrap_or(""), variables, depth + 1);
    match operation.chars().next() {
        None => Ok(variables.get(name).cloned().unwrap_or_default()),
        Some('-') => value.map_or_else(|| word(operation), |value| Ok(value.clone())),
        Some('+') => {
            if value.is_some() {
                word(operation)
            } else {
                Ok(String::new())
            }
        }
        Some('?') => match value {
            Some(value) => Ok(value.clone()),
            None => Err(format!("required variable {name} is missing a value: {}", word(operation)?)),
        },
        Some(_) => Err(format!("invalid interpolation format: \"${{{inner}}}\"")),
    }
}

/// Reads a file `.env`; what is in the environment already stays.
pub fn dot_env(text: &str, environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = environment.clone();
    for line in text.lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
        let value = value.trim();
        let value = match value.chars().next() {
            Some('\'') => value[1..].split('\'').next().unwrap_or("").to_owned(),
            Some('"') => {
                let inner = value[1..].split('"').next().unwrap_or("").replace("\\n", "\n");
                expand(&inner, &all, 0).unwrap_or(inner)
            }
            _ => {
                let value = value.split(" #").next().unwrap_or("").trim_end();
                expand(value, &all, 0).unwrap_or_else(|_| value.to_owned())
            }
        };
        all.entry(name.trim().to_owned()).or_insert(value);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_filled_in() {
        let variables = BTreeMap::from([("A".to_owned(), "a".to_owned()), ("E".to_owned(), String::new())]);
        for (text, expected) in [
            ("$A-${A}", "a-a"),
            ("${N:-x}${N-y}${E-z}${E:-w}", "xyw"),
            ("${A:+yes}${N+no}", "yes"),
            ("$$A", "$A"),
            ("${N:-${A}}", "a"),
            ("${N}", ""),
        ] {
            assert_eq!(expand(text, &variables, 0).as_deref(), Ok(expected), "{text}");
        }
        assert!(expand("${N:?must be set}", &variables, 0).is_err_and(|error| error.contains("must be set")));
        assert!(expand("${A", &variables, 0).is_err());
        assert!(expand("$(A)", &variables, 0).is_err());
    }

    #[test]
    fn the_environment_stands_before_the_file() {
        let environment = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let all = dot_env("# c\nA=2\nexport B='x y'\nC=\"$A\\n\" # d\nD = e # f\n", &environment);
        let get = |name: &str| all.get(name).map(String::as_str);
        assert_eq!(
            (get("A"), get("B"), get("C"), get("D")),
            (Some("1"), Some("x y"), Some("1\n"), Some("e"))
        );
    }
}
