// SPDX-License-Identifier: Apache-2.0
//! Images that are finished already, of other nodes or other builds: their documents go out byte for byte.

use std::sync::Arc;
use std::time::Duration;

use polyarch_oci::{Descriptor, ManifestOrIndex, Platform};
use polyarch_solver::progress::Progress;

use super::{Exported, PlatformTree, files, publish};
use crate::check::check_finished;
use crate::error::{BuildError, ErrorKind};
use crate::fetch::Shown;
use crate::image::{ImageDraft, LayerBlob, PlatformImage};
use crate::image_source::storage_error;
use crate::request::{BuildRequest, Output};
use crate::result::{BuildResult, Execution, PlatformResult};
use crate::services::Services;
use crate::tree::{ImageLayer, Layer, Tree};

/// One platform's image in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedImage {
    /// The platform.
    pub platform: Platform,
    /// The manifest.
    pub manifest: Descriptor,
    /// How its steps ran.
    pub execution: Execution,
    /// How long its steps took.
    pub duration: Duration,
}

impl Services {
    /// Gives every output of a request what it asked for, of images that are in the store with all their blobs:
    /// one index over their manifests as they are. Names change last, and only when all else has succeeded.
    ///
    /// # Errors
    /// When an image is not whole, when its own layers have programs of another platform, or when an output can't be
    /// written or pushed.
    pub async fn export_finished(
        self: &Arc<Self>,
        request: &BuildRequest,
        finished: &[FinishedImage],
        progress: &Progress,
    ) -> Result<BuildResult, BuildError> {
        let images = finished.iter().map(|image| self.read_finished(image)).collect::<Result<Vec<_>, _>>()?;
        if request.verify {
            check_finished(self, &images).await?;
        }
        let is_image = request.outputs.is_empty() || request.outputs.iter().any(Output::is_image);
        if request.outputs.iter().any(|output| !output.is_image()) {
            let trees: Vec<PlatformTree> = images.iter().map(tree_of).collect();
            files::export(self, request, &trees, progress).await?;
        }
        let exported = match is_image {
            false => Exported { images, ..Exported::default() },
            true => {
                let vertex = progress.begin("exporting to image", "exporting to image");
                let shown = Shown { progress: progress.clone(), vertex: vertex.digest() };
                match publish(self, request, images, &[], &vertex, &shown).await {
                    Ok(exported) => {
                        vertex.done();
                        exported
                    }
                    Err(error) => {
                        vertex.failed(&error);
                        return Err(error);
                    }
                }
            }
        };
        let platforms = finished.iter().zip(&exported.images).map(|(finished, image)| PlatformResult {
            platform: finished.platform.clone(),
            manifest: is_image.then(|| image.descriptor()),
            config: is_image.then(|| image.config.digest.clone()),
            size_bytes: if is_image { image.size_bytes() } else { 0 },
            execution: finished.execution.clone(),
            duration: finished.duration,
        });
        Ok(BuildResult {
            platforms: platforms.collect(),
            names: if is_image { request.names.clone() } else { Vec::new() },
            pushed: exported.pushed,
            provenance: Vec::new(),
            root: exported.root,
        })
    }

    fn read_finished(&self, finished: &FinishedImage) -> Result<PlatformImage, BuildError> {
        let wrong = |problem: &str| {
            let message =
                format!("the image {} of {} {problem}", finished.manifest.digest, finished.platform);
            BuildError::new(ErrorKind::Registry, message)
        };
        let document = self.store.image(&finished.manifest).map_err(|error| storage_error(&error))?;
        let ManifestOrIndex::Manifest(manifest) = document else { return Err(wrong("is an index")) };
        if manifest.value.media_type.is_empty() {
            return Err(wrong("does not say its media type"));
        }
        let config = self.store.config(&manifest.value).map_err(|error| storage_error(&error))?;
        let diff_ids = &config.value.rootfs.diff_ids;
        if diff_ids.len() != manifest.value.layers.len() {
            return Err(wrong("has another number of layers than its config tells"));
        }
        let layers = diff_ids.iter().zip(&manifest.value.layers).map(|(diff_id, descriptor)| LayerBlob {
            diff_id: diff_id.clone(),
            descriptor: descriptor.clone(),
            from: None,
        });
        let layers = layers.collect();
        Ok(PlatformImage { platform: finished.platform.clone(), config, manifest, layers })
    }
}

/// Makes a tree of an image; nothing is unpacked yet.
fn tree_of(image: &PlatformImage) -> PlatformTree {
    let layers = image.layers.iter().map(|layer| {
        Layer::Image(Box::new(ImageLayer {
            diff_id: layer.diff_id.clone(),
            descriptor: layer.descriptor.clone(),
            from: None,
        }))
    });
    PlatformTree {
        draft: ImageDraft {
            platform: image.platform.clone(),
            config: image.config.value.clone(),
            history: Vec::new(),
        },
        tree: Tree::new(layers.collect(), Vec::new()),
        capture: None,
        scanned: None,
        steps: Vec::new(),
    }
}
