// SPDX-License-Identifier: Apache-2.0
//! File names of references: reversible, and safe for any text.
//!
//! Bytes other than `A-Z a-z 0-9 . _ -` become `%XX`. A result of more than 200 bytes is cut; all pieces
//! but the last are directories that end in `~`, and the file ends in `.json`. No piece can be `.` or
//! `..`, start a path, or pass the file system's limit of 255 bytes.

use std::path::PathBuf;

/// Bytes of encoded text in one path component.
const PIECE_BYTES: usize = 200;

/// The end of a directory's name.
pub(crate) const DIRECTORY_END: &str = "~";

/// The end of a file's name.
pub(crate) const FILE_END: &str = ".json";

/// Encodes a text as a relative path.
pub(crate) fn encode(text: &str) -> PathBuf {
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    let mut path = PathBuf::new();
    let mut rest = encoded.as_str();
    while rest.len() > PIECE_BYTES {
        // The encoded text is ASCII, so any cut is between characters.
        let (piece, after) = rest.split_at(PIECE_BYTES);
        path.push(format!("{piece}{DIRECTORY_END}"));
        rest = after;
    }
    path.push(format!("{rest}{FILE_END}"));
    path
}

/// Decodes the components of a relative path; `None` when [`encode`] does not make that path.
pub(crate) fn decode(components: &[String]) -> Option<String> {
    let (file, dirs) = components.split_last()?;
    let mut encoded = String::new();
    for dir in dirs {
        encoded.push_str(dir.strip_suffix(DIRECTORY_END)?);
    }
    encoded.push_str(file.strip_suffix(FILE_END)?);
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    // Only the canonical form counts, so that no two files name the same reference.
    (encode(&text) == components.iter().collect::<PathBuf>()).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn components(path: &std::path::Path) -> Vec<String> {
        path.iter().map(|part| part.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn names_read_well() {
        let path = encode("docker.io/library/app:v1");
        assert_eq!(path.to_str().unwrap(), "docker.io%2Flibrary%2Fapp%3Av1.json");
    }

    #[test]
    fn other_spellings_are_not_names() {
        for name in ["a%2fb.json", "a%61.json", "a%", "a%2.json", "a", "a~", "%FF.json"] {
            assert_eq!(decode(&[name.to_owned()]), None, "{name}");
        }
        assert_eq!(decode(&["a~".to_owned(), "b.json".to_owned()]), None, "cut too early");
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in any::<String>()) {
            let path = encode(&text);
            prop_assert_eq!(decode(&components(&path)), Some(text));
        }

        #[test]
        fn every_component_is_a_plain_short_name(text in "[a-z:/.@A-Z%\\u{0}~]{0,900}") {
            let path = encode(&text);
            prop_assert!(path.is_relative());
            for part in components(&path) {
                prop_assert!(part.len() <= 255 && part != "." && part != ".." && !part.contains('\0'));
            }
            prop_assert_eq!(decode(&components(&path)), Some(text));
        }

        #[test]
        fn hostile_names_do_not_panic(name in any::<String>()) {
            decode(&[name]);
        }
    }
}
