// SPDX-License-Identifier: Apache-2.0
//! Variables: what they are given, their defaults, and what they accept.

use super::super::ast::Expression;
use super::super::convert::convert;
use super::super::source::Fault;
use super::super::value::{Type, Value};
use super::super::{type_expression, variable_text};
use super::{Locals, Resolver};

/// What a variable is, for listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariableInfo {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its type, if it has one.
    pub ty: String,
    /// Its value; `None` is null.
    pub value: Option<String>,
}

impl Resolver<'_> {
    /// Evaluates variables and functions.
    ///
    /// # Errors
    /// What can't be evaluated, or a value that its variable refuses.
    pub fn variables(&mut self) -> Result<Vec<VariableInfo>, Fault> {
        let none = Locals::default();
        for name in self.inputs.built_in.keys() {
            self.resolve_value(&none, name)?;
        }
        let definition = self.definition;
        let mut list = Vec::new();
        for variable in &definition.variables {
            if self.is_reserved(&variable.name) {
                continue;
            }
            self.resolve_value(&none, &variable.name)
                .map_err(|fault| fault.placed("Invalid value", variable.span))?;
            list.push(VariableInfo {
                name: variable.name.clone(),
                description: variable.description.clone(),
                ty: self.types.get(&variable.name).map(Type::constraint_name).unwrap_or_default(),
                value: self.globals.variables.get(&variable.name).and_then(listed),
            });
        }
        self.validate(&none)?;
        for function in &definition.functions {
            if !self.is_reserved(&function.name) {
                self.resolve_function(&function.name)
                    .map_err(|fault| fault.placed("Invalid function", function.span))?;
            }
        }
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    fn validate(&mut self, none: &Locals) -> Result<(), Fault> {
        let definition = self.definition;
        for variable in &definition.variables {
            for (condition, message) in &variable.validations {
                self.load(none, condition, &[], true)?;
                let value = self.value(condition, none)?;
                let wrong = |detail: String| Fault::at(condition.span, "Invalid condition result", detail);
                if value.is_null() {
                    return Err(wrong(
                        "Condition expression must return either true or false, not null.".to_owned(),
                    ));
                }
                match convert(&value, &Type::Bool) {
                    Ok(Value::Bool(true)) => {}
                    Ok(_) => {
                        self.load(none, message, &[], true)?;
                        let text = match self.value(message, none)? {
                            Value::String(text) => text,
                            _ => "This check failed, but has an invalid error message.".to_owned(),
                        };
                        return Err(Fault::at(condition.span, "Validation failed", text));
                    }
                    Err(problem) => return Err(wrong(format!("Invalid condition result value: {problem}"))),
                }
            }
        }
        Ok(())
    }

    /// The value of a `variable` block: what it is given, else its default, else nothing.
    pub(super) fn variable(
        &mut self,
        name: &str,
        ty: Option<&Expression>,
        default: Option<&Expression>,
    ) -> Result<Value, Fault> {
        let given_type = ty.map(type_expression::read).transpose()?;
        let ty = given_type.clone().unwrap_or(Type::Dynamic);
        if let Some(ty) = &given_type {
            self.types.insert(name.to_owned(), ty.clone());
        }
        let none = Locals::default();
        let default = match default {
            Some(expression) => {
                self.load(&none, expression, &[], true)?;
                let value = self.value(expression, &none)?;
                Some(convert(&value, &ty).map_err(|problem| {
                    let ty = ty.friendly_name();
                    Fault::plain(format!("invalid type {ty} for variable {name} default value: {problem}"))
                })?)
            }
            None => None,
        };
        let Some((text, is_json)) = self.given(name, given_type.is_some()) else {
            return Ok(default.unwrap_or_else(|| match given_type {
                Some(ty) => Value::Null(ty),
                None => Value::string(""),
            }));
        };
        let unsupported = |ty: &Type| format!("unsupported type {} for variable {name}", ty.friendly_name());
        let value = if given_type.is_some() && is_json {
            variable_text::of_json(name, &text, &ty)
        } else if variable_text::is_csv_type(&ty) {
            variable_text::of_csv(name, &text, &ty)
                .map_err(|problem| format!("failed to convert variable {name} from CSV: {problem}"))
        } else if ty.is_primitive() {
            variable_text::primitive(name, &text, &ty)
        } else if given_type.is_some() {
            Err(unsupported(&ty))
        } else {
            match default.map(|value| value.ty()) {
                None | Some(Type::Dynamic) => Ok(Value::String(text)),
                Some(ty) if ty.is_primitive() => variable_text::primitive(name, &text, &ty),
                Some(ty) => Err(unsupported(&ty)),
            }
        };
        value.map_err(Fault::plain)
    }

    /// What a variable is given, and whether that is JSON: so it is under its name with `_JSON`.
    fn given(&self, name: &str, prefers_json: bool) -> Option<(String, bool)> {
        let plain = (self.inputs.lookup)(name);
        if plain.is_none() || prefers_json {
            let json_name = format!("{name}_JSON");
            let is_other = self.definition.variables.iter().any(|variable| variable.name == json_name);
            if !is_other
                && !self.inputs.built_in.contains_key(&json_name)
                && let Some(text) = (self.inputs.lookup)(&json_name)
            {
                return Some((text, true));
            }
        }
        plain.map(|text| (text, false))
    }
}

/// A variable's value as listings show it.
fn listed(value: &Value) -> Option<String> {
    match value {
        Value::Null(_) => None,
        Value::String(text) => Some(text.trim_matches('"').to_owned()),
        value => Some(value.to_string()),
    }
}
