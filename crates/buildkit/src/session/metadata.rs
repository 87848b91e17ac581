// SPDX-License-Identifier: Apache-2.0
//! Lists of texts in the headers of a call.
//!
//! A key stands once for each value. When any value is not ASCII, all values of the key are escaped as
//! in a URL's query and `<key>-encoded: 1` stands beside them.

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

/// The most bytes that are taken of the values of one key.
const MAX_BYTES: usize = 4 << 20;

/// Returns the values of a key.
pub(crate) fn values(metadata: &MetadataMap, key: &str) -> Vec<String> {
    let encoded = metadata.get(format!("{key}-encoded"));
    let is_encoded = encoded.is_some_and(|value| matches!(value.as_bytes(), b"1" | b"t" | b"true"));
    let mut left = MAX_BYTES;
    let mut values = Vec::new();
    for value in metadata.get_all(key) {
        let bytes = value.as_bytes();
        let Some(rest) = left.checked_sub(bytes.len()) else { break };
        left = rest;
        let text = String::from_utf8_lossy(bytes);
        values.push(if is_encoded { unescape(&text) } else { text.into_owned() });
    }
    values
}

/// Returns the first value of a key.
pub(crate) fn first(metadata: &MetadataMap, key: &str) -> Option<String> {
    values(metadata, key).into_iter().next()
}

/// Sets the values of a key; a key that can't be a header's stays away.
pub(crate) fn insert(metadata: &mut MetadataMap, key: &str, values: &[String]) {
    let Ok(name) = AsciiMetadataKey::from_bytes(key.to_ascii_lowercase().as_bytes()) else { return };
    // Control characters can't stand in a header either.
    let is_plain = values.iter().all(|value| value.bytes().all(|byte| matches!(byte, 0x20..=0x7e)));
    metadata.remove(&name);
    for value in values {
        let value = if is_plain { value.clone() } else { escape(value) };
        if let Ok(value) = AsciiMetadataValue::try_from(value) {
            metadata.append(name.clone(), value);
        }
    }
    if let (false, Ok(name)) = (is_plain, AsciiMetadataKey::from_bytes(format!("{name}-encoded").as_bytes()))
    {
        metadata.insert(name, AsciiMetadataValue::from_static("1"));
    }
}

/// Escapes a text as in a URL's query.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Undoes the escapes of a URL's query: `%XX` and `+`; what is no escape stays.
fn unescape(text: &str) -> String {
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits are at most 255.
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
            }
            (b'+', ..) => {
                out.push(b' ');
                at += 1;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_all_those_of_the_key() {
        let mut metadata = MetadataMap::new();
        metadata.append("exclude-patterns", "a b".parse().unwrap());
        metadata.append("exclude-patterns", "100%".parse().unwrap());
        assert_eq!(values(&metadata, "exclude-patterns"), ["a b", "100%"]);
        assert_eq!(first(&metadata, "exclude-patterns").as_deref(), Some("a b"));
        assert!(values(&metadata, "include-patterns").is_empty());
    }

    #[test]
    fn what_is_set_comes_back() {
        for values_set in [
            vec!["a b".to_owned(), "100%".to_owned()],
            vec!["caf\u{e9} + lait\n".to_owned(), "50%".to_owned()],
        ] {
            let mut metadata = MetadataMap::new();
            insert(&mut metadata, "followpaths", &["old".to_owned()]);
            insert(&mut metadata, "followpaths", &values_set);
            assert_eq!(values(&metadata, "followpaths"), values_set);
        }
    }

    #[test]
    fn escaped_values_are_unescaped() {
        let mut metadata = MetadataMap::new();
        metadata.append("followpaths", "caf%C3%A9+au+lait".parse().unwrap());
        metadata.append("followpaths", "50%".parse().unwrap());
        metadata.append("followpaths-encoded", "1".parse().unwrap());
        assert_eq!(values(&metadata, "followpaths"), ["café au lait", "50%"]);
    }
}
