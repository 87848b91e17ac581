// SPDX-License-Identifier: Apache-2.0
//! Parts of values: attributes, elements and splats.

use super::ast::Step;
use super::convert::{convert, to_text};
use super::evaluate::evaluate;
use super::scope::Scope;
use super::source::{Fault, Span};
use super::value::{Type, Value};

/// Follows the steps from a value.
///
/// # Errors
/// The step that leads nowhere.
pub fn access(mut value: Value, steps: &[(Step, Span)], scope: &Scope<'_>) -> Result<Value, Fault> {
    let mut at = 0;
    while let Some((step, span)) = steps.get(at) {
        at += 1;
        match step {
            Step::Attribute(name) => value = attribute(&value, name, *span)?,
            Step::Index(index) => {
                let key = evaluate(index, scope)?;
                value = element(&value, &key, index.span)?;
            }
            Step::AttributeSplat | Step::FullSplat => {
                let is_full = matches!(step, Step::FullSplat);
                let belongs = |step: &Step| match step {
                    Step::Attribute(_) => true,
                    Step::Index(_) => is_full,
                    _ => false,
                };
                let length = steps[at..].iter().take_while(|(step, _)| belongs(step)).count();
                let each = &steps[at..at + length];
                at += length;
                value = splat(&value, each, *span, scope)?;
            }
        }
    }
    Ok(value)
}

fn splat(value: &Value, each: &[(Step, Span)], span: Span, scope: &Scope<'_>) -> Result<Value, Fault> {
    let elements = match value {
        Value::Null(Type::List(_) | Type::Set(_) | Type::Tuple(_)) => {
            return Err(Fault::at(
                span,
                "Splat of null value",
                "Splat expressions (with the * symbol) cannot be applied to null sequences.",
            ));
        }
        Value::Null(_) => Vec::new(),
        value => match value.elements() {
            Some(elements) => elements.to_vec(),
            None => vec![value.clone()],
        },
    };
    elements
        .into_iter()
        .map(|element| access(element, each, scope))
        .collect::<Result<_, _>>()
        .map(Value::Tuple)
}

fn attribute(value: &Value, name: &str, span: Span) -> Result<Value, Fault> {
    match value {
        Value::Null(_) => Err(Fault::at(
            span,
            "Attempt to get attribute from null value",
            "This value is null, so it does not have any attributes.",
        )),
        Value::Object(attributes) => attributes.get(name).cloned().ok_or_else(|| {
            Fault::at(
                span,
                "Unsupported attribute",
                format!("This object does not have an attribute named {name:?}."),
            )
        }),
        Value::Map(_, elements) => elements.get(name).cloned().ok_or_else(|| {
            Fault::at(
                span,
                "Missing map element",
                format!("This map does not have an element with the key {name:?}."),
            )
        }),
        _ => Err(Fault::at(span, "Unsupported attribute", "This value does not have any attributes.")),
    }
}

/// Finds the element of a collection under a key.
///
/// # Errors
/// There is none.
pub fn element(value: &Value, key: &Value, span: Span) -> Result<Value, Fault> {
    let wrong = |detail: String| Fault::at(span, "Invalid index", detail);
    if value.is_null() {
        return Err(Fault::at(
            span,
            "Attempt to index null value",
            "This value is null, so it does not have any indices.",
        ));
    }
    if key.is_null() {
        return Err(wrong("Can't use a null value as an indexing key.".to_owned()));
    }
    if let Some(attributes) = value.attributes() {
        let name = to_text(key).ok_or_else(|| {
            wrong(
                "The given key does not identify an element in this collection value: string required."
                    .to_owned(),
            )
        })?;
        return attributes.get(&name).cloned().ok_or_else(|| {
            wrong("The given key does not identify an element in this collection value.".to_owned())
        });
    }
    match value {
        Value::List(_, elements) | Value::Tuple(elements) => {
            let Ok(Value::Number(index)) = convert(key, &Type::Number) else {
                return Err(wrong(
                    "The given key does not identify an element in this collection value: a number is required."
                        .to_owned(),
                ));
            };
            index.to_index().and_then(|index| elements.get(index)).cloned().ok_or_else(|| {
                wrong(format!(
                    "The given key does not identify an element in this collection value: the list has {} elements.",
                    elements.len()
                ))
            })
        }
        Value::Set(..) => {
            Err(wrong("Elements of a set are identified only by their value and don't have any separate index or key to select with.".to_owned()))
        }
        _ => Err(wrong("This value does not have any indices.".to_owned())),
    }
}
