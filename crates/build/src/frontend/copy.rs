// SPDX-License-Identifier: Apache-2.0
//! COPY: files of the context, of a stage, of an image or of a named context, and heredocs.

use polyarch_dockerfile::instruction::{Copy, Source};
use polyarch_dockerfile::value::chmod::Chmod;
use polyarch_dockerfile::{Instruction, Span};
use polyarch_solver::VertexId;

use super::Lowering;
use super::instruction::absolute;
use super::stage::StageState;
use crate::error::{BuildError, ErrorKind};
use crate::ops::OpKind;
use crate::ops::file::{CopyAction, FileAction};

impl Lowering<'_, '_> {
    pub(super) async fn copy(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        copy: &Copy,
    ) -> Result<(), BuildError> {
        if copy.parents {
            return Err(self.not_yet("COPY --parents", instruction.span));
        }
        self.check_mode(copy.chmod.as_deref(), instruction.span)?;
        let mut action = CopyAction {
            destination: destination(state, &copy.destination),
            owner: copy.chown.clone(),
            mode: copy.chmod.clone(),
            exclude: copy.exclude.clone(),
            from_context: copy.from.is_none(),
            has_unknown_times: copy.from.is_none() && self.frontend.request.source_date_epoch.is_some(),
            ..CopyAction::default()
        };
        self.sources(&copy.sources, &mut action, instruction.span)?;
        let input = match (&copy.from, action.sources.is_empty()) {
            (_, true) => None,
            (Some(from), false) => Some(self.source_vertex(from, instruction.span).await?),
            (None, false) => Some(self.context_vertex()),
        };
        self.add_copy(state, instruction, action, input);
        Ok(())
    }

    pub(super) fn check_mode(&self, mode: Option<&str>, span: Span) -> Result<(), BuildError> {
        match mode.map(Chmod::parse) {
            None | Some(Ok(Chmod::Absolute { .. })) => Ok(()),
            Some(Ok(Chmod::Symbolic { .. })) => Err(self.not_yet("--chmod with symbols", span)),
            Some(Err(error)) => Err(self.value_error("--chmod", &error, span)),
        }
    }

    pub(super) fn add_copy(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        action: CopyAction,
        input: Option<VertexId>,
    ) {
        state.record(instruction.original.clone(), true);
        let op = self.file_op(FileAction::Copy(Box::new(action)));
        self.add_step(
            state,
            instruction,
            &instruction.original,
            OpKind::File(op),
            input.into_iter().collect(),
        );
    }

    /// Sorts the sources into paths and heredocs.
    pub(super) fn sources(
        &self,
        sources: &[Source],
        action: &mut CopyAction,
        span: Span,
    ) -> Result<(), BuildError> {
        for source in sources {
            match source {
                Source::Path(path) => {
                    polyarch_dockerfile::Pattern::new(path).map_err(|error| {
                        BuildError::from_source(ErrorKind::Dockerfile, "source", &error)
                            .at(self.frontend.location(span))
                    })?;
                    action.sources.push(clean_source(path));
                }
                Source::Heredoc(heredoc) => {
                    // Its variables were replaced with those of the rest of the instruction.
                    action.heredocs.push((heredoc.name.clone(), heredoc.text()));
                }
            }
        }
        Ok(())
    }
}

/// Returns the absolute destination of a copy; that it is a directory is kept as a trailing slash.
pub(super) fn destination(state: &StageState, path: &str) -> String {
    let is_directory =
        path.ends_with('/') || path == "." || path == ".." || path.ends_with("/.") || path.ends_with("/..");
    let path = absolute(&state.draft.config.config.working_dir, path);
    if is_directory && path != "/" { format!("{path}/") } else { path }
}

/// Returns a source relative to the root of its tree: nothing above the root can be named.
pub(super) fn clean_source(path: &str) -> String {
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
}
