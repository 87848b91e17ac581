// SPDX-License-Identifier: Apache-2.0
//! What is remembered from build to build: the trees that steps gave (see docs/cache-keys.md).

use std::sync::{Arc, PoisonError};

use polyarch_snapshot::{SnapshotId, Snapshots};
use polyarch_solver::{CacheKey, Records};
use polyarch_store::Store;
use serde::{Deserialize, Serialize};

use crate::fetch::blob_origin;
use crate::ops::{BuildOp, OpKind};
use crate::remote_cache::ImportedRecords;
use crate::services::Services;
use crate::tree::{Layer, Output, Tree};

/// A step's record: the tree that it gave, and what people read of it.
#[derive(Serialize, Deserialize)]
pub(crate) struct StepRecord {
    #[serde(flatten)]
    pub(crate) tree: Tree,
    #[serde(default)]
    pub(crate) description: String,
    /// The trees of further outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) further: Vec<Tree>,
}

/// Records of steps in the store, and behind them those that a build has from elsewhere.
pub(crate) struct StepRecords {
    pub(crate) services: Arc<Services>,
    pub(crate) imported: ImportedRecords,
}

impl Records<BuildOp> for StepRecords {
    fn load(&self, key: &CacheKey) -> Option<Output> {
        let (trees, is_foreign) = match self.load_own(key) {
            Some(trees) => (trees, false),
            None => {
                let above = self.imported.key_above(key).and_then(|key| self.load_own(&key));
                (above.or_else(|| Some(vec![self.imported.get(key)?.clone()]))?, true)
            }
        };
        trees.iter().for_each(|tree| self.services.mark_used(tree));
        let output = match <[Tree; 1]>::try_from(trees) {
            Ok([tree]) => Output::Tree(tree),
            Err(trees) => Output::Trees(trees.into()),
        };
        Some(if is_foreign { output.into_foreign() } else { output })
    }

    fn save(&self, keys: &[CacheKey], op: &BuildOp, output: &Output) {
        // The layers of an image are what they are; only work is worth a record.
        let (OpKind::File(_) | OpKind::Exec(_) | OpKind::Diff(_)) = &op.kind else { return };
        let trees = match output {
            Output::Tree(tree) => std::slice::from_ref(tree),
            Output::Trees(trees) => trees,
            Output::Context(_) => return,
        };
        let Some((tree, further)) = trees.split_first() else { return };
        // What is from elsewhere, or made of it, serves only builds that name its place.
        let is_foreign = output.is_foreign();
        if is_foreign && self.imported.has(tree) {
            return;
        }
        let record =
            StepRecord { tree: tree.clone(), description: op.name.to_string(), further: further.to_vec() };
        let Ok(bytes) = serde_json::to_vec(&record) else { return };
        for key in keys {
            let key = if is_foreign { self.imported.key_above(key) } else { Some(*key) };
            let Some(key) = key else { continue };
            // A record that can't be written costs the next build time, not truth.
            let _ =
                self.services.store.put_record(self.services.options.step_namespace(), &key.hex(), &bytes);
        }
    }
}

impl StepRecords {
    /// Loads the trees of a record of the store.
    fn load_own(&self, key: &CacheKey) -> Option<Vec<Tree>> {
        let bytes =
            self.services.store.get_record(self.services.options.step_namespace(), &key.hex()).ok()??;
        let StepRecord { tree, further, .. } = serde_json::from_slice(&bytes).ok()?;
        let trees: Vec<Tree> = std::iter::once(tree).chain(further).collect();
        let is_whole = |tree| is_whole(tree, &self.services.snapshots, &self.services.store);
        trees.iter().all(is_whole).then_some(trees)
    }
}

/// Tells whether everything that a recorded tree names can still be had.
pub(crate) fn is_whole(tree: &Tree, snapshots: &Snapshots, store: &Store) -> bool {
    tree.layers.iter().all(|layer| match layer {
        Layer::Step { id } => snapshots.contains(id),
        Layer::Image(layer) => {
            layer.from.is_some()
                || store.contains(&layer.descriptor.digest)
                || blob_origin(store, &layer.descriptor.digest).is_some()
        }
    })
}

impl Services {
    /// Notes that a tree's layers are of use now, each once in a process: what is used least goes first when
    /// room is made.
    pub(crate) fn mark_used(&self, tree: &Tree) {
        for layer in &tree.layers {
            match layer {
                Layer::Step { id } => self.mark_snapshot_used(id),
                Layer::Image(layer) => {
                    self.mark_snapshot_used(&SnapshotId::of_layer(&layer.diff_id));
                    if self.is_first_use(layer.descriptor.digest.to_string()) {
                        self.store.mark_used(&layer.descriptor.digest);
                    }
                }
            }
        }
    }

    /// The same for a layer directory.
    pub(crate) fn mark_snapshot_used(&self, id: &SnapshotId) {
        if self.is_first_use(id.to_string()) {
            self.snapshots.mark_used(id);
        }
    }

    pub(crate) fn is_first_use(&self, name: String) -> bool {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(name)
    }
}

#[cfg(test)]
mod tests {
    use polyarch_oci::{Descriptor, DiffId, Digest};
    use polyarch_snapshot::SnapshotOptions;

    use super::*;
    use crate::tree::ImageLayer;

    #[test]
    fn a_layer_that_a_registry_is_known_to_have_can_be_had() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let snapshots =
            Snapshots::open(&directory.path().join("snapshots"), SnapshotOptions { force_copy: true })
                .unwrap();
        let blob = Digest::of("blob");
        let layer = ImageLayer {
            diff_id: DiffId(Digest::of("tar")),
            descriptor: Descriptor::new("", blob.clone(), 4),
            from: None,
        };
        let tree = Tree::new(vec![Layer::Image(Box::new(layer))], Vec::new());
        assert!(!is_whole(&tree, &snapshots, &store));
        store.put_record(crate::fetch::ORIGINS, blob.hex(), b"example.com/app:1").unwrap();
        assert!(is_whole(&tree, &snapshots, &store));
    }
}
