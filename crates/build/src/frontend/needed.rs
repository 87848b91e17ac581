// SPDX-License-Identifier: Apache-2.0
//! Which stages a target needs: those it is built on, copies and mounts from, and what triggers of bases name.

use polyarch_dockerfile::{Environment, From, Instruction, InstructionKind, Span, StageReference};
use polyarch_oci::Platform;

use super::Frontend;
use crate::error::{BuildError, ErrorKind};
use crate::named_context::ContextSource;

impl Frontend<'_> {
    /// Returns the stages that a target needs, in the order of the file, as far as the file alone tells.
    pub(crate) fn needed_stages(
        &self,
        target: usize,
        global: &Environment,
        platform: &Platform,
    ) -> Result<Vec<usize>, BuildError> {
        let mut needed = self.none_but(target);
        for index in (0..=target).rev() {
            if needed[index]
                && let Some(from) = self.unreplaced_from(index, global, platform)?
            {
                self.need(index, &from, &[], &mut needed)?;
            }
        }
        Ok(listed(&needed))
    }

    /// Returns the stages that a target needs, in the order of the file, with what the ONBUILD triggers of bases
    /// name. Bases are looked up for it.
    pub(crate) async fn needed_with_triggers(
        &self,
        target: usize,
        global: &Environment,
        platform: &Platform,
    ) -> Result<Vec<usize>, BuildError> {
        let mut needed = self.none_but(target);
        // A stage needs earlier ones only, and of each all that needs it was seen before.
        for index in (0..=target).rev() {
            if !needed[index] {
                continue;
            }
            let Some(from) = self.unreplaced_from(index, global, platform)? else { continue };
            let triggers = self.triggers_below(index, &from, platform).await?;
            let triggers = self.parse_triggers(&triggers, self.dockerfile.stages[index].span)?;
            self.need(index, &from, &triggers, &mut needed)?;
        }
        Ok(listed(&needed))
    }

    /// Reads triggers of the base of a stage.
    pub(super) fn parse_triggers(
        &self,
        triggers: &[String],
        span: Span,
    ) -> Result<Vec<Instruction>, BuildError> {
        let parse = |text: &String| {
            Instruction::parse_trigger(text, span).map_err(|error| {
                let context = format!("ONBUILD trigger {text:?} of the base");
                BuildError::from_source(ErrorKind::Dockerfile, context, &error).at(self.location(span))
            })
        };
        triggers.iter().map(parse).collect()
    }

    /// Says that a stage is named which is not there yet.
    pub(super) fn stage_comes_later(&self, named: &StageReference<'_>, current: usize) -> BuildError {
        let stage = &self.dockerfile.stages[current];
        let current = stage.name.clone().unwrap_or_else(|| format!("stage-{current}"));
        let message = format!(
            "cannot copy from stage {:?}, it needs to be defined before current stage {current:?}",
            named.text
        );
        BuildError::new(ErrorKind::Dockerfile, message).at(self.location(named.span))
    }

    fn none_but(&self, target: usize) -> Vec<bool> {
        (0..self.dockerfile.stages.len()).map(|index| index == target).collect()
    }

    /// Returns what a stage is built on, unless a named context stands in for the whole stage.
    fn unreplaced_from(
        &self,
        index: usize,
        global: &Environment,
        platform: &Platform,
    ) -> Result<Option<From>, BuildError> {
        let stage = &self.dockerfile.stages[index];
        let from = self.expand_from(index, global)?;
        let own = self.platform_of(&from, platform, stage.span)?;
        Ok(self.context_of_stage(stage, &own).is_none().then_some(from))
    }

    fn platform_of(&self, from: &From, platform: &Platform, span: Span) -> Result<Platform, BuildError> {
        let own = from.platform.as_ref().map(|text| self.parse_platform(text, span)).transpose()?;
        Ok(own.unwrap_or_else(|| platform.clone()))
    }

    /// Marks what one stage needs.
    fn need(
        &self,
        index: usize,
        from: &From,
        triggers: &[Instruction],
        needed: &mut [bool],
    ) -> Result<(), BuildError> {
        if let Some(base) = self.dockerfile.stage_before(&from.image, index) {
            needed[base.index] = true;
        }
        for instruction in triggers.iter().chain(&self.dockerfile.stages[index].instructions) {
            for reference in instruction.references() {
                let Some(other) = self.dockerfile.referenced_stage(reference.text) else { continue };
                if other.index >= index {
                    return Err(self.stage_comes_later(&reference, index));
                }
                needed[other.index] = true;
            }
        }
        Ok(())
    }

    /// Returns the triggers that a stage's base leaves to it: those of an image, or those that the stage below
    /// says itself.
    async fn triggers_below(
        &self,
        index: usize,
        from: &From,
        platform: &Platform,
    ) -> Result<Vec<String>, BuildError> {
        let span = self.dockerfile.stages[index].span;
        let mut platform = self.platform_of(from, platform, span)?;
        let mut name = from.image.clone();
        if let Some(base) = self.dockerfile.stage_before(&from.image, index) {
            let Some(context) = self.context_of_stage(base, &platform) else {
                return Ok(own_triggers(&base.instructions));
            };
            platform = context.platform.clone().unwrap_or(platform);
            name.clone_from(&context.name);
        } else if name == "scratch" {
            return Ok(Vec::new());
        }
        let image = match self.named_context(&name, &platform) {
            Some(context) => match &context.source {
                ContextSource::Built(built) => return Ok(built.0.draft.config.config.on_build.clone()),
                _ => self.named_image(context, &platform, span).await?,
            },
            None => Some(self.resolve(&name, &platform, span).await?),
        };
        Ok(image.map(|image| image.config.value.config.on_build.clone()).unwrap_or_default())
    }
}

fn own_triggers(instructions: &[Instruction]) -> Vec<String> {
    let own = instructions.iter().filter_map(|instruction| match &instruction.kind {
        InstructionKind::Onbuild(onbuild) => Some(onbuild.trigger.clone()),
        _ => None,
    });
    own.collect()
}

/// Returns the numbers of what is marked.
fn listed(needed: &[bool]) -> Vec<usize> {
    needed.iter().enumerate().filter(|(_, is_needed)| **is_needed).map(|(index, _)| index).collect()
}
