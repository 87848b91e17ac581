// SPDX-License-Identifier: Apache-2.0
//! Types as they are written: `list(string)`, `object({name = string})`.

use std::collections::BTreeMap;

use super::ast::{Expression, Kind};
use super::hcl_file;
use super::source::{Fault, Span};
use super::value::{Attribute, Type, Value};

/// Reads a type.
///
/// # Errors
/// What is no type.
pub fn read(expression: &Expression) -> Result<Type, Fault> {
    let wrong = |detail: String| Fault::at(expression.span, "Invalid type specification", detail);
    match &expression.kind {
        Kind::JsonText(text, _) => {
            let inner = hcl_file::read_expression(text, expression.span.file, expression.span.start + 1)?;
            read(&inner)
        }
        Kind::Parenthesis(inner) => read(inner),
        Kind::Variable(word) => match word.as_str() {
            "bool" => Ok(Type::Bool),
            "string" => Ok(Type::String),
            "number" => Ok(Type::Number),
            "any" => Ok(Type::Dynamic),
            "list" | "set" | "map" => Err(wrong(format!(
                "The {word} type constructor requires one argument specifying the element type."
            ))),
            "object" => Err(wrong(
                "The object type constructor requires one argument specifying the attribute types and values as a map.".to_owned(),
            )),
            "tuple" => Err(wrong(
                "The tuple type constructor requires one argument specifying the element types as a list.".to_owned(),
            )),
            word => Err(wrong(format!("The keyword {word:?} is not a valid type specification."))),
        },
        Kind::Call { name, arguments, .. } => {
            let [argument] = arguments.as_slice() else {
                return Err(wrong(format!("The {name} type constructor requires one argument.")));
            };
            match name.as_str() {
                "list" => Ok(Type::list(read(argument)?)),
                "set" => Ok(Type::Set(Box::new(read(argument)?))),
                "map" => Ok(Type::map(read(argument)?)),
                "object" => object(argument),
                "tuple" => match &argument.kind {
                    Kind::Tuple(elements) => {
                        elements.iter().map(read).collect::<Result<_, _>>().map(Type::Tuple)
                    }
                    _ => Err(wrong("Tuple type constructor requires a list of element types.".to_owned())),
                },
                "optional" => Err(wrong(
                    "Keyword \"optional\" is valid only as a modifier for object type attributes.".to_owned(),
                )),
                name => Err(wrong(format!("Keyword {name:?} is not a valid type constructor."))),
            }
        }
        _ => Err(wrong("A type is either a keyword or a call of a type constructor.".to_owned())),
    }
}

fn object(argument: &Expression) -> Result<Type, Fault> {
    let wrong = |span: Span, detail: &str| Fault::at(span, "Invalid type specification", detail);
    let Kind::Object(items) = &argument.kind else {
        return Err(wrong(
            argument.span,
            "Object type constructor requires a map whose keys are attribute names and whose values are the corresponding attribute types.",
        ));
    };
    let mut attributes = BTreeMap::new();
    for (key, value) in items {
        let Kind::Literal(Value::String(name)) = &key.kind else {
            return Err(wrong(key.span, "Object constructor map keys must be attribute names."));
        };
        let attribute = match &value.kind {
            Kind::Call { name, arguments, .. } if name == "optional" && arguments.len() == 1 => {
                Attribute { ty: read(&arguments[0])?, is_optional: true }
            }
            _ => Attribute { ty: read(value)?, is_optional: false },
        };
        attributes.insert(name.clone(), attribute);
    }
    Ok(Type::Object(attributes))
}
