// SPDX-License-Identifier: Apache-2.0
//! ADD: as COPY of the context, and archives, URLs and git repositories.

use polyarch_dockerfile::Instruction;
use polyarch_dockerfile::instruction::{Add, Source};

use super::Lowering;
use super::copy::destination;
use super::stage::StageState;
use crate::error::BuildError;
use crate::ops::file::CopyAction;

impl Lowering<'_, '_> {
    pub(super) fn add(
        &mut self,
        state: &mut StageState,
        instruction: &Instruction,
        add: &Add,
    ) -> Result<(), BuildError> {
        let span = instruction.span;
        for source in &add.sources {
            if let Source::Path(path) = source
                && is_remote(path)
            {
                return Err(self.not_yet("ADD of a URL or a git repository", span));
            }
        }
        if add.checksum.is_some() {
            return Err(self.not_yet("ADD --checksum", span));
        }
        self.check_mode(add.chmod.as_deref(), span)?;
        let mut action = CopyAction {
            destination: destination(state, &add.destination),
            owner: add.chown.clone(),
            mode: add.chmod.clone(),
            exclude: add.exclude.clone(),
            unpack: add.unpack.unwrap_or(true),
            from_context: true,
            has_unknown_times: self.frontend.request.source_date_epoch.is_some(),
            ..CopyAction::default()
        };
        self.sources(&add.sources, &mut action, span)?;
        let input = (!action.sources.is_empty()).then(|| self.context_vertex());
        self.add_copy(state, instruction, action, input);
        Ok(())
    }
}

fn is_remote(path: &str) -> bool {
    ["http://", "https://", "git://", "git@", "ssh://"].iter().any(|scheme| path.starts_with(scheme))
}
