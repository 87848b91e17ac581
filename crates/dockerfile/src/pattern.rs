// SPDX-License-Identifier: Apache-2.0
//! Wildcards of COPY and ADD sources, as Go's `filepath.Match` reads them: `*`, `?`, `[a-z]`, `[^a-z]` and
//! `\`; nothing but a class matches `/`.

use crate::glob::Glob;

/// Says why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {pattern:?}: {reason}")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A pattern for whole paths.
#[derive(Debug, Clone)]
pub struct Pattern {
    glob: Glob,
}

/// Tells whether a text has wildcards, or escapes that only a pattern understands.
pub fn has_wildcards(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// An unclosed or empty class, a range without an end, an escape at the end.
    pub fn new(text: &str) -> Result<Pattern, PatternError> {
        Ok(Pattern { glob: Glob::parse_match(text)? })
    }

    /// Tells whether a path matches from its first to its last character.
    pub fn matches(&self, path: &str) -> bool {
        self.glob.matches(path)
    }

    /// Tells whether a path below this directory could match; a walker may skip directories for which this
    /// is false.
    pub fn may_match_below(&self, directory: &str) -> bool {
        directory.is_empty() || self.glob.may_match_after(&format!("{directory}/"))
    }

    /// Returns the directory, free of wildcards, in which all matches lie; empty for the root.
    pub fn literal_directory(&self) -> &str {
        self.glob.literal_prefix().rsplit_once('/').map_or("", |(directory, _)| directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, path, expected) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*", "abc", true),
            ("*", "", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a**b", "axxb", true),
            ("a**b", "a/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a\u{263a}b", true),
            ("a???b", "a\u{263a}b", false),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("[x\\-]", "z", false),
            ("*[a-z].txt", "9q.txt", true),
            ("*x", "xxx", true),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(path), expected, "{pattern} on {path}");
        }
        for pattern in ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\"] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
        assert!(Pattern::new(&"a".repeat(8193)).is_err());
    }

    #[test]
    fn walking() {
        let pattern = Pattern::new("src/gen-*/[ab].c").unwrap();
        assert_eq!(pattern.literal_directory(), "src");
        assert!(pattern.may_match_below(""));
        assert!(pattern.may_match_below("src"));
        assert!(pattern.may_match_below("src/gen-1"));
        assert!(!pattern.may_match_below("src/other"));
        assert!(!pattern.may_match_below("src/gen-1/a.c"));
        assert_eq!(Pattern::new("*.c").unwrap().literal_directory(), "");
        assert_eq!(Pattern::new("a/b").unwrap().literal_directory(), "a");
        assert!(has_wildcards("a*") && has_wildcards("[") && !has_wildcards("a.b"));
    }
}
