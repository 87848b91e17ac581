// SPDX-License-Identifier: Apache-2.0
//! Records within an image: the field `moby.buildkit.cache.v0` of its config, base64 of a JSON list.
//!
//! The list is that of a cache's document, without its layers: those of the image, lowest first, stand for them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use polyarch_oci::{Descriptor, ImageConfig, Manifest, Reference};
use polyarch_solver::CacheKey;
use std::collections::HashMap;

use crate::remote_cache::document::{CacheConfig, CacheRecord};
use crate::remote_cache::export::CachedStep;
use crate::tree::Tree;

/// The field of the config.
pub(crate) const INLINE_KEY: &str = "moby.buildkit.cache.v0";

/// Returns the field's value for an image of `tree`: those of `steps` whose layers it has.
pub(crate) fn inline_records(tree: &Tree, steps: &[CachedStep]) -> Option<String> {
    let mut found: Vec<(CacheKey, Vec<usize>, &CachedStep)> = Vec::new();
    for step in steps {
        let places = step.tree.layers.iter().map(|layer| tree.layers.iter().position(|it| it == layer));
        let Some(places) = places.collect::<Option<Vec<usize>>>() else { continue };
        // The key of the definition, which is known whether a step was executed or found: a build that finds all of
        // an image in its cache makes the same image again.
        found.extend(step.keys.first().map(|key| (*key, places, step)));
    }
    found.sort_by_key(|(key, ..)| *key);
    found.dedup_by_key(|(key, ..)| *key);
    let records =
        found.into_iter().map(|(key, places, step)| CacheRecord::new(&key, places, step.tree.steps.clone()));
    let records: Vec<CacheRecord> = records.collect();
    if records.is_empty() {
        return None;
    }
    Some(STANDARD.encode(serde_json::to_vec(&records).ok()?))
}

/// Returns the trees of an image's records; what is malformed counts as not there.
pub(super) fn inline_trees(
    manifest: &Manifest,
    config: &ImageConfig,
    from: Option<&Reference>,
) -> HashMap<CacheKey, Tree> {
    let read = || {
        let bytes = STANDARD.decode(config.rest.get(INLINE_KEY)?.as_str()?).ok()?;
        let records: Vec<CacheRecord> = serde_json::from_slice(&bytes).ok()?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return None;
        }
        let layers: Vec<(Descriptor, _)> =
            manifest.layers.iter().cloned().zip(diff_ids.iter().cloned()).collect();
        Some(CacheConfig::of_image(&layers, records).trees(&manifest.layers, from))
    };
    read().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use polyarch_oci::media_type::Flavour;
    use polyarch_oci::{DiffId, Digest};
    use polyarch_solver::KeyHasher;

    use super::*;
    use crate::tree::{ImageLayer, Layer, Step};

    fn layer(text: &str) -> Layer {
        Layer::Image(Box::new(ImageLayer {
            diff_id: DiffId(Digest::of(format!("{text}.tar"))),
            descriptor: Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", Digest::of(text), 3),
            from: None,
        }))
    }

    #[test]
    fn an_image_holds_the_records_of_its_own_layers() {
        let steps = vec![Step { made_layer: true, executed: 5, executed_nanoseconds: 0 }];
        let result = Tree::new(vec![layer("a"), layer("b")], steps.clone());
        let key = |text: &str| KeyHasher::new(text).finish();
        let step = |name: &str, layers: Vec<Layer>| CachedStep {
            keys: vec![key(name), key("by content")],
            tree: Tree::new(layers, steps.clone()),
        };
        let all = [
            step("whole", result.layers.clone()),
            step("upper", vec![layer("b")]),
            step("other", vec![layer("a"), layer("c")]),
        ];
        let value = inline_records(&result, &all).unwrap();
        let blobs = result.image_layers().map(|it| it.descriptor.clone()).collect();
        let manifest = Manifest::new(Flavour::Oci, Descriptor::new("", Digest::of("config"), 1), blobs);
        let mut config = ImageConfig::default();
        config.rootfs.diff_ids = result.image_layers().map(|it| it.diff_id.clone()).collect();
        assert!(inline_trees(&manifest, &config, None).is_empty());
        config.rest.insert(INLINE_KEY.to_owned(), value.into());
        let trees = inline_trees(&manifest, &config, None);
        assert_eq!((trees.len(), &trees[&key("whole")]), (2, &result));
        assert_eq!(trees[&key("upper")].layers, [layer("b")]);
        assert_eq!(inline_records(&result, &all[2..]), None);
        // An image that says another number of layers than it has, has no records.
        config.rootfs.diff_ids.pop();
        assert!(inline_trees(&manifest, &config, None).is_empty());
    }
}
