// SPDX-License-Identifier: Apache-2.0
//! Two documents compared, field by field.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConfigChange {
    /// The names on the way to it, joined by dots: `config.Env.PATH`, `history.3.created_by`.
    pub field: String,
    /// What it was; absent when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Compares two documents; the fields that differ, in the order of their names, numbers as numbers.
///
/// Maps are compared key by key, so are the variables of `Env` and the entries of `history`; other lists
/// are values.
pub(crate) fn changes(before: &Value, after: &Value) -> Vec<ConfigChange> {
    let (mut first, mut second) = (BTreeMap::new(), BTreeMap::new());
    flatten(&mut Vec::new(), before, &mut first);
    flatten(&mut Vec::new(), after, &mut second);
    let mut found = Vec::new();
    let gone = first.iter().filter(|(field, _)| !second.contains_key(*field));
    let kept = second.iter().filter(|(field, value)| first.get(*field) != Some(*value));
    let mut fields: Vec<&Vec<Name>> =
        gone.map(|(field, _)| field).chain(kept.map(|(field, _)| field)).collect();
    fields.sort();
    for field in fields {
        let value = |side: &BTreeMap<Vec<Name>, Value>| side.get(field).cloned();
        let names: Vec<String> = field.iter().map(Name::text).collect();
        found.push(ConfigChange { field: names.join("."), before: value(&first), after: value(&second) });
    }
    found
}

/// One name of a field.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Number(usize),
    Text(String),
}

impl Name {
    fn text(&self) -> String {
        match self {
            Name::Number(number) => number.to_string(),
            Name::Text(text) => text.clone(),
        }
    }
}

fn flatten(path: &mut Vec<Name>, value: &Value, fields: &mut BTreeMap<Vec<Name>, Value>) {
    let last = path.last().map(Name::text).unwrap_or_default();
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                path.push(Name::Text(key.clone()));
                flatten(path, value, fields);
                path.pop();
            }
        }
        // What is empty says as little as what is absent, except as the value of a set (ports, volumes).
        Value::Object(_) if !matches!(path.len(), 0 | 1) => {
            fields.insert(path.clone(), value.clone());
        }
        Value::Object(_) | Value::Null => {}
        Value::Array(entries) if last == "Env" => {
            for entry in entries {
                let text = entry.as_str().unwrap_or_default();
                let (name, value) = text.split_once('=').unwrap_or((text, ""));
                path.push(Name::Text(name.to_owned()));
                fields.insert(path.clone(), value.into());
                path.pop();
            }
        }
        Value::Array(entries) if path.len() == 1 && last == "history" => {
            for (number, entry) in entries.iter().enumerate() {
                path.push(Name::Number(number));
                flatten(path, entry, fields);
                path.pop();
            }
        }
        value => {
            fields.insert(path.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_compared_by_name() {
        let before = json!({
            "os": "linux", "architecture": "amd64",
            "config": {"Env": ["PATH=/bin", "OLD=1"], "Cmd": ["a", "b"], "Labels": {"x.y": "1"}, "Volumes": {"/data": {}}},
            "history": [{"created_by": "one"}, {"created_by": "two", "created": "then"}],
            "annotations": {},
        });
        let after = json!({
            "os": "linux", "architecture": "arm64",
            "config": {"Env": ["PATH=/sbin", "NEW=a=b"], "Cmd": ["a"], "Labels": {"x.y": "1"}, "User": "me"},
            "history": [{"created_by": "one"}, {"created_by": "two", "created": "now"}],
        });
        let found: Vec<String> = changes(&before, &after)
            .iter()
            .map(|change| {
                let text = |value: &Option<Value>| value.as_ref().map_or("-".to_owned(), Value::to_string);
                format!("{} {} {}", change.field, text(&change.before), text(&change.after))
            })
            .collect();
        assert_eq!(
            found,
            [
                r#"architecture "amd64" "arm64""#,
                r#"config.Cmd ["a","b"] ["a"]"#,
                r#"config.Env.NEW - "a=b""#,
                r#"config.Env.OLD "1" -"#,
                r#"config.Env.PATH "/bin" "/sbin""#,
                r#"config.User - "me""#,
                "config.Volumes./data {} -",
                r#"history.1.created "then" "now""#,
            ]
        );
        assert_eq!(changes(&before, &before), []);
    }
}
