// SPDX-License-Identifier: Apache-2.0
//! Heredocs: `N<<[-]WORD` in RUN, COPY and ADD, and the lines that follow up to `WORD`.

use crate::{ExpandError, Expander, Span};

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

pub(crate) fn is_only_heredoc(_text: &str) -> bool {
    false
}
