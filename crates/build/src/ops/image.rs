// SPDX-License-Identifier: Apache-2.0
//! The layers of a base image; nothing is fetched until somebody must look.

use std::sync::Arc;

use polyarch_solver::{CacheKey, KeyHasher};

use crate::provenance::Capture;
use crate::tree::{ImageLayer, Layer, Output, Tree};

/// A base image, or `scratch` when it has no layers.
#[derive(Debug, Default)]
pub(crate) struct ImageOp {
    pub(crate) layers: Vec<ImageLayer>,
    /// Where it is from, as provenance tells it: `docker-image://NAME@DIGEST`; none is `scratch`.
    pub(crate) identifier: Option<String>,
}

impl ImageOp {
    /// The tree is its diff ids; the blobs belong to the key because they become part of the result.
    pub(crate) fn digest(&self) -> CacheKey {
        KeyHasher::new("image")
            .parts(self.layers.iter().map(|it| format!("{} {}", it.diff_id, it.descriptor.digest)))
            .finish()
    }

    pub(crate) fn exec(&self) -> Output {
        let layers = self.layers.iter().cloned().map(|layer| Layer::Image(Box::new(layer))).collect();
        Output::Tree(Tree::new(layers, Vec::new()))
    }
}

/// What another build has made.
#[derive(Debug)]
pub(crate) struct BuiltOp {
    pub(crate) tree: Tree,
    /// How it was made, where that is known.
    pub(crate) capture: Option<Arc<Capture>>,
}

impl BuiltOp {
    /// The tree is its layers, of which those of steps have names that are never used again.
    pub(crate) fn digest(&self) -> CacheKey {
        let layer = |layer: &Layer| match layer {
            Layer::Image(layer) => format!("{} {}", layer.diff_id, layer.descriptor.digest),
            Layer::Step { id } => id.as_str().to_owned(),
        };
        KeyHasher::new("built").parts(self.tree.layers.iter().map(layer)).finish()
    }

    pub(crate) fn exec(&self) -> Output {
        Output::Tree(self.tree.clone())
    }
}
