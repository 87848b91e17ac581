// SPDX-License-Identifier: Apache-2.0
//! Operators of expressions.

use hcl_edit::expr::{BinaryOperator, UnaryOperator};

use super::ast::Expression;
use super::convert::convert;
use super::evaluate::evaluate;
use super::number::{Number, NumberFault};
use super::scope::Scope;
use super::source::{Fault, Span};
use super::value::{Type, Value};

/// `-a`, `!a`.
///
/// # Errors
/// The operand has not the right type.
pub fn unary(operator: UnaryOperator, operand: &Value) -> Result<Value, String> {
    match operator {
        UnaryOperator::Neg => number(operand).map(|number| Value::Number(number.negate())),
        UnaryOperator::Not => flag(operand).map(|flag| Value::Bool(!flag)),
    }
}

fn number(value: &Value) -> Result<Number, String> {
    match convert(value, &Type::Number) {
        Ok(Value::Number(number)) => Ok(number),
        Ok(_) => Err("Unsuitable value for unary operand: a number is required, not null.".to_owned()),
        Err(problem) => Err(format!("Unsuitable value: {problem}.")),
    }
}

fn flag(value: &Value) -> Result<bool, String> {
    match convert(value, &Type::Bool) {
        Ok(Value::Bool(flag)) => Ok(flag),
        Ok(_) => Err("Unsuitable value: a bool is required, not null.".to_owned()),
        Err(problem) => Err(format!("Unsuitable value: {problem}.")),
    }
}

/// Tells whether two values are equal, as `==` does: a number and its text are not.
pub fn equal(a: &Value, b: &Value) -> bool {
    a.equals(b)
}

/// `a + b` and its like.
///
/// # Errors
/// An operand has not the right type, or the result doesn't exist.
pub fn binary(
    operator: BinaryOperator,
    operands: &[Expression; 2],
    span: Span,
    scope: &Scope<'_>,
) -> Result<Value, Fault> {
    let [left, right] = operands;
    let wrong = |operand: &Expression, problem: String| Fault::at(operand.span, "Invalid operand", problem);
    if matches!(operator, BinaryOperator::Eq | BinaryOperator::NotEq) {
        let is_equal = equal(&evaluate(left, scope)?, &evaluate(right, scope)?);
        return Ok(Value::Bool(is_equal == matches!(operator, BinaryOperator::Eq)));
    }
    if matches!(operator, BinaryOperator::And | BinaryOperator::Or) {
        let decides = matches!(operator, BinaryOperator::Or);
        let value = evaluate(left, scope)?;
        // The other side may only make sense when this one doesn't decide.
        if flag(&value).map_err(|problem| wrong(left, problem))? == decides {
            return Ok(Value::Bool(decides));
        }
        let value = evaluate(right, scope)?;
        return flag(&value).map(Value::Bool).map_err(|problem| wrong(right, problem));
    }
    let a = number(&evaluate(left, scope)?).map_err(|problem| wrong(left, problem))?;
    let b = number(&evaluate(right, scope)?).map_err(|problem| wrong(right, problem))?;
    let result = |result: Result<Number, NumberFault>| {
        result.map(Value::Number).map_err(|fault| match fault {
            NumberFault::DivisionByZero => Fault::at(span, "Division by zero", "Cannot divide by zero."),
            NumberFault::OutOfRange => {
                Fault::at(span, "Operation failed", "The result is larger than numbers can be.")
            }
        })
    };
    Ok(match operator {
        BinaryOperator::Less => Value::Bool(a < b),
        BinaryOperator::LessEq => Value::Bool(a <= b),
        BinaryOperator::Greater => Value::Bool(a > b),
        BinaryOperator::GreaterEq => Value::Bool(a >= b),
        BinaryOperator::Plus => return result(a.add(&b)),
        BinaryOperator::Minus => return result(a.subtract(&b)),
        BinaryOperator::Mul => return result(a.multiply(&b)),
        BinaryOperator::Div => return result(a.divide(&b)),
        BinaryOperator::Mod => return result(a.modulo(&b)),
        // Handled above.
        BinaryOperator::Eq | BinaryOperator::NotEq | BinaryOperator::And | BinaryOperator::Or => {
            Value::Null(Type::Bool)
        }
    })
}
