// SPDX-License-Identifier: Apache-2.0
//! Sets.

use super::super::bounds;
use super::super::convert::{convert, unify};
use super::super::value::{Type, Value};
use super::{Function, Kind, Parameter, elements, function, parameter, values, variadic};

const FIRST: Parameter = parameter("first_set", Kind::Set);
const OTHERS: Parameter = parameter("other_sets", Kind::Set);

pub const FUNCTIONS: &[Function] = &[
    function("sethaselement", &[parameter("set", Kind::Set), parameter("elem", Kind::Any)], |args, _| {
        Ok(Value::Bool(elements(args, 0).iter().any(|value| value.equals(&args[1]))))
    }),
    variadic("setunion", &[FIRST], OTHERS, |args, _| {
        let (element, sets) = of_one_type(args)?;
        Ok(Value::set(element, sets.into_iter().flatten().collect()))
    }),
    variadic("setintersection", &[FIRST], OTHERS, |args, _| {
        combine(args, |kept, other| kept.retain(|value| has(other, value)))
    }),
    function("setsubtract", &[parameter("a", Kind::Set), parameter("b", Kind::Set)], |args, _| {
        combine(args, |kept, other| kept.retain(|value| !has(other, value)))
    }),
    variadic("setsymmetricdifference", &[FIRST], OTHERS, |args, _| {
        combine(args, |kept, other| {
            let more: Vec<Value> = other.iter().filter(|value| !has(kept, value)).cloned().collect();
            kept.retain(|value| !has(other, value));
            kept.extend(more);
        })
    }),
    variadic("setproduct", &[], parameter("sets", Kind::Any), |args, _| {
        bounds::check_product(args)?;
        let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
        for set in args {
            let elements = set.elements().ok_or_else(|| "a set or a list is required".to_owned())?;
            let with =
                |row: &Vec<Value>, element: &Value| [row.as_slice(), std::slice::from_ref(element)].concat();
            rows =
                rows.iter().flat_map(|row| elements.iter().map(move |element| with(row, element))).collect();
        }
        let rows: Vec<Value> = rows.into_iter().map(Value::Tuple).collect();
        let types: Vec<Type> = rows.iter().map(Value::ty).collect();
        let element = unify(&types).unwrap_or(Type::Dynamic);
        let all_sets = args.iter().all(|set| matches!(set, Value::Set(..)));
        Ok(if all_sets { Value::set(element, rows) } else { Value::List(element, rows) })
    }),
];

fn has(values: &[Value], value: &Value) -> bool {
    values.iter().any(|other| other.equals(value))
}

fn of_one_type(sets: &[Value]) -> Result<(Type, Vec<Vec<Value>>), String> {
    let types: Vec<Type> = sets
        .iter()
        .filter(|set| !values(set).is_empty())
        .map(|set| if let Value::Set(element, _) = set { element.clone() } else { Type::Dynamic })
        .collect();
    let element =
        unify(&types).ok_or_else(|| "given sets must all have compatible element types".to_owned())?;
    let converted = sets
        .iter()
        .map(|set| values(set).iter().map(|value| convert(value, &element)).collect())
        .collect::<Result<_, _>>()?;
    Ok((element, converted))
}

fn combine(sets: &[Value], step: impl Fn(&mut Vec<Value>, &[Value])) -> Result<Value, String> {
    let (element, sets) = of_one_type(sets)?;
    let mut sets = sets.into_iter();
    let mut kept = sets.next().unwrap_or_default();
    for other in sets {
        bounds::check_comparisons(kept.len(), other.len())?;
        step(&mut kept, &other);
    }
    Ok(Value::set(element, kept))
}
