// SPDX-License-Identifier: Apache-2.0
//! ADD: as COPY of the context, and archives, URLs and git repositories.

use polyarch_dockerfile::instruction::{Add, Source};
use polyarch_dockerfile::{Instruction, Span};
use polyarch_oci::Digest;
use polyarch_solver::VertexId;

use super::Lowering;
use super::copy::destination;
use super::stage::StageState;
use crate::error::{BuildError, ErrorKind};
use crate::ops::copy::{CopyAction, CopyPath};
use crate::remote::{GitReference, GitSource, RemoteSource, WebSource, is_git, is_http};

impl Lowering<'_, '_> {
    pub(super) async fn add(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        add: &Add,
    ) -> Result<(), BuildError> {
        let span = instruction.span;
        self.check_mode(add.chmod.as_deref(), span)?;
        self.check_checksum(add, span)?;
        let common = CopyAction {
            destination: destination(state, &add.destination),
            owner: add.chown.clone().filter(|owner| !owner.is_empty()),
            mode: add.chmod.clone().filter(|mode| !mode.is_empty()),
            exclude: add.exclude.clone(),
            from_context: true,
            ..CopyAction::default()
        };
        let local = CopyAction {
            unpack: add.unpack.unwrap_or(true),
            has_unknown_times: self.frontend.request.source_date_epoch.is_some(),
            ..common.clone()
        };
        let mut actions: Vec<CopyAction> = Vec::new();
        let mut inputs: Vec<VertexId> = Vec::new();
        let mut heredocs = Vec::new();
        for source in &add.sources {
            match source {
                Source::Path(path) if is_git(path) => {
                    let source = self.git_source(path, add, span)?;
                    let vertex = self.remote_vertex(RemoteSource::Git(source), path, span)?;
                    let sources = vec![CopyPath::plain(".")];
                    actions.push(CopyAction { input: input(&mut inputs, vertex), sources, ..common.clone() });
                }
                Source::Path(path) if is_http(path) => {
                    let source = WebSource::of_add(path, self.digest(add, span)?);
                    let sources = vec![CopyPath::literal(&source.file_name)];
                    let vertex = self.remote_vertex(RemoteSource::Web(source), path, span)?;
                    let (input, unpack) = (input(&mut inputs, vertex), add.unpack.unwrap_or(false));
                    actions.push(CopyAction { input, sources, unpack, ..common.clone() });
                }
                Source::Path(path) => {
                    let path = self.path(path, false, span)?;
                    let vertex = self.context_vertex();
                    let input = input(&mut inputs, vertex);
                    match actions.last_mut().filter(|last| last.input == input) {
                        Some(last) => last.sources.push(path),
                        None => actions.push(CopyAction { input, sources: vec![path], ..local.clone() }),
                    }
                }
                Source::Heredoc(heredoc) => heredocs.push((heredoc.name.clone(), heredoc.text())),
            }
        }
        if !heredocs.is_empty() {
            let mut action = CopyAction { heredocs, ..common };
            if add.sources.len() > 1 && !action.destination.ends_with('/') {
                action.destination.push('/');
            }
            actions.push(action);
        }
        self.add_copy(state, instruction, actions, inputs, add.link);
        Ok(())
    }
}

impl Lowering<'_, '_> {
    /// Makes sure that there is something that `--checksum` can be the checksum of.
    fn check_checksum(&self, add: &Add, span: Span) -> Result<(), BuildError> {
        if add.checksum.as_deref().is_none_or(str::is_empty) {
            return Ok(());
        }
        match add.sources.as_slice() {
            [Source::Path(path)] if is_git(path) || is_http(path) => Ok(()),
            [_] => Err(self.refused("checksum requires HTTP(S) or Git sources", span)),
            _ => Err(self.refused("checksum can't be specified for multiple sources", span)),
        }
    }

    /// Reads `--checksum` of a URL.
    fn digest(&self, add: &Add, span: Span) -> Result<Option<Digest>, BuildError> {
        let Some(checksum) = add.checksum.as_deref().filter(|it| !it.is_empty()) else { return Ok(None) };
        checksum.parse().map(Some).map_err(|error| {
            BuildError::from_source(ErrorKind::Dockerfile, format!("--checksum={checksum}"), &error)
                .at(self.frontend.location(span))
        })
    }

    /// Reads a repository, and joins what the URL and the flags say of it.
    fn git_source(&self, text: &str, add: &Add, span: Span) -> Result<GitSource, BuildError> {
        let parsed = GitReference::parse(text).map_err(|error| self.refused(&error.to_string(), span))?;
        let mut reference = parsed.unwrap_or_default();
        let keep_git_dir = match (add.keep_git_dir, reference.keep_git_dir) {
            (Some(flag), Some(query)) if flag != query => {
                return Err(self.refused("inconsistent keep-git-dir configuration", span));
            }
            (flag, query) => query.or(flag).unwrap_or(false),
        };
        match (add.checksum.as_ref().filter(|it| !it.is_empty()), &reference.checksum) {
            (Some(flag), Some(query)) if flag != query => {
                return Err(self.refused(&format!("checksum mismatch {flag:?} != {query:?}"), span));
            }
            (Some(flag), None) => reference.checksum = Some(flag.clone()),
            _ => {}
        }
        Ok(GitSource { reference, keep_git_dir })
    }
}

/// Returns the number of a vertex among the inputs, where it comes once.
fn input(inputs: &mut Vec<VertexId>, vertex: VertexId) -> usize {
    let at = inputs.iter().position(|input| *input == vertex).unwrap_or_else(|| {
        inputs.push(vertex);
        inputs.len() - 1
    });
    // The first input is the tree that is copied into.
    at + 1
}
