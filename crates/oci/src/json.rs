// SPDX-License-Identifier: Apache-2.0
//! JSON as Go's encoder writes it, because digests are over bytes.
//!
//! Go escapes `<`, `>`, `&`, U+2028 and U+2029 inside strings, and writes an empty array or object
//! without a line break when indenting.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// Writes a value without white space.
pub fn to_compact(value: &impl Serialize) -> Vec<u8> {
    write(value, CompactFormatter)
}

/// Writes a value over several lines, each level indented by `indent`, without a final line break.
pub fn to_indented(value: &impl Serialize, indent: &str) -> Vec<u8> {
    write(value, PrettyFormatter::with_indent(indent.as_bytes()))
}

/// Writes a value of our own types; they have string keys and cannot fail to serialize into memory.
fn write(value: &impl Serialize, formatter: impl Formatter) -> Vec<u8> {
    let mut bytes = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut bytes, GoFormatter(formatter)))
        .expect("documents have string keys, and writing to memory does not fail");
    bytes
}

/// Wraps a formatter with Go's rules for strings.
struct GoFormatter<F>(F);

impl<F: Formatter> Formatter for GoFormatter<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let character = rest[at..].chars().next().expect("find returned its position");
            write!(writer, "\\u{:04x}", u32::from(character))?;
            rest = &rest[at + character.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        self.0.write_char_escape(writer, escape)
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

/// Writes a JSON text over several lines as Go's `json.Indent` does: strings, numbers and the order of
/// keys stay as they are.
///
/// The text must be JSON; of any other, the result has the same characters outside white space.
pub fn reindented(text: &[u8], indent: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut in_string = false;
    let mut is_escaped = false;
    let mut is_opened = false;
    let mut is_done = false;
    let new_line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        (0..depth).for_each(|_| out.extend_from_slice(indent.as_bytes()));
    };
    for &byte in text {
        if in_string {
            out.push(byte);
            (in_string, is_escaped) = (is_escaped || byte != b'"', !is_escaped && byte == b'\\');
            continue;
        }
        // Go keeps white space after the value.
        if byte.is_ascii_whitespace() && !is_done {
            continue;
        }
        if is_opened && !matches!(byte, b'}' | b']') {
            new_line(&mut out, depth);
        }
        match byte {
            b'{' | b'[' => {
                depth += 1;
                out.push(byte);
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !is_opened {
                    new_line(&mut out, depth);
                }
                out.push(byte);
                is_done = depth == 0;
            }
            b',' => {
                out.push(byte);
                new_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b'"' => {
                in_string = true;
                out.push(byte);
            }
            _ => out.push(byte),
        }
        is_opened = matches!(byte, b'{' | b'[');
    }
    out
}

/// Escapes a JSON text as Go's encoder does with texts that are put into another: `<`, `>`, `&`, U+2028
/// and U+2029, which occur in strings only.
pub fn escaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(byte) = rest.first().copied() {
        match (byte, rest.get(..3)) {
            (b'<' | b'>' | b'&', _) => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            // U+2028 and U+2029 in UTF-8.
            (0xE2, Some([_, 0x80, last @ (0xA8 | 0xA9)])) => {
                out.extend_from_slice(format!("\\u202{:x}", last & 0xF).as_bytes());
                rest = &rest[2..];
            }
            _ => out.push(byte),
        }
        rest = &rest[1..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_indented_and_escaped_as_go_does() {
        let text = br#" {"b":[1,2.50,{"x":{},"y":[ ]}],"a":"{\"\\\\\"<&>, :[","c":null }"#;
        let expected = concat!(
            "{\n\t\"b\": [\n\t\t1,\n\t\t2.50,\n\t\t{\n\t\t\t\"x\": {},\n\t\t\t\"y\": []\n\t\t}\n\t],",
            "\n\t\"a\": \"{\\\"\\\\\\\\\\\"<&>, :[\",\n\t\"c\": null\n}"
        );
        assert_eq!(String::from_utf8(reindented(text, "\t")).unwrap(), expected);
        assert_eq!(reindented(b"{}\n", "\t"), b"{}\n");
        assert_eq!(
            escaped("{\"a\":\"<x>&\u{2028}\u{2029}\u{2030}\"}".as_bytes()),
            "{\"a\":\"\\u003cx\\u003e\\u0026\\u2028\\u2029\u{2030}\"}".as_bytes()
        );
        reindented(b"]]]}}\"\\", "\t");
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let text = to_compact(&serde_json::json!({"a": "x && y > /z <\u{2028}\n"}));
        assert_eq!(text, br#"{"a":"x \u0026\u0026 y \u003e /z \u003c\u2028\n"}"#);
    }

    #[test]
    fn empty_collections_stay_on_one_line() {
        let text = to_indented(&serde_json::json!({"a": [], "b": {}, "c": [1]}), "  ");
        assert_eq!(text, b"{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1\n  ]\n}");
    }
}
