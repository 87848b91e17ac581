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
