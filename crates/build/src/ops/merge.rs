// SPDX-License-Identifier: Apache-2.0
//! Trees put on top of each other: what `COPY --link` makes of its layer and the tree below.

use polyarch_solver::{CacheKey, KeyHasher};

use crate::tree::{Output, Tree};

/// The trees of all inputs, the first one lowest. What a later one has hides what earlier ones have, and its
/// layers do not know of those below, so that they stay the same on another base.
#[derive(Debug, Default)]
pub(crate) struct MergeOp;

impl MergeOp {
    pub(crate) fn digest(&self) -> CacheKey {
        KeyHasher::new("merge 1").finish()
    }

    pub(crate) fn exec(&self, inputs: Vec<Output>) -> Output {
        let mut merged = Tree::default();
        for input in inputs {
            let tree = input.tree();
            merged.layers.extend(tree.layers);
            merged.steps.extend(tree.steps);
        }
        Output::Tree(merged)
    }
}
