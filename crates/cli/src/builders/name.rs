// SPDX-License-Identifier: Apache-2.0
//! Names of builders and nodes.

use crate::CommandError;

/// The longest name, a file's.
const MAX_LENGTH: usize = 128;

/// Checks a name and returns it in lower case, which is how it is kept.
///
/// # Errors
/// When it does not begin with a letter, or has anything but letters, digits, `.`, `_` and `-`.
pub fn validate(name: &str) -> Result<String, CommandError> {
    let is_fine = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && name.len() <= MAX_LENGTH;
    match is_fine {
        true => Ok(name.to_ascii_lowercase()),
        false => Err(CommandError::usage(format!(
            "invalid name {name:?}: a name begins with a letter, and has letters, digits, '.', '_' and '-'"
        ))),
    }
}

const ADJECTIVES: [&str; 16] = [
    "able", "bold", "brisk", "calm", "clever", "eager", "fair", "gentle", "keen", "lucid", "merry", "nimble",
    "quiet", "ready", "swift", "warm",
];
const NOUNS: [&str; 16] = [
    "anvil", "arch", "beam", "bridge", "crane", "dome", "forge", "gable", "keel", "lathe", "mason", "mill",
    "pillar", "quarry", "tower", "vault",
];

/// Makes a name of a number, two words like `swift_arch`; of larger numbers with the number behind it.
pub fn of_number(number: u64) -> String {
    // Both indexes are smaller than the 16 words of each list.
    let (adjective, noun) = ((number % 16) as usize, (number / 16 % 16) as usize);
    let name = format!("{}_{}", ADJECTIVES[adjective], NOUNS[noun]);
    if number < 256 { name } else { format!("{name}{}", number / 256) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_lower_case() {
        assert_eq!(validate("Multi-Builder_1.x").unwrap(), "multi-builder_1.x");
        for name in ["", "1x", "-x", "a/b", "..", "a b", "名字", &"a".repeat(129)] {
            let error = validate(name).unwrap_err();
            assert!(error.error.message.contains("a name begins with a letter"), "{name}");
        }
    }

    #[test]
    fn made_names_are_valid_and_differ() {
        let names: std::collections::BTreeSet<String> = (0..1000).map(of_number).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| validate(name).unwrap() == *name));
    }
}
