// SPDX-License-Identifier: Apache-2.0
//! What a build has made and nobody has taken yet: trees that can be read, and exported any number of times.

use std::sync::Arc;
use std::time::Duration;

use polyarch_oci::{Digest, ImageConfig, Platform, Reference};
use polyarch_snapshot::TreeRoot;
use polyarch_solver::progress::Progress;

use crate::attest::ToldRequest;
use crate::error::{BuildError, ErrorKind};
use crate::exporter::PlatformTree;
use crate::fetch::Shown;
use crate::image::ImageDraft;
use crate::provenance::{Capture, Material};
use crate::result::{Execution, Provenance};
use crate::services::Services;
use crate::tree::Tree;

/// What a build has made, before any of it has left for an output.
pub struct Evaluated {
    /// The platforms' trees, in the order of the request.
    pub(crate) trees: Vec<PlatformTree>,
    /// How the steps of each ran, and for how long.
    pub(crate) runs: Vec<(Execution, Duration)>,
    /// The time that the build fixed, in seconds since 1970.
    pub(crate) source_date_epoch: Option<i64>,
}

/// One platform of what a build has made, as a context of another build.
#[derive(Clone)]
pub struct BuiltTree(pub(crate) PlatformTree);

impl std::fmt::Debug for BuiltTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("BuiltTree").field(&self.0.tree).finish()
    }
}

impl PartialEq for BuiltTree {
    fn eq(&self, other: &BuiltTree) -> bool {
        self.0.tree == other.0.tree
    }
}

impl BuiltTree {
    /// Returns what was asked of the build that made it; `None` when no frontend was asked.
    pub fn asked(&self) -> Option<ToldRequest> {
        self.0.capture.as_ref().filter(|capture| !capture.is_of_client()).map(Capture::asked)
    }
}

/// An image that a client's frontend has asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedImage {
    /// The name that it was asked by.
    pub reference: Reference,
    /// The platform that it was asked for.
    pub platform: Platform,
    /// What the name meant: an index, or a manifest.
    pub digest: Digest,
    /// Whether it came from a layout and not from a registry.
    pub is_layout: bool,
}

impl AskedImage {
    fn material(&self) -> Material {
        let AskedImage { reference, platform, digest, is_layout } = self.clone();
        Material::Image { reference, platform, digest, is_layout }
    }
}

impl Evaluated {
    /// Makes the result of a build that has made nothing.
    pub fn empty(platform: Platform) -> Evaluated {
        let draft = ImageDraft::scratch(&platform);
        let tree =
            PlatformTree { draft, tree: Tree::default(), capture: None, scanned: None, steps: Vec::new() };
        let runs = vec![(Execution::None, Duration::ZERO)];
        Evaluated { trees: vec![tree], runs, source_date_epoch: None }
    }

    /// Returns a platform's tree, with its config, for another build of the same store.
    pub fn built_tree(&self, platform: usize) -> Option<BuiltTree> {
        self.trees.get(platform).cloned().map(BuiltTree)
    }

    /// Returns the platforms, in the order of the request.
    pub fn platforms(&self) -> impl Iterator<Item = &Platform> {
        self.trees.iter().map(|tree| &tree.draft.platform)
    }

    /// Puts platforms of several builds together, in this order.
    pub fn join<'a>(parts: impl IntoIterator<Item = (&'a Evaluated, usize)>) -> Evaluated {
        let mut joined = Evaluated { trees: Vec::new(), runs: Vec::new(), source_date_epoch: None };
        for (evaluated, platform) in parts {
            joined.source_date_epoch = joined.source_date_epoch.or(evaluated.source_date_epoch);
            joined.trees.extend(evaluated.trees.get(platform).cloned());
            joined.runs.extend(evaluated.runs.get(platform).cloned());
        }
        joined
    }

    /// Returns the time that the build fixed, in seconds since 1970.
    pub fn source_date_epoch(&self) -> Option<i64> {
        self.source_date_epoch
    }

    /// Returns how a platform was built, where that is known.
    pub fn provenance(&self, platform: usize) -> Option<Provenance> {
        let capture = self.trees.get(platform)?.capture.clone()?;
        Some(Provenance::new(capture, Vec::new()))
    }

    /// Returns a platform's tree as an image of another platform and config, which a client has written.
    pub fn with_config(&self, number: usize, platform: Platform, config: ImageConfig) -> Option<Evaluated> {
        let PlatformTree { tree, capture, scanned, steps, .. } = self.trees.get(number)?.clone();
        let draft = ImageDraft::of_config(platform, config, &tree);
        let runs = self.runs.get(number).cloned().into_iter().collect();
        let trees = vec![PlatformTree { draft, tree, capture, scanned, steps }];
        Some(Evaluated { trees, runs, source_date_epoch: self.source_date_epoch })
    }

    /// Returns a platform's tree with what its client's frontend took in besides: other trees of the same build,
    /// and images that it asked about. `None` where a frontend here has made the tree: that knows all of it.
    pub fn taking_in<'a>(
        &self,
        platform: usize,
        others: impl IntoIterator<Item = (&'a Evaluated, usize)>,
        images: &[AskedImage],
    ) -> Option<Evaluated> {
        let mut alone = self.alone(platform)?;
        let capture = alone.trees.first_mut()?.capture.as_mut().filter(|capture| capture.is_of_client())?;
        let others = others.into_iter().filter_map(|(evaluated, platform)| evaluated.trees.get(platform));
        others.filter_map(|tree| tree.capture.as_ref()).for_each(|other| capture.merge(other));
        capture.take(images.iter().map(AskedImage::material));
        Some(alone)
    }

    /// Returns what has been made for one platform.
    pub(crate) fn alone(&self, platform: usize) -> Option<Evaluated> {
        let tree = self.trees.get(platform)?.clone();
        let runs = self.runs.get(platform).cloned().into_iter().collect();
        Some(Evaluated { trees: vec![tree], runs, source_date_epoch: self.source_date_epoch })
    }

    /// Returns the config that the image of a platform will have, but for its layers and history.
    pub fn config(&self, platform: usize) -> Option<&ImageConfig> {
        self.trees.get(platform).map(|tree| &tree.draft.config)
    }
}

impl Services {
    /// Unpacks what a platform's tree needs and opens it to be read; it stays whole as long as these services do.
    ///
    /// # Errors
    /// When there is no such platform, or a layer can't be fetched or unpacked.
    pub async fn open_evaluated(
        self: &Arc<Self>,
        evaluated: &Evaluated,
        platform: usize,
        progress: &Progress,
    ) -> Result<TreeRoot, BuildError> {
        let tree = evaluated
            .trees
            .get(platform)
            .ok_or_else(|| BuildError::new(ErrorKind::Usage, "there is no tree of that number"))?;
        let shown = Shown { progress: progress.clone(), vertex: "".into() };
        let ids = self.directories(&tree.tree, &shown).await?;
        self.snapshots.view(&ids).map_err(|error| self.snapshot_error("can't open the tree", &error))
    }
}
