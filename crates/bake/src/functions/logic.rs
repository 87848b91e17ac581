// SPDX-License-Identifier: Apache-2.0
//! Truth and comparison.

use super::super::operators::equal;
use super::super::value::Value;
use super::{Function, Kind, flag, function, nullable, number, parameter};

pub const FUNCTIONS: &[Function] = &[
    function("and", &[parameter("a", Kind::Flag), parameter("b", Kind::Flag)], |args, _| {
        Ok(Value::Bool(flag(args, 0) && flag(args, 1)))
    }),
    function("or", &[parameter("a", Kind::Flag), parameter("b", Kind::Flag)], |args, _| {
        Ok(Value::Bool(flag(args, 0) || flag(args, 1)))
    }),
    function("not", &[parameter("val", Kind::Flag)], |args, _| Ok(Value::Bool(!flag(args, 0)))),
    function("equal", &[nullable("a"), nullable("b")], |args, _| Ok(Value::Bool(equal(&args[0], &args[1])))),
    function("notequal", &[nullable("a"), nullable("b")], |args, _| {
        Ok(Value::Bool(!equal(&args[0], &args[1])))
    }),
    function("greaterthan", &[parameter("a", Kind::Number), parameter("b", Kind::Number)], |args, _| {
        Ok(Value::Bool(number(args, 0) > number(args, 1)))
    }),
    function(
        "greaterthanorequalto",
        &[parameter("a", Kind::Number), parameter("b", Kind::Number)],
        |args, _| Ok(Value::Bool(number(args, 0) >= number(args, 1))),
    ),
    function("lessthan", &[parameter("a", Kind::Number), parameter("b", Kind::Number)], |args, _| {
        Ok(Value::Bool(number(args, 0) < number(args, 1)))
    }),
    function(
        "lessthanorequalto",
        &[parameter("a", Kind::Number), parameter("b", Kind::Number)],
        |args, _| Ok(Value::Bool(number(args, 0) <= number(args, 1))),
    ),
];
