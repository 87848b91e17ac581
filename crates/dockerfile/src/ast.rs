// SPDX-License-Identifier: Apache-2.0
//! The syntax tree: logical lines with their keyword, flags and arguments, before anything is checked.

use crate::{Directive, Heredoc, ParseError, Span};

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

impl Ast {
    /// Cuts a text into instructions.
    ///
    /// # Errors
    /// The first line that can't be read, with its place.
    pub fn parse(source: &str) -> Result<Ast, ParseError> {
        let _ = source;
        Err(ParseError::new(crate::ParseErrorKind::Empty, Span::default()))
    }
}
