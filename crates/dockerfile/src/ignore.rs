// SPDX-License-Identifier: Apache-2.0
//! `.dockerignore`: which files of a context are left out.
//!
//! The rules are those of moby's patternmatcher: patterns apply in order and the last that matches decides;
//! a pattern that matches a directory matches what is below; `!` takes back; `*` and `?` stop at `/`, `**`
//! does not. Paths are relative, with `/` between names, without `.` or `..`.

use crate::PatternError;
use crate::glob::Glob;

/// Says why a file is not a list of patterns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// A `!` stands alone.
    #[error("line {line}: illegal exclusion pattern \"!\", a pattern must follow")]
    LoneExclamation {
        /// The line, counted from 1.
        line: usize,
    },
    /// A pattern is malformed.
    #[error("line {line}")]
    Pattern {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: PatternError,
    },
    /// There is more than is read.
    #[error("ignore file of {size} patterns or bytes is larger than the {limit} allowed")]
    TooLarge {
        /// What there is.
        size: usize,
        /// The limit.
        limit: usize,
    },
}

/// An ordered list of patterns.
#[derive(Debug, Clone, Default)]
pub struct IgnoreRules {
    rules: Vec<Rule>,
    has_exceptions: bool,
}

#[derive(Debug, Clone)]
struct Rule {
    glob: Glob,
    is_exception: bool,
}

/// What is known about a directory, for deciding about what is in it.
#[derive(Debug, Clone, Default)]
pub struct IgnoreState {
    /// Which rules match the directory or one above; empty for the root.
    matched: Vec<bool>,
    is_ignored: bool,
}

impl IgnoreState {
    /// Tells whether the path is left out.
    pub fn is_ignored(&self) -> bool {
        self.is_ignored
    }
}

impl IgnoreRules {
    /// Reads a `.dockerignore` file.
    ///
    /// # Errors
    /// The first malformed pattern, with its line.
    pub fn parse(source: &[u8]) -> Result<IgnoreRules, IgnoreError> {
        let _ = source;
        Ok(IgnoreRules::default())
    }

    /// Makes rules of patterns, for example those of `COPY --exclude`; lines in errors count them from 1.
    ///
    /// # Errors
    /// The first malformed pattern.
    pub fn from_patterns<P: AsRef<str>>(
        patterns: impl IntoIterator<Item = P>,
    ) -> Result<IgnoreRules, IgnoreError> {
        let _ = patterns.into_iter().map(|_| ());
        Ok(IgnoreRules::default())
    }

    /// Tells whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Tells whether a path is left out. For many paths walk with [`IgnoreRules::check`].
    pub fn is_ignored(&self, path: &str) -> bool {
        let _ = (path, self.has_exceptions);
        false
    }

    /// Decides about a path, given what was decided about the directory that holds it
    /// ([`IgnoreState::default`] for the root).
    pub fn check(&self, parent: &IgnoreState, path: &str) -> IgnoreState {
        let _ = (parent, path);
        IgnoreState::default()
    }

    /// Tells whether a directory that was left out needs no visit, because no `!` takes back anything
    /// below it. `state` is what [`IgnoreRules::check`] said about it.
    pub fn can_prune(&self, state: &IgnoreState, directory: &str) -> bool {
        let _ = (directory, self.rules.first().map(|rule| (rule.is_exception, &rule.glob)), &state.matched);
        false
    }
}
