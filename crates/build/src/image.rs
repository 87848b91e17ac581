// SPDX-License-Identifier: Apache-2.0
//! A platform's image: config and manifest made of what the Dockerfile says and what the steps gave.

use polyarch_oci::media_type::{self, Compression, Flavour};
use polyarch_oci::{Descriptor, DiffId, Document, History, ImageConfig, Manifest, Platform, Reference};

use crate::request::ImageOptions;
use crate::tree::{Step, Tree};

/// The search path of images that set none.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The system whose images have another shell and no search path of their own.
pub(crate) const WINDOWS: &str = "windows";

/// The remark on history entries that this builder makes.
pub(crate) const HISTORY_COMMENT: &str = "polyarch.dockerfile.v0";

/// The annotation of layers whose times were clamped: to which second.
pub(crate) const REWRITTEN: &str = "buildkit/rewritten-timestamp";

/// An image as the Dockerfile describes it, before its layers are known.
#[derive(Debug, Clone)]
pub struct ImageDraft {
    /// The platform.
    pub platform: Platform,
    /// The config; history and layers are still those of the base image.
    pub config: ImageConfig,
    /// One entry per instruction above the base image.
    pub history: Vec<HistoryEntry>,
}

impl ImageDraft {
    /// Makes the draft of an image that has nothing.
    pub(crate) fn scratch(platform: &Platform) -> ImageDraft {
        let mut config = ImageConfig::default();
        config.set_platform(platform);
        if platform.os != WINDOWS {
            config.config.env = vec![format!("PATH={DEFAULT_PATH}")];
        }
        config.config.working_dir = "/".to_owned();
        ImageDraft { platform: platform.clone(), config, history: Vec::new() }
    }

    /// Makes the draft of an image whose whole config somebody else has written, for a tree.
    ///
    /// The history says of each layer where it is from: entries above the base are taken for the steps of the
    /// tree where there are as many; what is missing is added, and of more entries than layers none counts as
    /// a layer. An image of no time has that of its last entry.
    pub(crate) fn of_config(platform: Platform, mut config: ImageConfig, tree: &Tree) -> ImageDraft {
        // Layers of steps that came from a cache lie like those of images.
        let base = tree.layers.len().saturating_sub(tree.steps.iter().filter(|step| step.made_layer).count());
        let layers = |history: &[History]| history.iter().filter(|entry| !entry.empty_layer).count();
        let told = layers(&config.history);
        if told == base + tree.steps.len() {
            let above = config.history.iter_mut().filter(|entry| !entry.empty_layer).skip(base);
            for (entry, step) in above.zip(&tree.steps) {
                entry.empty_layer = !step.made_layer;
                entry.created = entry.created.take().or_else(|| time_of(step));
            }
        }
        let told = layers(&config.history);
        if told > tree.layers.len() {
            config.history.iter_mut().for_each(|entry| entry.empty_layer = true);
        }
        let told = layers(&config.history);
        let missing = tree.layers.len() - told.min(tree.layers.len());
        if !config.history.is_empty() {
            let entry = History { comment: HISTORY_COMMENT.to_owned(), ..History::default() };
            config.history.extend(std::iter::repeat_n(entry, missing));
        }
        if config.created.is_none() {
            config.created = config.history.iter().rev().find_map(|entry| entry.created.clone());
        }
        ImageDraft { platform, config, history: Vec::new() }
    }
}

/// What an instruction leaves in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Where the instruction stands, when it is a step.
    pub location: Option<crate::error::SourceLocation>,
    /// The instruction as it is shown.
    pub created_by: String,
    /// Whether it is a step, which may have made a layer.
    pub is_step: bool,
}

/// A layer as a blob.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerBlob {
    /// The digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// The blob.
    pub descriptor: Descriptor,
    /// A repository known to have it.
    pub from: Option<Reference>,
}

/// A platform's finished documents.
#[derive(Debug, Clone)]
pub struct PlatformImage {
    /// The platform.
    pub platform: Platform,
    /// The config.
    pub config: Document<ImageConfig>,
    /// The manifest.
    pub manifest: Document<Manifest>,
    /// The layers, lowest first.
    pub layers: Vec<LayerBlob>,
}

impl PlatformImage {
    /// Returns the descriptor of the manifest as an index names it.
    pub fn descriptor(&self) -> Descriptor {
        let manifest = &self.manifest;
        let config = &self.config.value;
        let mut platform = self.platform.clone();
        if platform.os_version.is_empty() {
            // That of the base.
            platform.os_version.clone_from(&config.os_version);
        }
        if platform.os_features.is_empty() {
            platform.os_features.clone_from(&config.os_features);
        }
        Descriptor::new(&manifest.value.media_type, manifest.digest.clone(), manifest.size())
            .with_platform(platform)
    }

    /// Returns the bytes of config and layers, as stored.
    pub fn size_bytes(&self) -> u64 {
        self.config.size() + self.layers.iter().map(|layer| layer.descriptor.size).sum::<u64>()
    }
}

/// Makes config and manifest of a draft and the layers that its steps gave.
///
/// `steps` are those above the base image, lowest first. All that is made here bears the time
/// `source_date_epoch`, in seconds since 1970, or else the time of the last step before it.
pub fn assemble(
    draft: &ImageDraft,
    steps: &[Step],
    layers: Vec<LayerBlob>,
    source_date_epoch: Option<i64>,
    options: &ImageOptions,
) -> PlatformImage {
    let mut config = draft.config.clone();
    config.set_platform(&draft.platform);
    let mut created = match source_date_epoch {
        Some(epoch) => rfc3339(epoch, 0),
        None => config.created.take().or_else(|| time_of(steps.first()?)),
    };
    config.rootfs.kind = "layers".to_owned();
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let mut steps = steps.iter();
    for entry in &draft.history {
        // A step without its mark cannot be: both lists come from the same graph. It would count as empty.
        let step = if entry.is_step { steps.next() } else { None };
        if let (Some(step), None) = (step, source_date_epoch) {
            created = time_of(step);
        }
        config.history.push(History {
            created: created.clone(),
            created_by: entry.created_by.clone(),
            comment: HISTORY_COMMENT.to_owned(),
            empty_layer: !step.is_some_and(|step| step.made_layer),
            ..History::default()
        });
    }
    config.created = created;
    let config = Document::compact(config);
    let config_descriptor = Descriptor::new(options.flavour.config(), config.digest.clone(), config.size());
    let descriptors = layers.iter().map(|layer| layer_descriptor(layer, options.flavour)).collect();
    let mut manifest = Manifest::new(options.flavour, config_descriptor, descriptors);
    manifest.annotations = options.manifest_annotations.iter().cloned().collect();
    PlatformImage { platform: draft.platform.clone(), config, manifest: Document::indented(manifest), layers }
}

/// Writes when a step executed.
fn time_of(step: &Step) -> Option<String> {
    rfc3339(step.executed, step.executed_nanoseconds)
}

/// Writes a time, in seconds since 1970 and nanoseconds; `None` for one that no calendar has.
fn rfc3339(seconds: i64, nanoseconds: u32) -> Option<String> {
    Some(jiff::Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?).ok()?.to_string())
}

/// Returns a layer's descriptor in the flavour of the manifest.
pub(crate) fn layer_descriptor(layer: &LayerBlob, flavour: Flavour) -> Descriptor {
    let from = &layer.descriptor;
    let is_foreign = from.media_type.contains("foreign") || from.media_type.contains("nondistributable");
    if is_foreign || from.media_type == media_type::OCI_EMPTY {
        return Descriptor { platform: None, ..from.clone() };
    }
    let compression = Compression::of_layer(&from.media_type);
    let media_type = compression.map_or(from.media_type.as_str(), |it| it.layer_media_type(flavour));
    let mut descriptor = Descriptor::new(media_type, from.digest.clone(), from.size);
    if flavour == Flavour::Oci
        && let Some(epoch) = from.annotations.get(REWRITTEN)
    {
        descriptor.annotations.insert(REWRITTEN.to_owned(), epoch.clone());
    }
    descriptor
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{ImageLayer, Layer};
    use polyarch_oci::Digest;

    fn layer(text: &str, media_type: &str) -> LayerBlob {
        LayerBlob {
            diff_id: DiffId(Digest::of(text)),
            descriptor: Descriptor::new(media_type, Digest::of(format!("{text}.gz")), 3),
            from: None,
        }
    }

    fn draft() -> ImageDraft {
        let entry = |created_by: &str, is_step| HistoryEntry {
            location: None,
            created_by: created_by.to_owned(),
            is_step,
        };
        ImageDraft {
            platform: Platform::new("linux", "arm", "v7"),
            config: ImageConfig::default(),
            history: vec![entry("ENV A=b", false), entry("RUN true", true), entry("COPY a /", true)],
        }
    }

    #[test]
    fn history_tells_which_steps_made_a_layer() {
        let layers = vec![layer("a", media_type::DOCKER_LAYER_GZIP)];
        let steps = [(false, 5), (true, 86_400)].map(|(made_layer, executed)| Step {
            made_layer,
            executed,
            executed_nanoseconds: 7,
        });
        let image = assemble(&draft(), &steps, layers, None, &ImageOptions::default());
        let config = &image.config.value;
        let empty: Vec<bool> = config.history.iter().map(|entry| entry.empty_layer).collect();
        assert_eq!(empty, [true, true, false]);
        assert_eq!(config.created.as_deref(), Some("1970-01-02T00:00:00.000000007Z"));
        assert_eq!(config.history[0].created.as_deref(), Some("1970-01-01T00:00:05.000000007Z"));
        assert_eq!(config.platform().to_string(), "linux/arm/v7");
        assert_eq!(image.manifest.value.layers[0].media_type, media_type::OCI_LAYER_GZIP);
    }

    #[test]
    fn steps_of_a_cache_have_their_times_in_a_config_of_others() {
        let entry =
            |created: Option<&str>| History { created: created.map(str::to_owned), ..History::default() };
        let base = "2020-01-01T00:00:00Z";
        let config = ImageConfig { history: vec![entry(Some(base)), entry(None)], ..ImageConfig::default() };
        let layer = |name: &str| {
            Layer::Image(Box::new(ImageLayer {
                diff_id: DiffId(Digest::of(name)),
                descriptor: Descriptor::new(media_type::OCI_LAYER, Digest::of(name), 1),
                from: None,
            }))
        };
        let steps = vec![Step { made_layer: true, executed: 86_400, executed_nanoseconds: 0 }];
        let tree = Tree::new(vec![layer("base"), layer("step")], steps);
        let draft = ImageDraft::of_config(Platform::host(), config, &tree);
        let times: Vec<_> = draft.config.history.iter().map(|entry| entry.created.as_deref()).collect();
        assert_eq!(times, [Some(base), Some("1970-01-02T00:00:00Z")]);
        assert_eq!(draft.config.created.as_deref(), Some("1970-01-02T00:00:00Z"));
    }

    #[test]
    fn the_flavour_is_one_for_the_whole_image() {
        let options = ImageOptions { flavour: Flavour::Docker, ..ImageOptions::default() };
        let image = assemble(&draft(), &[], vec![layer("a", media_type::OCI_LAYER)], Some(0), &options);
        assert_eq!(image.manifest.value.media_type, media_type::DOCKER_MANIFEST);
        assert_eq!(image.manifest.value.config.media_type, media_type::DOCKER_CONFIG);
        assert_eq!(image.manifest.value.layers[0].media_type, media_type::DOCKER_LAYER);
    }
}
