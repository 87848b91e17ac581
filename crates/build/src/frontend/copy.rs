// SPDX-License-Identifier: Apache-2.0
//! COPY: files of the context, of a stage, of an image or of a named context, and heredocs.

use polyarch_dockerfile::instruction::{Copy, Source};
use polyarch_dockerfile::pattern::has_wildcards;
use polyarch_dockerfile::value::chmod::Chmod;
use polyarch_dockerfile::{IgnoreRules, Instruction, Pattern, Span};
use polyarch_solver::VertexId;

use super::Lowering;
use super::instruction::absolute;
use super::stage::{StageState, hidden};
use crate::error::{BuildError, ErrorKind};
use crate::ops::copy::{CopyAction, CopyPath};
use crate::ops::file::FileAction;
use crate::ops::image::ImageOp;
use crate::ops::merge::MergeOp;
use crate::ops::{BuildOp, OpKind};
use crate::remote::{is_git, is_http, redacted_text};

impl Lowering<'_, '_> {
    pub(super) async fn copy(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        copy: &Copy,
    ) -> Result<(), BuildError> {
        let span = instruction.span;
        self.check_mode(copy.chmod.as_deref(), span)?;
        let mut action = CopyAction {
            destination: destination(state, &copy.destination),
            owner: copy.chown.clone().filter(|owner| !owner.is_empty()),
            mode: copy.chmod.clone().filter(|mode| !mode.is_empty()),
            exclude: copy.exclude.clone(),
            ..CopyAction::default()
        };
        for source in &copy.sources {
            match source {
                Source::Path(path) if is_git(path) => {
                    return Err(self.refused("source can't be a git ref for COPY", span));
                }
                Source::Path(path) if is_http(path) => {
                    return Err(self.refused("source can't be a URL for COPY", span));
                }
                Source::Path(path) => action.sources.push(self.path(path, copy.parents, span)?),
                Source::Heredoc(heredoc) => {
                    // Its variables were replaced with those of the rest of the instruction.
                    action.heredocs.push((heredoc.name.clone(), heredoc.text()));
                }
            }
        }
        let mut inputs = Vec::new();
        if !action.sources.is_empty() {
            let input = match &copy.from {
                Some(from) => self.source_vertex(from, span).await?,
                None => self.context_vertex(),
            };
            inputs.push(input);
            action.input = 1;
        }
        action.from_context = inputs.first().is_none_or(|input| self.is_context(*input));
        action.has_unknown_times = action.from_context && self.frontend.request.source_date_epoch.is_some();
        self.add_copy(state, instruction, vec![action], inputs, copy.link);
        Ok(())
    }

    /// Makes sure that `--chmod` can be read, before anything is copied.
    pub(super) fn check_mode(&self, mode: Option<&str>, span: Span) -> Result<(), BuildError> {
        let Some(mode) = mode.filter(|mode| !mode.is_empty()) else { return Ok(()) };
        Chmod::parse(mode).map(drop).map_err(|_| {
            let message = format!(
                "invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777"
            );
            self.refused(&message, span)
                .with_hint("symbols are those of chmod(1), such as --chmod=u=rwX,go=rX")
        })
    }

    pub(super) fn refused(&self, message: &str, span: Span) -> BuildError {
        BuildError::new(ErrorKind::Dockerfile, message).at(self.frontend.location(span))
    }

    /// Adds the step of a COPY or ADD. With `--link` its layer is made on nothing and put on top, so that it
    /// stays the same on another base.
    pub(super) fn add_copy(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        actions: Vec<CopyAction>,
        inputs: Vec<VertexId>,
        link: bool,
    ) {
        // What gives access to a source is no part of an image.
        let shown = redacted_text(&instruction.original);
        state.record(shown.clone(), true);
        // Symbolic modes are as BuildKit has them: never linked. Names of owners are those of the tree below.
        let needs_base = |action: &CopyAction| {
            action.mode.is_some() || action.owner.as_ref().is_some_and(|owner| !is_numeric(owner))
        };
        let is_linked = link && !actions.iter().any(needs_base);
        let below = state.vertex;
        if is_linked {
            state.vertex = self.graph.add(hidden(OpKind::Image(ImageOp::default())), Vec::new());
        }
        let op = self.file_op(FileAction::Copy(actions));
        self.add_step(state, instruction, &shown, OpKind::File(op), inputs);
        if is_linked {
            let location = Some(self.frontend.location(instruction.span));
            let merge = BuildOp { location, ..hidden(OpKind::Merge(MergeOp)) };
            state.vertex = self.graph.add(merge, vec![below, state.vertex]);
        }
    }

    /// Reads a source path; with `parents` what is copied stands behind a pivot `/./`, or is all of it.
    pub(super) fn path(&self, path: &str, parents: bool, span: Span) -> Result<CopyPath, BuildError> {
        let malformed = |error: &(dyn std::error::Error + 'static)| {
            BuildError::from_source(ErrorKind::Dockerfile, "source", error).at(self.frontend.location(span))
        };
        if !parents {
            Pattern::new(path).map_err(|error| malformed(&error))?;
            return Ok(CopyPath::plain(clean_source(path)));
        }
        let (base, include) = path.split_once("/./").unwrap_or(("/", path));
        let (base, include) = (clean_source(base), clean_source(include));
        if include == "." {
            // All of it: there are no directories above to keep.
            return Ok(CopyPath::plain(base));
        }
        if has_wildcards(&base) {
            Pattern::new(&base).map_err(|error| malformed(&error))?;
        }
        IgnoreRules::from_patterns([&include]).map_err(|error| malformed(&error))?;
        Ok(CopyPath { pattern: base, include: Some(include), is_literal: false })
    }
}

/// Tells whether an owner is told in numbers only.
fn is_numeric(owner: &str) -> bool {
    owner.split(':').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns the absolute destination of a copy; that it is a directory is kept as a trailing slash.
pub(super) fn destination(state: &StageState, path: &str) -> String {
    let is_directory = path.is_empty()
        || path.ends_with('/')
        || path == "."
        || path == ".."
        || path.ends_with("/.")
        || path.ends_with("/..");
    let path = absolute(&state.draft.config.config.working_dir, path);
    if is_directory && path != "/" { format!("{path}/") } else { path }
}

/// Returns a source relative to the root of its tree: nothing above the root can be named.
fn clean_source(path: &str) -> String {
    let cleaned = absolute("/", path);
    let relative = cleaned.trim_start_matches('/');
    if relative.is_empty() { ".".to_owned() } else { relative.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_never_leave_their_root() {
        assert_eq!(clean_source("/../../etc/passwd"), "etc/passwd");
        assert_eq!(clean_source("./"), ".");
    }

    #[test]
    fn owners_in_numbers_need_no_tree() {
        for (owner, expected) in [("1", true), ("1:2", true), ("a", false), ("1:a", false), ("1:", false)] {
            assert_eq!(is_numeric(owner), expected, "{owner}");
        }
    }
}
