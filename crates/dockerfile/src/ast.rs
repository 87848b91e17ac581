// SPDX-License-Identifier: Apache-2.0
//! The syntax tree: logical lines with their keyword, flags and arguments, before anything is checked.

use crate::directive::DirectiveReader;
use crate::{Directive, Heredoc, ParseError, ParseErrorKind, Span, heredoc, line};

/// The lines of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ast {
    /// The directives, in order.
    pub directives: Vec<Directive>,
    /// The character that escapes and continues lines: `\` or a backtick.
    pub escape: char,
    /// The instructions, in order; at least one.
    pub nodes: Vec<Node>,
}

/// One logical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The instruction's name, in the casing of the file.
    pub keyword: String,
    /// The flags, `--name` or `--name=value`, quotes removed.
    pub flags: Vec<String>,
    /// What follows the flags.
    pub arguments: Arguments,
    /// The heredocs, in order.
    pub heredocs: Vec<Heredoc>,
    /// The comments above the instruction, without `#`.
    pub comments: Vec<String>,
    /// The line with its continuations joined, as it is shown.
    pub original: String,
    /// Where it stands, heredocs included.
    pub span: Span,
    /// True when a blank line stands within the continued line.
    pub has_empty_continuation: bool,
}

/// The arguments of an instruction, cut as the instruction wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arguments {
    /// Nothing.
    None,
    /// The rest of the line, uncut.
    Text(String),
    /// Words between blanks.
    Words(Vec<String>),
    /// A JSON array.
    Json(Vec<String>),
    /// Pairs of name and value.
    Pairs(Vec<Pair>),
    /// HEALTHCHECK: a type and what follows.
    Typed(String, Box<Arguments>),
    /// ONBUILD: another instruction.
    Nested(Box<Node>),
}

/// A name and a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name, unexpanded.
    pub name: String,
    /// The value, unexpanded, quotes kept.
    pub value: String,
    /// False for the old form `ENV name value`.
    pub has_equals: bool,
}

/// The largest Dockerfile that is read, in bytes.
pub const MAX_DOCKERFILE_BYTES: usize = 4 << 20;

impl Ast {
    /// Cuts a text into instructions.
    ///
    /// # Errors
    /// The first line that can't be read, with its place.
    pub fn parse(source: &str) -> Result<Ast, ParseError> {
        if source.len() > MAX_DOCKERFILE_BYTES {
            let kind =
                ParseErrorKind::TooLarge { size_bytes: source.len(), limit_bytes: MAX_DOCKERFILE_BYTES };
            return Err(ParseError::new(kind, Span { first_line: 1, last_line: 1, ..Span::default() }));
        }
        let mut lines = Lines::new(source);
        let mut directives = DirectiveReader::default();
        let mut comments = Vec::new();
        let mut nodes = Vec::new();
        while let Some(line) = lines.next() {
            let text = line.text.trim_start();
            if directives.read(text, line.span)? {
                continue;
            }
            match text.strip_prefix('#').map(str::trim) {
                Some("") => comments.clear(),
                Some(comment) => comments.push(comment.to_owned()),
                None if text.is_empty() => {}
                None => {
                    let comments = std::mem::take(&mut comments);
                    if let Some(node) =
                        logical_line(text, line.span, &mut lines, directives.escape, comments)?
                    {
                        nodes.push(node);
                    }
                }
            }
        }
        if nodes.is_empty() {
            let span = Span { start: 0, end: source.len(), first_line: 1, last_line: lines.number.max(1) };
            return Err(ParseError::new(ParseErrorKind::Empty, span));
        }
        Ok(Ast { directives: directives.found, escape: directives.escape, nodes })
    }

    /// Shows the tree as lists in brackets, one instruction a line, for tests: keyword in lower case, flags,
    /// arguments quoted.
    pub fn dump(&self) -> String {
        self.nodes.iter().map(|node| format!("({})\n", node.dump())).collect()
    }
}

impl Node {
    fn dump(&self) -> String {
        let mut text = self.keyword.to_lowercase();
        if !self.flags.is_empty() {
            let flags: Vec<String> = self.flags.iter().map(|flag| quoted(flag)).collect();
            text.push_str(&format!(" [{}]", flags.join(" ")));
        }
        text.push_str(&self.arguments.dump());
        text
    }
}

impl Arguments {
    fn dump(&self) -> String {
        match self {
            Arguments::None => String::new(),
            Arguments::Text(text) => format!(" {}", quoted(text)),
            Arguments::Words(words) | Arguments::Json(words) => {
                words.iter().map(|word| format!(" {}", quoted(word))).collect()
            }
            Arguments::Pairs(pairs) => pairs
                .iter()
                .map(|pair| {
                    let separator = if pair.has_equals { "=" } else { "" };
                    format!(" {} {} {}", quoted(&pair.name), quoted(&pair.value), quoted(separator))
                })
                .collect(),
            Arguments::Typed(kind, rest) => format!(" {}{}", quoted(kind), rest.dump()),
            Arguments::Nested(node) => format!(" ({})", node.dump()),
        }
    }
}

/// Quotes a text as Go's `%q` does.
fn quoted(text: &str) -> String {
    let mut result = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => result.extend(['\\', character]),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            '\u{b}' => result.push_str("\\v"),
            '\u{c}' => result.push_str("\\f"),
            '\u{7}' => result.push_str("\\a"),
            '\u{8}' => result.push_str("\\b"),
            '\0'..='\u{1f}' | '\u{7f}' => result.push_str(&format!("\\x{:02x}", character as u32)),
            _ => result.push(character),
        }
    }
    result.push('"');
    result
}

/// A physical line.
#[derive(Debug, Clone, Copy)]
struct Line<'a> {
    /// The line without its end.
    text: &'a str,
    /// The line with its end.
    whole: &'a str,
    span: Span,
}

/// The physical lines of a source; the byte order mark is skipped.
struct Lines<'a> {
    source: &'a str,
    position: usize,
    number: u32,
}

impl<'a> Lines<'a> {
    fn new(source: &'a str) -> Lines<'a> {
        let position = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Lines { source, position, number: 0 }
    }

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = self.source.get(self.position..).filter(|rest| !rest.is_empty())?;
        let whole = rest.split_inclusive('\n').next()?;
        let text = whole.trim_end_matches(['\r', '\n']);
        self.number += 1;
        let start = self.position;
        self.position += whole.len();
        let span = Span { start, end: start + text.len(), first_line: self.number, last_line: self.number };
        Some(Line { text, whole, span })
    }
}

/// Reads an instruction that begins on a line, with its continuations and heredocs. A line that holds nothing
/// but continuations is none.
fn logical_line(
    first: &str,
    mut span: Span,
    lines: &mut Lines<'_>,
    escape: char,
    comments: Vec<String>,
) -> Result<Option<Node>, ParseError> {
    let (part, mut continues) = without_continuation(first, escape);
    let mut joined = part.to_owned();
    let mut has_empty_continuation = false;
    while continues {
        let Some(line) = lines.next() else { break };
        extend(&mut span, line.span);
        let text = line.text.trim_start();
        if text.starts_with('#') {
            continue;
        }
        if text.is_empty() {
            has_empty_continuation = true;
            continue;
        }
        let part;
        (part, continues) = without_continuation(line.text, escape);
        joined.push_str(part);
    }
    if joined.trim().is_empty() {
        return Ok(None);
    }
    let parts = line::parse(&joined, escape).map_err(|kind| ParseError::new(kind, span))?;
    let mut node = Node {
        keyword: parts.keyword,
        flags: parts.flags,
        arguments: parts.arguments,
        heredocs: Vec::new(),
        comments,
        original: joined.trim().to_owned(),
        span,
        has_empty_continuation,
    };
    if node.may_hold_heredocs() {
        for heredoc in heredoc::announced(&joined).map_err(|kind| ParseError::new(kind, span))? {
            let heredoc = heredoc_body(heredoc, lines, node.span)?;
            extend(&mut node.span, heredoc.span);
            node.heredocs.push(heredoc);
        }
    }
    Ok(Some(node))
}

/// Reads the lines of a heredoc up to its closing word.
fn heredoc_body(
    mut heredoc: Heredoc,
    lines: &mut Lines<'_>,
    instruction: Span,
) -> Result<Heredoc, ParseError> {
    heredoc.span = Span {
        start: lines.position,
        end: lines.position,
        first_line: lines.number + 1,
        last_line: lines.number + 1,
    };
    while let Some(line) = lines.next() {
        extend(&mut heredoc.span, line.span);
        let text = if heredoc.strip_tabs { line.text.trim_start_matches('\t') } else { line.text };
        if text == heredoc.name {
            return Ok(heredoc);
        }
        heredoc.content.push_str(line.whole);
    }
    let kind = ParseErrorKind::UnterminatedHeredoc { name: heredoc.name };
    Err(ParseError::new(kind, Span { last_line: lines.number.max(instruction.last_line), ..instruction }))
}

impl Node {
    fn may_hold_heredocs(&self) -> bool {
        if let Arguments::Nested(node) = &self.arguments {
            return node.may_hold_heredocs();
        }
        let keyword = self.keyword.to_ascii_uppercase();
        matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") && !matches!(self.arguments, Arguments::Json(_))
    }
}

/// Cuts off the escape character that ends a line, and says whether it was there. One that is itself escaped
/// does not count.
fn without_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}

fn extend(span: &mut Span, line: Span) {
    span.end = span.end.max(line.end);
    span.last_line = span.last_line.max(line.last_line);
}
