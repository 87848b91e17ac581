// SPDX-License-Identifier: Apache-2.0
//! Word expansion: variables, quotes and escapes of the Dockerfile language, and splitting into words.
//!
//! The forms are `$n`, `${n}`, `${n-w}`, `${n+w}`, `${n?m}` (each also with `:`), `${n#p}`, `${n##p}`,
//! `${n%p}`, `${n%%p}`, `${n/p/r}` and `${n//p/r}`; words nest, patterns know `*`, `?` and `\`. A variable
//! that is not set is empty. Single quotes keep everything, double quotes keep all but variables and the
//! escapes `\"`, `\$` and `\\`.

mod wildcard;
mod word;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use word::{Mode, Output};

/// The largest text that an expansion may give, in bytes: variables that hold variables double quickly.
pub const MAX_EXPANDED_BYTES: usize = 4 << 20;

/// The deepest nesting of `${…}`.
pub const MAX_DEPTH: usize = 100;

/// Where the values of variables come from.
pub trait Lookup {
    /// Returns the value of a variable, or none if it is not set.
    fn get(&self, name: &str) -> Option<&str>;
}

/// Variables in the order in which they were first set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Environment {
    variables: Vec<(String, String)>,
}

impl Environment {
    /// Makes an environment without variables.
    pub fn new() -> Environment {
        Environment::default()
    }

    /// Sets a variable; one that is set already keeps its place.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.variables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.variables.push((name, value)),
        }
    }

    /// Iterates over names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Environment {
        let mut environment = Environment::new();
        for (name, value) in pairs {
            environment.set(name, value);
        }
        environment
    }
}

impl Lookup for Environment {
    fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.variables.iter().find(|(known, _)| known == name)?;
        Some(value)
    }
}

impl Lookup for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        BTreeMap::get(self, name).map(String::as_str)
    }
}

/// Expands words over a set of variables, and remembers which of them it was asked for.
pub struct Expander<'a> {
    lookup: &'a dyn Lookup,
    escape: char,
    used: BTreeSet<String>,
    undefined: BTreeSet<String>,
}

impl<'a> Expander<'a> {
    /// Makes an expander; `escape` is [`crate::Dockerfile::escape`].
    pub fn new(lookup: &'a dyn Lookup, escape: char) -> Expander<'a> {
        Expander { lookup, escape, used: BTreeSet::new(), undefined: BTreeSet::new() }
    }

    /// Expands a text to one word, quotes and escapes removed.
    ///
    /// # Errors
    /// Unbalanced quotes or braces, an unknown form, a `${n?m}` that is not set.
    pub fn word(&mut self, text: &str) -> Result<String, ExpandError> {
        Ok(self.run(text, self.escape, Mode::default())?.text)
    }

    /// Expands a word that may be missing.
    ///
    /// # Errors
    /// As [`Expander::word`].
    pub fn optional(&mut self, text: Option<&str>) -> Result<Option<String>, ExpandError> {
        text.map(|text| self.word(text)).transpose()
    }

    /// Expands each text to one word.
    ///
    /// # Errors
    /// As [`Expander::word`].
    pub fn each(&mut self, texts: &[String]) -> Result<Vec<String>, ExpandError> {
        texts.iter().map(|text| self.word(text)).collect()
    }

    /// Expands a text and splits it at the blanks that are not quoted, those in values included.
    ///
    /// # Errors
    /// As [`Expander::word`].
    pub fn words(&mut self, text: &str) -> Result<Vec<String>, ExpandError> {
        Ok(self.run(text, self.escape, Mode::default())?.words)
    }

    /// Expands the text of a heredoc: quotes are ordinary characters, the escape is always `\`.
    ///
    /// # Errors
    /// As [`Expander::word`].
    pub fn text(&mut self, text: &str) -> Result<String, ExpandError> {
        Ok(self.run(text, '\\', Mode { literal_quotes: true, ..Mode::default() })?.text)
    }

    /// Replaces the variables that are set, for showing a step: quotes stay, and so does a text that can't
    /// be expanded. Does not count as use.
    pub fn display(&self, text: &str) -> String {
        let mode = Mode { keep_quotes: true, keep_unset: true, ..Mode::default() };
        match word::run(text, self.escape, mode, self.lookup) {
            Ok(output) => output.text,
            Err(_) => text.to_owned(),
        }
    }

    /// Returns the names that were asked for and set.
    pub fn used(&self) -> &BTreeSet<String> {
        &self.used
    }

    /// Returns the names that were asked for and not set.
    pub fn undefined(&self) -> &BTreeSet<String> {
        &self.undefined
    }

    fn run(&mut self, text: &str, escape: char, mode: Mode) -> Result<Output, ExpandError> {
        let mut output = word::run(text, escape, mode, self.lookup)?;
        self.used.append(&mut output.used);
        self.undefined.append(&mut output.undefined);
        Ok(output)
    }
}

/// Cuts a text into words without replacing anything; nothing is set.
pub(crate) fn split(text: &str, escape: char, mode: Mode) -> Result<Vec<String>, ExpandError> {
    Ok(word::run(text, escape, mode, &Environment::new())?.words)
}

/// Says why a word can't be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A quote is not closed.
    #[error("unexpected end of {word:?} while looking for matching {quote}")]
    Quote {
        /// The word.
        word: String,
        /// The quote, in words.
        quote: &'static str,
    },
    /// A `${` is not closed.
    #[error("missing '}}' in {word:?}")]
    Brace {
        /// The word.
        word: String,
    },
    /// A `${n/p` has no second slash.
    #[error("missing '/' after the pattern of ${{}} in {word:?}")]
    Slash {
        /// The word.
        word: String,
    },
    /// A `${` is followed by no name.
    #[error("bad substitution in {word:?}")]
    Substitution {
        /// The word.
        word: String,
    },
    /// A modifier that does not exist.
    #[error("unsupported modifier ({modifier}) in substitution in {word:?}")]
    Modifier {
        /// The word.
        word: String,
        /// The modifier.
        modifier: String,
    },
    /// A pattern escapes something else than `*`, `?`, `\`, `/` and `}`.
    #[error("invalid pattern ({pattern}) in substitution in {word:?}")]
    Pattern {
        /// The word.
        word: String,
        /// The pattern.
        pattern: String,
    },
    /// A `${n?message}` is not set, or with `:` empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the Dockerfile says about it.
        message: String,
    },
    /// Substitutions are nested too deeply.
    #[error("more than {MAX_DEPTH} nested substitutions")]
    TooDeep,
    /// The result is too large, or its variables and patterns are.
    #[error("expansion gives more than {MAX_EXPANDED_BYTES} bytes, or takes too long")]
    TooLarge,
}
