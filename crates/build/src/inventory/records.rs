// SPDX-License-Identifier: Apache-2.0
//! The records of the store as pieces of its cache, and what the whole ones keep of use.

use std::collections::{HashMap, HashSet};

use polyarch_oci::{Descriptor, Digest};
use polyarch_snapshot::SnapshotId;
use polyarch_store::{Missing, Store};

use super::{CacheItem, CacheKind, Place};
use crate::cache::{StepRecord, is_whole};
use crate::check::GOOD_PROGRAMS;
use crate::client_documents::SERVED;
use crate::error::BuildError;
use crate::image_source::{RESOLUTIONS, storage_error};
use crate::layer_contents::LAYER_CONTENTS;
use crate::layers::{BlobRecord, LAYER_BLOBS};
use crate::ops::file::CONTENT_KEYS;
use crate::tree::{Layer, Tree};

/// What whole records name.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) layers: HashMap<(usize, String), Told>,
    pub(super) blobs: HashMap<Digest, String>,
}

/// What records tell of a layer.
#[derive(Default)]
pub(super) struct Told {
    pub(super) description: String,
    pub(super) parents: Vec<String>,
    pub(super) records: usize,
}

/// Lists the records, and notes what the whole ones name.
pub(super) fn records(
    store: &Store,
    places: &[Place],
    here: &HashSet<Digest>,
    wanted: &mut Wanted,
) -> Result<Vec<CacheItem>, BuildError> {
    let mut items = Vec::new();
    for (namespace, key, file) in store.record_files().map_err(|error| storage_error(&error))? {
        let place = places.iter().position(|place| place.namespace == namespace);
        let bytes = store.get_record(&namespace, &key).ok().flatten();
        let (mut is_wanted, mut parents, mut description) = (false, Vec::new(), String::new());
        match (place, namespace.as_str(), &bytes) {
            (Some(at), _, Some(bytes)) => {
                if let Ok(record) = serde_json::from_slice::<StepRecord>(bytes) {
                    let trees = || std::iter::once(&record.tree).chain(&record.further);
                    is_wanted = trees().all(|tree| is_whole(tree, &places[at].snapshots, store));
                    description.clone_from(&record.description);
                    for tree in trees() {
                        let directories = directories(tree);
                        if is_wanted {
                            wanted.note(at, tree, &record.description, &directories);
                        }
                        parents.extend(directories);
                    }
                }
            }
            (None, LAYER_BLOBS, Some(bytes)) => {
                if let Ok(record) = serde_json::from_slice::<BlobRecord>(bytes) {
                    is_wanted = here.contains(&record.descriptor.digest);
                    parents.push(record.descriptor.digest.to_string());
                }
                description.push_str("which blob a layer became");
            }
            (None, RESOLUTIONS, Some(bytes)) => {
                is_wanted = true;
                description.push_str("what a registry said about a name");
                if let Ok(root) = serde_json::from_slice::<Descriptor>(bytes) {
                    // Documents only, and a damaged one names nothing: builds ask the registry again.
                    for descriptor in store.closure(&root, Missing::Skip).unwrap_or_default() {
                        let text = "of an image that a build was based on".to_owned();
                        wanted.blobs.entry(descriptor.digest).or_insert(text);
                    }
                }
            }
            (None, SERVED, Some(bytes)) => {
                let digest = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
                is_wanted = digest.is_some_and(|digest: Digest| here.contains(&digest));
                description.push_str("which repository has given a document");
            }
            (None, CONTENT_KEYS, Some(_)) => {
                is_wanted = true;
                description.push_str("the content of what was copied");
            }
            (None, LAYER_CONTENTS | GOOD_PROGRAMS, Some(_)) => {
                is_wanted = true;
                description.push_str("what was found out about a layer's programs");
            }
            // Of other namespaces, and of layers that this process doesn't look after, nobody here knows.
            (None, _, Some(_)) => continue,
            (_, _, None) => {}
        }
        items.push(CacheItem {
            kind: CacheKind::Record,
            id: format!("{namespace}/{key}"),
            description,
            size_bytes: file.disk_bytes,
            created: file.used,
            used: file.used,
            is_wanted,
            is_shared: false,
            parents,
            place: place.unwrap_or(0),
            path: file.path,
        });
    }
    Ok(items)
}

impl Wanted {
    fn note(&mut self, place: usize, tree: &Tree, description: &str, directories: &[String]) {
        let made_layer = tree.steps.last().is_some_and(|step| step.made_layer);
        for (at, (layer, name)) in tree.layers.iter().zip(directories).enumerate() {
            let told = self.layers.entry((place, name.clone())).or_default();
            told.records += 1;
            told.parents = directories[..at].to_vec();
            match layer {
                Layer::Step { .. } if made_layer && at + 1 == directories.len() => {
                    description.clone_into(&mut told.description);
                }
                Layer::Step { .. } => {}
                Layer::Image(layer) => {
                    let from = layer.from.as_ref().map(|from| from.familiar().to_string());
                    let description = from.map(|from| format!("layer of {from}")).unwrap_or_default();
                    told.description.clone_from(&description);
                    self.blobs.insert(layer.descriptor.digest.clone(), description);
                }
            }
        }
    }
}

/// Returns the names of the directories of a tree's layers, lowest first.
fn directories(tree: &Tree) -> Vec<String> {
    let name = |layer: &Layer| match layer {
        Layer::Step { id } => id.to_string(),
        Layer::Image(layer) => SnapshotId::of_layer(&layer.diff_id).to_string(),
    };
    tree.layers.iter().map(name).collect()
}
