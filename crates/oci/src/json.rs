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

#[cfg(test)]
mod tests {
    use super::*;

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
