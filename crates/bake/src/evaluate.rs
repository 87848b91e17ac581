// SPDX-License-Identifier: Apache-2.0
//! Expressions become values.

use std::collections::BTreeMap;

use super::access;
use super::ast::{Expression, For, Kind, Part};
use super::bounds::{self, MAX_VALUE_BYTES, Tally};
use super::call;
use super::convert::{convert, to_text, unify};
use super::operators;
use super::scope::Scope;
use super::source::Fault;
use super::value::{Type, Value};

/// Evaluates an expression.
///
/// # Errors
/// What can't be evaluated, and where.
pub fn evaluate(expression: &Expression, scope: &Scope<'_>) -> Result<Value, Fault> {
    let too_complex = |problem: String| Fault::at(expression.span, "Expression too complex", problem);
    scope.globals.spend(1).map_err(too_complex)?;
    let value = evaluate_kind(expression, scope)?;
    scope.globals.account(&value).map_err(too_complex)?;
    Ok(value)
}

fn evaluate_kind(expression: &Expression, scope: &Scope<'_>) -> Result<Value, Fault> {
    let span = expression.span;
    match &expression.kind {
        Kind::Literal(value) => Ok(value.clone()),
        Kind::JsonText(_, inner) | Kind::Parenthesis(inner) => evaluate(inner, scope),
        Kind::Template(parts) => {
            if let [Part::Interpolation(inner)] = parts.as_slice() {
                return evaluate(inner, scope);
            }
            let mut text = String::new();
            write_parts(parts, scope, &mut text)?;
            Ok(Value::String(text))
        }
        Kind::Tuple(elements) => {
            let mut tally = Tally::default();
            let mut values = Vec::with_capacity(elements.len());
            for element in elements {
                let value = evaluate(element, scope)?;
                count(&mut tally, &value, element)?;
                values.push(value);
            }
            Ok(Value::Tuple(values))
        }
        Kind::Object(items) => {
            let mut object = BTreeMap::new();
            let mut tally = Tally::default();
            for (key, value) in items {
                let name = evaluate(key, scope)?;
                if name.is_null() {
                    return Err(Fault::at(key.span, "Null value as key", "Can't use a null value as a key."));
                }
                let name = to_text(&name).ok_or_else(|| {
                    Fault::at(
                        key.span,
                        "Incorrect key type",
                        "Can't use this value as a key: string required.",
                    )
                })?;
                let element = evaluate(value, scope)?;
                count(&mut tally, &element, value)?;
                object.insert(name, element);
            }
            Ok(Value::Object(object))
        }
        Kind::Variable(name) => scope.variable(name).cloned().ok_or_else(|| {
            let near = near(name, &scope.names());
            Fault {
                is_undefined: true,
                ..Fault::at(span, "Unknown variable", format!("There is no variable named {name:?}.{near}"))
            }
        }),
        Kind::Access(base, steps) => access::access(evaluate(base, scope)?, steps, scope),
        Kind::Call { name, name_span, arguments, expands_last } => {
            call::call(name, *name_span, arguments, *expands_last, span, scope)
        }
        Kind::Conditional(parts) => conditional(parts, scope),
        Kind::Unary(operator, operand) => {
            let value = evaluate(operand, scope)?;
            operators::unary(*operator, &value)
                .map_err(|problem| Fault::at(operand.span, "Invalid operand", problem))
        }
        Kind::Binary(operator, operands) => operators::binary(*operator, operands, span, scope),
        Kind::For(each) => for_expression(each, scope),
    }
}

/// Counts a part of a value that is being made.
fn count(tally: &mut Tally, part: &Value, expression: &Expression) -> Result<(), Fault> {
    tally.add(part).map_err(|problem| Fault::at(expression.span, "Expression too complex", problem))
}

/// Suggests the name that is meant.
pub fn near(name: &str, known: &[&str]) -> String {
    let best = known
        .iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= 2 && *distance < name.chars().count())
        .min();
    best.map_or_else(String::new, |(_, candidate)| format!(" Did you mean {candidate:?}?"))
}

/// The number of letters to change to turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn conditional(parts: &[Expression; 3], scope: &Scope<'_>) -> Result<Value, Fault> {
    let [condition, yes, no] = parts;
    let chosen = evaluate(condition, scope)?;
    if chosen.is_null() {
        return Err(Fault::at(
            condition.span,
            "Null condition",
            "The condition value is null. Conditions must either be true or false.",
        ));
    }
    let Ok(Value::Bool(chosen)) = convert(&chosen, &Type::Bool) else {
        return Err(Fault::at(
            condition.span,
            "Incorrect condition type",
            "The condition expression must be of type bool.",
        ));
    };
    // Both sides are evaluated, because the type of the result comes from both.
    let (yes, no) = (evaluate(yes, scope), evaluate(no, scope));
    let (result, other) = if chosen { (yes?, no) } else { (no?, yes) };
    let Ok(other) = other else { return Ok(result) };
    let (result_type, other_type) = (result.ty(), other.ty());
    match unify(&[result_type.clone(), other_type.clone()]) {
        Some(ty) => convert(&result, &ty)
            .map_err(|problem| Fault::at(condition.span, "Inconsistent conditional result types", problem)),
        None => Err(Fault::at(
            condition.span,
            "Inconsistent conditional result types",
            format!(
                "The true and false result expressions must have consistent types: {} and {} have none in common.",
                result_type.friendly_name(),
                other_type.friendly_name()
            ),
        )),
    }
}

/// The elements of a collection with their keys.
pub fn entries(collection: &Value) -> Option<Vec<(Value, Value)>> {
    if let Some(attributes) = collection.attributes() {
        return Some(attributes.iter().map(|(name, value)| (Value::string(name), value.clone())).collect());
    }
    let elements = collection.elements()?;
    let is_set = matches!(collection, Value::Set(..));
    let key = |at: usize, value: &Value| if is_set { value.clone() } else { Value::number(at) };
    Some(elements.iter().enumerate().map(|(at, value)| (key(at, value), value.clone())).collect())
}

fn collection_of(expression: &Expression, scope: &Scope<'_>) -> Result<Vec<(Value, Value)>, Fault> {
    let collection = evaluate(expression, scope)?;
    if collection.is_null() {
        return Err(Fault::at(
            expression.span,
            "Iteration over null value",
            "A null value cannot be used as the collection in a 'for' expression.",
        ));
    }
    entries(&collection).ok_or_else(|| {
        Fault::at(
            expression.span,
            "Iteration over non-iterable value",
            format!(
                "A value of type {} cannot be used as the collection in a 'for' expression.",
                collection.ty().friendly_name()
            ),
        )
    })
}

fn for_expression(each: &For, scope: &Scope<'_>) -> Result<Value, Fault> {
    let mut tally = Tally::default();
    let mut results = Vec::new();
    let mut object: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (key, value) in collection_of(&each.collection, scope)? {
        let mut locals = BTreeMap::from([(each.value.clone(), value)]);
        if let Some(name) = &each.key {
            locals.insert(name.clone(), key);
        }
        let inner = Scope { globals: scope.globals, locals: &locals, outer: Some(scope) };
        if let Some(condition) = &each.condition {
            let value = evaluate(condition, &inner)?;
            match convert(&value, &Type::Bool) {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => continue,
                _ => {
                    return Err(Fault::at(
                        condition.span,
                        "Invalid 'for' condition",
                        "The 'for' expression's condition must be either true or false.",
                    ));
                }
            }
        }
        let Some(result_key) = &each.result_key else {
            let value = evaluate(&each.result, &inner)?;
            count(&mut tally, &value, &each.result)?;
            results.push(value);
            continue;
        };
        let key = evaluate(result_key, &inner)?;
        let name = if key.is_null() { None } else { to_text(&key) };
        let name = name.ok_or_else(|| {
            Fault::at(
                result_key.span,
                "Invalid object key",
                "The key expression produced an invalid result: string required.",
            )
        })?;
        let value = evaluate(&each.result, &inner)?;
        count(&mut tally, &value, &each.result)?;
        if !each.is_grouping && object.contains_key(&name) {
            return Err(Fault::at(
                result_key.span,
                "Duplicate object key",
                format!(
                    "Two different items produced the key {name:?} in this 'for' expression. If duplicates are expected, use the ellipsis (...) after the value expression to enable grouping by key."
                ),
            ));
        }
        object.entry(name).or_default().push(value);
    }
    if each.result_key.is_none() {
        return Ok(Value::Tuple(results));
    }
    let value = |mut values: Vec<Value>| {
        if each.is_grouping {
            Value::Tuple(values)
        } else {
            values.pop().unwrap_or(Value::Null(Type::Dynamic))
        }
    };
    Ok(Value::Object(object.into_iter().map(|(name, values)| (name, value(values))).collect()))
}

fn write_parts(parts: &[Part], scope: &Scope<'_>, out: &mut String) -> Result<(), Fault> {
    for part in parts {
        match part {
            Part::Literal(text) => {
                // The whole is too large by then, and who evaluates it says so.
                if out.len() > MAX_VALUE_BYTES {
                    return Ok(());
                }
                out.push_str(text);
            }
            Part::Interpolation(expression) => {
                let value = evaluate(expression, scope)?;
                if value.is_null() {
                    return Err(Fault::at(
                        expression.span,
                        "Invalid template interpolation value",
                        "The expression result is null. Cannot include a null value in a string template.",
                    ));
                }
                let text = to_text(&value).ok_or_else(|| {
                    Fault::at(
                        expression.span,
                        "Invalid template interpolation value",
                        format!(
                            "Cannot include the given value in a string template: string required, but have {}.",
                            value.ty().friendly_name()
                        ),
                    )
                })?;
                if out.len() + text.len() > MAX_VALUE_BYTES {
                    let problem = bounds::too_large();
                    return Err(Fault::at(expression.span, "Expression too complex", problem));
                }
                out.push_str(&text);
            }
            Part::If(condition, yes, no) => {
                let value = evaluate(condition, scope)?;
                match convert(&value, &Type::Bool) {
                    Ok(Value::Bool(true)) => write_parts(yes, scope, out)?,
                    Ok(Value::Bool(false)) => write_parts(no, scope, out)?,
                    _ => {
                        return Err(Fault::at(
                            condition.span,
                            "Incorrect condition type",
                            "The condition expression must be of type bool.",
                        ));
                    }
                }
            }
            Part::For(key_name, value_name, collection, body) => {
                for (key, value) in collection_of(collection, scope)? {
                    let mut locals = BTreeMap::from([(value_name.clone(), value)]);
                    if let Some(name) = key_name {
                        locals.insert(name.clone(), key);
                    }
                    let inner = Scope { globals: scope.globals, locals: &locals, outer: Some(scope) };
                    write_parts(body, &inner, out)?;
                }
            }
        }
    }
    Ok(())
}
