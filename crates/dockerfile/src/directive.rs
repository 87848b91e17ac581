// SPDX-License-Identifier: Apache-2.0
//! Parser directives: `# syntax=`, `# escape=` and `# check=` on the first lines of the file.

use crate::{ParseError, ParseErrorKind, Span};

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

impl DirectiveName {
    /// Returns the name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            DirectiveName::Syntax => "syntax",
            DirectiveName::Escape => "escape",
            DirectiveName::Check => "check",
        }
    }

    fn parse(text: &str) -> Option<DirectiveName> {
        let names = [DirectiveName::Syntax, DirectiveName::Escape, DirectiveName::Check];
        names.into_iter().find(|name| text.eq_ignore_ascii_case(name.as_str()))
    }
}

/// Finds out which frontend a file asks for: `# syntax=`, and for files in other languages also `// syntax=`
/// on the first lines or a member `syntax` of a JSON object. A first line that begins with `#!` is skipped.
///
/// The value may hold arguments after the first blank.
pub fn detect_syntax(source: &str) -> Option<Syntax> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let (first_line, rest) = match source.split_once('\n') {
        Some((first, rest)) if first.starts_with("#!") => (2, rest),
        _ => (1, source),
    };
    let found = ["#", "//"].into_iter().find_map(|comment| syntax_after(comment, first_line, rest));
    found.or_else(|| {
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(rest).ok()?;
        Some(Syntax { value: object.get("syntax")?.as_str()?.to_owned(), line: first_line })
    })
}

/// The frontend that a file asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syntax {
    /// What it says, with arguments.
    pub value: String,
    /// The line that says it, from 1.
    pub line: u32,
}

fn syntax_after(comment: &str, first_line: u32, source: &str) -> Option<Syntax> {
    source
        .lines()
        .zip(first_line..)
        .map_while(|(text, line)| Some((name_and_value(text.strip_prefix(comment)?)?, line)))
        .find(|((name, _), _)| *name == DirectiveName::Syntax)
        .map(|((_, value), line)| Syntax { value: value.to_owned(), line })
}

/// Reads `name = value` after the comment sign.
fn name_and_value(text: &str) -> Option<(DirectiveName, &str)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (DirectiveName::parse(name.trim())?, value.trim());
    if value.is_empty() { None } else { Some((name, value)) }
}

/// Reads directives from the first lines, until a line is none.
#[derive(Debug)]
pub(crate) struct DirectiveReader {
    pub(crate) found: Vec<Directive>,
    pub(crate) escape: char,
    is_done: bool,
    had_shebang: bool,
}

impl Default for DirectiveReader {
    fn default() -> DirectiveReader {
        DirectiveReader { found: Vec::new(), escape: '\\', is_done: false, had_shebang: false }
    }
}

impl DirectiveReader {
    /// Takes a line, blanks before it removed, and tells whether it is a directive.
    ///
    /// # Errors
    /// A directive that was there before, or an escape that can't be one.
    pub(crate) fn read(&mut self, line: &str, span: Span) -> Result<bool, ParseError> {
        if self.is_done {
            return Ok(false);
        }
        if span.first_line == 1 && line.starts_with("#!") {
            self.had_shebang = true;
            return Ok(true);
        }
        let Some((name, value)) = line.strip_prefix('#').and_then(name_and_value) else {
            self.is_done = true;
            return Ok(false);
        };
        if self.found.iter().any(|directive| directive.name == name) {
            return Err(ParseError::new(ParseErrorKind::DirectiveRepeated { name: name.as_str() }, span));
        }
        // As in BuildKit the escape character can't be changed after a `#!` line.
        if name == DirectiveName::Escape && !self.had_shebang {
            self.escape = match value {
                "\\" => '\\',
                "`" => '`',
                _ => {
                    let kind = ParseErrorKind::EscapeToken { value: value.to_owned() };
                    return Err(ParseError::new(kind, span));
                }
            };
        }
        self.found.push(Directive { name, value: value.to_owned(), span });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_in_three_dresses() {
        let found = |source| detect_syntax(source).map(|it| it.value).unwrap_or_default();
        assert_eq!(found("# syntax = a/b:1 \nFROM x"), "a/b:1");
        assert_eq!(found("\u{feff}#!/usr/bin/env x\n# escape=`\n#SYNTAX=a arg\nFROM x"), "a arg");
        assert_eq!(found("// syntax=js\n"), "js");
        assert_eq!(found("{\"syntax\": \"json\"}"), "json");
        assert_eq!(found("# a comment\n# syntax=late"), "");
        assert_eq!(found("FROM x\n# syntax=late"), "");
        assert_eq!(found("# syntax=\n"), "");
        assert_eq!(found("[1]"), "");
        let line = |source| detect_syntax(source).map(|it| it.line);
        assert_eq!(line("#syntax=a\nFROM x"), Some(1));
        assert_eq!(line("#!/bin/x\n#escape=`\n#syntax=a"), Some(3));
    }
}
