// SPDX-License-Identifier: Apache-2.0
//! What one tree has and another has not, as a layer that can be put on top of any tree.

use std::sync::Arc;

use polyarch_solver::{CacheKey, KeyHasher, VertexContext};

use super::file::commit;
use super::unless_cancelled;
use crate::error::BuildError;
use crate::fetch::blocking;
use crate::services::Services;
use crate::tree::{Layer, Output, Tree};

/// The difference between the trees of input 0, the lower one, and input 1.
pub(crate) struct DiffOp {
    pub(crate) services: Arc<Services>,
}

impl DiffOp {
    pub(crate) fn digest(&self) -> CacheKey {
        KeyHasher::new("diff 1").finish()
    }

    pub(crate) async fn exec(
        &self,
        inputs: Vec<Output>,
        context: &VertexContext,
    ) -> Result<Output, BuildError> {
        let [lower, upper] = [0, 1].map(|at| inputs.get(at).map(Output::tree).unwrap_or_default());
        if let Some(tree) = above(&lower, &upper) {
            return Ok(Output::Tree(tree));
        }
        let shown = super::shown(context);
        let below = unless_cancelled(context, self.services.directories(&lower, &shown)).await?;
        let wanted = unless_cancelled(context, self.services.directories(&upper, &shown)).await?;
        let services = self.services.clone();
        let layer = blocking(move || {
            let failed = |error| services.snapshot_error("can't compare trees", &error);
            let active = services.snapshots.prepare(&below).map_err(failed)?;
            {
                let (tree, wanted) =
                    (active.tree().map_err(failed)?, services.snapshots.view(&wanted).map_err(failed)?);
                polyarch_snapshot::become_like(&tree, &wanted).map_err(failed)?;
            }
            commit(&services, active)
        })
        .await?;
        Ok(Output::Tree(Tree::default().with_step(layer.map(|id| Layer::Step { id }))))
    }
}

/// Returns the layers of a tree that was made on top of another; `None` when it was not.
fn above(lower: &Tree, upper: &Tree) -> Option<Tree> {
    let rest = upper.layers.get(lower.layers.len()..)?;
    let is_same = |(one, other): (&Layer, &Layer)| match (one, other) {
        (Layer::Image(one), Layer::Image(other)) => one.diff_id == other.diff_id,
        (Layer::Step { id: one }, Layer::Step { id: other }) => one == other,
        _ => false,
    };
    let steps = upper.steps.get(lower.steps.len()..)?;
    lower.layers.iter().zip(&upper.layers).all(is_same).then(|| Tree::new(rest.to_vec(), steps.to_vec()))
}

#[cfg(test)]
mod tests {
    use polyarch_snapshot::SnapshotId;

    use super::*;

    fn tree(names: &[&str]) -> Tree {
        let id = |name: &str| SnapshotId::of_result(&polyarch_oci::Digest::of(name));
        names.iter().fold(Tree::default(), |tree, name| tree.with_step(Some(Layer::Step { id: id(name) })))
    }

    #[test]
    fn layers_above_a_tree_are_its_difference() {
        let difference = above(&tree(&["a"]), &tree(&["a", "b", "c"])).unwrap();
        assert_eq!(difference.layers, tree(&["b", "c"]).layers);
        assert_eq!(difference.steps.len(), 2);
        assert_eq!(above(&Tree::default(), &tree(&["a"])).unwrap().layers, tree(&["a"]).layers);
        assert_eq!(above(&tree(&["a"]), &tree(&["a"])).unwrap().layers, []);
        assert_eq!(above(&tree(&["a"]), &tree(&["b"])), None);
        assert_eq!(above(&tree(&["a", "b"]), &tree(&["a"])), None);
    }
}
