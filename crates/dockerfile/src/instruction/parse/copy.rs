// SPDX-License-Identifier: Apache-2.0
//! COPY and ADD, from syntax tree to type.

use super::Request;
use crate::ast::Arguments;
use crate::flags::FlagKind;
use crate::instruction::copy::{Add, Copy, Source};
use crate::{Environment, Expander, Heredoc, ParseError, ParseErrorKind, heredoc};

const COPY_FLAGS: &[(&str, FlagKind)] = &[
    ("from", FlagKind::Text),
    ("chown", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("link", FlagKind::Boolean),
    ("parents", FlagKind::Boolean),
    ("exclude", FlagKind::Texts),
];

const ADD_FLAGS: &[(&str, FlagKind)] = &[
    ("chown", FlagKind::Text),
    ("chmod", FlagKind::Text),
    ("link", FlagKind::Boolean),
    ("exclude", FlagKind::Texts),
    ("checksum", FlagKind::Text),
    ("keep-git-dir", FlagKind::Boolean),
    ("unpack", FlagKind::Boolean),
];

impl Request<'_> {
    pub(super) fn copy(&self) -> Result<Copy, ParseError> {
        let flags = self.flags(COPY_FLAGS)?;
        let (sources, destination) = self.sources_and_destination()?;
        let from = flags.text("from");
        if let Some(from) = &from
            && Expander::new(&Environment::new(), '\\').word(from).ok().as_ref() != Some(from)
        {
            return Err(self.not_expanded(ParseErrorKind::VariableInFrom));
        }
        Ok(Copy {
            sources,
            destination,
            from,
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.boolean("link").unwrap_or(false),
            parents: flags.boolean("parents").unwrap_or(false),
            exclude: flags.texts("exclude"),
        })
    }

    pub(super) fn add(&self) -> Result<Add, ParseError> {
        let flags = self.flags(ADD_FLAGS)?;
        let (sources, destination) = self.sources_and_destination()?;
        Ok(Add {
            sources,
            destination,
            chown: flags.text("chown"),
            chmod: flags.text("chmod"),
            link: flags.boolean("link").unwrap_or(false),
            exclude: flags.texts("exclude"),
            checksum: flags.text("checksum"),
            keep_git_dir: flags.boolean("keep-git-dir"),
            unpack: flags.boolean("unpack"),
        })
    }

    fn sources_and_destination(&self) -> Result<(Vec<Source>, String), ParseError> {
        let [words @ .., destination] = self.words() else {
            return Err(self.missing("at least two arguments: source… destination"));
        };
        if words.is_empty() {
            return Err(self.missing("at least two arguments, the last of which is the destination"));
        }
        if matches!(self.node.arguments, Arguments::Json(_)) {
            return Ok((words.iter().cloned().map(Source::Path).collect(), destination.clone()));
        }
        if heredoc::is_only_heredoc(destination) {
            return Err(self.error(ParseErrorKind::HeredocDestination { instruction: self.name }));
        }
        let mut heredocs = self.node.heredocs.iter();
        let mut sources = Vec::with_capacity(words.len());
        for word in words {
            sources.push(match heredoc::is_only_heredoc(word) {
                true => Source::Heredoc(self.inline_file(heredocs.next())?),
                false => Source::Path(word.clone()),
            });
        }
        match heredocs.next() {
            Some(_) => Err(self.error(ParseErrorKind::HeredocWord { instruction: self.name })),
            None => Ok((sources, destination.clone())),
        }
    }

    /// Turns a heredoc into a file: what `<<-` drops is dropped now.
    fn inline_file(&self, heredoc: Option<&Heredoc>) -> Result<Heredoc, ParseError> {
        let word = || self.error(ParseErrorKind::HeredocWord { instruction: self.name });
        let heredoc = heredoc.ok_or_else(word)?;
        Ok(Heredoc { content: heredoc.text(), strip_tabs: false, ..heredoc.clone() })
    }
}
