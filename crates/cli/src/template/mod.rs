// SPDX-License-Identifier: Apache-2.0
//! Templates of `--format`: the language of Go's text/template with docker's and buildx's functions.
//!
//! A template is read once and rendered with values. Both are from outside: what is read has a limit of
//! depth and length, what is rendered one of steps and bytes. An error says what is wrong, where in the
//! template, and, for a field that doesn't exist, which ones do.
//!
//! Not there: complex numbers, methods, and `call`.

mod evaluate;
mod functions;
mod lex;
mod listing;
mod parse;
mod printf;
mod value;

use std::ops::Range;

pub use functions::{Functions, JsonStyle};
pub use listing::Listing;
pub use value::{Object, Value};

use crate::CommandError;

/// The longest template, in bytes.
const MAX_SOURCE_BYTES: usize = 256 << 10;

/// Where in a template something stands, in bytes.
type Place = Range<usize>;

/// A template that was read.
#[derive(Debug, Clone)]
pub struct Template {
    source: String,
    tree: parse::Tree,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When it isn't one; the error shows the place.
    pub fn parse(source: &str) -> Result<Template, TemplateError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(TemplateError::new("the template is too long", source, 0..0));
        }
        Ok(Template { source: source.to_owned(), tree: parse::parse(source)? })
    }

    /// Renders the template with a value.
    ///
    /// # Errors
    /// When the template asks for what the value doesn't have, or for too much.
    pub fn render(&self, value: &Value, functions: Functions) -> Result<String, TemplateError> {
        evaluate::render(&self.tree, &self.source, value, functions)
    }

    /// Tells whether the template asks the value itself for a field of this name, or for all of it: what
    /// is costly to find out need not be found out otherwise.
    pub fn asks_for(&self, field: &str) -> bool {
        self.tree.asks_for(field)
    }
}

/// Says why a template can't be read or rendered, and shows where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", self.excerpt())]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
    /// The template.
    pub template: String,
    /// The bytes of the template that are meant; empty when it is all of it.
    pub place: Range<usize>,
}

impl TemplateError {
    fn new(message: impl Into<String>, template: &str, place: Range<usize>) -> TemplateError {
        TemplateError { message: message.into(), template: template.to_owned(), place }
    }

    /// Shows the line that is meant, and marks the place below it.
    fn excerpt(&self) -> String {
        /// The most characters that are shown of a line, on each side of the place.
        const SIDE: usize = 60;
        let Range { start, end } = self.place;
        let (Some(before), Some(marked)) = (self.template.get(..start), self.template.get(start..end)) else {
            return String::new();
        };
        if marked.is_empty() && start == 0 {
            return String::new();
        }
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_number = before.matches('\n').count() + 1;
        let left: Vec<char> = self.template[line_start..start].chars().collect();
        let left: String = left[left.len().saturating_sub(SIDE)..].iter().collect();
        let marked: String = marked.chars().take_while(|c| *c != '\n').take(SIDE).collect();
        let after = &self.template[start + marked.len()..];
        let right: String = after.chars().take_while(|c| *c != '\n').take(SIDE).collect();
        let line = format!("{left}{marked}{right}").replace('\t', " ");
        let place = if self.template.contains('\n') {
            format!("line {line_number} of the template")
        } else {
            "the template".to_owned()
        };
        use unicode_width::UnicodeWidthStr as _;
        let marks = "^".repeat(marked.width().max(1));
        format!("\n  in {place}:\n    {line}\n    {}{marks}", " ".repeat(left.width()))
    }
}

impl From<TemplateError> for CommandError {
    fn from(error: TemplateError) -> CommandError {
        CommandError::usage(format!("--format: {error}"))
    }
}

#[cfg(test)]
mod tests;
