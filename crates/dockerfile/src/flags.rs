// SPDX-License-Identifier: Apache-2.0
//! The flags of an instruction: which it has, and what they are set to.

use crate::suggest::nearest;
use crate::{ParseError, ParseErrorKind, Span};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlagKind {
    /// Nothing, or true or false.
    Boolean,
    /// A value.
    Text,
    /// A value, and it may stand more than once.
    Texts,
}

/// The flags that stand at an instruction, checked.
#[derive(Debug)]
pub(crate) struct Flags {
    set: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
enum Value {
    Boolean(bool),
    Text(String),
}

impl Flags {
    /// Checks the flags of an instruction against those it has.
    pub(crate) fn read(
        instruction: &'static str,
        words: &[String],
        known: &[(&'static str, FlagKind)],
        span: Span,
    ) -> Result<Flags, ParseError> {
        let error = |kind| ParseError::new(kind, span);
        let mut set: Vec<(&'static str, Value)> = Vec::with_capacity(words.len());
        for word in words {
            let word = word.strip_prefix("--").unwrap_or(word);
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (word, None),
            };
            let Some(&(name, kind)) = known.iter().find(|(name, _)| *name == flag) else {
                let kind = ParseErrorKind::UnknownFlag { instruction, flag: flag.to_owned() };
                return Err(error(kind).with_hint(hint(instruction, flag, known)));
            };
            if kind != FlagKind::Texts && set.iter().any(|(other, _)| *other == name) {
                return Err(error(ParseErrorKind::DuplicateFlag { flag: flag.to_owned() }));
            }
            let value = match (kind, value) {
                (FlagKind::Boolean, value) => match value.map(str::to_lowercase).as_deref() {
                    None | Some("true") => Value::Boolean(true),
                    Some("false") => Value::Boolean(false),
                    Some("") => {
                        return Err(error(ParseErrorKind::MissingFlagValue { flag: flag.to_owned() }));
                    }
                    Some(value) => {
                        return Err(error(ParseErrorKind::FlagValue {
                            flag: flag.to_owned(),
                            value: value.to_owned(),
                            expected: "true or false",
                        }));
                    }
                },
                (_, Some(value)) => Value::Text(value.to_owned()),
                (_, None) => return Err(error(ParseErrorKind::MissingFlagValue { flag: flag.to_owned() })),
            };
            set.push((name, value));
        }
        Ok(Flags { set })
    }

    /// Returns a switch, if it is set.
    pub(crate) fn boolean(&self, flag: &str) -> Option<bool> {
        self.set.iter().find_map(|(name, value)| match value {
            Value::Boolean(value) if *name == flag => Some(*value),
            _ => None,
        })
    }

    /// Returns a value; an empty one is as none.
    pub(crate) fn text(&self, flag: &str) -> Option<String> {
        self.texts(flag).pop().filter(|value| !value.is_empty())
    }

    /// Returns all values in order.
    pub(crate) fn texts(&self, flag: &str) -> Vec<String> {
        self.set
            .iter()
            .filter_map(|(name, value)| match value {
                Value::Text(value) if *name == flag => Some(value.clone()),
                _ => None,
            })
            .collect()
    }
}

fn hint(instruction: &str, flag: &str, known: &[(&'static str, FlagKind)]) -> Option<String> {
    if let Some(name) = nearest(flag, known.iter().map(|(name, _)| *name)) {
        return Some(format!("did you mean {name}?"));
    }
    if known.is_empty() {
        return Some(format!("{instruction} takes no flags"));
    }
    let names: Vec<String> = known.iter().map(|(name, _)| format!("--{name}")).collect();
    Some(format!("flags of {instruction}: {}", names.join(", ")))
}
