// SPDX-License-Identifier: Apache-2.0
//! The matcher under [`crate::Pattern`] and [`crate::IgnoreRules`].
//!
//! A pattern is a row of tokens, and matching follows all ways through it at once, so its time is path
//! times pattern at most, whatever they hold.

use crate::PatternError;

/// The longest pattern; no path of Linux is as long.
const MAX_PATTERN_BYTES: usize = 8192;

/// One step of a pattern.
#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// This character.
    Exactly(char),
    /// One character that is not `/`.
    Any,
    /// One character that is, or with `negated` is not, in one of the ranges.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// Any number of characters that are not `/`.
    Star,
    /// Any number of characters.
    Everything,
    /// Nothing, or any number of characters and then a `/`.
    Directories,
}

/// A pattern.
#[derive(Debug, Clone)]
pub(crate) struct Glob {
    tokens: Vec<Token>,
    /// The characters that all matches begin with.
    literal_prefix: String,
    /// True when there is nothing else.
    is_literal: bool,
}

/// Which tokens may come next, one entry for each and one for the end of the pattern.
type Places = Vec<bool>;

impl Glob {
    /// Reads a pattern of `filepath.Match`: two stars are as one.
    pub(crate) fn parse_match(text: &str) -> Result<Glob, PatternError> {
        if text.len() > MAX_PATTERN_BYTES {
            let beginning: String = text.chars().take(40).collect();
            return Err(error(&format!("{beginning}..."), "longer than 8192 bytes"));
        }
        let mut tokens = Vec::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            tokens.push(match character {
                '*' => Token::Star,
                '?' => Token::Any,
                '[' => class(text, &mut characters)?,
                '\\' => Token::Exactly(escaped(text, &mut characters)?),
                _ => Token::Exactly(character),
            });
        }
        tokens.dedup_by(|token, before| *token == Token::Star && *before == Token::Star);
        Ok(Glob::of(tokens))
    }

    /// Reads a pattern of `.dockerignore`, cleaned and without `!`.
    ///
    /// Follows patternmatcher in its corners: a `/` after `**` is part of it, so that `a/**/b` matches
    /// `a/b`; `**` at the end is everything that begins with what is before; and where `**` begins a
    /// pattern that has no other wildcard, what follows may be preceded by anything (`**x` matches `ax`).
    pub(crate) fn parse_ignore(text: &str) -> Result<Glob, PatternError> {
        // The syntax is that of `filepath.Match`.
        Glob::parse_match(text)?;
        let mut tokens = Vec::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            tokens.push(match character {
                '*' if characters.next_if_eq(&'*').is_some() => {
                    characters.next_if_eq(&'/');
                    if characters.peek().is_none() { Token::Everything } else { Token::Directories }
                }
                '*' => Token::Star,
                '?' => Token::Any,
                '[' => class(text, &mut characters)?,
                '\\' => Token::Exactly(escaped(text, &mut characters)?),
                _ => Token::Exactly(character),
            });
        }
        if let [Token::Directories, rest @ ..] = tokens.as_mut_slice()
            && rest.iter().all(|token| matches!(token, Token::Exactly(_)))
            && !text.contains('\\')
            && !text.starts_with("**/")
        {
            tokens[0] = Token::Everything;
        }
        Ok(Glob::of(tokens))
    }

    fn of(tokens: Vec<Token>) -> Glob {
        let literal_prefix: String = tokens
            .iter()
            .map_while(|token| match token {
                Token::Exactly(character) => Some(*character),
                _ => None,
            })
            .collect();
        let is_literal = tokens.iter().all(|token| matches!(token, Token::Exactly(_)));
        Glob { tokens, literal_prefix, is_literal }
    }

    /// Tells whether a path matches from its first to its last character.
    pub(crate) fn matches(&self, path: &str) -> bool {
        if self.is_literal {
            return path == self.literal_prefix;
        }
        path.starts_with(&self.literal_prefix)
            && self.walk(path).is_some_and(|places| places[self.tokens.len()])
    }

    /// Tells whether a longer path that begins so could match.
    pub(crate) fn may_match_after(&self, beginning: &str) -> bool {
        let tokens = self.tokens.len();
        self.walk(beginning).is_some_and(|places| places[..tokens].contains(&true))
    }

    /// Returns the characters that all matches begin with.
    pub(crate) fn literal_prefix(&self) -> &str {
        &self.literal_prefix
    }

    fn walk(&self, path: &str) -> Option<Places> {
        let mut places = vec![false; self.tokens.len() + 1];
        let mut next = places.clone();
        self.enter(&mut places, 0);
        for character in path.chars() {
            next.fill(false);
            for (place, token) in self.tokens.iter().enumerate() {
                if places[place] {
                    self.step(token, place, character, &mut next);
                }
            }
            if !next.contains(&true) {
                return None;
            }
            std::mem::swap(&mut places, &mut next);
        }
        Some(places)
    }

    fn step(&self, token: &Token, place: usize, character: char, next: &mut Places) {
        match token {
            Token::Exactly(wanted) if *wanted == character => self.enter(next, place + 1),
            Token::Exactly(_) => {}
            Token::Any if character != '/' => self.enter(next, place + 1),
            Token::Any => {}
            Token::Class { negated, ranges } => {
                let is_in = ranges.iter().any(|&(first, last)| (first..=last).contains(&character));
                if is_in != *negated {
                    self.enter(next, place + 1);
                }
            }
            Token::Star if character != '/' => self.enter(next, place),
            Token::Star => {}
            Token::Everything => self.enter(next, place),
            Token::Directories => {
                // In the midst of a name only a `/` leads on.
                next[place] = true;
                if character == '/' {
                    self.enter(next, place + 1);
                }
            }
        }
    }

    /// Marks a place, and those after it that may match nothing.
    fn enter(&self, places: &mut Places, place: usize) {
        let mut place = place;
        places[place] = true;
        while let Some(Token::Star | Token::Everything | Token::Directories) = self.tokens.get(place) {
            place += 1;
            places[place] = true;
        }
    }
}

fn escaped(
    text: &str,
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
) -> Result<char, PatternError> {
    characters.next().ok_or_else(|| error(text, "nothing follows the escape"))
}

/// Reads a class after its `[`.
fn class(
    text: &str,
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
) -> Result<Token, PatternError> {
    let negated = characters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && characters.next_if_eq(&']').is_some() {
            return Ok(Token::Class { negated, ranges });
        }
        let first = class_character(text, characters)?;
        let last = match characters.next_if_eq(&'-') {
            Some(_) => class_character(text, characters)?,
            None => first,
        };
        ranges.push((first, last));
    }
}

fn class_character(
    text: &str,
    characters: &mut std::iter::Peekable<std::str::Chars<'_>>,
) -> Result<char, PatternError> {
    match characters.next() {
        None => Err(error(text, "unclosed [")),
        Some('-' | ']') => Err(error(text, "empty class or range")),
        Some('\\') => escaped(text, characters),
        Some(character) => Ok(character),
    }
}

fn error(text: &str, reason: &'static str) -> PatternError {
    PatternError { pattern: text.to_owned(), reason }
}
