// SPDX-License-Identifier: Apache-2.0
//! One of the trees that a step gave.

use polyarch_solver::{CacheKey, KeyHasher};

use crate::error::BuildError;
use crate::tree::Output;

/// Gives the tree of a number among those of its input.
#[derive(Debug)]
pub(crate) struct PickOp {
    pub(crate) number: usize,
}

impl PickOp {
    pub(crate) fn digest(&self) -> CacheKey {
        KeyHasher::new("pick 1").part(self.number.to_string()).finish()
    }

    pub(crate) fn exec(&self, inputs: &[Output]) -> Result<Output, BuildError> {
        let picked = match inputs.first() {
            Some(Output::Trees(trees)) => trees.get(self.number).cloned(),
            Some(Output::Tree(tree)) if self.number == 0 => Some(tree.clone()),
            Some(Output::Tree(_) | Output::Context(_)) | None => None,
        };
        picked.map(Output::Tree).ok_or_else(BuildError::several_trees)
    }
}
