// SPDX-License-Identifier: Apache-2.0
//! A template's text as words, each with its place (Go's text/template/parse, `lex.go`).

use std::ops::Range;

use super::{Place, TemplateError};

/// The most words that a template may have.
const MAX_WORDS: usize = 100_000;

/// One word.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Word {
    pub(super) token: Token,
    pub(super) place: Place,
}

/// What a word is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Text outside of actions, trimmed.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// A word such as `if`, `json` or `true`.
    Identifier(String),
    /// `.Name`; whether a blank stands before it decides what it belongs to.
    Field(String),
    /// `$` or `$name`, the dollar included.
    Variable(String),
    /// `.` alone.
    Dot,
    Number(serde_json::Number),
    String(String),
    Pipe,
    Comma,
    Declare,
    Assign,
    OpenParenthesis,
    CloseParenthesis,
}

/// Splits a template into words.
pub(super) fn words(source: &str) -> Result<Vec<Word>, TemplateError> {
    let mut words = Vec::new();
    let mut rest = 0;
    let mut is_trimmed_left = false;
    loop {
        let open = source[rest..].find("{{").map(|at| rest + at);
        let text = &source[rest..open.unwrap_or(source.len())];
        let text = if is_trimmed_left { text.trim_start_matches(BLANKS) } else { text };
        let is_trimmed_right = open.is_some_and(|open| has_left_trim(&source[open + 2..]));
        let text = if is_trimmed_right { text.trim_end_matches(BLANKS) } else { text };
        if !text.is_empty() {
            words.push(Word { token: Token::Text(text.to_owned()), place: rest..rest });
        }
        let Some(open) = open else { return Ok(words) };
        let inside = open + 2 + if is_trimmed_right { 2 } else { 0 };
        let start = if is_trimmed_right { inside - 1 } else { inside };
        if source[start..]
            .trim_start_matches(if is_trimmed_right { &BLANKS[..] } else { &[] })
            .starts_with("/*")
        {
            (rest, is_trimmed_left) = comment(source, open, start)?;
            continue;
        }
        words.push(Word { token: Token::Open, place: open..inside });
        let mut lexer = Lexer { source, at: start, words: &mut words };
        is_trimmed_left = lexer.action(open)?;
        rest = lexer.at;
        if words.len() > MAX_WORDS {
            return Err(TemplateError::new("the template is too long", source, 0..0));
        }
    }
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

fn has_left_trim(inside: &str) -> bool {
    inside.strip_prefix('-').is_some_and(|rest| rest.starts_with(BLANKS))
}

/// Skips a comment; returns where the text goes on and whether its blanks are dropped.
fn comment(source: &str, open: usize, start: usize) -> Result<(usize, bool), TemplateError> {
    let end = source[start..].find("*/").map(|at| start + at + 2);
    let Some(end) = end else {
        return Err(TemplateError::new("this comment has no end", source, open..open + 2));
    };
    let rest = &source[end..];
    if rest.starts_with("}}") {
        return Ok((end + 2, false));
    }
    let after = rest.trim_start_matches(BLANKS);
    if after.len() < rest.len() && after.starts_with("-}}") {
        return Ok((source.len() - after.len() + 3, true));
    }
    Err(TemplateError::new("a comment ends with */}} and has its action for itself", source, open..end))
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    words: &'a mut Vec<Word>,
}

impl<'a> Lexer<'a> {
    /// Reads the words of one action up to its end; tells whether blanks after it are dropped.
    fn action(&mut self, open: usize) -> Result<bool, TemplateError> {
        let mut parentheses = Vec::new();
        loop {
            let start = self.at;
            let rest = self.rest();
            let blanks = rest.len() - rest.trim_start_matches(BLANKS).len();
            let after = &rest[blanks..];
            let is_trimming = blanks > 0 && after.starts_with("-}}");
            if is_trimming || after.starts_with("}}") {
                if let Some(place) = parentheses.pop() {
                    return Err(self.error("this parenthesis has no end", place..place + 1));
                }
                self.at += blanks + if is_trimming { 3 } else { 2 };
                self.words.push(Word { token: Token::Close, place: start..self.at });
                return Ok(is_trimming);
            }
            self.at += blanks;
            let start = self.at;
            let Some(first) = after.chars().next() else {
                return Err(self.error("this action has no end: }} is missing", open..open + 2));
            };
            let token = match first {
                '"' => self.quoted()?,
                '`' => self.raw()?,
                '\'' => self.character()?,
                '|' => self.single(Token::Pipe),
                ',' => self.single(Token::Comma),
                '(' => {
                    parentheses.push(start);
                    self.single(Token::OpenParenthesis)
                }
                ')' => {
                    if parentheses.pop().is_none() {
                        return Err(self.error("this parenthesis was not opened", start..start + 1));
                    }
                    self.single(Token::CloseParenthesis)
                }
                '=' => self.single(Token::Assign),
                ':' if after.starts_with(":=") => {
                    self.at += 2;
                    Token::Declare
                }
                '$' => {
                    self.at += 1;
                    let name = self.name();
                    Token::Variable(format!("${name}"))
                }
                '.' if !after[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                    self.at += 1;
                    match self.name() {
                        "" => Token::Dot,
                        name => Token::Field(name.to_owned()),
                    }
                }
                '0'..='9' | '+' | '-' | '.' => self.number()?,
                c if c == '_' || c.is_alphabetic() => Token::Identifier(self.name().to_owned()),
                c => {
                    let message = format!("unexpected {c:?}");
                    return Err(self.error(message, start..start + c.len_utf8()));
                }
            };
            self.words.push(Word { token, place: start..self.at });
            if self.words.len() > MAX_WORDS {
                return Err(self.error("the template is too long", 0..0));
            }
        }
    }

    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn error(&self, message: impl Into<String>, place: Range<usize>) -> TemplateError {
        TemplateError::new(message, self.source, place)
    }

    fn single(&mut self, token: Token) -> Token {
        self.at += 1;
        token
    }

    fn name(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn quoted(&mut self) -> Result<Token, TemplateError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.rest().chars().next() {
                Some('"') => break,
                Some('\\') => text.push(self.escape()?),
                None | Some('\n') => return Err(self.error("this text has no end", start..start + 1)),
                Some(c) => {
                    text.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        self.at += 1;
        Ok(Token::String(text))
    }

    /// Reads an escape of Go's strings.
    fn escape(&mut self) -> Result<char, TemplateError> {
        let start = self.at;
        let rest = &self.rest()[1..];
        let kind = rest.chars().next().unwrap_or(' ');
        let (digits, radix) = match kind {
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='7' => (3, 8),
            _ => {
                let table = [
                    ('a', '\u{7}'),
                    ('b', '\u{8}'),
                    ('f', '\u{c}'),
                    ('n', '\n'),
                    ('r', '\r'),
                    ('t', '\t'),
                    ('v', '\u{b}'),
                    ('\\', '\\'),
                    ('"', '"'),
                    ('\'', '\''),
                ];
                let Some((_, c)) = table.iter().find(|(name, _)| *name == kind) else {
                    let place = start..start + 1 + kind.len_utf8().min(rest.len());
                    return Err(self.error("there is no such escape in a text (write \\\\ for \\)", place));
                };
                self.at += 2;
                return Ok(*c);
            }
        };
        let skip = usize::from(radix == 16);
        let number = rest.get(skip..skip + digits).and_then(|text| u32::from_str_radix(text, radix).ok());
        let Some(c) = number.and_then(char::from_u32) else {
            return Err(self.error("this escape is not a character", start..start + 2));
        };
        self.at += 1 + skip + digits;
        Ok(c)
    }

    fn raw(&mut self) -> Result<Token, TemplateError> {
        let start = self.at;
        let Some(length) = self.rest()[1..].find('`') else {
            return Err(self.error("this text has no end", start..start + 1));
        };
        let text = &self.rest()[1..=length];
        self.at += length + 2;
        Ok(Token::String(text.replace('\r', "")))
    }

    fn character(&mut self) -> Result<Token, TemplateError> {
        let start = self.at;
        self.at += 1;
        let c = match self.rest().chars().next() {
            Some('\\') => self.escape()?,
            Some(c) if c != '\'' && c != '\n' => {
                self.at += c.len_utf8();
                c
            }
            _ => return Err(self.error("this is not a character", start..start + 1)),
        };
        if !self.rest().starts_with('\'') {
            return Err(self.error("a text stands between double quotes", start..self.at));
        }
        self.at += 1;
        Ok(Token::Number(u32::from(c).into()))
    }

    fn number(&mut self) -> Result<Token, TemplateError> {
        let start = self.at;
        let rest = self.rest();
        let mut end = 0;
        let mut before = ' ';
        for c in rest.chars() {
            let is_sign = matches!(c, '+' | '-') && (end == 0 || matches!(before, 'e' | 'E'));
            if !is_sign && c != '.' && c != '_' && !c.is_alphanumeric() {
                break;
            }
            before = c;
            end += c.len_utf8();
        }
        self.at += end;
        let text = &rest[..end];
        parse_number(text).map(Token::Number).ok_or_else(|| {
            let message = format!("{text:?} is not a number");
            self.error(message, start..start + end)
        })
    }
}

fn parse_number(text: &str) -> Option<serde_json::Number> {
    let plain = text.replace('_', "");
    let (is_negative, digits) = match plain.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let lower = digits.to_ascii_lowercase();
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)];
    let prefixed = prefixed.iter().find_map(|(prefix, radix)| Some((lower.strip_prefix(prefix)?, *radix)));
    let is_digits = |text: &str| text.starts_with(|c: char| c.is_ascii_hexdigit());
    let whole = match prefixed {
        Some((rest, radix)) if is_digits(rest) => Some(u64::from_str_radix(rest, radix).ok()?),
        Some(_) => return None,
        None if lower.starts_with(|c: char| c.is_ascii_digit()) => lower.parse::<u64>().ok(),
        None => None,
    };
    match whole {
        Some(number) if is_negative => Some(0_i64.checked_sub_unsigned(number)?.into()),
        Some(number) => Some(number.into()),
        // Rust reads words such as "inf", Go doesn't.
        None if lower.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            let number: f64 = lower.parse().ok()?;
            serde_json::Number::from_f64(if is_negative { -number } else { number })
        }
        None => None,
    }
}
