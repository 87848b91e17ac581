// SPDX-License-Identifier: Apache-2.0
//! The texts that expressions come from, and what is found wrong in them.

use super::error::{BakeError, Place};

/// A part of one of the texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Index of the text.
    pub file: usize,
    /// First byte.
    pub start: usize,
    /// Byte behind the last one.
    pub end: usize,
}

/// The texts.
#[derive(Debug, Default)]
pub struct Sources {
    texts: Vec<(String, String)>,
}

impl Sources {
    /// Takes a text and returns its index.
    pub fn add(&mut self, name: &str, text: &str) -> usize {
        self.texts.push((name.to_owned(), text.to_owned()));
        self.texts.len() - 1
    }

    /// The name of a text.
    pub fn name(&self, file: usize) -> &str {
        self.texts.get(file).map_or("", |(name, _)| name)
    }

    /// Turns a fault into an error that tells its place.
    pub fn error(&self, fault: Fault) -> BakeError {
        let Some((span, (name, text))) =
            fault.span.and_then(|span| self.texts.get(span.file).map(|text| (span, text)))
        else {
            let separator = if fault.detail.is_empty() { "" } else { "; " };
            return BakeError::Request(format!("{}{separator}{}", fault.summary, fault.detail));
        };
        let (line, column) = position(text, span.start);
        let (last_line, _) = position(text, span.end.max(span.start + 1) - 1);
        BakeError::Definition {
            place: Box::new(Place { file: name.clone(), line, column, last_line, text: text.clone() }),
            summary: fault.summary,
            detail: fault.detail,
        }
    }
}

/// Line and column of a byte, both from 1.
fn position(text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// Something wrong in an expression or a block.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What, in a few words.
    pub summary: String,
    /// Why, in a sentence.
    pub detail: String,
    /// Where, if it is known.
    pub span: Option<Span>,
    /// A variable or a function doesn't exist, which some callers forgive.
    pub is_undefined: bool,
}

impl Fault {
    /// A fault at a place.
    pub fn at(span: Span, summary: &str, detail: impl Into<String>) -> Fault {
        Fault { summary: summary.to_owned(), detail: detail.into(), span: Some(span), is_undefined: false }
    }

    /// A fault whose place is not known yet.
    pub fn plain(detail: impl Into<String>) -> Fault {
        Fault { summary: String::new(), detail: detail.into(), span: None, is_undefined: false }
    }

    /// A name that doesn't exist.
    pub fn undefined(detail: impl Into<String>) -> Fault {
        Fault { is_undefined: true, ..Fault::plain(detail) }
    }

    /// Gives a place and a summary to a fault that has none.
    pub fn placed(self, summary: &str, span: Span) -> Fault {
        if self.span.is_some() {
            return self;
        }
        let detail = if self.is_undefined { format!("{}: undefined", self.detail) } else { self.detail };
        Fault { summary: summary.to_owned(), detail, span: Some(span), is_undefined: self.is_undefined }
    }
}
