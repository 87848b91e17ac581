// SPDX-License-Identifier: Apache-2.0
//! Heredocs: `N<<[-]WORD` in RUN, COPY and ADD, and the lines that follow up to `WORD`.

use crate::expand::{self, Mode};
use crate::{ExpandError, Expander, ParseErrorKind, Span};

/// One heredoc with its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, without quotes; COPY takes it as the file's name.
    pub name: String,
    /// The number before `<<`, 0 if none.
    pub file_descriptor: u32,
    /// True when variables in the text are replaced, that is when no part of the word was quoted.
    pub expand: bool,
    /// True for `<<-`: tabs at the beginning of each line are dropped.
    pub strip_tabs: bool,
    /// The lines as they stand in the file, tabs and line ends included.
    pub content: String,
    /// Where the lines stand, the closing word included.
    pub span: Span,
}

impl Heredoc {
    /// Returns the text, for `<<-` without the tabs at the beginning of lines.
    pub fn text(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// Returns the same heredoc with the variables of its text replaced, unless its word was quoted.
    pub(crate) fn expanded(&self, expander: &mut Expander<'_>) -> Result<Heredoc, ExpandError> {
        let content = if self.expand { expander.text(&self.content)? } else { self.content.clone() };
        Ok(Heredoc { content, ..self.clone() })
    }
}

/// Returns the heredocs that a line announces, still without text.
pub(crate) fn announced(line: &str) -> Result<Vec<Heredoc>, ParseErrorKind> {
    if !line.contains("<<") {
        return Ok(Vec::new());
    }
    let mode = Mode { keep_quotes: true, keep_escapes: true, keep_unset: true, ..Mode::default() };
    // A line whose quotes do not match is left to the shell; heredocs in it can't be told.
    let words = expand::split(line, '\\', mode).unwrap_or_default();
    let mut heredocs = Vec::new();
    for word in words {
        heredocs.extend(read_word(&word).map_err(|reason| ParseErrorKind::HeredocQuotes { reason })?);
    }
    Ok(heredocs)
}

/// Reads a word such as `<<EOF`, `<<-"EOF"` or `3<<EOF`; another word is none.
pub(crate) fn read_word(word: &str) -> Result<Option<Heredoc>, ExpandError> {
    let rest = word.trim_start_matches(|character: char| character.is_ascii_digit());
    let digits = &word[..word.len() - rest.len()];
    let Some(rest) = rest.strip_prefix("<<") else { return Ok(None) };
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let name = rest.trim_start();
    if name.is_empty() || name.contains('<') {
        return Ok(None);
    }
    let mode = Mode { keep_unset: true, ..Mode::default() };
    let words = expand::split(name, '\\', mode)?;
    let quoted = expand::split(name, '\\', Mode { keep_quotes: true, ..mode })?;
    let ([name], [quoted]) = (words.as_slice(), quoted.as_slice()) else { return Ok(None) };
    Ok(Some(Heredoc {
        name: name.clone(),
        file_descriptor: digits.parse().unwrap_or_default(),
        // Quotes that are gone from one and not from the other quoted some part of the word.
        expand: count_quotes(name) == count_quotes(quoted),
        strip_tabs,
        content: String::new(),
        span: Span::default(),
    }))
}

/// Tells whether a command is a heredoc and nothing else.
pub(crate) fn is_only_heredoc(command: &str) -> bool {
    matches!(read_word(command), Ok(Some(_)))
}

fn count_quotes(text: &str) -> usize {
    text.matches(['"', '\'']).count()
}
