// SPDX-License-Identifier: Apache-2.0
//! `.dockerignore`: which files of a context are left out.
//!
//! The rules are those of moby's patternmatcher: patterns apply in order and the last that matches decides;
//! a pattern that matches a directory matches what is below; `!` takes back; `*` and `?` stop at `/`, `**`
//! does not. Paths are relative, with `/` between names, without `.` or `..`.

use crate::PatternError;
use crate::glob::Glob;
use crate::path;

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
}

#[derive(Debug, Clone)]
struct Rule {
    glob: Glob,
    is_exception: bool,
    /// True for the patterns that match whatever there is.
    is_everything: bool,
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

/// The largest ignore file that is read, in bytes.
pub const MAX_IGNORE_BYTES: usize = 1 << 20;

/// The most patterns that are taken.
pub const MAX_PATTERNS: usize = 20_000;

impl IgnoreRules {
    /// Reads a `.dockerignore` file. Lines that begin with `#` are comments; blanks around a pattern and a `/`
    /// before it mean nothing.
    ///
    /// # Errors
    /// The first malformed pattern, with its line.
    pub fn parse(source: &[u8]) -> Result<IgnoreRules, IgnoreError> {
        let mut rules = IgnoreRules::default();
        for (line, is_exception, pattern) in IgnoreRules::lines(source)? {
            rules.add(&pattern, is_exception, line)?;
        }
        Ok(rules)
    }

    /// Returns the patterns of a `.dockerignore` file as they are sent to who filters by them: clean, one by
    /// one, exceptions with their `!`.
    ///
    /// # Errors
    /// The first malformed pattern, with its line.
    pub fn patterns(source: &[u8]) -> Result<Vec<String>, IgnoreError> {
        IgnoreRules::parse(source)?;
        let lines = IgnoreRules::lines(source)?.into_iter();
        Ok(lines
            .map(|(_, is_exception, pattern)| if is_exception { format!("!{pattern}") } else { pattern })
            .collect())
    }

    /// Returns the number, the kind and the pattern of every line that has one.
    fn lines(source: &[u8]) -> Result<Vec<(usize, bool, String)>, IgnoreError> {
        if source.len() > MAX_IGNORE_BYTES {
            return Err(IgnoreError::TooLarge { size: source.len(), limit: MAX_IGNORE_BYTES });
        }
        let text = String::from_utf8_lossy(source);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (is_exception, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (true, pattern.trim()),
                None => (false, line),
            };
            if pattern.is_empty() && !is_exception {
                continue;
            }
            let pattern = if pattern.is_empty() { String::new() } else { path::clean(pattern) };
            let pattern = match pattern.strip_prefix('/') {
                Some(rest) if !rest.is_empty() => rest.to_owned(),
                _ => pattern,
            };
            lines.push((index + 1, is_exception, pattern));
        }
        Ok(lines)
    }

    /// Makes rules of patterns, for example those of `COPY --exclude`; lines in errors count them from 1.
    ///
    /// # Errors
    /// The first malformed pattern.
    pub fn from_patterns<P: AsRef<str>>(
        patterns: impl IntoIterator<Item = P>,
    ) -> Result<IgnoreRules, IgnoreError> {
        let mut rules = IgnoreRules::default();
        for (index, pattern) in patterns.into_iter().enumerate() {
            let pattern = pattern.as_ref().trim();
            if pattern.is_empty() {
                continue;
            }
            let pattern = path::clean(pattern);
            match pattern.strip_prefix('!') {
                Some(pattern) => rules.add(pattern, true, index + 1)?,
                None => rules.add(&pattern, false, index + 1)?,
            }
        }
        Ok(rules)
    }

    fn add(&mut self, pattern: &str, is_exception: bool, line: usize) -> Result<(), IgnoreError> {
        if pattern.is_empty() {
            return Err(IgnoreError::LoneExclamation { line });
        }
        if self.rules.len() == MAX_PATTERNS {
            return Err(IgnoreError::TooLarge { size: MAX_PATTERNS + 1, limit: MAX_PATTERNS });
        }
        let glob = Glob::parse_ignore(pattern).map_err(|source| IgnoreError::Pattern { line, source })?;
        let is_everything = matches!(pattern, "*" | "**" | "**/*");
        self.rules.push(Rule { glob, is_exception, is_everything });
        Ok(())
    }

    /// Tells whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Tells whether there is a `!` that takes something back.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.is_exception)
    }

    /// Tells whether a pattern leaves out whatever there is.
    pub fn ignores_everything(&self) -> bool {
        self.rules.iter().any(|rule| rule.is_everything && !rule.is_exception)
    }

    /// Tells whether a path is left out. For many paths walk with [`IgnoreRules::check`], which gives the same
    /// answers.
    pub fn is_ignored(&self, path: &str) -> bool {
        let path = path::clean(path);
        if path == "." || self.is_empty() {
            return false;
        }
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let root = IgnoreState::default();
        ends.fold(root, |state, end| self.check(&state, &path[..end])).is_ignored
    }

    /// Decides about a path, given what was decided about the directory that holds it
    /// ([`IgnoreState::default`] for the root).
    pub fn check(&self, parent: &IgnoreState, path: &str) -> IgnoreState {
        let mut state = IgnoreState { matched: Vec::with_capacity(self.rules.len()), is_ignored: false };
        for (index, rule) in self.rules.iter().enumerate() {
            // A rule that could change nothing is not asked, not even for the sake of what is below: so does
            // patternmatcher's `MatchesUsingParentResults`.
            let is_match = parent.matched.get(index).copied().unwrap_or(false)
                || rule.is_exception == state.is_ignored && rule.glob.matches(path);
            state.matched.push(is_match);
            if is_match {
                state.is_ignored = !rule.is_exception;
            }
        }
        state
    }

    /// Tells whether a directory that was left out needs no visit, because no `!` takes back anything
    /// below it. `state` is what [`IgnoreRules::check`] said about it.
    pub fn can_prune(&self, state: &IgnoreState, directory: &str) -> bool {
        if !state.is_ignored {
            return false;
        }
        // What is below is left out as well, unless a later exception matches there that does not here.
        let decisive = state.matched.iter().rposition(|&is_match| is_match).unwrap_or(0);
        let below = format!("{directory}/");
        !self.rules.iter().skip(decisive).any(|rule| rule.is_exception && rule.glob.may_match_after(&below))
    }
}

/// The other reading of the same lists: which paths are chosen, as for what a peer asks of a context.
impl IgnoreRules {
    /// Tells whether a path below this directory could match a pattern that is no exception; a walker that
    /// looks for matches may skip directories for which this is false.
    pub fn may_match_below(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        self.rules.iter().any(|rule| !rule.is_exception && rule.glob.may_match_after(&below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patterns, a path, and whether it is left out.
    const TABLE: &[(&[&str], &str, bool)] = &[
        (&["a.txt"], "a.txt", true),
        (&["a.txt"], "b/a.txt", false),
        (&["./a.txt"], "a.txt", true),
        (&["dir"], "dir", true),
        (&["dir"], "dir/below/file", true),
        (&["dir/"], "dir/file", true),
        (&["dir"], "directory", false),
        (&["dir/sub"], "dir", false),
        (&["dir/sub"], "dir/sub/x", true),
        (&["*"], "a", true),
        (&["*"], "a/b", true),
        (&["*.rs"], "a.rs", true),
        (&["*.rs"], "src/a.rs", false),
        (&["*/*.rs"], "src/a.rs", true),
        (&["*/*.rs"], "src/deep/a.rs", false),
        (&["**/*.rs"], "a.rs", true),
        (&["**/*.rs"], "src/deep/a.rs", true),
        (&["**/*.rs"], "a.rsx", false),
        (&["**"], "a", true),
        (&["**"], "a/b/c", true),
        (&["**/"], "a/b", true),
        (&["**/**"], "a", true),
        (&["***"], "a", true),
        (&["**/target"], "target", true),
        (&["**/target"], "a/b/target/debug/x", true),
        (&["**/target"], "a/mytarget", false),
        (&["**target"], "a/mytarget", true),
        (&["**target"], "mytargets", false),
        (&["**/a.b"], "x/a.b", true),
        (&["**/a.b"], "x/aXb", false),
        (&["src/**"], "src", false),
        (&["src/**"], "src/a", true),
        (&["src/**"], "src/a/b", true),
        (&["src**"], "srcfoo/bar", true),
        (&["src/**/x"], "src/x", true),
        (&["src/**/x"], "src/a/b/x", true),
        (&["src/**/x"], "src/ax", false),
        (&["src/**/x/**"], "src/x", false),
        (&["src/**/x/**"], "src/q/x/y", true),
        (&["a/*/c"], "a/b/c", true),
        (&["a/*/c"], "a/c", false),
        (&["a/*/c"], "a/b/b/c", false),
        (&["?"], "a", true),
        (&["?"], "ab", false),
        (&["?"], "\u{e4}", true),
        (&["a?c"], "a/c", false),
        (&["[a-c]x"], "bx", true),
        (&["[a-c]x"], "dx", false),
        (&["[^a-c]x"], "dx", true),
        (&["[^a-c]x"], "ax", false),
        (&["[-]"], "", false),
        (&["\\*"], "*", true),
        (&["\\*"], "a", false),
        (&["a\\b"], "ab", true),
        (&["a.b"], "a.b", true),
        (&["a.b"], "acb", false),
        (&["a(b)+|{1}$^"], "a(b)+|{1}$^", true),
        (&["*", "!keep"], "keep", false),
        (&["*", "!keep"], "other", true),
        (&["*", "!keep"], "keep/below", false),
        (&["*", "!dir/keep"], "dir", true),
        (&["*", "!dir/keep"], "dir/keep", false),
        (&["*", "!dir/keep"], "dir/other", true),
        (&["*", "!dir/keep"], "dir/keep/below", false),
        (&["!keep", "*"], "keep", true),
        (&["*.md", "!README.md"], "README.md", false),
        (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
        (&["*.md", "!README*.md", "README-secret.md"], "README-a.md", false),
        (&["*.md", "README-secret.md", "!README*.md"], "README-secret.md", false),
        (&["dir", "!dir/*.txt", "dir/secret.txt"], "dir/secret.txt", true),
        (&["dir", "!dir/*.txt", "dir/secret.txt"], "dir/a.txt", false),
        (&["dir", "!dir/*.txt", "dir/secret.txt"], "dir/sub/a.txt", true),
        (&["**", "!**/*.go"], "a/b/c.go", false),
        (&["**", "!**/*.go"], "a/b", true),
        (&["a/b", "!a"], "a/b", true),
        (&["a/", "!a/"], "a/b", false),
        (&["#x"], "#x", true),
        (&["."], "a", false),
        (&["/"], "a", false),
        (&["../a"], "a", false),
        (&[" a "], "a", true),
        (&[""], "a", false),
        (&["a"], ".", false),
    ];

    #[test]
    fn table_of_paths() {
        for (patterns, path, expected) in TABLE {
            if *patterns == ["[-]"] {
                assert!(IgnoreRules::from_patterns(*patterns).is_err());
                continue;
            }
            let rules = IgnoreRules::from_patterns(*patterns).unwrap();
            assert_eq!(rules.is_ignored(path), *expected, "{patterns:?} on {path:?}");
        }
    }

    #[test]
    fn file_with_comments_blanks_and_slashes() {
        let source = b"\xef\xbb\xbf# comment\r\n\r\n  /a/b/../c  \n #not a comment\n! /a/c/keep\n/\n";
        let rules = IgnoreRules::parse(source).unwrap();
        assert!(rules.is_ignored("a/c"));
        assert!(rules.is_ignored("a/c/x"));
        assert!(!rules.is_ignored("a/c/keep"));
        assert!(rules.is_ignored("#not a comment"));
        assert!(!rules.is_ignored("# comment"));
        assert!(IgnoreRules::parse(b"").unwrap().is_empty());
    }

    #[test]
    fn malformed_patterns_tell_their_line() {
        let error = |source: &[u8]| IgnoreRules::parse(source).unwrap_err();
        assert_eq!(error(b"a\n!\n"), IgnoreError::LoneExclamation { line: 2 });
        assert!(matches!(error(b"a\n\n[a\n"), IgnoreError::Pattern { line: 3, .. }));
        for pattern in ["[", "[]", "[a-]", "[a", "a\\", "[^]", "[-a]"] {
            assert!(IgnoreRules::from_patterns([pattern]).is_err(), "{pattern}");
        }
        let many = "a\n".repeat(MAX_PATTERNS + 1);
        assert!(matches!(error(many.as_bytes()), IgnoreError::TooLarge { .. }));
        assert!(matches!(error(&vec![b'#'; MAX_IGNORE_BYTES + 1]), IgnoreError::TooLarge { .. }));
    }

    #[test]
    fn pruning_keeps_what_an_exception_may_take_back() {
        for (patterns, directory, expected) in [
            (vec!["node_modules"], "node_modules", true),
            (vec!["*", "!src"], "node_modules", true),
            (vec!["*", "!src/keep"], "src", false),
            (vec!["*", "!src/keep"], "srcs", true),
            (vec!["*", "!src/keep"], "src/other", true),
            (vec!["*", "!**/keep"], "anything", false),
            (vec!["*", "!src/*.rs"], "src", false),
            (vec!["*", "!src/*.rs"], "src/deep", true),
            (vec!["!dir/keep", "dir"], "dir", true),
            (vec!["*", "!a", "a/b"], "a/b", true),
            (vec!["*", "!src"], "src", false),
        ] {
            let rules = IgnoreRules::from_patterns(&patterns).unwrap();
            let mut state = IgnoreState::default();
            for (at, _) in directory.match_indices('/').chain([(directory.len(), "")]) {
                state = rules.check(&state, &directory[..at]);
            }
            assert_eq!(rules.can_prune(&state, directory), expected, "{patterns:?} on {directory}");
        }
    }

    #[test]
    fn time_does_not_explode() {
        let rules = IgnoreRules::from_patterns(["*a".repeat(200), "**/*a".repeat(100)]).unwrap();
        assert!(rules.is_ignored(&"a".repeat(3000)));
        assert!(!rules.is_ignored(&format!("{}b", "a".repeat(3000))));
    }
}
