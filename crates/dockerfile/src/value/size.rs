// SPDX-License-Identifier: Apache-2.0
//! Sizes in bytes with binary units, as `--mount=type=tmpfs,size=` takes them.

use super::ValueError;

/// Reads a size: a number, fractions allowed, with an optional unit `b`, `k`, `m`, `g`, `t` or `p` (powers of
/// 1024; `kb` and `kib` are the same, and casing does not matter).
///
/// # Errors
/// Not a number, an unknown unit, or more than fits 63 bits.
pub fn parse(text: &str) -> Result<u64, ValueError> {
    let error = || ValueError::Size { text: text.to_owned() };
    let digits =
        text.rfind(|character: char| character.is_ascii_digit() || character == '.').ok_or_else(error)?;
    let (number, unit) = text.split_at(digits + 1);
    let number: f64 = number.parse().map_err(|_| error())?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(error()),
    };
    let bytes = number * (1u64 << shift) as f64;
    if !(0.0..9.2e18).contains(&bytes) {
        return Err(error());
    }
    // In range, so the cast only drops the fraction.
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, bytes) in [
            ("0", 0),
            ("32", 32),
            ("32b", 32),
            ("32k", 32 << 10),
            ("32KB", 32 << 10),
            ("32kib", 32 << 10),
            ("64m", 64 << 20),
            ("1.5G", 3 << 29),
            ("2 tb", 2 << 40),
            ("1P", 1 << 50),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "-1", "-1m", "1x", "1bb", "1kx", "1 2m", "9e", "99999p", "1ee3", "nan", "inf"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
