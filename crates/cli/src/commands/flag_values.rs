// SPDX-License-Identifier: Apache-2.0
//! The small languages of flag values: booleans as Go writes them, CSV, sizes, pairs.

pub use polyarch_build::csv::split_csv;
use polyarch_oci::platform::did_you_mean;

/// Reads a boolean in any of the forms that Go's flag packages accept.
pub fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// Reads a size as docker does: a number with a binary unit, `64m`, `1.5GiB`, `4096`.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size (write for example 64m or 1g)");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..split].parse().map_err(|_| wrong())?;
    let unit = text[split..].trim_start().to_ascii_lowercase();
    let shift = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if unit.is_empty() || unit == "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    let bytes = number * f64::from(1u32 << (shift / 2)) * f64::from(1u32 << (shift / 2));
    // A float that is in range converts without surprise; fractions of bytes are cut off.
    if bytes.is_finite() && (0.0..9e18).contains(&bytes) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// Reads `KEY=VALUE`, or `KEY` alone as a key with an empty value.
pub fn parse_pair(flag: &str, text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(format!("{flag} {text:?}: the key is empty"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Sets a key's value; of a key that comes again, the last value counts, in the place of the first.
pub fn set_pair(pairs: &mut Vec<(String, String)>, key: String, value: String) {
    match pairs.iter_mut().find(|(known, _)| *known == key) {
        Some(pair) => pair.1 = value,
        None => pairs.push((key, value)),
    }
}

/// Says that a word is not one of those known.
pub fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    format!("{what} {word:?} is not known{} ({})", did_you_mean(word, known), known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        let table = [
            ("64m", Some(64 << 20)),
            ("4096", Some(4096)),
            ("4096b", Some(4096)),
            ("1.5GiB", Some(3 << 29)),
            ("2KB", Some(2048)),
            ("1 g", Some(1 << 30)),
            ("0", Some(0)),
            ("", None),
            ("m", None),
            ("1x", None),
            ("1i", None),
            ("-1", None),
            ("1.2.3", None),
            ("99999999999t", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_size(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn booleans_are_those_of_go() {
        assert_eq!(
            ["1", "T", "true", "False", "0"].map(|text| go_bool(text).ok()),
            [Some(true), Some(true), Some(true), Some(false), Some(false)]
        );
        assert!(go_bool("yes").is_err());
    }
}
