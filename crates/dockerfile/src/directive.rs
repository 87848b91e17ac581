// SPDX-License-Identifier: Apache-2.0
//! Parser directives: `# syntax=`, `# escape=` and `# check=` on the first lines of the file.

use crate::Span;

/// Which directive it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DirectiveName {
    /// `syntax`: which frontend reads the file.
    Syntax,
    /// `escape`: the character that escapes and continues lines.
    Escape,
    /// `check`: which lints run.
    Check,
}

/// One directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Which one.
    pub name: DirectiveName,
    /// Its value, without blanks around it.
    pub value: String,
    /// Where it stands.
    pub span: Span,
}
