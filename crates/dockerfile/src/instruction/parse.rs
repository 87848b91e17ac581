// SPDX-License-Identifier: Apache-2.0
//! From syntax tree to typed instructions.

use crate::{Instruction, ParseError, ParseErrorKind, Span};

/// Reads an ONBUILD trigger.
pub(super) fn trigger(text: &str, span: Span) -> Result<Instruction, ParseError> {
    let _ = text;
    Err(ParseError::new(ParseErrorKind::OnbuildNotSingle, span))
}

/// Makes instructions and stages of lines.
pub(crate) fn dockerfile(ast: crate::Ast) -> Result<crate::Dockerfile, ParseError> {
    let _ = ast;
    Err(ParseError::new(ParseErrorKind::Empty, Span::default()))
}
