// SPDX-License-Identifier: Apache-2.0
//! A whole Dockerfile: global arguments and stages.

use crate::instruction::{Arg, InstructionKind};
use crate::{
    Ast, Directive, ExpandError, Expander, Instruction, Node, ParseError, ParseErrorKind, Span, instruction,
};

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq)]
pub struct Dockerfile {
    /// The directives, in order.
    pub directives: Vec<Directive>,
    /// The character that escapes and continues lines; [`Expander::new`] wants it.
    pub escape: char,
    /// The ARGs before the first FROM, in order.
    pub global_args: Vec<Instruction>,
    /// The stages, in order; at least one.
    pub stages: Vec<Stage>,
}

/// A stage: FROM and what follows up to the next FROM.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its place among the stages, from 0.
    pub index: usize,
    /// Its name in lower case.
    pub name: Option<String>,
    /// Its name as written.
    pub written_name: Option<String>,
    /// What it is built on.
    pub from: From,
    /// What follows FROM.
    pub instructions: Vec<Instruction>,
    /// The FROM line with continuations joined.
    pub original: String,
    /// The keyword FROM in the casing of the file.
    pub keyword: String,
    /// The keyword AS in the casing of the file.
    pub as_keyword: Option<String>,
    /// What the comment above says about the stage: the text after its name.
    pub description: Option<String>,
    /// The comments above FROM, without `#`.
    pub comments: Vec<String>,
    /// Where FROM stands.
    pub span: Span,
}

/// What a stage is built on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// Image, earlier stage or `scratch`.
    pub image: String,
    /// `--platform`.
    pub platform: Option<String>,
}

impl From {
    /// Replaces the variables by the global arguments.
    ///
    /// # Errors
    /// A word that can't be expanded. That neither is empty afterwards is for the caller to check.
    pub fn expand(&self, global: &mut Expander<'_>) -> Result<From, ExpandError> {
        Ok(From { image: global.word(&self.image)?, platform: global.optional(self.platform.as_deref())? })
    }
}

/// A place where an instruction names a stage, a named context or an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageReference<'a> {
    /// The text: a name or an index.
    pub text: &'a str,
    /// Where the instruction stands.
    pub span: Span,
}

impl Dockerfile {
    /// Reads a Dockerfile.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(source: &str) -> Result<Dockerfile, ParseError> {
        instruction::dockerfile(Ast::parse(source)?)
    }

    /// Reads a Dockerfile from bytes. Bytes that are not UTF-8 are borne in comments only.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse_bytes(source: &[u8]) -> Result<Dockerfile, ParseError> {
        if let Ok(text) = std::str::from_utf8(source) {
            return Dockerfile::parse(text);
        }
        // What is not UTF-8 becomes the replacement character; where one got into an instruction, the text
        // would not be what was written.
        let text = String::from_utf8_lossy(source);
        let ast = Ast::parse(&text)?;
        let is_damaged = |node: &&Node| {
            node.original.contains(char::REPLACEMENT_CHARACTER)
                || node.heredocs.iter().any(|heredoc| heredoc.content.contains(char::REPLACEMENT_CHARACTER))
        };
        if let Some(node) = ast.nodes.iter().find(is_damaged) {
            let hint = "save the file as UTF-8".to_owned();
            return Err(ParseError::new(ParseErrorKind::NotUtf8, node.span).with_hint(Some(hint)));
        }
        instruction::dockerfile(ast)
    }

    /// Returns the stage to build: by name (whatever the casing; the last of that name) or index, or
    /// without a target the last one.
    pub fn target(&self, target: Option<&str>) -> Option<&Stage> {
        let Some(target) = target else { return self.stages.last() };
        self.stage_before(target, self.stages.len()).or_else(|| self.stages.get(index(target)?))
    }

    /// Returns the stage of that name (whatever the casing) nearest before the stage `before`; what FROM
    /// means by a name.
    pub fn stage_before(&self, name: &str, before: usize) -> Option<&Stage> {
        let name = name.to_lowercase();
        let earlier = self.stages.get(..before).unwrap_or(&self.stages);
        earlier.iter().rev().find(|stage| stage.name.as_deref() == Some(name.as_str()))
    }

    /// Returns the stage that a `--from` means: by index or name. It may be the same stage or a later
    /// one, which is an error for the caller to tell; `None` means a named context or an image.
    pub fn referenced_stage(&self, text: &str) -> Option<&Stage> {
        match index(text) {
            Some(index) => self.stages.get(index),
            None => self.stage_before(text, self.stages.len()),
        }
    }

    /// Returns the definitions of all global arguments, in order.
    pub fn global_arg_definitions(&self) -> impl Iterator<Item = &instruction::ArgDefinition> {
        self.global_args
            .iter()
            .filter_map(|instruction| match &instruction.kind {
                InstructionKind::Arg(Arg { definitions }) => Some(definitions),
                _ => None,
            })
            .flatten()
    }
}

impl Stage {
    /// Returns what COPY `--from` and RUN `--mount=from=` of this stage refer to, in order.
    pub fn references(&self) -> Vec<StageReference<'_>> {
        self.instructions.iter().flat_map(Instruction::references).collect()
    }
}

impl Instruction {
    /// Returns what COPY `--from` and RUN `--mount=from=` refer to.
    pub fn references(&self) -> Vec<StageReference<'_>> {
        let texts: Vec<&str> = match &self.kind {
            InstructionKind::Copy(copy) => copy.from.as_deref().into_iter().collect(),
            InstructionKind::Run(run) => run.mounts.iter().filter_map(|mount| mount.from()).collect(),
            _ => Vec::new(),
        };
        texts.into_iter().map(|text| StageReference { text, span: self.span }).collect()
    }
}

/// Reads a stage's index.
pub(crate) fn index(text: &str) -> Option<usize> {
    text.parse().ok()
}
