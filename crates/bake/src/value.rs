// SPDX-License-Identifier: Apache-2.0
//! Values of HCL expressions, and their types.
//!
//! Literal lists are tuples and literal maps are objects: each element has its own type. Lists, sets and
//! maps, whose elements have one type, come from conversions and functions.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use super::number::Number;

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Any type; the type of a `null` that stands alone.
    Dynamic,
    /// True or false.
    Bool,
    /// A number.
    Number,
    /// A text.
    String,
    /// Elements of one type, in order.
    List(Box<Type>),
    /// Different elements of one type.
    Set(Box<Type>),
    /// Named elements of one type.
    Map(Box<Type>),
    /// Elements of their own types, in order.
    Tuple(Vec<Type>),
    /// Named elements of their own types.
    Object(BTreeMap<String, Attribute>),
}

/// The type of an attribute of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its type.
    pub ty: Type,
    /// A missing attribute is `null`.
    pub is_optional: bool,
}

/// A value.
#[derive(Debug, Clone)]
pub enum Value {
    /// No value, of a type.
    Null(Type),
    /// True or false.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    String(String),
    /// A list, with the type of its elements.
    List(Type, Vec<Value>),
    /// A set in its order, with the type of its elements.
    Set(Type, Vec<Value>),
    /// A map, with the type of its elements.
    Map(Type, BTreeMap<String, Value>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// An object.
    Object(BTreeMap<String, Value>),
}

impl Type {
    pub(crate) fn list(element: Type) -> Type {
        Type::List(Box::new(element))
    }

    pub(crate) fn map(element: Type) -> Type {
        Type::Map(Box::new(element))
    }

    /// An object whose attributes may all be left out.
    pub(crate) fn optional_object(attributes: &[(&str, Type)]) -> Type {
        let attribute = |ty: &Type| Attribute { ty: ty.clone(), is_optional: true };
        Type::Object(attributes.iter().map(|(name, ty)| ((*name).to_owned(), attribute(ty))).collect())
    }

    /// Tells whether values have no parts.
    pub fn is_primitive(&self) -> bool {
        matches!(self, Type::Bool | Type::Number | Type::String)
    }

    /// The name that messages use.
    pub fn friendly_name(&self) -> String {
        self.name(false)
    }

    /// The name that messages use for a type that is asked for.
    pub fn constraint_name(&self) -> String {
        self.name(true)
    }

    fn name(&self, is_constraint: bool) -> String {
        let element = |kind: &str, element: &Type| match element {
            Type::Dynamic if is_constraint => format!("{kind} of any single type"),
            Type::Dynamic => format!("{kind} of dynamic"),
            element => format!("{kind} of {}", element.name(is_constraint)),
        };
        match self {
            Type::Dynamic if is_constraint => "any type".to_owned(),
            Type::Dynamic => "dynamic".to_owned(),
            Type::Bool => "bool".to_owned(),
            Type::Number => "number".to_owned(),
            Type::String => "string".to_owned(),
            Type::List(inner) => element("list", inner),
            Type::Set(inner) => element("set", inner),
            Type::Map(inner) => element("map", inner),
            Type::Tuple(_) => "tuple".to_owned(),
            Type::Object(_) => "object".to_owned(),
        }
    }
}

impl Value {
    pub(crate) fn string(text: impl Into<String>) -> Value {
        Value::String(text.into())
    }

    pub(crate) fn number(value: impl Into<Number>) -> Value {
        Value::Number(value.into())
    }

    /// A list of texts.
    pub(crate) fn strings<S: Into<String>>(texts: impl IntoIterator<Item = S>) -> Value {
        Value::List(Type::String, texts.into_iter().map(Value::string).collect())
    }

    /// A set: without doubles, in the order of sets.
    pub(crate) fn set(element: Type, mut values: Vec<Value>) -> Value {
        values.sort_by(Value::order);
        values.dedup_by(|a, b| a.equals(b));
        Value::Set(element, values)
    }

    /// The type of the value.
    pub fn ty(&self) -> Type {
        match self {
            Value::Null(ty) => ty.clone(),
            Value::Bool(_) => Type::Bool,
            Value::Number(_) => Type::Number,
            Value::String(_) => Type::String,
            Value::List(element, _) => Type::list(element.clone()),
            Value::Set(element, _) => Type::Set(Box::new(element.clone())),
            Value::Map(element, _) => Type::map(element.clone()),
            Value::Tuple(values) => Type::Tuple(values.iter().map(Value::ty).collect()),
            Value::Object(values) => Type::Object(
                values
                    .iter()
                    .map(|(name, value)| (name.clone(), Attribute { ty: value.ty(), is_optional: false }))
                    .collect(),
            ),
        }
    }

    /// Tells whether there is no value.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null(_))
    }

    /// The elements of a list, a set or a tuple.
    pub(crate) fn elements(&self) -> Option<&[Value]> {
        match self {
            Value::List(_, values) | Value::Set(_, values) | Value::Tuple(values) => Some(values),
            _ => None,
        }
    }

    /// The named elements of a map or an object.
    pub(crate) fn attributes(&self) -> Option<&BTreeMap<String, Value>> {
        match self {
            Value::Map(_, values) | Value::Object(values) => Some(values),
            _ => None,
        }
    }

    /// Tells whether two values are the same, of the same type.
    pub(crate) fn equals(&self, other: &Value) -> bool {
        let all = |a: &[Value], b: &[Value]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b));
        match (self, other) {
            (Value::Null(_), Value::Null(_)) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Number(a), Value::Number(b)) => a == b,
            (Value::String(a), Value::String(b)) => a == b,
            (Value::List(_, a), Value::List(_, b))
            | (Value::Set(_, a), Value::Set(_, b))
            | (Value::Tuple(a), Value::Tuple(b)) => all(a, b),
            (Value::Map(_, a), Value::Map(_, b)) | (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len()
                    && a.iter().zip(b).all(|((a_name, a), (b_name, b))| a_name == b_name && a.equals(b))
            }
            _ => false,
        }
    }

    /// The order of the elements of a set.
    fn order(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => a.cmp(b),
            (Value::String(a), Value::String(b)) => a.cmp(b),
            (a, b) => a.to_string().cmp(&b.to_string()),
        }
    }

    /// Writes the value as JSON, with Go's escapes and every digit of its numbers.
    pub(crate) fn write_json(&self, out: &mut String) {
        let text = |text: &str| String::from_utf8_lossy(&polyarch_oci::json::to_compact(&text)).into_owned();
        let list = |out: &mut String, values: &[Value]| {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                value.write_json(out);
            }
            out.push(']');
        };
        match self {
            Value::Number(number) => out.push_str(&number.text()),
            Value::String(value) => out.push_str(&text(value)),
            Value::List(_, values) | Value::Set(_, values) | Value::Tuple(values) => list(out, values),
            Value::Map(_, values) | Value::Object(values) => {
                out.push('{');
                for (at, (name, value)) in values.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    out.push_str(&text(name));
                    out.push(':');
                    value.write_json(out);
                }
                out.push('}');
            }
            Value::Null(_) => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        }
    }

    /// Makes a value of JSON: arrays become tuples, objects stay objects.
    pub(crate) fn from_json(json: &serde_json::Value) -> Value {
        match json {
            serde_json::Value::Null => Value::Null(Type::Dynamic),
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(number) => {
                Value::Number(Number::parse(&number.to_string()).unwrap_or_else(|| Number::from(0i64)))
            }
            serde_json::Value::String(text) => Value::string(text),
            serde_json::Value::Array(values) => Value::Tuple(values.iter().map(Value::from_json).collect()),
            serde_json::Value::Object(values) => Value::Object(
                values.iter().map(|(name, value)| (name.clone(), Value::from_json(value))).collect(),
            ),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write_json(&mut text);
        formatter.write_str(&text)
    }
}
