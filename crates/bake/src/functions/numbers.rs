// SPDX-License-Identifier: Apache-2.0
//! Arithmetic.

use num_bigint::BigInt;

use super::super::number::{Number, NumberFault};
use super::super::value::Value;
use super::{Function, Kind, Parameter, function, integer, number, parameter, text, variadic};

const NUM: Parameter = parameter("num", Kind::Number);
const A: Parameter = parameter("a", Kind::Number);
const B: Parameter = parameter("b", Kind::Number);

fn done(number: Number) -> Result<Value, String> {
    Ok(Value::Number(number))
}

fn result(result: Result<Number, NumberFault>) -> Result<Value, String> {
    let problem = |fault| match fault {
        NumberFault::DivisionByZero => "divide by zero",
        NumberFault::OutOfRange => "the result is larger than numbers can be",
    };
    result.map(Value::Number).map_err(|fault| problem(fault).to_owned())
}

fn double(value: f64) -> Result<Value, String> {
    Number::from_f64(value).map(Value::Number).ok_or_else(|| "the result is not a number".to_owned())
}

pub const FUNCTIONS: &[Function] = &[
    function("absolute", &[NUM], |args, _| done(number(args, 0).absolute())),
    function("add", &[A, B], |args, _| result(number(args, 0).add(&number(args, 1)))),
    function("subtract", &[A, B], |args, _| result(number(args, 0).subtract(&number(args, 1)))),
    function("multiply", &[A, B], |args, _| result(number(args, 0).multiply(&number(args, 1)))),
    function("divide", &[A, B], |args, _| result(number(args, 0).divide(&number(args, 1)))),
    function("modulo", &[A, B], |args, _| result(number(args, 0).modulo(&number(args, 1)))),
    function("negate", &[NUM], |args, _| done(number(args, 0).negate())),
    function("ceil", &[NUM], |args, _| done(number(args, 0).ceil())),
    function("floor", &[NUM], |args, _| done(number(args, 0).floor())),
    function("int", &[NUM], |args, _| done(number(args, 0).truncate())),
    function("signum", &[NUM], |args, _| {
        let value = number(args, 0);
        done(Number::from(i64::from(!value.is_zero()) * if value.is_negative() { -1 } else { 1 }))
    }),
    variadic("max", &[], parameter("numbers", Kind::Number), |args, _| {
        (0..args.len()).map(|at| number(args, at)).max().map(Value::Number).ok_or_else(at_least_one)
    }),
    variadic("min", &[], parameter("numbers", Kind::Number), |args, _| {
        (0..args.len()).map(|at| number(args, at)).min().map(Value::Number).ok_or_else(at_least_one)
    }),
    function("pow", &[NUM, parameter("power", Kind::Number)], |args, _| {
        double(number(args, 0).to_f64().powf(number(args, 1).to_f64()))
    }),
    function("log", &[NUM, parameter("base", Kind::Number)], |args, _| {
        double(number(args, 0).to_f64().ln() / number(args, 1).to_f64().ln())
    }),
    function("parseint", &[parameter("number", Kind::Text), parameter("base", Kind::Number)], |args, _| {
        let base = integer(args, 1)?;
        let wrong = || format!("cannot parse {:?} as a base {base} integer", text(args, 0));
        let radix = u32::try_from(base).ok().filter(|base| (2..=62).contains(base));
        let radix =
            radix.ok_or_else(|| "base must be a whole number between 2 and 62 inclusive".to_owned())?;
        let digits = text(args, 0);
        if radix > 36 || digits.len() > 4096 || digits.starts_with('+') {
            return Err(wrong());
        }
        result(Number::from_big_int(BigInt::parse_bytes(digits.as_bytes(), radix).ok_or_else(wrong)?))
    }),
];

fn at_least_one() -> String {
    "must pass at least one number".to_owned()
}
