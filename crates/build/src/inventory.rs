// SPDX-License-Identifier: Apache-2.0
//! What builds have left in the store, piece by piece: how large, last used when, and whether it may be of
//! use again.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::SystemTime;

use polyarch_oci::{Descriptor, Digest};
use polyarch_snapshot::{DiskUsage, SnapshotId, SnapshotOptions, Snapshots};
use polyarch_store::{Missing, Store};

use crate::cache::StepRecord;
use crate::check::GOOD_PROGRAMS;
use crate::error::{BuildError, ErrorKind, chain_of};
use crate::image_source::{RESOLUTIONS, storage_error};
use crate::layer_contents::LAYER_CONTENTS;
use crate::layers::{BlobRecord, LAYER_BLOBS};
use crate::ops::file::CONTENT_KEYS;
use crate::services::ServiceOptions;
use crate::tree::{Layer, Tree};

/// The directory below the root in which builds keep files for a while.
pub(crate) const SCRATCH: &str = "scratch";

/// What a piece of the cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CacheKind {
    /// The directory of a layer that a step made.
    Step,
    /// The directory of an unpacked layer of an image.
    Image,
    /// A blob that no name reaches: of a base image, or a layer made for a push.
    Blob,
    /// A record.
    Record,
    /// What a running build works in, or a killed one left.
    Temporary,
}

impl CacheKind {
    /// All kinds.
    pub const ALL: [CacheKind; 5] =
        [CacheKind::Step, CacheKind::Image, CacheKind::Blob, CacheKind::Record, CacheKind::Temporary];

    /// Returns the name, as filters write it.
    pub fn as_str(self) -> &'static str {
        match self {
            CacheKind::Step => "regular",
            CacheKind::Image => "image",
            CacheKind::Blob => "blob",
            CacheKind::Record => "record",
            CacheKind::Temporary => "temporary",
        }
    }
}

/// A piece of the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheItem {
    /// What it is.
    pub kind: CacheKind,
    /// Its name: a layer's, a digest, `NAMESPACE/KEY`, a path below the root.
    pub id: String,
    /// What people read: the step, the image; may be empty.
    pub description: String,
    /// Allocated bytes on the disk.
    pub size_bytes: u64,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last used.
    pub used: SystemTime,
    /// Whether a build may use it again as it is, because something that is whole names it; or uses it now.
    pub is_wanted: bool,
    /// Whether more than one step's record names it.
    pub is_shared: bool,
    /// The names of the layers beneath it, lowest first; of a record, the layers or the blob that it needs.
    pub parents: Vec<String>,
    pub(crate) place: usize,
    pub(crate) path: PathBuf,
}

impl CacheItem {
    /// Tells whether a running build works in it: then nothing removes it.
    pub fn is_in_use(&self) -> bool {
        self.kind == CacheKind::Temporary && self.is_wanted
    }

    /// Tells whether it changes: only what builds work in does.
    pub fn is_mutable(&self) -> bool {
        self.kind == CacheKind::Temporary
    }
}

/// The directories of layers and what their records say.
pub(crate) struct Place {
    pub(crate) snapshots: Snapshots,
    namespace: &'static str,
}

pub(crate) fn places(options: &ServiceOptions) -> Result<Vec<Place>, BuildError> {
    let open = |(directory, namespace): (PathBuf, &'static str)| {
        let snapshots = Snapshots::open(&directory, SnapshotOptions { force_copy: options.force_copy })
            .map_err(failed)?;
        Ok(Place { snapshots, namespace })
    };
    options.layer_places().into_iter().map(open).collect()
}

pub(crate) fn failed(error: polyarch_snapshot::SnapshotError) -> BuildError {
    BuildError::new(ErrorKind::Storage, chain_of(&error))
}

/// Lists every piece of the cache; what running builds add or remove meanwhile may be in it or not.
///
/// # Errors
/// When the store can't be read.
pub fn inventory(options: &ServiceOptions) -> Result<Vec<CacheItem>, BuildError> {
    let store = Store::open(&options.root).map_err(|error| storage_error(&error))?;
    take(options, &store, &places(options)?)
}

/// The same for an open store.
pub(crate) fn take(
    options: &ServiceOptions,
    store: &Store,
    places: &[Place],
) -> Result<Vec<CacheItem>, BuildError> {
    let reached = store.reached().map_err(|error| storage_error(&error))?;
    let blobs = store.blob_files().map_err(|error| storage_error(&error))?;
    let here: HashSet<Digest> = blobs.iter().map(|(digest, _)| digest.clone()).collect();
    let mut wanted = Wanted::default();
    let mut items = records(store, places, &here, &mut wanted)?;
    // A layer's blob is kept for the images that have it: without them its record is of no use either.
    for item in items.iter_mut().filter(|item| item.id.starts_with(LAYER_BLOBS)) {
        let digest = item.parents.first().and_then(|digest| digest.parse().ok());
        item.is_wanted &= digest.is_some_and(|it| reached.contains(&it) || wanted.blobs.contains_key(&it));
    }
    let mut used: HashMap<(usize, String), SystemTime> =
        blobs.iter().map(|(digest, file)| ((0, digest.to_string()), file.used)).collect();
    for (at, place) in places.iter().enumerate() {
        for layer in place.snapshots.list().map_err(failed)? {
            used.insert((at, layer.id.to_string()), layer.used);
            let told = wanted.layers.get(&(at, layer.id.as_str().to_owned()));
            let is_step = layer.id.as_str().starts_with("step-");
            items.push(CacheItem {
                kind: if is_step { CacheKind::Step } else { CacheKind::Image },
                description: told.map(|told| told.description.clone()).unwrap_or_default(),
                size_bytes: layer.size_bytes,
                created: layer.committed,
                used: layer.used,
                is_wanted: told.is_some(),
                is_shared: told.is_some_and(|told| told.records > 1),
                parents: told.map(|told| told.parents.clone()).unwrap_or_default(),
                place: at,
                path: place.snapshots.directory(&layer.id),
                id: layer.id.to_string(),
            });
        }
    }
    for (digest, file) in blobs {
        if reached.contains(&digest) {
            continue;
        }
        items.push(CacheItem {
            kind: CacheKind::Blob,
            id: digest.to_string(),
            description: wanted.blobs.get(&digest).cloned().unwrap_or_default(),
            size_bytes: file.disk_bytes,
            created: file.used,
            used: file.used,
            is_wanted: wanted.blobs.contains_key(&digest),
            is_shared: false,
            parents: Vec::new(),
            place: 0,
            path: file.path,
        });
    }
    // Reading a record leaves no trace; a use of what it leads to does.
    for record in items.iter_mut().filter(|item| item.kind == CacheKind::Record) {
        let leads_to = record.parents.last().and_then(|last| used.get(&(record.place, last.clone())));
        record.used = leads_to.map_or(record.used, |used| record.used.max(*used));
    }
    items.extend(temporary(options, store.is_used_by_others())?);
    Ok(items)
}

/// What whole records name.
#[derive(Default)]
struct Wanted {
    layers: HashMap<(usize, String), Told>,
    blobs: HashMap<Digest, String>,
}

/// What records tell of a layer.
#[derive(Default)]
struct Told {
    description: String,
    parents: Vec<String>,
    records: usize,
}

/// Lists the records, and notes what the whole ones name.
fn records(
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
                    parents = directories(&record.tree);
                    is_wanted = is_whole(&record.tree, &places[at].snapshots, here);
                    description.clone_from(&record.description);
                    if is_wanted {
                        wanted.note(at, &record, &parents);
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
    fn note(&mut self, place: usize, record: &StepRecord, directories: &[String]) {
        let made_layer = record.tree.steps.last().is_some_and(|step| step.made_layer);
        for (at, (layer, name)) in record.tree.layers.iter().zip(directories).enumerate() {
            let told = self.layers.entry((place, name.clone())).or_default();
            told.records += 1;
            told.parents = directories[..at].to_vec();
            match layer {
                Layer::Step { .. } if made_layer && at + 1 == directories.len() => {
                    told.description.clone_from(&record.description);
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

/// Tells whether a record still counts (see `StepRecords`).
fn is_whole(tree: &Tree, snapshots: &Snapshots, here: &HashSet<Digest>) -> bool {
    tree.layers.iter().all(|layer| match layer {
        Layer::Step { id } => snapshots.contains(id),
        Layer::Image(layer) => layer.from.is_some() || here.contains(&layer.descriptor.digest),
    })
}

/// Lists what builds work in: with others at the store it is theirs, else it was left.
fn temporary(options: &ServiceOptions, is_wanted: bool) -> Result<Vec<CacheItem>, BuildError> {
    let below_layers = options.layer_places().into_iter().map(|(directory, _)| directory.join("active"));
    let mut usage = DiskUsage::default();
    let mut items = Vec::new();
    let own = [SCRATCH, "ingest"].map(|name| options.root.join(name));
    for path in own.into_iter().chain(below_layers) {
        let Ok(entries) = std::fs::read_dir(&path) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let name = path.strip_prefix(&options.root).unwrap_or(&path);
            items.push(CacheItem {
                kind: CacheKind::Temporary,
                id: name.display().to_string(),
                description: String::new(),
                size_bytes: usage.add(&path).map_err(failed)?,
                created: used,
                used,
                is_wanted,
                is_shared: false,
                parents: Vec::new(),
                place: 0,
                path: path.clone(),
            });
        }
    }
    Ok(items)
}
