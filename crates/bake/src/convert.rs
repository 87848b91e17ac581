// SPDX-License-Identifier: Apache-2.0
//! Conversions between types, and the type that several values have in common.

use std::collections::BTreeMap;

use super::bounds::{self, Tally};
use super::number::Number;
use super::value::{Attribute, Type, Value};

/// Converts a value to a type.
///
/// # Errors
/// What is asked for instead, as `string required` or `element 0: number required`.
pub fn convert(value: &Value, to: &Type) -> Result<Value, String> {
    if matches!(to, Type::Dynamic) {
        return Ok(value.clone());
    }
    if value.is_null() {
        return Ok(Value::Null(to.clone()));
    }
    match (value, to) {
        (Value::String(_), Type::String)
        | (Value::Number(_), Type::Number)
        | (Value::Bool(_), Type::Bool) => Ok(value.clone()),
        (Value::Number(number), Type::String) => Ok(Value::String(number.text())),
        (Value::Bool(flag), Type::String) => Ok(Value::string(if *flag { "true" } else { "false" })),
        (Value::String(text), Type::Number) => {
            Number::parse(text).map(Value::Number).ok_or_else(|| "a number is required".to_owned())
        }
        (Value::String(text), Type::Bool) => match text.as_str() {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            "True" | "TRUE" => {
                Err("a bool is required; to convert from string, use lowercase \"true\"".to_owned())
            }
            "False" | "FALSE" => {
                Err("a bool is required; to convert from string, use lowercase \"false\"".to_owned())
            }
            _ => Err("a bool is required".to_owned()),
        },
        (_, Type::List(element)) if value.elements().is_some() => {
            let (element, values) = convert_elements(value, element, to)?;
            Ok(Value::List(element, values))
        }
        (_, Type::Set(element)) if value.elements().is_some() => {
            let (element, values) = convert_elements(value, element, to)?;
            Ok(Value::set(element, values))
        }
        (_, Type::Map(element)) => match value.attributes() {
            Some(attributes) => convert_map(attributes, element),
            None => Err(mismatch(value, to)),
        },
        (_, Type::Tuple(types)) => match value.elements() {
            Some(values) if !matches!(value, Value::Set(..)) && values.len() == types.len() => values
                .iter()
                .zip(types)
                .try_fold((Vec::new(), Tally::default()), |(mut all, mut tally), (value, ty)| {
                    let value = convert(value, ty)?;
                    tally.add(&value)?;
                    all.push(value);
                    Ok((all, tally))
                })
                .map(|(all, _)| Value::Tuple(all)),
            _ => Err(mismatch(value, to)),
        },
        (_, Type::Object(wanted)) => match value.attributes() {
            Some(attributes) => convert_object(attributes, wanted),
            None => Err(mismatch(value, to)),
        },
        _ => Err(mismatch(value, to)),
    }
}

/// Converts a value to text.
pub fn to_text(value: &Value) -> Option<String> {
    match convert(value, &Type::String) {
        Ok(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn mismatch(value: &Value, to: &Type) -> String {
    let from = value.ty();
    if from.is_primitive() != to.is_primitive() || matches!(to, Type::String) {
        let is_structural = matches!(from, Type::Tuple(_) | Type::Object(_));
        if is_structural && matches!(to, Type::List(_) | Type::Set(_) | Type::Map(_)) {
            return format!("{} required", to.constraint_name());
        }
        return format!("{} required, but have {}", to.friendly_name(), from.friendly_name());
    }
    if matches!((&from, to), (Type::Bool, Type::Number) | (Type::Number, Type::Bool)) {
        return format!("{} required, but have {}", to.friendly_name(), from.friendly_name());
    }
    format!("{} required", to.constraint_name())
}

fn convert_elements(value: &Value, element: &Type, to: &Type) -> Result<(Type, Vec<Value>), String> {
    let values = value.elements().unwrap_or_default();
    let element = match element {
        Type::Dynamic => match value {
            Value::List(element, _) | Value::Set(element, _) => element.clone(),
            _ => common_type(values).ok_or_else(|| match to {
                Type::Set(_) => "all set elements must have the same type".to_owned(),
                _ => "all list elements must have the same type".to_owned(),
            })?,
        },
        element => element.clone(),
    };
    let convert =
        |(at, value)| convert(value, &element).map_err(|problem| format!("element {at}: {problem}"));
    let converted = bounds::collect(values.iter().enumerate().map(convert))?;
    Ok((element, converted))
}

fn convert_map(attributes: &BTreeMap<String, Value>, element: &Type) -> Result<Value, String> {
    let element = match element {
        Type::Dynamic => {
            let values: Vec<Value> = attributes.values().cloned().collect();
            common_type(&values).ok_or_else(|| "all map elements must have the same type".to_owned())?
        }
        element => element.clone(),
    };
    let (mut converted, mut tally) = (BTreeMap::new(), Tally::default());
    for (name, value) in attributes {
        let value = convert(value, &element).map_err(|problem| format!("element {name:?}: {problem}"))?;
        tally.add(&value)?;
        converted.insert(name.clone(), value);
    }
    Ok(Value::Map(element, converted))
}

fn convert_object(
    attributes: &BTreeMap<String, Value>,
    wanted: &BTreeMap<String, Attribute>,
) -> Result<Value, String> {
    let (mut converted, mut tally) = (BTreeMap::new(), Tally::default());
    for (name, Attribute { ty, is_optional }) in wanted {
        let value = match attributes.get(name) {
            Some(value) => convert(value, ty).map_err(|problem| format!("attribute {name:?}: {problem}"))?,
            None if *is_optional => Value::Null(ty.clone()),
            None => return Err(format!("attribute {name:?} is required")),
        };
        tally.add(&value)?;
        converted.insert(name.clone(), value);
    }
    Ok(Value::Object(converted))
}

/// Finds the type that all values can be converted to; any type when there are none.
pub fn common_type(values: &[Value]) -> Option<Type> {
    /// Nothing sensible has elements of so many types; each is compared with all others.
    const MAX_TYPES: usize = 1000;
    let mut types = Vec::new();
    for value in values {
        let ty = value.ty();
        if !types.contains(&ty) {
            types.push(ty);
        }
        if types.len() > MAX_TYPES {
            return None;
        }
    }
    unify(&types)
}

/// Finds the type that all types can be converted to.
pub fn unify(types: &[Type]) -> Option<Type> {
    let known: Vec<&Type> = types.iter().filter(|ty| !matches!(ty, Type::Dynamic)).collect();
    let Some(first) = known.first() else { return Some(Type::Dynamic) };
    if known.iter().all(|ty| ty == first) {
        return Some((*first).clone());
    }
    if known.iter().all(|ty| ty.is_primitive()) {
        let has_text = known.iter().any(|ty| matches!(ty, Type::String));
        return has_text.then_some(Type::String);
    }
    if known.iter().all(|ty| matches!(ty, Type::List(_) | Type::Tuple(_) | Type::Set(_))) {
        if known.iter().all(|ty| matches!(ty, Type::Tuple(_)))
            && let Some(tuple) = unify_tuples(&known)
        {
            return Some(tuple);
        }
        let elements = element_types(&known);
        let element = unify(&elements)?;
        let all_sets = known.iter().all(|ty| matches!(ty, Type::Set(_)));
        return Some(if all_sets { Type::Set(Box::new(element)) } else { Type::list(element) });
    }
    if known.iter().all(|ty| matches!(ty, Type::Map(_) | Type::Object(_))) {
        if known.iter().all(|ty| matches!(ty, Type::Object(_)))
            && let Some(object) = unify_objects(&known)
        {
            return Some(object);
        }
        return Some(Type::map(unify(&element_types(&known))?));
    }
    None
}

fn element_types(types: &[&Type]) -> Vec<Type> {
    let mut elements = Vec::new();
    for ty in types {
        match ty {
            Type::List(element) | Type::Set(element) | Type::Map(element) => {
                elements.push((**element).clone())
            }
            Type::Tuple(types) => elements.extend(types.iter().cloned()),
            Type::Object(attributes) => {
                elements.extend(attributes.values().map(|attribute| attribute.ty.clone()));
            }
            _ => {}
        }
    }
    elements
}

fn unify_tuples(types: &[&Type]) -> Option<Type> {
    let tuples: Vec<&Vec<Type>> =
        types.iter().filter_map(|ty| if let Type::Tuple(types) = ty { Some(types) } else { None }).collect();
    let length = tuples.first()?.len();
    if tuples.iter().any(|tuple| tuple.len() != length) {
        return None;
    }
    let unified = (0..length)
        .map(|at| unify(&tuples.iter().map(|tuple| tuple[at].clone()).collect::<Vec<_>>()))
        .collect::<Option<_>>()?;
    Some(Type::Tuple(unified))
}

fn unify_objects(types: &[&Type]) -> Option<Type> {
    let objects: Vec<&BTreeMap<String, Attribute>> = types
        .iter()
        .filter_map(|ty| if let Type::Object(attributes) = ty { Some(attributes) } else { None })
        .collect();
    let first = objects.first()?;
    if objects.iter().any(|object| !object.keys().eq(first.keys())) {
        return None;
    }
    let mut unified = BTreeMap::new();
    for name in first.keys() {
        let types: Vec<Type> = objects.iter().map(|object| object[name].ty.clone()).collect();
        unified.insert(name.clone(), Attribute { ty: unify(&types)?, is_optional: false });
    }
    Some(Type::Object(unified))
}
