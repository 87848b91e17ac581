// SPDX-License-Identifier: Apache-2.0
//! The changes of a file vertex: a chain of them makes one layer, whatever their number.

use std::collections::{BTreeSet, HashMap};

use polyarch_solver::VertexId;

use super::lower::Lowering;
use super::{FileChange, FileInput, FileStep, Vertex};
use crate::error::{BuildError, ErrorKind};
use crate::ops::OpKind;
use crate::ops::file::{Change, FileAction, FileOp};

impl Lowering<'_> {
    /// Adds the operations of a file vertex; returns the vertices of its outputs.
    pub(super) fn file(
        &mut self,
        vertex: &Vertex,
        steps: &[FileStep],
        inputs: &[VertexId],
    ) -> Result<Vec<(usize, VertexId)>, BuildError> {
        check(steps, inputs.len())?;
        let mut made: HashMap<usize, VertexId> = HashMap::new();
        let mut outputs = Vec::new();
        // A step reads only earlier ones, so what it needs is made before it.
        for number in needed(steps) {
            let id = self.chain(vertex, steps, number, inputs, &made);
            made.insert(number, id);
            outputs.extend(steps[number].output.map(|output| (output, id)));
        }
        Ok(outputs)
    }

    /// Adds one operation for a step and those that it changes the result of.
    fn chain(
        &mut self,
        vertex: &Vertex,
        steps: &[FileStep],
        last: usize,
        inputs: &[VertexId],
        made: &HashMap<usize, VertexId>,
    ) -> VertexId {
        let mut chain = vec![last];
        let mut base = steps[last].base;
        while let Some(FileInput::Step(number)) = base {
            chain.push(number);
            base = steps[number].base;
        }
        let base = match base {
            Some(FileInput::Input(input)) => Some(inputs[input]),
            Some(FileInput::Step(_)) | None => None,
        };
        let mut op_inputs = vec![self.base(base)];
        let mut changes = Vec::new();
        for step in chain.into_iter().rev().map(|number| &steps[number]) {
            let FileChange::Copy(copy) = &step.change else {
                changes.push(Change::Other(step.change.clone()));
                continue;
            };
            let from = match step.from {
                Some(FileInput::Input(input)) => inputs[input],
                Some(FileInput::Step(number)) => made.get(&number).copied().unwrap_or(op_inputs[0]),
                None => self.scratch(),
            };
            let known = op_inputs.iter().skip(1).position(|input| *input == from);
            let input = known.map_or(op_inputs.len(), |at| at + 1);
            if known.is_none() {
                op_inputs.push(from);
            }
            changes.push(Change::Copy(copy.action(input, self.is_context(from))));
        }
        let op = FileOp {
            services: self.services.clone(),
            stats: self.stats.clone(),
            action: FileAction::Changes(changes),
            looked_up: Default::default(),
        };
        self.add(vertex, OpKind::File(op), op_inputs)
    }
}

/// Returns the steps whose results somebody reads, but for the next step of their chain.
fn needed(steps: &[FileStep]) -> BTreeSet<usize> {
    let copied = steps.iter().filter_map(|step| match step.from {
        Some(FileInput::Step(number)) => Some(number),
        Some(FileInput::Input(_)) | None => None,
    });
    let outputs = steps.iter().enumerate().filter(|(_, step)| step.output.is_some());
    copied.chain(outputs.map(|(number, _)| number)).collect()
}

/// Makes sure that steps read only what there is.
fn check(steps: &[FileStep], inputs: usize) -> Result<(), BuildError> {
    for (number, step) in steps.iter().enumerate() {
        for input in [step.base, step.from].into_iter().flatten() {
            let is_there = match input {
                FileInput::Input(input) => input < inputs,
                FileInput::Step(earlier) => earlier < number,
            };
            if !is_there {
                let message = format!("change {number} of a file operation reads what is not there");
                return Err(BuildError::new(ErrorKind::Usage, message));
            }
        }
    }
    Ok(())
}
