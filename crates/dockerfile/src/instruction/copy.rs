// SPDX-License-Identifier: Apache-2.0
//! COPY and ADD.

use crate::{ExpandError, Expander, Heredoc};

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path in the source tree, with wildcards; for ADD also a URL or a git repository.
    Path(String),
    /// A file whose text stands in the Dockerfile; its name is [`Heredoc::name`].
    Heredoc(Heredoc),
}

/// COPY: files of the context, of another stage or of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// What is copied, at least one.
    pub sources: Vec<Source>,
    /// Where to; a trailing slash makes it a directory.
    pub destination: String,
    /// `--from`: stage name or index, named context or image; never expanded.
    pub from: Option<String>,
    /// `--chown`, see [`crate::value::owner::parse`].
    pub chown: Option<String>,
    /// `--chmod`, see [`crate::value::chmod::Chmod`].
    pub chmod: Option<String>,
    /// `--link`: the files make a layer that does not depend on those below.
    pub link: bool,
    /// `--parents`: directories above the source are kept.
    pub parents: bool,
    /// `--exclude`: patterns of files left out, see [`crate::IgnoreRules::from_patterns`].
    pub exclude: Vec<String>,
}

/// ADD: files of the context, archives, URLs, git repositories.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Add {
    /// What is copied, at least one.
    pub sources: Vec<Source>,
    /// Where to; a trailing slash makes it a directory.
    pub destination: String,
    /// `--chown`, see [`crate::value::owner::parse`].
    pub chown: Option<String>,
    /// `--chmod`, see [`crate::value::chmod::Chmod`].
    pub chmod: Option<String>,
    /// `--link`: the files make a layer that does not depend on those below.
    pub link: bool,
    /// `--exclude`: patterns of files left out, see [`crate::IgnoreRules::from_patterns`].
    pub exclude: Vec<String>,
    /// `--checksum`: the digest of a URL's content or the commit of a repository.
    pub checksum: Option<String>,
    /// `--keep-git-dir`; not given is not the same as false.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`; not given means local archives only.
    pub unpack: Option<bool>,
}

impl Copy {
    pub(super) fn expand(&self, expander: &mut Expander<'_>) -> Result<Copy, ExpandError> {
        Ok(Copy {
            chown: expander.optional(self.chown.as_deref())?,
            chmod: expander.optional(self.chmod.as_deref())?,
            sources: expand_sources(&self.sources, expander)?,
            destination: expander.word(&self.destination)?,
            ..self.clone()
        })
    }
}

impl Add {
    pub(super) fn expand(&self, expander: &mut Expander<'_>) -> Result<Add, ExpandError> {
        Ok(Add {
            chown: expander.optional(self.chown.as_deref())?,
            chmod: expander.optional(self.chmod.as_deref())?,
            checksum: expander.optional(self.checksum.as_deref())?,
            sources: expand_sources(&self.sources, expander)?,
            destination: expander.word(&self.destination)?,
            ..self.clone()
        })
    }
}

fn expand_sources(sources: &[Source], expander: &mut Expander<'_>) -> Result<Vec<Source>, ExpandError> {
    sources
        .iter()
        .map(|source| match source {
            Source::Path(path) => Ok(Source::Path(expander.word(path)?)),
            Source::Heredoc(heredoc) => Ok(Source::Heredoc(heredoc.expanded(expander)?)),
        })
        .collect()
}
