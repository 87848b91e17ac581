// SPDX-License-Identifier: Apache-2.0
//! Secrets and SSH agents.

use std::collections::BTreeMap;

use super::convert::convert;
use super::csv;
use super::value::{Type, Value};

/// A secret for steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// The name that steps use.
    pub id: String,
    /// The file that has it.
    pub file: String,
    /// The environment variable that has it.
    pub variable: String,
}

/// An SSH agent, or keys, for steps.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ssh {
    /// The name that steps use.
    pub id: String,
    /// Sockets or keys.
    pub paths: Vec<String>,
}

fn text_type(names: &[&str]) -> Type {
    Type::optional_object(&names.iter().map(|name| (*name, Type::String)).collect::<Vec<_>>())
}

fn text_of(value: &Value, name: &str) -> String {
    match value.attributes().and_then(|attributes| attributes.get(name)) {
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    }
}

fn object(pairs: &[(&str, Value)]) -> Value {
    Value::Object(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

impl Secret {
    /// Reads `id=…,src=…`.
    ///
    /// # Errors
    /// A field that is no pair, or not known.
    pub fn parse(text: &str) -> Result<Secret, String> {
        let mut secret = Secret::default();
        let mut kind = String::new();
        let fields =
            csv::fields(text, ',').map_err(|problem| format!("failed to parse csv secret: {problem}"))?;
        for field in fields {
            let (key, value) = field
                .split_once('=')
                .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
            let key = key.to_lowercase();
            match key.as_str() {
                "type" if value == "file" || value == "env" => kind = value.to_owned(),
                "type" => return Err(format!("unsupported secret type {value:?}")),
                "id" => secret.id = value.to_owned(),
                "source" | "src" => secret.file = value.to_owned(),
                "env" => secret.variable = value.to_owned(),
                _ => return Err(format!("unexpected key '{key}' in '{field}'")),
            }
        }
        if kind == "env" && secret.variable.is_empty() {
            secret.variable = std::mem::take(&mut secret.file);
        }
        Ok(secret)
    }

    pub(crate) fn from_value(value: &Value) -> Result<Secret, String> {
        if let Value::String(text) = value {
            return Secret::parse(text);
        }
        let value = convert(value, &text_type(&["id", "src", "env"]))?;
        Ok(Secret {
            id: text_of(&value, "id"),
            file: text_of(&value, "src"),
            variable: text_of(&value, "env"),
        })
    }

    pub(crate) fn to_value(&self) -> Value {
        object(&[
            ("id", Value::string(&self.id)),
            ("src", Value::string(&self.file)),
            ("env", Value::string(&self.variable)),
        ])
    }

    /// The secret as one text, as flags have it.
    pub fn text(&self) -> String {
        let pairs = [("id", &self.id), ("src", &self.file), ("env", &self.variable)];
        let fields: Vec<String> = pairs
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        csv::join(&fields)
    }
}

impl Ssh {
    /// Reads `id=path,path`.
    pub fn parse(text: &str) -> Ssh {
        match text.split_once('=') {
            Some((id, paths)) => {
                Ssh { id: id.to_owned(), paths: paths.split(',').map(str::to_owned).collect() }
            }
            None => Ssh { id: text.to_owned(), paths: Vec::new() },
        }
    }

    pub(crate) fn from_value(value: &Value) -> Result<Ssh, String> {
        if let Value::String(text) = value {
            return Ok(Ssh::parse(text));
        }
        let ty = Type::optional_object(&[("id", Type::String), ("paths", Type::list(Type::String))]);
        let value = convert(value, &ty)?;
        let paths =
            value.attributes().and_then(|attributes| attributes.get("paths")).and_then(Value::elements);
        let paths = paths.unwrap_or_default().iter().filter_map(super::convert::to_text).collect();
        Ok(Ssh { id: text_of(&value, "id"), paths })
    }

    pub(crate) fn to_value(&self) -> Value {
        object(&[("id", Value::string(&self.id)), ("paths", Value::strings(self.paths.iter().cloned()))])
    }

    /// The agent as one text, as flags have it.
    pub fn text(&self) -> String {
        if self.paths.is_empty() { self.id.clone() } else { format!("{}={}", self.id, self.paths.join(",")) }
    }
}

/// Limits for steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// The limits by name; numbers and texts as they were written.
    pub limits: BTreeMap<String, String>,
}

/// The limits that are known, in the order of buildx, and whether each is a number.
pub(crate) const RESOURCES: &[(&str, bool)] = &[
    ("memory", false),
    ("memory-swap", false),
    ("cpu-shares", true),
    ("cpu-period", true),
    ("cpu-quota", true),
    ("cpuset-cpus", false),
    ("cpuset-mems", false),
];

impl Resources {
    pub(crate) fn from_value(value: &Value) -> Result<Resources, String> {
        let types: Vec<(&str, Type)> = RESOURCES
            .iter()
            .map(|(name, is_number)| (*name, if *is_number { Type::Number } else { Type::String }))
            .collect();
        let value = convert(value, &Type::optional_object(&types))?;
        let mut limits = BTreeMap::new();
        for (name, value) in value.attributes().into_iter().flatten() {
            match value {
                Value::Null(_) => {}
                Value::Number(number) if number.to_i64().is_none() => {
                    return Err(format!("{name} must be a whole number"));
                }
                value => {
                    limits.insert(name.clone(), super::convert::to_text(value).unwrap_or_default());
                }
            }
        }
        Ok(Resources { limits })
    }

    /// Sets one limit, for `--set`.
    ///
    /// # Errors
    /// It is not known, or not a number where it must be one.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let Some((_, is_number)) = RESOURCES.iter().find(|(known, _)| *known == name) else {
            return Err(format!("unknown resources key {name}"));
        };
        if *is_number && value.parse::<i64>().is_err() {
            return Err(format!("invalid value {value} for int64 key resources.{name}"));
        }
        self.limits.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    pub(crate) fn to_value(&self) -> Value {
        Value::Object(
            RESOURCES
                .iter()
                .map(|(name, is_number)| {
                    let value = match self.limits.get(*name) {
                        None => Value::Null(if *is_number { Type::Number } else { Type::String }),
                        Some(text) if *is_number => super::number::Number::parse(text)
                            .map_or(Value::Null(Type::Number), Value::Number),
                        Some(text) => Value::string(text),
                    };
                    ((*name).to_owned(), value)
                })
                .collect(),
        )
    }
}
