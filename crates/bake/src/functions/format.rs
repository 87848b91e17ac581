// SPDX-License-Identifier: Apache-2.0
//! `format` and `formatlist`: texts with verbs like `%s` and `%05d`.

use super::super::bounds::{self, MAX_VALUE_BYTES};
use super::super::convert::{convert, to_text};
use super::super::number::Number;
use super::super::value::{Type, Value};
use super::{Function, Kind, nullable, parameter, text, variadic};

/// The widest a verb may make a text.
const MAX_WIDTH: usize = 4096;

pub const FUNCTIONS: &[Function] = &[
    variadic("format", &[parameter("format", Kind::Text)], nullable("args"), |args, _| {
        format(text(args, 0), &args[1..]).map(Value::String)
    }),
    variadic("formatlist", &[parameter("format", Kind::Text)], nullable("args"), |args, _| {
        let lists = args[1..].iter().filter_map(|value| value.elements().map(<[Value]>::len));
        let mut length = None;
        for count in lists {
            if length.is_some_and(|length| length != count) {
                return Err("the lists have different lengths".to_owned());
            }
            length = Some(count);
        }
        let line = |at: usize| {
            let row: Vec<Value> = args[1..]
                .iter()
                .map(|value| value.elements().map_or_else(|| value.clone(), |elements| elements[at].clone()))
                .collect();
            let line = format(text(args, 0), &row);
            line.map(Value::String).map_err(|problem| format!("error on format iteration {at}: {problem}"))
        };
        bounds::collect((0..length.unwrap_or(1)).map(line)).map(|lines| Value::List(Type::String, lines))
    }),
];

/// A verb: `%[flags][width][.precision][[index]]letter`.
#[derive(Debug, Default)]
struct Verb {
    letter: char,
    plus: bool,
    minus: bool,
    space: bool,
    sharp: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
    index: Option<usize>,
}

fn format(format: &str, args: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut letters = format.char_indices().peekable();
    let mut next = 0;
    let mut highest = 0;
    while let Some((at, c)) = letters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let rest = &format[at + 1..];
        let (verb, length) = verb(rest)
            .ok_or_else(|| format!("unrecognized format character at offset {at} of {format:?}"))?;
        for _ in rest[..length].chars() {
            letters.next();
        }
        if verb.letter == '%' {
            out.push('%');
            continue;
        }
        let position = verb.index.unwrap_or(next);
        next = position + 1;
        highest = highest.max(next);
        let name = format!("%{}", &rest[..length]);
        let value = args.get(position).ok_or_else(|| {
            format!(
                "not enough arguments for {name:?} at {at}: need index {position} but have {} total",
                args.len()
            )
        })?;
        let text = write(&verb, value)
            .map_err(|problem| format!("unsupported value for {name:?} at {at}: {problem}"))?;
        if out.len() + text.len() > MAX_VALUE_BYTES {
            return Err(bounds::too_large());
        }
        out.push_str(&text);
    }
    if highest < args.len() {
        return Err(format!("too many arguments; only {highest} used by format string"));
    }
    Ok(out)
}

fn verb(text: &str) -> Option<(Verb, usize)> {
    let bytes = text.as_bytes();
    let mut verb = Verb::default();
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'+' => verb.plus = true,
            b'-' => verb.minus = true,
            b' ' => verb.space = true,
            b'#' => verb.sharp = true,
            b'0' => verb.zero = true,
            _ => break,
        }
        at += 1;
    }
    let number = |at: &mut usize| {
        let start = *at;
        while bytes.get(*at).is_some_and(u8::is_ascii_digit) {
            *at += 1;
        }
        if *at == start { Some(0) } else { text[start..*at].parse().ok().filter(|width| *width <= MAX_WIDTH) }
    };
    verb.width = number(&mut at)?;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        verb.precision = Some(number(&mut at)?);
    }
    if bytes.get(at) == Some(&b'[') {
        at += 1;
        verb.index = Some(number(&mut at)?.checked_sub(1)?);
        if bytes.get(at) != Some(&b']') {
            return None;
        }
        at += 1;
    }
    verb.letter = text[at..].chars().next()?;
    at += verb.letter.len_utf8();
    "vtbdoxXeEfgGsq%".contains(verb.letter).then_some((verb, at))
}

fn write(verb: &Verb, value: &Value) -> Result<String, String> {
    let number = || match convert(value, &Type::Number) {
        Ok(Value::Number(number)) => Ok(number),
        Ok(_) => Err("null value cannot be formatted".to_owned()),
        Err(problem) => Err(problem),
    };
    match verb.letter {
        'v' if verb.sharp => Ok(pad(verb, value.to_string())),
        'v' => match value {
            Value::Null(_) => Ok(pad(verb, "null".to_owned())),
            Value::String(text) => Ok(pad(verb, shortened(verb, text))),
            Value::Number(number) => Ok(pad_number(verb, signed(verb, number, number.absolute().text()))),
            value => Ok(pad(verb, value.to_string())),
        },
        't' => match convert(value, &Type::Bool) {
            Ok(Value::Bool(flag)) => Ok(pad(verb, flag.to_string())),
            _ => Err("bool required".to_owned()),
        },
        's' | 'q' => {
            let text = match value {
                Value::Null(_) => return Err("null value cannot be formatted".to_owned()),
                value => to_text(value).ok_or_else(|| "string required".to_owned())?,
            };
            let text = shortened(verb, &text);
            Ok(pad(verb, if verb.letter == 'q' { Value::String(text).to_string() } else { text }))
        }
        'b' | 'd' | 'o' | 'x' | 'X' => {
            let number = number()?;
            let integer =
                number.absolute().to_big_int().ok_or_else(|| "an integer is required".to_owned())?;
            let (radix, prefix) = match verb.letter {
                'b' => (2, "0b"),
                'o' => (8, "0"),
                'x' => (16, "0x"),
                'X' => (16, "0X"),
                _ => (10, ""),
            };
            let mut digits = integer.to_str_radix(radix);
            if verb.letter == 'X' {
                digits.make_ascii_uppercase();
            }
            if let Some(precision) = verb.precision {
                digits = format!("{digits:0>precision$}");
            }
            if verb.sharp {
                digits = format!("{prefix}{digits}");
            }
            Ok(pad_number(verb, signed(verb, &number, digits)))
        }
        _ => {
            let number = number()?;
            let double = number.absolute().to_f64();
            let precision = verb.precision;
            let text = match verb.letter {
                'f' => format!("{double:.*}", precision.unwrap_or(6)),
                'e' | 'E' => exponential(double, precision.unwrap_or(6)),
                _ => general(double, precision),
            };
            let text = if verb.letter.is_ascii_uppercase() { text.to_ascii_uppercase() } else { text };
            Ok(pad_number(verb, signed(verb, &number, text)))
        }
    }
}

fn shortened(verb: &Verb, text: &str) -> String {
    match verb.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    }
}

fn signed(verb: &Verb, number: &Number, digits: String) -> String {
    let sign = match (number.is_negative(), verb.plus, verb.space) {
        (true, _, _) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    };
    format!("{sign}{digits}")
}

/// `d.ddde±dd`.
fn exponential(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// Whichever of `%e` and `%f` is shorter.
fn general(value: f64, precision: Option<usize>) -> String {
    let scientific = match precision {
        Some(precision) => format!("{value:.*e}", precision.max(1) - 1),
        None => format!("{value:e}"),
    };
    let exponent: i32 = scientific.split_once('e').and_then(|(_, digits)| digits.parse().ok()).unwrap_or(0);
    let threshold = precision.map_or(21, |precision| i32::try_from(precision.max(1)).unwrap_or(21));
    if exponent < -4 || exponent >= threshold {
        let digits = scientific.split('e').next().unwrap_or("").trim_end_matches('0').len().saturating_sub(2);
        return exponential(value, digits);
    }
    let rounded: f64 = scientific.parse().unwrap_or(value);
    rounded.to_string()
}

fn pad(verb: &Verb, text: String) -> String {
    let missing = verb.width.saturating_sub(text.chars().count());
    let space = " ".repeat(missing);
    if verb.minus { text + &space } else { space + &text }
}

fn pad_number(verb: &Verb, text: String) -> String {
    if !verb.zero || verb.minus {
        return pad(verb, text);
    }
    let (sign, digits) = match text.strip_prefix(['-', '+', ' ']) {
        Some(digits) => text.split_at(text.len() - digits.len()),
        None => ("", text.as_str()),
    };
    let width = verb.width.saturating_sub(sign.len());
    format!("{sign}{digits:0>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_those_of_printf() {
        let number = |text: &str| Value::Number(Number::parse(text).expect("a number"));
        let cases: &[(&str, Vec<Value>, &str)] = &[
            ("%s-%s", vec![Value::string("a"), number("1")], "a-1"),
            ("%05d|%-5d|%5d", vec![number("42"), number("42"), number("-42")], "00042|42   |  -42"),
            ("%x %X %b %o", vec![number("255"), number("255"), number("5"), number("8")], "ff FF 101 10"),
            ("%.2f %6.1f", vec![number("3.14159"), number("2.5")], "3.14    2.5"),
            ("%e", vec![number("1234.5")], "1.234500e+03"),
            ("%g", vec![number("0.5")], "0.5"),
            ("%q %v %%", vec![Value::string("x\"y"), Value::Bool(true)], "\"x\\\"y\" true %"),
            ("%#v", vec![Value::Tuple(vec![number("1"), Value::string("b")])], "[1,\"b\"]"),
            ("%[2]s %[1]s", vec![Value::string("a"), Value::string("b")], "b a"),
        ];
        for (template, args, expected) in cases {
            assert_eq!(format(template, args).as_deref(), Ok(*expected), "{template}");
        }
        assert!(format("%d", &[Value::string("x")]).is_err());
        assert!(format("%s", &[]).is_err());
        assert!(format("x", &[Value::string("x")]).is_err());
        assert!(format("%99999999999s", &[Value::string("x")]).is_err());
    }
}
