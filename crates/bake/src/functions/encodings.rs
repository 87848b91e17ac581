// SPDX-License-Identifier: Apache-2.0
//! Notations: base64, URLs, JSON, CSV.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::bounds::{self, Tally};
use super::super::csv;
use super::super::value::{Attribute, Type, Value};
use super::{Function, Kind, function, nullable, parameter, text};

pub const FUNCTIONS: &[Function] = &[
    function("base64encode", &[parameter("str", Kind::Text)], |args, _| {
        Ok(Value::String(STANDARD.encode(text(args, 0))))
    }),
    function("base64decode", &[parameter("str", Kind::Text)], |args, _| {
        let bytes = STANDARD
            .decode(text(args, 0))
            .map_err(|_| format!("failed to decode base64 data '{}'", text(args, 0)))?;
        String::from_utf8(bytes)
            .map(Value::String)
            .map_err(|_| "the result of decoding the provided string is not valid UTF-8".to_owned())
    }),
    function("urlencode", &[parameter("str", Kind::Text)], |args, _| {
        let mut out = String::new();
        for byte in text(args, 0).bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    out.push(char::from(byte))
                }
                b' ' => out.push('+'),
                byte => out.push_str(&format!("%{byte:02X}")),
            }
        }
        Ok(Value::String(out))
    }),
    function("jsonencode", &[nullable("val")], |args, _| Ok(Value::String(args[0].to_string()))),
    function("jsondecode", &[parameter("str", Kind::Text)], |args, _| {
        check_elements(text(args, 0), &[',', '[', '{'])?;
        let json: serde_json::Value =
            serde_json::from_str(text(args, 0)).map_err(|error| format!("invalid JSON: {error}"))?;
        Ok(Value::from_json(&json))
    }),
    function("csvdecode", &[parameter("str", Kind::Text)], |args, _| {
        check_elements(text(args, 0), &[',', '\n'])?;
        let records = csv::records(text(args, 0))?;
        let mut records = records.into_iter();
        let header = records.next().ok_or_else(|| "missing header line".to_owned())?;
        let (mut rows, mut tally) = (Vec::new(), Tally::default());
        for record in records {
            if record.len() != header.len() {
                return Err(format!("wrong number of fields: {} instead of {}", record.len(), header.len()));
            }
            let row = header.iter().cloned().zip(record.into_iter().map(Value::String)).collect();
            let row = Value::Object(row);
            tally.add(&row)?;
            rows.push(row);
        }
        let attribute = || Attribute { ty: Type::String, is_optional: false };
        let types: BTreeMap<String, Attribute> = header.into_iter().map(|name| (name, attribute())).collect();
        Ok(Value::List(Type::Object(types), rows))
    }),
];

/// Checks by what stands between elements that there are not more than a value can have.
fn check_elements(text: &str, marks: &[char]) -> Result<(), String> {
    if text.matches(marks).count() > bounds::MAX_ELEMENTS { Err(bounds::too_large()) } else { Ok(()) }
}
