// SPDX-License-Identifier: Apache-2.0
//! The layers of a base image; nothing is fetched until somebody must look.

use polyarch_solver::{CacheKey, KeyHasher};

use crate::tree::{ImageLayer, Layer, Output, Tree};

/// A base image, or `scratch` when it has no layers.
#[derive(Debug, Default)]
pub(crate) struct ImageOp {
    pub(crate) layers: Vec<ImageLayer>,
}

impl ImageOp {
    /// The tree is its diff ids: where the blobs come from and how they are compressed does not matter.
    pub(crate) fn digest(&self) -> CacheKey {
        KeyHasher::new("image").parts(self.layers.iter().map(|layer| layer.diff_id.to_string())).finish()
    }

    pub(crate) fn exec(&self) -> Output {
        let layers = self.layers.iter().cloned().map(|layer| Layer::Image(Box::new(layer))).collect();
        Output::Tree(Tree { layers, steps: Vec::new() })
    }
}
