// SPDX-License-Identifier: Apache-2.0
//! How a logical line is cut: keyword, flags, and arguments in the way its instruction wants them.

use crate::ast::{Arguments, Node, Pair};
use crate::{ParseErrorKind, Span};

/// The parts of a line.
pub(crate) struct Parts {
    pub(crate) keyword: String,
    pub(crate) flags: Vec<String>,
    pub(crate) arguments: Arguments,
}

/// Cuts a line.
pub(crate) fn parse(line: &str, escape: char) -> Result<Parts, ParseErrorKind> {
    let (keyword, rest) = first_word(line.trim());
    let (flags, rest) = split_flags(rest, escape);
    let arguments = arguments(&keyword.to_ascii_uppercase(), rest.trim(), escape)?;
    Ok(Parts { keyword: keyword.to_owned(), flags, arguments })
}

fn arguments(keyword: &str, rest: &str, escape: char) -> Result<Arguments, ParseErrorKind> {
    if rest.is_empty() {
        return Ok(Arguments::None);
    }
    Ok(match keyword {
        "ARG" => Arguments::Words(quoted_words(rest, escape)),
        "ENV" => pairs("ENV", rest, escape)?,
        "LABEL" => pairs("LABEL", rest, escape)?,
        "EXPOSE" | "FROM" => Arguments::Words(blank_words(rest)),
        "ADD" | "COPY" | "VOLUME" => json(rest)?.unwrap_or_else(|| Arguments::Words(blank_words(rest))),
        "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => {
            json(rest)?.unwrap_or_else(|| Arguments::Text(rest.to_owned()))
        }
        "HEALTHCHECK" => {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (kind, rest) = rest.split_at(end);
            Arguments::Typed(kind.to_owned(), Box::new(arguments("CMD", rest.trim_start(), escape)?))
        }
        "ONBUILD" => nested(rest, escape)?,
        _ => Arguments::Text(rest.to_owned()),
    })
}

/// ONBUILD holds another instruction, but not itself, so this never goes deeper than once.
fn nested(line: &str, escape: char) -> Result<Arguments, ParseErrorKind> {
    let (keyword, _) = first_word(line);
    if keyword.eq_ignore_ascii_case("ONBUILD") {
        return Err(ParseErrorKind::OnbuildTrigger { trigger: "ONBUILD".to_owned() });
    }
    let Parts { keyword, flags, arguments } = parse(line, escape)?;
    Ok(Arguments::Nested(Box::new(Node {
        keyword,
        flags,
        arguments,
        heredocs: Vec::new(),
        comments: Vec::new(),
        original: line.to_owned(),
        span: Span::default(),
        has_empty_continuation: false,
    })))
}

/// The blanks that separate words; other white space belongs to them.
fn is_blank(character: char) -> bool {
    matches!(character, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

fn first_word(text: &str) -> (&str, &str) {
    let end = text.find(is_blank).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_start_matches(is_blank))
}

fn blank_words(text: &str) -> Vec<String> {
    text.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Reads a JSON array of strings; anything that is no JSON array is none.
fn json(text: &str) -> Result<Option<Arguments>, ParseErrorKind> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let mut words = Vec::with_capacity(values.len());
    for value in values {
        match value {
            serde_json::Value::String(word) => words.push(word),
            _ => return Err(ParseErrorKind::JsonNotStrings),
        }
    }
    Ok(Some(Arguments::Json(words)))
}

fn pairs(instruction: &'static str, rest: &str, escape: char) -> Result<Arguments, ParseErrorKind> {
    let words = quoted_words(rest, escape);
    if !words.first().is_some_and(|word| word.contains('=')) {
        // The old form: a name, and all that follows is the value.
        let (name, value) = first_word(rest);
        if value.is_empty() {
            return Err(ParseErrorKind::Arguments { instruction, expected: "a name and a value" });
        }
        let pair = Pair { name: name.to_owned(), value: value.to_owned(), has_equals: false };
        return Ok(Arguments::Pairs(vec![pair]));
    }
    let mut pairs = Vec::with_capacity(words.len());
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            return Err(ParseErrorKind::NotNameValue { instruction, word });
        };
        pairs.push(Pair { name: name.to_owned(), value: value.to_owned(), has_equals: true });
    }
    Ok(Arguments::Pairs(pairs))
}

/// Cuts at the white space that is neither quoted nor escaped; quotes and escapes stay.
fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        if character == escape && quote != Some('\'') {
            // An escape that escapes nothing is dropped.
            if let Some(escaped) = characters.next() {
                word.extend([character, escaped]);
            }
            continue;
        }
        match quote {
            None if matches!(character, '"' | '\'') => quote = Some(character),
            Some(open) if open == character => quote = None,
            _ => {}
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Takes the flags `--name[=value]` off the beginning. Quotes in them are removed; a bare `--` ends them.
fn split_flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (flag, after) = flag_word(rest, escape);
        rest = after.trim_start();
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest)
}

/// Reads a word up to white space that is neither quoted nor escaped; quotes and escapes are removed.
fn flag_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match quote {
            None if character.is_whitespace() => return (word, &text[at..]),
            None if matches!(character, '"' | '\'') => quote = Some(character),
            Some(open) if open == character => quote = None,
            _ if character == escape => word.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => word.push(character),
        }
    }
    (word, "")
}
