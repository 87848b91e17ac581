// SPDX-License-Identifier: Apache-2.0
//! `print`, `println` and `printf` with the verbs of Go's fmt.

use super::Value;
use super::functions::Shared;

/// The widest field and the most digits.
const MAX_WIDTH: usize = 10_000;

/// Writes values, with a blank between two that are both no text.
pub(super) fn print(values: &[Shared<'_>]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        let is_text = |value: &Value| matches!(value, Value::String(_));
        if at > 0 && !is_text(value) && !is_text(&values[at - 1]) {
            out.push(' ');
        }
        out.push_str(&print_one(value));
    }
    out
}

/// Writes values with blanks between them and a line end after them.
pub(super) fn println(values: &[Shared<'_>]) -> String {
    let values: Vec<String> = values.iter().map(|value| print_one(value)).collect();
    values.join(" ") + "\n"
}

/// Writes one value as `fmt.Print` does.
pub(super) fn print_one(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        other => other.print(),
    }
}

#[derive(Default)]
struct Verb {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Writes values as a format says.
pub(super) fn printf(arguments: &[Shared<'_>]) -> Result<String, String> {
    let Some((first, mut rest)) = arguments.split_first() else {
        return Err("printf needs a format".to_owned());
    };
    let Value::String(format) = &**first else {
        return Err(format!("the format of printf is a text, not {}", first.kind()));
    };
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '+' | '#' | ' ' | '0')) {
            match flag {
                '-' => verb.minus = true,
                '+' => verb.plus = true,
                '#' => verb.sharp = true,
                ' ' => verb.space = true,
                _ => verb.zero = true,
            }
        }
        verb.width = number(&mut chars, &mut rest, &mut verb.minus)?;
        if chars.next_if_eq(&'.').is_some() {
            verb.precision = Some(number(&mut chars, &mut rest, &mut false)?.unwrap_or(0));
        }
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(letter) => match rest.split_first() {
                Some((value, others)) => {
                    rest = others;
                    out.push_str(&verb.write(letter, value));
                }
                None => out.push_str(&format!("%!{letter}(MISSING)")),
            },
        }
    }
    if !rest.is_empty() {
        let extra: Vec<String> = rest.iter().map(|value| typed(value)).collect();
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    Ok(out)
}

/// Reads a width or a precision, digits or `*`.
fn number(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    rest: &mut &[Shared<'_>],
    minus: &mut bool,
) -> Result<Option<usize>, String> {
    let number = if chars.next_if_eq(&'*').is_some() {
        let Some((value, others)) = rest.split_first() else {
            return Err("printf needs a number for *".to_owned());
        };
        *rest = others;
        let Value::Number(number) = &**value else {
            return Err(format!("* of printf is a number, not {}", value.kind()));
        };
        let number = number.as_i64().unwrap_or(i64::MAX);
        *minus |= number < 0;
        Some(usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX))
    } else {
        let mut number = None;
        while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
            chars.next();
            number = Some(number.unwrap_or(0_usize).saturating_mul(10).saturating_add(digit as usize));
        }
        number
    };
    match number {
        Some(number) if number > MAX_WIDTH => Err(format!("printf writes no more than {MAX_WIDTH} columns")),
        number => Ok(number),
    }
}

/// Writes a value with its type, as in messages about a wrong verb.
fn typed(value: &Value) -> String {
    let kind = match value {
        Value::Null => return "<nil>".to_owned(),
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::List(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    format!("{kind}={}", print_one(value))
}

impl Verb {
    fn write(&self, letter: char, value: &Value) -> String {
        // Of lists and maps each element is written.
        if let (Value::List(list), true) = (value, !matches!(letter, 'v' | 'T')) {
            let parts: Vec<String> = list.iter().map(|value| self.write(letter, value)).collect();
            return format!("[{}]", parts.join(" "));
        }
        let text = match (letter, value) {
            ('v', Value::Number(_) | Value::String(_)) if self.sharp => match value {
                Value::String(text) => quote(text),
                other => print_one(other),
            },
            ('v', Value::Number(number)) if number.is_f64() => return self.float('g', number),
            ('v' | 'd', Value::Number(number)) if !number.is_f64() => return self.whole(number, 10, false),
            ('v', Value::String(text)) | ('s', Value::String(text)) => match self.precision {
                Some(precision) => text.chars().take(precision).collect(),
                None => text.clone(),
            },
            ('v', value) => print_one(value),
            ('t', Value::Bool(truth)) => truth.to_string(),
            ('q', Value::String(text)) => quote(text),
            ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            ('X', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
            ('b', Value::Number(number)) if !number.is_f64() => return self.whole(number, 2, false),
            ('o', Value::Number(number)) if !number.is_f64() => return self.whole(number, 8, false),
            ('x', Value::Number(number)) if !number.is_f64() => return self.whole(number, 16, false),
            ('X', Value::Number(number)) if !number.is_f64() => return self.whole(number, 16, true),
            ('c', Value::Number(number)) => {
                let c = number.as_u64().and_then(|code| char::from_u32(u32::try_from(code).ok()?));
                c.unwrap_or('\u{fffd}').to_string()
            }
            ('U', Value::Number(number)) if number.is_u64() => {
                format!("U+{:04X}", number.as_u64().unwrap_or(0))
            }
            ('f' | 'F' | 'e' | 'g', Value::Number(number)) if number.is_f64() => {
                return self.float(letter, number);
            }
            ('T', value) => typed(value).split('=').next().unwrap_or_default().to_owned(),
            (letter, value) => format!("%!{letter}({})", typed(value)),
        };
        self.padded(&text)
    }

    fn padded(&self, text: &str) -> String {
        let width = self.width.unwrap_or(0);
        let blanks = " ".repeat(width.saturating_sub(text.chars().count()));
        if self.minus { format!("{text}{blanks}") } else { format!("{blanks}{text}") }
    }

    fn whole(&self, number: &serde_json::Number, radix: u32, is_upper: bool) -> String {
        let negative = number.as_i64().is_some_and(|number| number < 0);
        let size = number.as_i64().map_or(number.as_u64().unwrap_or(0), i64::unsigned_abs);
        let mut digits = match (radix, is_upper) {
            (2, _) => format!("{size:b}"),
            (8, _) => format!("{size:o}"),
            (16, false) => format!("{size:x}"),
            (16, true) => format!("{size:X}"),
            _ => size.to_string(),
        };
        if let Some(precision) = self.precision {
            digits = format!("{}{digits}", "0".repeat(precision.saturating_sub(digits.len())));
        }
        if self.sharp {
            let prefix = match (radix, is_upper) {
                (2, _) => "0b",
                (8, _) => "0",
                (16, false) => "0x",
                (16, true) => "0X",
                _ => "",
            };
            digits.insert_str(0, prefix);
        }
        self.signed(negative, &digits, self.precision.is_none())
    }

    fn float(&self, letter: char, number: &serde_json::Number) -> String {
        let float = number.as_f64().unwrap_or(0.0);
        let size = float.abs();
        let digits = match (letter, self.precision) {
            ('f' | 'F', precision) => format!("{size:.*}", precision.unwrap_or(6)),
            ('e', precision) => with_exponent(&format!("{size:.*e}", precision.unwrap_or(6))),
            (_, None) => {
                Value::Number(serde_json::Number::from_f64(size).unwrap_or_else(|| 0.into())).print()
            }
            (_, Some(precision)) => general(size, precision.max(1)),
        };
        self.signed(float.is_sign_negative() && float != 0.0, &digits, true)
    }

    /// Adds the sign and fills up to the width.
    fn signed(&self, negative: bool, digits: &str, may_zero: bool) -> String {
        let sign = match (negative, self.plus, self.space) {
            (true, ..) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        };
        let missing = self.width.unwrap_or(0).saturating_sub(sign.len() + digits.len());
        if self.zero && may_zero && !self.minus {
            return format!("{sign}{}{digits}", "0".repeat(missing));
        }
        self.padded(&format!("{sign}{digits}"))
    }
}

/// Writes a number with so many digits that count, without zeros at the end.
fn general(size: f64, digits: usize) -> String {
    let scientific = format!("{size:.*e}", digits - 1);
    let exponent: i32 = scientific.split_once('e').and_then(|(_, text)| text.parse().ok()).unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= i32::try_from(digits).unwrap_or(i32::MAX) {
        let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        return with_exponent(&format!("{}e{exponent}", trimmed(mantissa)));
    }
    let decimals = i32::try_from(digits).unwrap_or(i32::MAX).saturating_sub(1).saturating_sub(exponent);
    trimmed(&format!("{size:.*}", usize::try_from(decimals).unwrap_or(0)))
}

/// Gives an exponent its sign and two digits, as C and Go do.
pub(super) fn with_exponent(text: &str) -> String {
    match text.split_once('e') {
        None => text.to_owned(),
        Some((mantissa, exponent)) => {
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
    }
}

/// Writes a text between quotes as Go's `%q` does.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
