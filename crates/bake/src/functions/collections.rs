// SPDX-License-Identifier: Apache-2.0
//! Lists, maps and what is in them.

use std::collections::BTreeMap;

use super::super::access;
use super::super::bounds;
use super::super::convert::{convert, unify};
use super::super::number::Number;
use super::super::source::Span;
use super::super::value::{Type, Value};
use super::{
    Function, Kind, elements, function, integer, nullable, number, parameter, text, values, variadic,
};

const MAX_RANGE: usize = 1024;

pub const FUNCTIONS: &[Function] = &[
    function("chunklist", &[parameter("list", Kind::List), parameter("size", Kind::Number)], |args, _| {
        let Some(Value::List(element, elements)) = args.first() else { return Err(needs_list()) };
        let size = usize::try_from(integer(args, 1)?)
            .map_err(|_| "the size argument must be positive".to_owned())?;
        let size = if size == 0 { elements.len().max(1) } else { size };
        let chunks =
            elements.chunks(size).map(|chunk| Value::List(element.clone(), chunk.to_vec())).collect();
        Ok(Value::List(Type::list(element.clone()), chunks))
    }),
    variadic("coalesce", &[], nullable("vals"), |args, _| {
        let types: Vec<Type> = args.iter().map(Value::ty).collect();
        let ty = unify(&types).ok_or_else(|| "all arguments must have the same type".to_owned())?;
        let first = args.iter().find(|value| !value.is_null());
        convert(first.ok_or_else(|| "no non-null arguments".to_owned())?, &ty)
    }),
    variadic("coalescelist", &[], nullable("vals"), |args, _| {
        args.iter()
            .find(|value| !values(value).is_empty())
            .cloned()
            .ok_or_else(|| "no non-null arguments".to_owned())
    }),
    function("compact", &[parameter("list", Kind::Texts)], |args, _| {
        Ok(Value::strings(super::texts_of(args, 0).into_iter().filter(|text| !text.is_empty())))
    }),
    variadic("concat", &[], parameter("seqs", Kind::Any), concat),
    function("contains", &[parameter("list", Kind::Any), parameter("value", Kind::Any)], |args, _| {
        let list = args[0].elements().ok_or_else(|| "argument must be list, tuple, or set".to_owned())?;
        Ok(Value::Bool(list.iter().any(|value| value.equals(&args[1]))))
    }),
    function("distinct", &[parameter("list", Kind::List)], |args, _| {
        let Some(Value::List(element, elements)) = args.first() else { return Err(needs_list()) };
        let mut kept: Vec<Value> = Vec::new();
        for value in elements {
            bounds::check_comparisons(elements.len(), kept.len())?;
            if !kept.iter().any(|other| other.equals(value)) {
                kept.push(value.clone());
            }
        }
        Ok(Value::List(element.clone(), kept))
    }),
    function("element", &[parameter("list", Kind::Any), parameter("index", Kind::Number)], |args, _| {
        let list = elements(args, 0);
        if list.is_empty() {
            return Err("cannot use element function with an empty list".to_owned());
        }
        let length = i64::try_from(list.len()).map_err(|_| needs_list())?;
        let at = usize::try_from(integer(args, 1)?.rem_euclid(length)).unwrap_or(0);
        Ok(list[at].clone())
    }),
    function("flatten", &[parameter("list", Kind::Any)], |args, _| {
        let list = args[0].elements().ok_or_else(|| "can only flatten lists, sets and tuples".to_owned())?;
        let mut flat = Vec::new();
        flatten(list, &mut flat);
        Ok(Value::Tuple(flat))
    }),
    function("hasindex", &[parameter("collection", Kind::Any), parameter("key", Kind::Any)], |args, _| {
        Ok(Value::Bool(access::element(&args[0], &args[1], Span::default()).is_ok()))
    }),
    function("index", &[parameter("collection", Kind::Any), parameter("key", Kind::Any)], |args, _| {
        access::element(&args[0], &args[1], Span::default()).map_err(|_| "invalid index".to_owned())
    }),
    function("indexof", &[parameter("list", Kind::Any), parameter("value", Kind::Any)], |args, _| {
        let (Value::List(_, list) | Value::Tuple(list)) = &args[0] else {
            return Err("argument must be a list or tuple".to_owned());
        };
        if list.is_empty() {
            return Err("cannot search an empty list".to_owned());
        }
        let at = list.iter().position(|value| value.equals(&args[1]));
        at.map(Value::number).ok_or_else(|| "item not found".to_owned())
    }),
    function("keys", &[parameter("inputMap", Kind::Any)], |args, _| {
        let names = |map: &BTreeMap<String, Value>| map.keys().map(Value::string).collect();
        match &args[0] {
            Value::Map(_, map) => Ok(Value::List(Type::String, names(map))),
            Value::Object(map) => Ok(Value::Tuple(names(map))),
            _ => Err("must have map type".to_owned()),
        }
    }),
    function("values", &[parameter("mapping", Kind::Any)], |args, _| match &args[0] {
        Value::Map(element, map) => Ok(Value::List(element.clone(), map.values().cloned().collect())),
        Value::Object(map) => Ok(Value::Tuple(map.values().cloned().collect())),
        _ => Err("values() requires a map as the first argument".to_owned()),
    }),
    function("length", &[parameter("collection", Kind::Any)], |args, _| {
        let length =
            args[0].elements().map(<[Value]>::len).or_else(|| args[0].attributes().map(BTreeMap::len));
        length.map(Value::number).ok_or_else(|| "collection must be a list, a map or a tuple".to_owned())
    }),
    function(
        "lookup",
        &[parameter("inputMap", Kind::Any), parameter("key", Kind::Text), parameter("default", Kind::Any)],
        |args, _| {
            let map = args[0]
                .attributes()
                .ok_or_else(|| "lookup() requires a map as the first argument".to_owned())?;
            Ok(map.get(text(args, 1)).unwrap_or(&args[2]).clone())
        },
    ),
    variadic("merge", &[], nullable("maps"), merge),
    variadic("range", &[], parameter("params", Kind::Number), range),
    function("reverselist", &[parameter("list", Kind::Any)], |args, _| {
        let mut list = elements(args, 0).to_vec();
        list.reverse();
        match &args[0] {
            Value::List(element, _) | Value::Set(element, _) => Ok(Value::List(element.clone(), list)),
            Value::Tuple(_) => Ok(Value::Tuple(list)),
            _ => Err("can only reverse list or tuple values".to_owned()),
        }
    }),
    function(
        "slice",
        &[
            parameter("list", Kind::Any),
            parameter("start_index", Kind::Number),
            parameter("end_index", Kind::Number),
        ],
        |args, _| {
            let list = elements(args, 0);
            let index = |at| number(args, at).to_index().filter(|index| *index <= list.len());
            let start = index(1).ok_or_else(|| "start index must be within the list".to_owned())?;
            let end = index(2)
                .ok_or_else(|| "end index must not be greater than the length of the list".to_owned())?;
            let part = list
                .get(start..end)
                .ok_or_else(|| "start index must not be greater than end index".to_owned())?;
            match &args[0] {
                Value::List(element, _) => Ok(Value::List(element.clone(), part.to_vec())),
                Value::Tuple(_) => Ok(Value::Tuple(part.to_vec())),
                _ => Err("must be a list or tuple value".to_owned()),
            }
        },
    ),
    function("sort", &[parameter("list", Kind::Texts)], |args, _| {
        let mut texts = super::texts_of(args, 0);
        texts.sort_unstable();
        Ok(Value::strings(texts))
    }),
    function("zipmap", &[parameter("keys", Kind::Texts), parameter("values", Kind::Any)], |args, _| {
        let keys = super::texts_of(args, 0);
        let contents =
            args[1].elements().ok_or_else(|| "values argument must be a list or tuple value".to_owned())?;
        if keys.len() != contents.len() {
            return Err(format!(
                "number of keys ({}) does not match number of values ({})",
                keys.len(),
                contents.len()
            ));
        }
        let map = keys.into_iter().map(str::to_owned).zip(contents.iter().cloned()).collect();
        Ok(match &args[1] {
            Value::List(element, _) => Value::Map(element.clone(), map),
            _ => Value::Object(map),
        })
    }),
];

fn needs_list() -> String {
    "a list is required".to_owned()
}

fn flatten(list: &[Value], flat: &mut Vec<Value>) {
    for value in list {
        match value.elements() {
            Some(inner) => flatten(inner, flat),
            None => flat.push(value.clone()),
        }
    }
}

fn concat(args: &[Value], _: &super::World) -> Result<Value, String> {
    if args.is_empty() {
        return Err("at least one argument is required".to_owned());
    }
    if args.iter().any(|value| !matches!(value, Value::List(..) | Value::Tuple(_))) {
        return Err("all arguments must be lists or tuples".to_owned());
    }
    if args.iter().all(|value| matches!(value, Value::List(..))) {
        let types: Vec<Type> = args.iter().map(Value::ty).collect();
        if let Some(Type::List(element)) = unify(&types) {
            let all = args
                .iter()
                .flat_map(values)
                .map(|value| convert(value, &element))
                .collect::<Result<_, _>>()?;
            return Ok(Value::List(*element, all));
        }
    }
    Ok(Value::Tuple(args.iter().flat_map(values).cloned().collect()))
}

fn merge(args: &[Value], _: &super::World) -> Result<Value, String> {
    let mut merged = BTreeMap::new();
    let mut element: Option<Type> = None;
    let mut is_map = true;
    for value in args.iter().filter(|value| !value.is_null()) {
        match value {
            Value::Map(ty, map) => {
                is_map &= element.as_ref().is_none_or(|element| element == ty);
                element = Some(ty.clone());
                merged.extend(map.clone());
            }
            Value::Object(map) => {
                is_map = false;
                merged.extend(map.clone());
            }
            _ => {
                return Err(format!("arguments must be maps or objects, got {}", value.ty().friendly_name()));
            }
        }
    }
    Ok(match element {
        Some(element) if is_map => Value::Map(element, merged),
        _ => Value::Object(merged),
    })
}

fn range(args: &[Value], _: &super::World) -> Result<Value, String> {
    let zero = || Number::from(0i64);
    let one = || Number::from(1i64);
    let (start, end, step) = match args.len() {
        1 => (zero(), number(args, 0), None),
        2 => (number(args, 0), number(args, 1), None),
        3 => (number(args, 0), number(args, 1), Some(number(args, 2))),
        0 => return Err("must have at least one argument".to_owned()),
        _ => return Err("must have one, two, or three arguments".to_owned()),
    };
    let step = step.unwrap_or_else(|| if end < start { one().negate() } else { one() });
    if step.is_zero() {
        return Err("step must not be zero".to_owned());
    }
    let goes_down = step.is_negative();
    if goes_down && end > start {
        return Err("end must be less than start when step is negative".to_owned());
    }
    if !goes_down && end < start {
        return Err("end must be greater than start when step is positive".to_owned());
    }
    let mut numbers = Vec::new();
    let mut next = start;
    while if goes_down { next > end } else { next < end } {
        if numbers.len() >= MAX_RANGE {
            return Err("more than 1024 values were generated; either decrease the difference between start and end or use a smaller step".to_owned());
        }
        numbers.push(Value::Number(next.clone()));
        next = next.add(&step).map_err(|_| "the range leads out of what numbers can be".to_owned())?;
    }
    Ok(Value::List(Type::Number, numbers))
}
