// SPDX-License-Identifier: Apache-2.0
//! What templates work on: JSON whose objects keep their order and know whether they are structures.
//!
//! Go tells structures, whose fields are known, from maps, whose keys are not: a field that a structure
//! lacks is a mistake in the template, a key that a map lacks prints `<no value>`. Values read from JSON
//! are maps; [`Value::structure`] and [`Value::with_absent`] make structures.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Number;

mod json;

/// A value.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// A truth.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    String(String),
    /// Values in order.
    List(Vec<Value>),
    /// Named values.
    Object(Object),
}

/// Named values in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object {
    fields: Vec<(String, Value)>,
    /// Fields that exist but that JSON leaves out, because they are empty.
    absent: Vec<(String, Value)>,
    is_structure: bool,
}

impl Value {
    /// Makes a structure of its fields.
    pub fn structure<N: Into<String>>(fields: impl IntoIterator<Item = (N, Value)>) -> Value {
        let fields = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Value::Object(Object { fields, absent: Vec::new(), is_structure: true })
    }

    /// Makes a map of its entries.
    pub fn map<N: Into<String>>(entries: impl IntoIterator<Item = (N, Value)>) -> Value {
        let fields = entries.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Value::Object(Object { fields, absent: Vec::new(), is_structure: false })
    }

    /// Makes a value of anything that can be written as JSON, objects being maps in their order.
    ///
    /// # Errors
    /// When it can't be written as JSON.
    pub fn of(value: &impl Serialize) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&serde_json::to_vec(value)?)
    }

    /// Makes an object a structure and adds fields that exist although JSON leaves them out; those that
    /// are there keep their value. Other values stay as they are.
    #[must_use]
    pub fn with_absent<N: Into<String>>(mut self, absent: impl IntoIterator<Item = (N, Value)>) -> Value {
        if let Value::Object(object) = &mut self {
            object.is_structure = true;
            for (name, value) in absent {
                let name = name.into();
                if object.get(&name).is_none() {
                    object.absent.push((name, value));
                }
            }
        }
        self
    }

    /// Replaces the value of a field of an object by what a function makes of it.
    #[must_use]
    pub fn with_field(mut self, name: &str, change: impl FnOnce(Value) -> Value) -> Value {
        if let Value::Object(object) = &mut self
            && let Some((_, value)) = object.fields.iter_mut().find(|(field, _)| field == name)
        {
            *value = change(std::mem::take(value));
        }
        self
    }

    /// Tells what Go holds for true: neither zero nor empty.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Null => false,
            Value::Bool(truth) => *truth,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty(),
            Value::List(list) => !list.is_empty(),
            Value::Object(object) => object.is_structure || !object.fields.is_empty(),
        }
    }

    /// Names the kind of value, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a bool",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::List(_) => "a list",
            Value::Object(_) => "an object",
        }
    }

    /// Writes the value as Go's `%v` does.
    pub fn print(&self) -> String {
        let mut text = String::new();
        self.print_into(&mut text, "<no value>");
        text
    }

    fn print_into(&self, out: &mut String, null: &str) {
        match self {
            Value::Null => out.push_str(null),
            Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
            Value::Number(number) => out.push_str(&print_number(number)),
            Value::String(text) => out.push_str(text),
            Value::List(list) => {
                out.push('[');
                for (at, value) in list.iter().enumerate() {
                    if at > 0 {
                        out.push(' ');
                    }
                    value.print_into(out, "<nil>");
                }
                out.push(']');
            }
            Value::Object(object) if object.is_structure => {
                out.push('{');
                for (at, (_, value)) in object.fields.iter().chain(&object.absent).enumerate() {
                    if at > 0 {
                        out.push(' ');
                    }
                    value.print_into(out, "<nil>");
                }
                out.push('}');
            }
            Value::Object(object) => {
                out.push_str("map[");
                for (at, (name, value)) in object.sorted().into_iter().enumerate() {
                    if at > 0 {
                        out.push(' ');
                    }
                    // Writing to a String can't fail.
                    let _ = write!(out, "{name}:");
                    value.print_into(out, "<nil>");
                }
                out.push(']');
            }
        }
    }
}

/// Writes a number as Go does: whole ones in full, others in the shortest form, with an exponent from
/// a million on and below a ten-thousandth.
fn print_number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => {
            let size = float.abs();
            if size != 0.0 && !(1e-4..1e6).contains(&size) {
                super::printf::with_exponent(&format!("{float:e}"))
            } else {
                format!("{float}")
            }
        }
        _ => number.to_string(),
    }
}

impl Object {
    /// Returns a field or an entry.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let mut fields = self.fields.iter().chain(&self.absent);
        fields.find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// Tells whether the names are known and others are mistakes.
    pub fn is_structure(&self) -> bool {
        self.is_structure
    }

    /// Returns the names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().chain(&self.absent).map(|(name, _)| name.as_str())
    }

    /// Returns the entries, sorted by name.
    pub fn sorted(&self) -> Vec<(&str, &Value)> {
        let mut entries: Vec<(&str, &Value)> =
            self.fields.iter().map(|(name, value)| (name.as_str(), value)).collect();
        entries.sort_by_key(|(name, _)| *name);
        entries
    }

    /// Returns how many entries JSON shows.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Tells whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Tells whether all entries are texts, as in a map of labels.
    pub fn is_of_texts(&self) -> bool {
        !self.is_structure && self.fields.iter().all(|(_, value)| matches!(value, Value::String(_)))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::String(text)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Value {
        Value::Bool(truth)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_order_and_its_last_words() {
        let text = r#"{"b":1,"a":[true,null,"x"],"c":{"z":0.5,"y":-3},"d":18446744073709551615}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), text);
        let value: Value = serde_json::from_str(r#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), r#"{"a":3,"b":2}"#);
    }

    #[test]
    fn values_print_as_in_go() {
        let table = [
            ("null", "<no value>"),
            ("[null,1,\"x y\",true]", "[<nil> 1 x y true]"),
            (r#"{"b":"2","a":1}"#, "map[a:1 b:2]"),
            ("1.5", "1.5"),
            ("1e30", "1e+30"),
            ("0.00001", "1e-05"),
            ("100000.0", "100000"),
            ("1000000.0", "1e+06"),
        ];
        for (json, text) in table {
            assert_eq!(serde_json::from_str::<Value>(json).unwrap().print(), text, "{json}");
        }
        let object = Value::structure([("A", Value::from("x")), ("B", Value::from(2_u64))]);
        assert_eq!(object.with_absent([("C", Value::Null)]).print(), "{x 2 <nil>}");
    }
}
