// SPDX-License-Identifier: Apache-2.0
//! Values of variables that come as text: from the environment and from `--var`.

use std::collections::BTreeMap;

use super::convert::convert;
use super::csv;
use super::entries::go_bool;
use super::number::Number;
use super::value::{Type, Value};

/// Reads a value of a type without parts.
///
/// # Errors
/// The text is none.
pub fn primitive(name: &str, text: &str, ty: &Type) -> Result<Value, String> {
    match ty {
        Type::String => Ok(Value::string(text)),
        Type::Bool => go_bool(text).map(Value::Bool).ok_or_else(|| {
            format!("failed to parse {name} as bool: strconv.ParseBool: parsing {text:?}: invalid syntax")
        }),
        Type::Number => {
            let parsed = text.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number);
            parsed.ok_or_else(|| {
                format!(
                    "failed to parse {name} as number: strconv.ParseFloat: parsing {text:?}: invalid syntax"
                )
            })
        }
        ty => Err(format!("{name} of type {} is not a primitive", ty.friendly_name())),
    }
}

/// Tells whether values of a type can be written as CSV.
pub fn is_csv_type(ty: &Type) -> bool {
    matches!(ty, Type::List(_) | Type::Set(_) | Type::Tuple(_) | Type::Map(_))
}

/// Reads a value of a type from CSV.
///
/// # Errors
/// The text is none, or the type has parts within parts.
pub fn of_csv(name: &str, text: &str, ty: &Type) -> Result<Value, String> {
    let unsupported = || format!("unsupported type {} for CSV specification", ty.friendly_name());
    let fields =
        csv::fields(text, ',').map_err(|problem| format!("failed to parse {text} as CSV: {problem}"))?;
    let element_value = |field: &str, element: &Type| {
        primitive(name, field, element)
            .map_err(|problem| format!("failed to parse element of type {}: {problem}", ty.friendly_name()))
    };
    let all = |element: &Type| {
        if !element.is_primitive() {
            return Err(unsupported());
        }
        fields.iter().map(|field| element_value(field, element)).collect::<Result<Vec<_>, _>>()
    };
    match ty {
        Type::List(element) => Ok(Value::List((**element).clone(), all(element)?)),
        Type::Set(element) => Ok(Value::set((**element).clone(), all(element)?)),
        Type::Tuple(types) => {
            if types.len() != fields.len() {
                return Err(format!(
                    "{} expects {} elements but only {} provided",
                    ty.friendly_name(),
                    types.len(),
                    fields.len()
                ));
            }
            let mut values = Vec::new();
            for (field, element) in fields.iter().zip(types) {
                if !element.is_primitive() {
                    return Err(unsupported());
                }
                values.push(element_value(field, element)?);
            }
            Ok(Value::Tuple(values))
        }
        Type::Map(element) if element.is_primitive() => {
            let mut map = BTreeMap::new();
            for field in &fields {
                let pair = csv::fields(field, ':').map_err(|problem| {
                    format!("failed to parse {field} as k/v for variable {name}: {problem}")
                })?;
                let [key, value] = pair.as_slice() else {
                    return Err(format!("expected one k/v pair but got {} pieces from {field}", pair.len()));
                };
                map.insert(key.clone(), element_value(value, element)?);
            }
            Ok(Value::Map((**element).clone(), map))
        }
        _ => Err(unsupported()),
    }
}

/// Reads a value of a type from JSON.
///
/// # Errors
/// The text is no JSON, or another type.
pub fn of_json(name: &str, text: &str, ty: &Type) -> Result<Value, String> {
    let wrong = |problem: String| format!("failed to convert variable {name} from JSON: {problem}");
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
    convert(&Value::from_json(&json), ty).map_err(wrong)
}
