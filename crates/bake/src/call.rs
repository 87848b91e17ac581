// SPDX-License-Identifier: Apache-2.0
//! Calls of functions: those of the files, those built in, and the few that look at expressions.

use std::collections::BTreeMap;

use super::ast::Expression;
use super::bounds::Tally;
use super::convert::convert;
use super::evaluate::{evaluate, near};
use super::functions::{self, Function};
use super::scope::{Scope, UserFunction};
use super::source::{Fault, Span};
use super::type_expression;
use super::value::{Type, Value};

/// Calls a function.
///
/// # Errors
/// It doesn't exist, its arguments are wrong, or it fails.
pub fn call(
    name: &str,
    name_span: Span,
    arguments: &[Expression],
    expands_last: bool,
    span: Span,
    scope: &Scope<'_>,
) -> Result<Value, Fault> {
    match name {
        "try" => return first_that_works(arguments, span, scope),
        "can" => {
            return match arguments {
                [only] => Ok(Value::Bool(evaluate(only, scope).is_ok())),
                _ => Err(count_fault(name, 1, arguments.len(), span)),
            };
        }
        "convert" => {
            let [value, ty] = arguments else { return Err(count_fault(name, 2, arguments.len(), span)) };
            let ty = type_expression::read(ty)?;
            return convert(&evaluate(value, scope)?, &ty)
                .map_err(|problem| call_fault(name, &problem, span));
        }
        _ => {}
    }
    let values = values_of(arguments, expands_last, scope)?;
    if let Some(function) = functions::find(name) {
        return call_built_in(name, function, &values, arguments, span, scope);
    }
    match scope.globals.functions.get(name) {
        Some(function) => call_user_function(name, function, values, span, scope),
        None => {
            let mut known: Vec<&str> = scope.globals.functions.keys().map(String::as_str).collect();
            for name in functions::names() {
                known.push(name);
            }
            let near = near(name, &known);
            Err(Fault {
                is_undefined: true,
                ..Fault::at(
                    name_span,
                    "Call to unknown function",
                    format!("There is no function named {name:?}.{near}"),
                )
            })
        }
    }
}

fn values_of(arguments: &[Expression], expands_last: bool, scope: &Scope<'_>) -> Result<Vec<Value>, Fault> {
    let mut values = Vec::with_capacity(arguments.len());
    let mut tally = Tally::default();
    for (at, argument) in arguments.iter().enumerate() {
        let value = evaluate(argument, scope)?;
        tally.add(&value).map_err(|problem| Fault::at(argument.span, "Expression too complex", problem))?;
        if !(expands_last && at + 1 == arguments.len()) {
            values.push(value);
            continue;
        }
        match value.elements() {
            Some(elements) => values.extend(elements.iter().cloned()),
            None => {
                return Err(Fault::at(
                    argument.span,
                    "Invalid expanding argument value",
                    "The expanding argument (indicated by ...) must be of a tuple, list, or set type.",
                ));
            }
        }
    }
    Ok(values)
}

fn first_that_works(arguments: &[Expression], span: Span, scope: &Scope<'_>) -> Result<Value, Fault> {
    let mut problems = String::new();
    for argument in arguments {
        match evaluate(argument, scope) {
            Ok(value) => return Ok(value),
            Err(fault) => problems = format!("{}\n- {}; {}", problems, fault.summary, fault.detail),
        }
    }
    if arguments.is_empty() {
        return Err(call_fault("try", "at least one argument is required", span));
    }
    Err(call_fault("try", &format!("no expression succeeded:{problems}"), span))
}

fn count_fault(name: &str, expected: usize, given: usize, span: Span) -> Fault {
    let (summary, than) = if given > expected {
        ("Too many function arguments", "only ")
    } else {
        ("Not enough function arguments", "")
    };
    Fault::at(span, summary, format!("Function {name:?} expects {than}{expected} argument(s)."))
}

fn call_fault(name: &str, problem: &str, span: Span) -> Fault {
    Fault::at(span, "Error in function call", format!("Call to function {name:?} failed: {problem}."))
}

fn call_built_in(
    name: &str,
    function: &Function,
    values: &[Value],
    arguments: &[Expression],
    span: Span,
    scope: &Scope<'_>,
) -> Result<Value, Fault> {
    let fixed = function.parameters.len();
    if values.len() < fixed || function.variadic.is_none() && values.len() > fixed {
        return Err(count_fault(name, fixed, values.len(), span));
    }
    let place = |at: usize| arguments.get(at).or(arguments.last()).map_or(span, |argument| argument.span);
    let mut converted = Vec::with_capacity(values.len());
    for (at, value) in values.iter().enumerate() {
        let Some(parameter) = function.parameters.get(at).or(function.variadic.as_ref()) else { break };
        let wrong = |problem: &str| {
            Fault::at(
                place(at),
                "Invalid function argument",
                format!("Invalid value for {:?} parameter: {problem}.", parameter.name),
            )
        };
        if value.is_null() && !parameter.takes_null {
            return Err(wrong("argument must not be null"));
        }
        let ty = parameter.kind.ty();
        converted.push(convert(value, &ty).map_err(|problem| wrong(&problem))?);
    }
    for value in &converted {
        scope.globals.account(value).map_err(|problem| call_fault(name, &problem, span))?;
    }
    // The result is counted by who evaluates the call.
    (function.body)(&converted, &scope.globals.world).map_err(|problem| call_fault(name, &problem, span))
}

fn call_user_function(
    name: &str,
    function: &UserFunction,
    values: Vec<Value>,
    span: Span,
    scope: &Scope<'_>,
) -> Result<Value, Fault> {
    let fixed = function.parameters.len();
    if values.len() < fixed || function.variadic.is_none() && values.len() > fixed {
        return Err(count_fault(name, fixed, values.len(), span));
    }
    let mut values = values.into_iter();
    let mut locals: BTreeMap<String, Value> =
        function.parameters.iter().cloned().zip(values.by_ref()).collect();
    if let Some(variadic) = &function.variadic {
        locals.insert(variadic.clone(), Value::Tuple(values.collect()));
    }
    let inner = Scope { globals: scope.globals, locals: &locals, outer: None };
    scope.globals.enter().map_err(|problem| call_fault(name, &problem, span))?;
    let result = evaluate(&function.result, &inner);
    scope.globals.leave();
    // What is wrong inside is told with its own place.
    result.map(|value| if value.is_null() { Value::Null(Type::Dynamic) } else { value })
}
