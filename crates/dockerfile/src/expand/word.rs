// SPDX-License-Identifier: Apache-2.0
//! The reader of one word: it walks over the characters once and writes the result as it goes.

use std::collections::BTreeSet;

use super::wildcard::Wildcard;
use super::{ExpandError, Lookup, MAX_DEPTH, MAX_EXPANDED_BYTES};

/// The most characters that reading one text may look at: about a second's work.
const MAX_COST: usize = 1 << 30;

/// What the reader leaves as it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mode {
    /// Quotes still quote, but stay in the result.
    pub keep_quotes: bool,
    /// Escape characters still escape, but stay in the result.
    pub keep_escapes: bool,
    /// Quotes are ordinary characters.
    pub literal_quotes: bool,
    /// Variables that are not set stay in the result.
    pub keep_unset: bool,
}

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The whole text.
    pub text: String,
    /// The text cut into words.
    pub words: Vec<String>,
    /// The variables that were asked for and set.
    pub used: BTreeSet<String>,
    /// The variables that were asked for and not set.
    pub undefined: BTreeSet<String>,
}

/// Expands a text.
pub(super) fn run(text: &str, escape: char, mode: Mode, lookup: &dyn Lookup) -> Result<Output, ExpandError> {
    let mut reader = Reader {
        source: text,
        characters: text.chars().collect(),
        position: 0,
        escape,
        mode,
        lookup,
        depth: 0,
        cost: 0,
        used: BTreeSet::new(),
        undefined: BTreeSet::new(),
    };
    let mut words = Words::default();
    let text = reader.top(&mut words)?;
    Ok(Output { text, words: words.finish(), used: reader.used, undefined: reader.undefined })
}

/// Words as they grow.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
}

impl Words {
    /// Adds text that is cut at blanks.
    fn add(&mut self, text: &str) {
        for character in text.chars() {
            if !character.is_whitespace() {
                self.current.push(character);
            } else if !self.current.is_empty() {
                self.done.push(std::mem::take(&mut self.current));
            }
        }
    }

    /// Adds text that is not cut.
    fn add_quoted(&mut self, text: &str) {
        self.current.push_str(text);
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

/// How reading up to a closing character ended.
enum Nested {
    Closed(String),
    EndOfText,
}

struct Reader<'a> {
    source: &'a str,
    characters: Vec<char>,
    position: usize,
    escape: char,
    mode: Mode,
    lookup: &'a dyn Lookup,
    depth: usize,
    /// What reading has cost so far, in characters looked at.
    cost: usize,
    used: BTreeSet<String>,
    undefined: BTreeSet<String>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.position).copied()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.position += 1;
        Some(character)
    }

    /// Reads to the end of the text, and cuts words.
    fn top(&mut self, words: &mut Words) -> Result<String, ExpandError> {
        let mut text = String::new();
        while let Some(character) = self.peek() {
            let from = text.len();
            match character {
                '$' => {
                    text.push_str(&self.dollar()?);
                    words.add(&text[from..]);
                }
                '<' => {
                    self.less_than(&mut text);
                    words.add_quoted(&text[from..]);
                }
                '\'' | '"' if !self.mode.literal_quotes => {
                    self.quoted(character, &mut text)?;
                    words.add_quoted(&text[from..]);
                }
                _ if character == self.escape => {
                    self.escaped(&mut text);
                    words.add_quoted(&text[from..]);
                }
                _ => {
                    self.position += 1;
                    text.push(character);
                    words.add(&text[from..]);
                }
            }
            check_size(&text)?;
        }
        Ok(text)
    }

    /// Reads up to a closing character within `${…}`.
    fn nested(&mut self, stop: char, keep_escapes: bool) -> Result<Nested, ExpandError> {
        let outer = std::mem::replace(&mut self.mode.keep_escapes, keep_escapes);
        let result = self.nested_text(stop);
        self.mode.keep_escapes = outer;
        result
    }

    fn nested_text(&mut self, stop: char) -> Result<Nested, ExpandError> {
        let mut text = String::new();
        while let Some(character) = self.peek() {
            match character {
                _ if character == stop => {
                    self.position += 1;
                    return Ok(Nested::Closed(text));
                }
                '$' => text.push_str(&self.dollar()?),
                '\'' | '"' if !self.mode.literal_quotes => self.quoted(character, &mut text)?,
                _ if character == self.escape => self.escaped(&mut text),
                _ => {
                    self.position += 1;
                    text.push(character);
                }
            }
            check_size(&text)?;
        }
        Ok(Nested::EndOfText)
    }

    /// Reads an escape and what it escapes; at the end of the text it vanishes.
    fn escaped(&mut self, text: &mut String) {
        self.position += 1;
        if self.mode.keep_escapes {
            text.push(self.escape);
        }
        text.extend(self.next());
    }

    /// Keeps the blanks after `<<`, so that a heredoc and its word stay together.
    fn less_than(&mut self, text: &mut String) {
        self.position += 1;
        text.push('<');
        if self.peek() != Some('<') {
            return;
        }
        self.position += 1;
        text.push('<');
        while let Some(blank @ ('\t' | '\r' | ' ')) = self.peek() {
            self.position += 1;
            text.push(blank);
        }
    }

    fn quoted(&mut self, quote: char, text: &mut String) -> Result<(), ExpandError> {
        self.position += 1;
        if self.mode.keep_quotes {
            text.push(quote);
        }
        loop {
            let Some(character) = self.peek() else {
                let quote = if quote == '"' { "double-quote" } else { "single-quote" };
                return Err(ExpandError::Quote { word: self.source.to_owned(), quote });
            };
            if character == '$' && quote == '"' {
                text.push_str(&self.dollar()?);
                check_size(text)?;
                continue;
            }
            self.position += 1;
            if character == quote {
                break;
            }
            if character == self.escape && quote == '"' {
                self.escaped_in_double_quotes(text);
            } else {
                text.push(character);
            }
        }
        if self.mode.keep_quotes {
            text.push(quote);
        }
        Ok(())
    }

    /// Within double quotes the escape stays unless it stands before `"`, `$` or itself.
    fn escaped_in_double_quotes(&mut self, text: &mut String) {
        if self.mode.keep_escapes {
            text.push(self.escape);
        }
        match self.peek() {
            None => {}
            Some(character) if matches!(character, '"' | '$') || character == self.escape => {
                self.position += 1;
                text.push(character);
            }
            Some(_) => text.push(self.escape),
        }
    }

    /// Reads a variable.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        self.position += 1;
        if self.peek() == Some('{') {
            self.position += 1;
            if self.depth == MAX_DEPTH {
                return Err(ExpandError::TooDeep);
            }
            self.depth += 1;
            let value = self.substitution();
            self.depth -= 1;
            return value;
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(match self.value_of(&name)? {
            None if self.mode.keep_unset => format!("${name}"),
            value => value.unwrap_or_default(),
        })
    }

    /// Reads what follows `${`.
    fn substitution(&mut self) -> Result<String, ExpandError> {
        match self.peek() {
            None => return Err(self.missing_brace()),
            Some('{' | '}' | ':') => {
                return Err(ExpandError::Substitution { word: self.source.to_owned() });
            }
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(self.missing_brace()),
            Some('}') => Ok(match self.value_of(&name)? {
                None if self.mode.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => match self.next() {
                None => Err(self.missing_brace()),
                Some(modifier @ ('-' | '+' | '?')) => self.conditional(&name, modifier, true),
                Some(other) => Err(self.modifier(format!(":{other}"))),
            },
            Some(modifier @ ('-' | '+' | '?')) => self.conditional(&name, modifier, false),
            Some(modifier @ ('#' | '%')) => self.trimmed(&name, modifier),
            Some('/') => self.replaced(&name),
            Some(other) => Err(self.modifier(other.to_string())),
        }
    }

    /// `${n-w}`, `${n+w}`, `${n?m}`; with a colon an empty value counts as unset.
    fn conditional(&mut self, name: &str, modifier: char, has_colon: bool) -> Result<String, ExpandError> {
        let Nested::Closed(word) = self.nested('}', false)? else { return Err(self.missing_brace()) };
        let value = self.value_of(name)?;
        if value.is_none() && self.mode.keep_unset {
            let colon = if has_colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let is_set = value.as_ref().is_some_and(|value| !(has_colon && value.is_empty()));
        match (modifier, value) {
            ('-', Some(value)) if is_set => Ok(value),
            ('-', _) => Ok(word),
            ('+', _) => Ok(if is_set { word } else { String::new() }),
            (_, Some(value)) if is_set => Ok(value),
            (_, value) => {
                let message = match (word.is_empty(), value) {
                    (false, _) => word,
                    (true, None) => "is not allowed to be unset".to_owned(),
                    (true, Some(_)) => "is not allowed to be empty".to_owned(),
                };
                Err(ExpandError::Required { name: name.to_owned(), message })
            }
        }
    }

    /// `${n#p}`, `${n##p}`, `${n%p}`, `${n%%p}`; doubled means the longest match.
    fn trimmed(&mut self, name: &str, modifier: char) -> Result<String, ExpandError> {
        let Nested::Closed(word) = self.nested('}', true)? else { return Err(self.missing_brace()) };
        let Some(value) = self.value_of(name)? else {
            return Ok(if self.mode.keep_unset {
                format!("${{{name}{modifier}{word}}}")
            } else {
                String::new()
            });
        };
        let (pattern, longest) = match word.strip_prefix(modifier) {
            Some(pattern) => (pattern, true),
            None => (word.as_str(), false),
        };
        self.spend(value.len().saturating_mul(pattern.len()))?;
        let wildcard = self.wildcard(pattern)?;
        Ok(match modifier {
            '#' => wildcard.without_prefix(&value, longest),
            _ => wildcard.without_suffix(&value, longest),
        })
    }

    /// `${n/p/r}`, `${n//p/r}`; doubled means all matches.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.position += 1;
        }
        let Nested::Closed(pattern) = self.nested('/', true)? else {
            return Err(ExpandError::Slash { word: self.source.to_owned() });
        };
        let Nested::Closed(replacement) = self.nested('}', true)? else { return Err(self.missing_brace()) };
        let Some(value) = self.value_of(name)? else {
            let slash = if all { "//" } else { "/" };
            return Ok(match self.mode.keep_unset {
                true => format!("${{{name}{slash}{pattern}/{replacement}}}"),
                false => String::new(),
            });
        };
        self.spend(value.len().saturating_mul(pattern.len()))?;
        let wildcard = self.wildcard(&pattern)?;
        wildcard.replace(&value, &replacement, all).ok_or(ExpandError::TooLarge)
    }

    /// Reads a name: letters, digits and `_`; digits only; or one special character. May be empty.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(digit) if digit.is_numeric() => {
                while let Some(digit) = self.peek().filter(|character| character.is_numeric()) {
                    self.position += 1;
                    name.push(digit);
                }
            }
            Some(special @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.position += 1;
                name.push(special);
            }
            _ => {
                while let Some(letter) =
                    self.peek().filter(|&letter| letter.is_alphanumeric() || letter == '_')
                {
                    self.position += 1;
                    name.push(letter);
                }
            }
        }
        name
    }

    fn value_of(&mut self, name: &str) -> Result<Option<String>, ExpandError> {
        let value = self.lookup.get(name);
        self.spend(value.map_or(1, str::len))?;
        match value {
            Some(_) => self.used.insert(name.to_owned()),
            None => self.undefined.insert(name.to_owned()),
        };
        Ok(value.map(str::to_owned))
    }

    /// Bounds the time that a text may take, whatever it makes of its variables and throws away.
    fn spend(&mut self, cost: usize) -> Result<(), ExpandError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > MAX_COST { Err(ExpandError::TooLarge) } else { Ok(()) }
    }

    fn wildcard(&self, pattern: &str) -> Result<Wildcard, ExpandError> {
        Wildcard::parse(pattern)
            .ok_or_else(|| ExpandError::Pattern { word: self.source.to_owned(), pattern: pattern.to_owned() })
    }

    fn missing_brace(&self) -> ExpandError {
        ExpandError::Brace { word: self.source.to_owned() }
    }

    fn modifier(&self, modifier: String) -> ExpandError {
        ExpandError::Modifier { word: self.source.to_owned(), modifier }
    }
}

fn check_size(text: &str) -> Result<(), ExpandError> {
    if text.len() > MAX_EXPANDED_BYTES { Err(ExpandError::TooLarge) } else { Ok(()) }
}
