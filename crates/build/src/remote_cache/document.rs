// SPDX-License-Identifier: Apache-2.0
//! The document that lists records, in BuildKit's form (`application/vnd.buildkit.cacheconfig.v0`).
//!
//! What BuildKit doesn't know stands in fields of our own, which it passes over.

use std::collections::HashMap;

use polyarch_oci::{Descriptor, DiffId, Digest, Reference};
use polyarch_solver::CacheKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::image::LayerBlob;
use crate::tree::{ImageLayer, Layer, Step, Tree};

/// The media type of the document.
pub(super) const CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

/// The largest document, in bytes.
pub(super) const MAX_CONFIG_BYTES: u64 = 64 << 20;

/// The most records and layers of a document, and layers or steps of a record.
const MAX_RECORDS: usize = 100_000;
const MAX_DEPTH: usize = 2_000;

/// What our keys are written as; an algorithm that BuildKit's keys don't have.
const KEY_ALGORITHM: &str = "blake3:";

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct CacheConfig {
    #[serde(default)]
    layers: Vec<CacheLayer>,
    #[serde(default)]
    records: Vec<CacheRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CacheLayer {
    blob: Digest,
    /// The layer beneath it; ours are in chains, and each stands alone.
    #[serde(default)]
    parent: i64,
    annotations: Option<LayerAnnotations>,
}

impl CacheLayer {
    fn new(blob: &Descriptor, diff_id: &DiffId) -> CacheLayer {
        let annotations = LayerAnnotations {
            media_type: blob.media_type.clone(),
            diff_id: diff_id.clone(),
            size: blob.size,
        };
        CacheLayer { blob: blob.digest.clone(), parent: -1, annotations: Some(annotations) }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct LayerAnnotations {
    #[serde(rename = "mediaType")]
    media_type: String,
    #[serde(rename = "diffID")]
    diff_id: DiffId,
    size: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CacheRecord {
    digest: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    chains: Vec<CacheChain>,
    /// Of ours: what the history tells of the steps.
    #[serde(default, rename = "polyarch.steps", skip_serializing_if = "Option::is_none")]
    steps: Option<Vec<Step>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CacheChain {
    layers: Vec<usize>,
}

impl CacheRecord {
    /// Makes a record of the layers at these places, lowest first.
    pub(super) fn new(key: &CacheKey, layers: Vec<usize>, steps: Vec<Step>) -> CacheRecord {
        // A chain of nothing is nothing that BuildKit expects.
        let chains = if layers.is_empty() { Vec::new() } else { vec![CacheChain { layers }] };
        CacheRecord { digest: format!("{KEY_ALGORITHM}{}", key.hex()), chains, steps: Some(steps) }
    }
}

impl CacheConfig {
    /// Lists records whose layers are those of an image, in its order.
    pub(super) fn of_image(layers: &[(Descriptor, DiffId)], records: Vec<CacheRecord>) -> CacheConfig {
        let layers = layers.iter().map(|(blob, diff_id)| CacheLayer::new(blob, diff_id));
        CacheConfig { layers: layers.collect(), records }
    }

    /// Lists records: keys, the blobs of their layers, lowest first, and their steps. Equal ones give equal
    /// bytes. Returns also the blobs, each once.
    pub(super) fn new(
        mut records: Vec<(CacheKey, Vec<LayerBlob>, Vec<Step>)>,
    ) -> (CacheConfig, Vec<Descriptor>) {
        records.sort_by_key(|(key, ..)| *key);
        records.dedup_by_key(|(key, ..)| *key);
        let mut config = CacheConfig::default();
        let mut blobs = Vec::new();
        let mut places: HashMap<Digest, usize> = HashMap::new();
        for (key, layers, steps) in records {
            let mut chain = Vec::with_capacity(layers.len());
            for layer in layers {
                let next = config.layers.len();
                let place = *places.entry(layer.descriptor.digest.clone()).or_insert(next);
                if place == next {
                    config.layers.push(CacheLayer::new(&layer.descriptor, &layer.diff_id));
                    let from = layer.descriptor;
                    blobs.push(Descriptor::new(&from.media_type, from.digest, from.size));
                }
                chain.push(place);
            }
            config.records.push(CacheRecord::new(&key, chain, steps));
        }
        (config, blobs)
    }

    /// Returns the records that are ours and whole: every layer is one of `blobs`, which the manifest names.
    /// All others count as not there.
    pub(super) fn trees(&self, blobs: &[Descriptor], from: Option<&Reference>) -> HashMap<CacheKey, Tree> {
        if self.records.len() > MAX_RECORDS || self.layers.len() > MAX_RECORDS {
            return HashMap::new();
        }
        let blobs: HashMap<&Digest, &Descriptor> = blobs.iter().map(|blob| (&blob.digest, blob)).collect();
        let layers: Vec<Option<Layer>> = self
            .layers
            .iter()
            .map(|layer| {
                let annotations = layer.annotations.as_ref()?;
                let blob = blobs.get(&layer.blob).filter(|blob| blob.size == annotations.size)?;
                let descriptor = Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size);
                let diff_id = annotations.diff_id.clone();
                Some(Layer::Image(Box::new(ImageLayer { diff_id, descriptor, from: from.cloned() })))
            })
            .collect();
        let trees = self.records.iter().filter_map(|record| {
            let key = CacheKey::from_hex(record.digest.strip_prefix(KEY_ALGORITHM)?)?;
            let steps = record.steps.as_ref()?;
            let chain = record.chains.first().map_or(&[][..], |chain| &chain.layers);
            if steps.len() > MAX_DEPTH || chain.len() > MAX_DEPTH {
                return None;
            }
            let layers: Option<Vec<Layer>> =
                chain.iter().map(|place| layers.get(*place).cloned().flatten()).collect();
            Some((key, Tree::new(layers?, steps.clone())))
        });
        trees.collect()
    }
}

/// Puts the records of several documents into one, whoever wrote them: each keeps its own layers and inputs.
///
/// # Errors
/// What is malformed, in one sentence.
pub(super) fn merge_configs(configs: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let (mut layers, mut records) = (Vec::new(), Vec::new());
    for config in configs {
        let config: Value = serde_json::from_slice(config).map_err(|error| error.to_string())?;
        let list = |key: &str| config.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let (its_layers, its_records) = (list("layers"), list("records"));
        let (layer_shift, record_shift) = (layers.len() as i64, records.len() as i64);
        if layers.len() + its_layers.len() > MAX_RECORDS || records.len() + its_records.len() > MAX_RECORDS {
            return Err(format!("there are more than {MAX_RECORDS} records or layers"));
        }
        for mut layer in its_layers {
            // Written by Go, which leaves out a zero.
            let parent = layer.get("parent").and_then(Value::as_i64).unwrap_or(0);
            let parent = if parent < 0 { parent } else { parent.saturating_add(layer_shift) };
            let fields = layer.as_object_mut().ok_or("a layer is no object")?;
            fields.insert("parent".to_owned(), parent.into());
            layers.push(layer);
        }
        for mut record in its_records {
            let each = |record: &mut Value, key: &str, change: &dyn Fn(&mut Value)| {
                let items = record.get_mut(key).and_then(Value::as_array_mut);
                items.into_iter().flatten().for_each(change);
            };
            each(&mut record, "layers", &|result| shift(result.get_mut("layer"), layer_shift));
            each(&mut record, "chains", &|chain| {
                each(chain, "layers", &|place| shift(Some(place), layer_shift));
            });
            each(&mut record, "inputs", &|links| {
                let links = links.as_array_mut();
                links.into_iter().flatten().for_each(|link| shift(link.get_mut("link"), record_shift));
            });
            records.push(record);
        }
    }
    serde_json::to_vec(&json!({ "layers": layers, "records": records })).map_err(|error| error.to_string())
}

fn shift(place: Option<&mut Value>, by: i64) {
    if let Some(place) = place
        && let Some(number) = place.as_i64()
    {
        *place = number.saturating_add(by).into();
    }
}

#[cfg(test)]
mod tests {
    use polyarch_solver::KeyHasher;

    use super::*;

    fn key(text: &str) -> CacheKey {
        KeyHasher::new(text).finish()
    }

    fn blob(text: &str) -> LayerBlob {
        LayerBlob {
            diff_id: DiffId(Digest::of(format!("{text}.tar"))),
            descriptor: Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", Digest::of(text), 7),
            from: None,
        }
    }

    #[test]
    fn records_come_back_with_their_layers_in_order() {
        let steps = vec![Step { made_layer: true, executed: 5, executed_nanoseconds: 0 }];
        let records = vec![
            (key("b"), vec![blob("one"), blob("two")], steps.clone()),
            (key("a"), vec![blob("one")], steps.clone()),
            (key("b"), vec![blob("one"), blob("two")], steps.clone()),
        ];
        let (config, blobs) = CacheConfig::new(records.clone());
        assert_eq!(blobs.len(), 2);
        let bytes = serde_json::to_vec(&config).unwrap();
        let reversed = records.into_iter().rev().collect();
        assert_eq!(serde_json::to_vec(&CacheConfig::new(reversed).0).unwrap(), bytes);
        let read: CacheConfig = serde_json::from_slice(&bytes).unwrap();
        let trees = read.trees(&blobs, None);
        let digests: Vec<_> =
            trees[&key("b")].image_layers().map(|it| it.descriptor.digest.clone()).collect();
        assert_eq!((trees.len(), digests), (2, vec![Digest::of("one"), Digest::of("two")]));
        assert_eq!(trees[&key("a")].steps, steps);
        // A layer that the manifest doesn't name, or names in another size, is none.
        let trees = read.trees(&blobs[..1], None);
        assert!(trees.len() < 2);
        let grown: Vec<Descriptor> = blobs.iter().map(|it| Descriptor { size: 8, ..it.clone() }).collect();
        assert!(read.trees(&grown, None).is_empty());
    }

    #[test]
    fn records_of_others_and_broken_ones_count_as_absent() {
        let text = r#"{"layers":[{"blob":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}],
            "records":[{"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
              "layers":[{"layer":0,"createdAt":"2026-01-01T00:00:00Z"}],"inputs":[[{"link":1}]]},
              {"digest":"blake3:12","chains":[{"layers":[0]}],"polyarch.steps":[]},
              {"digest":"blake3:0000000000000000000000000000000000000000000000000000000000000000",
               "chains":[{"layers":[77]}],"polyarch.steps":[]}]}"#;
        let config: CacheConfig = serde_json::from_str(text).unwrap();
        assert!(config.trees(&[], None).is_empty());
    }

    #[test]
    fn documents_of_several_builders_become_one() {
        let foreign = |digest: &str| {
            let text = format!(
                r#"{{"layers":[{{"blob":"sha256:{digest}"}},{{"blob":"sha256:{digest}","parent":-1}}],
                "records":[{{"digest":"sha256:1"}},{{"digest":"sha256:2","layers":[{{"layer":1}}],
                "chains":[{{"layers":[0,1]}}],"inputs":[[{{"selector":"x","link":0}}]]}}]}}"#
            );
            text.into_bytes()
        };
        let own = CacheConfig::new(vec![(key("a"), vec![blob("one")], Vec::new())]);
        let (own, blobs) = (serde_json::to_vec(&own.0).unwrap(), own.1);
        let merged = merge_configs(&[foreign(&"a".repeat(64)), foreign(&"c".repeat(64)), own]).unwrap();
        let value: Value = serde_json::from_slice(&merged).unwrap();
        let parents: Vec<i64> =
            value["layers"].as_array().unwrap().iter().map(|it| it["parent"].as_i64().unwrap()).collect();
        assert_eq!(parents, [0, -1, 2, -1, -1]);
        assert_eq!(value["records"][3]["layers"][0]["layer"], 3);
        assert_eq!(value["records"][3]["chains"][0]["layers"], json!([2, 3]));
        assert_eq!(value["records"][3]["inputs"][0][0], json!({ "selector": "x", "link": 2 }));
        let read: CacheConfig = serde_json::from_slice(&merged).unwrap();
        assert_eq!(read.trees(&blobs, None)[&key("a")].layers.len(), 1);
        assert!(merge_configs(&[b"{".to_vec()]).is_err());
    }
}
