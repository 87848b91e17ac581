// SPDX-License-Identifier: Apache-2.0
//! The functions that every bake file can call, one file per family.
//!
//! Names, parameters and results are those of buildx, which takes them from go-cty's standard library and
//! adds a few.

mod addresses;
mod collections;
mod date_format;
mod digests;
mod encodings;
mod format;
mod logic;
mod numbers;
mod sets;
mod texts;
mod times;
mod versions;

use super::number::Number;
use super::scope::World;
use super::value::{Type, Value};

/// A built-in function.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// The arguments it must have.
    pub parameters: &'static [Parameter],
    /// The arguments it may have more of.
    pub variadic: Option<Parameter>,
    /// What it does; arguments have been converted to the types of the parameters.
    pub body: Body,
}

type Body = fn(&[Value], &World) -> Result<Value, String>;

/// A parameter of a function.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name, for messages.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Takes `null` as well.
    pub takes_null: bool,
}

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any value.
    Any,
    /// A text.
    Text,
    /// A number.
    Number,
    /// True or false.
    Flag,
    /// A list of texts.
    Texts,
    /// A list.
    List,
    /// A set.
    Set,
}

impl Kind {
    /// The type that arguments are converted to.
    pub fn ty(self) -> Type {
        match self {
            Kind::Any => Type::Dynamic,
            Kind::Text => Type::String,
            Kind::Number => Type::Number,
            Kind::Flag => Type::Bool,
            Kind::Texts => Type::list(Type::String),
            Kind::List => Type::list(Type::Dynamic),
            Kind::Set => Type::Set(Box::new(Type::Dynamic)),
        }
    }
}

const fn parameter(name: &'static str, kind: Kind) -> Parameter {
    Parameter { name, kind, takes_null: false }
}

const fn nullable(name: &'static str) -> Parameter {
    Parameter { name, kind: Kind::Any, takes_null: true }
}

const fn function(name: &'static str, parameters: &'static [Parameter], body: Body) -> Function {
    Function { name, parameters, variadic: None, body }
}

const fn variadic(
    name: &'static str,
    parameters: &'static [Parameter],
    more: Parameter,
    body: Body,
) -> Function {
    Function { name, parameters, variadic: Some(more), body }
}

const FAMILIES: &[&[Function]] = &[
    addresses::FUNCTIONS,
    collections::FUNCTIONS,
    digests::FUNCTIONS,
    encodings::FUNCTIONS,
    format::FUNCTIONS,
    logic::FUNCTIONS,
    numbers::FUNCTIONS,
    sets::FUNCTIONS,
    texts::FUNCTIONS,
    times::FUNCTIONS,
    versions::FUNCTIONS,
];

/// Functions that look at expressions and not at values; the evaluator has them.
const SPECIAL: &[&str] = &["can", "convert", "try"];

/// Finds a function.
pub fn find(name: &str) -> Option<&'static Function> {
    FAMILIES.iter().flat_map(|family| family.iter()).find(|function| function.name == name)
}

/// Tells whether a name is built in.
pub fn is_built_in(name: &str) -> bool {
    SPECIAL.contains(&name) || find(name).is_some()
}

/// The names of all functions.
pub fn names() -> impl Iterator<Item = &'static str> {
    FAMILIES
        .iter()
        .flat_map(|family| family.iter())
        .map(|function| function.name)
        .chain(SPECIAL.iter().copied())
}

/// The text of an argument; empty for what conversion has ruled out.
fn text(arguments: &[Value], at: usize) -> &str {
    match arguments.get(at) {
        Some(Value::String(text)) => text,
        _ => "",
    }
}

fn number(arguments: &[Value], at: usize) -> Number {
    match arguments.get(at) {
        Some(Value::Number(number)) => number.clone(),
        _ => Number::from(0i64),
    }
}

/// An argument that counts something.
fn integer(arguments: &[Value], at: usize) -> Result<i64, String> {
    number(arguments, at).to_i64().ok_or_else(|| "an integer is required".to_owned())
}

fn flag(arguments: &[Value], at: usize) -> bool {
    matches!(arguments.get(at), Some(Value::Bool(true)))
}

fn elements(arguments: &[Value], at: usize) -> &[Value] {
    arguments.get(at).and_then(Value::elements).unwrap_or_default()
}

fn values(argument: &Value) -> &[Value] {
    argument.elements().unwrap_or_default()
}

fn texts_of(arguments: &[Value], at: usize) -> Vec<&str> {
    elements(arguments, at)
        .iter()
        .filter_map(|value| if let Value::String(text) = value { Some(text.as_str()) } else { None })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_there_once() {
        let mut all: Vec<&str> = names().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(find("upper").is_some() && find("uppercase").is_none());
    }
}
