// SPDX-License-Identifier: Apache-2.0
//! What is remembered from build to build: the trees that steps gave (see docs/cache-keys.md).

use std::sync::Arc;

use polyarch_solver::{CacheKey, Records};

use crate::ops::{BuildOp, OpKind};
use crate::services::Services;
use crate::tree::{Layer, Output, Tree};

/// Records of steps in the store.
pub(crate) struct StepRecords {
    pub(crate) services: Arc<Services>,
}

impl Records<BuildOp> for StepRecords {
    fn load(&self, key: &CacheKey) -> Option<Output> {
        let bytes =
            self.services.store.get_record(self.services.options.step_namespace(), &key.hex()).ok()??;
        let tree: Tree = serde_json::from_slice(&bytes).ok()?;
        self.is_whole(&tree).then_some(Output::Tree(tree))
    }

    fn save(&self, keys: &[CacheKey], op: &BuildOp, output: &Output) {
        // The layers of an image are what they are; only work is worth a record.
        let (OpKind::File(_) | OpKind::Exec(_), Output::Tree(tree)) = (&op.kind, output) else { return };
        let Ok(bytes) = serde_json::to_vec(tree) else { return };
        for key in keys {
            // A record that can't be written costs the next build time, not truth.
            let _ =
                self.services.store.put_record(self.services.options.step_namespace(), &key.hex(), &bytes);
        }
    }
}

impl StepRecords {
    /// Tells whether everything that a recorded tree names can still be had.
    fn is_whole(&self, tree: &Tree) -> bool {
        tree.layers.iter().all(|layer| match layer {
            Layer::Step { id } => self.services.snapshots.contains(id),
            Layer::Image(layer) => {
                layer.from.is_some()
                    || self.services.store.contains(&layer.descriptor.digest)
                    || self.services.blob_origin(&layer.descriptor.digest).is_some()
            }
        })
    }
}
