// SPDX-License-Identifier: Apache-2.0
//! Policies for the sources of a build.

use super::csv;
use super::entries::go_bool;
use super::value::{Type, Value};

/// A policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Files with rules.
    pub files: Vec<String>,
    /// Forget the policies before.
    pub is_reset: bool,
    /// No policy at all.
    pub is_disabled: bool,
    /// Whether problems are errors.
    pub strict: Option<bool>,
    /// How much is told: the number of logrus' level.
    pub log_level: Option<u32>,
}

const LEVELS: &[(&str, u32)] = &[
    ("panic", 0),
    ("fatal", 1),
    ("error", 2),
    ("warn", 3),
    ("warning", 3),
    ("info", 4),
    ("debug", 5),
    ("trace", 6),
];

impl Policy {
    /// Reads `filename=…,strict=true`.
    ///
    /// # Errors
    /// A field that is not known, or has no value of its kind.
    pub fn parse(text: &str) -> Result<Policy, String> {
        Policy::of_fields(csv::fields(text, ',')?)
    }

    fn of_fields(fields: Vec<String>) -> Result<Policy, String> {
        let mut policy = Policy::default();
        for field in fields {
            let wrong = || format!("invalid value {field}");
            let (key, value) = field.split_once('=').ok_or_else(wrong)?;
            let flag = || go_bool(value).ok_or_else(wrong);
            match key.trim().to_lowercase().as_str() {
                "filename" if !value.is_empty() => policy.files.push(value.to_owned()),
                "reset" => policy.is_reset = flag()?,
                "disabled" => policy.is_disabled = flag()?,
                "strict" => policy.strict = Some(flag()?),
                "log-level" => {
                    let known = LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
                    policy.log_level = Some(known.ok_or_else(wrong)?.1);
                }
                _ => return Err(wrong()),
            }
        }
        Ok(policy)
    }

    pub(crate) fn from_value(value: &Value) -> Result<Policy, String> {
        if let Value::String(text) = value {
            return Policy::parse(text);
        }
        let attributes = value.attributes().ok_or_else(|| "map of string required".to_owned())?;
        let mut fields = Vec::new();
        for (name, value) in attributes {
            match value {
                Value::Null(_) => {}
                Value::String(text) if text.is_empty() => {}
                value => {
                    let text = super::convert::to_text(value).ok_or_else(|| "string required".to_owned())?;
                    fields.push(format!("{name}={text}"));
                }
            }
        }
        Policy::of_fields(fields)
    }

    pub(crate) fn to_value(&self) -> Value {
        let level = self.log_level.and_then(|level| LEVELS.iter().find(|(_, number)| *number == level));
        let pairs = [
            ("filename", self.files.first().cloned()),
            ("reset", self.is_reset.then(|| "true".to_owned())),
            ("disabled", self.is_disabled.then(|| "true".to_owned())),
            ("strict", self.strict.map(|strict| strict.to_string())),
            ("log-level", level.map(|(name, _)| (*name).to_owned())),
        ];
        let present = pairs
            .into_iter()
            .filter_map(|(key, value)| value.map(|value| (key.to_owned(), Value::String(value))));
        Value::Map(Type::String, present.collect())
    }

    /// The policy as one text, as flags have it.
    pub fn text(&self) -> String {
        let mut fields: Vec<String> = self.files.iter().map(|file| format!("filename={file}")).collect();
        if self.is_reset {
            fields.push("reset=true".to_owned());
        }
        if self.is_disabled {
            fields.push("disabled=true".to_owned());
        }
        fields.extend(self.strict.map(|strict| format!("strict={strict}")));
        let level = self.log_level.and_then(|level| LEVELS.iter().find(|(_, number)| *number == level));
        fields.extend(level.map(|(name, _)| format!("log-level={name}")));
        csv::join(&fields)
    }
}
