// SPDX-License-Identifier: Apache-2.0
//! Trees: file trees known by their layers, which nobody has unpacked until somebody must look.

use std::sync::Arc;

use polyarch_oci::{Descriptor, DiffId, Reference};
use polyarch_snapshot::SnapshotId;
use serde::{Deserialize, Serialize};

/// A file tree: layers, lowest first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Tree {
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
    /// The steps above the base image, lowest first.
    pub steps: Vec<Step>,
    /// Whether a record from elsewhere gave it, or something that it was made of: who names that record's place
    /// believes it, and nobody else need.
    #[serde(skip)]
    pub(crate) is_foreign: bool,
}

/// What the image's history tells of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Whether it made a layer; a step that changes nothing makes none.
    pub made_layer: bool,
    /// When it executed, in seconds since 1970; a cached step keeps its time, so that an unchanged
    /// build gives the same image.
    pub executed: i64,
    /// The rest of that time, in nanoseconds.
    #[serde(default)]
    pub executed_nanoseconds: u32,
}

/// One layer of a tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// A layer of an image; its blob may still be in a registry, its directory may not exist yet.
    Image(Box<ImageLayer>),
    /// The change that a step made; its directory exists.
    Step {
        /// The layer directory.
        #[serde(with = "snapshot_id")]
        id: SnapshotId,
    },
}

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageLayer {
    /// The digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The blob.
    pub descriptor: Descriptor,
    /// The repository that has the blob; `None` when only the store has it.
    pub from: Option<Reference>,
}

impl Tree {
    /// Makes a tree of layers and of what is told of its steps, both lowest first.
    pub fn new(layers: Vec<Layer>, steps: Vec<Step>) -> Tree {
        Tree { layers, steps, is_foreign: false }
    }

    /// Returns this tree with one more step on top, which made a layer or not.
    #[must_use]
    pub fn with_step(&self, layer: Option<Layer>) -> Tree {
        let mut tree = self.clone();
        let executed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let executed_nanoseconds = executed.subsec_nanos();
        let executed = i64::try_from(executed.as_secs()).unwrap_or(i64::MAX);
        tree.steps.push(Step { made_layer: layer.is_some(), executed, executed_nanoseconds });
        tree.layers.extend(layer);
        tree
    }

    /// Returns the image layers.
    pub fn image_layers(&self) -> impl Iterator<Item = &ImageLayer> {
        self.layers.iter().filter_map(|layer| match layer {
            Layer::Image(layer) => Some(layer.as_ref()),
            Layer::Step { .. } => None,
        })
    }
}

/// What an operation gives.
#[derive(Debug, Clone)]
pub enum Output {
    /// A file tree.
    Tree(Tree),
    /// Several file trees, of which readers pick one.
    Trees(Arc<[Tree]>),
    /// The user's context.
    Context(Arc<crate::context::LocalContext>),
}

impl Output {
    /// Returns the tree, the first one of several; an empty one for a context, which is no tree of layers.
    pub fn tree(&self) -> Tree {
        match self {
            Output::Tree(tree) => tree.clone(),
            Output::Trees(trees) => trees.first().cloned().unwrap_or_default(),
            Output::Context(_) => Tree::default(),
        }
    }

    /// Tells whether a record from elsewhere gave it, or something that it was made of.
    pub(crate) fn is_foreign(&self) -> bool {
        match self {
            Output::Tree(tree) => tree.is_foreign,
            Output::Trees(trees) => trees.iter().any(|tree| tree.is_foreign),
            Output::Context(_) => false,
        }
    }

    /// Returns the same, marked as made of something from elsewhere.
    pub(crate) fn into_foreign(self) -> Output {
        let marked = |tree: Tree| Tree { is_foreign: true, ..tree };
        match self {
            Output::Tree(tree) => Output::Tree(marked(tree)),
            Output::Trees(trees) => Output::Trees(trees.iter().cloned().map(marked).collect()),
            Output::Context(context) => Output::Context(context),
        }
    }
}

/// Records hold the names of layer directories as text, checked when read.
mod snapshot_id {
    use polyarch_snapshot::SnapshotId;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &SnapshotId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(id.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SnapshotId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
