// SPDX-License-Identifier: Apache-2.0
//! What builds have left in the store, piece by piece: how large, last used when, and whether it may be of
//! use again.

mod records;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::SystemTime;

use polyarch_oci::Digest;
use polyarch_snapshot::{DiskUsage, SnapshotOptions, Snapshots};
use polyarch_store::Store;

use crate::cache_mounts::{self, StoredCache};
use crate::error::{BuildError, ErrorKind, chain_of};
use crate::image_source::storage_error;
use crate::layers::LAYER_BLOBS;
use crate::services::ServiceOptions;
use records::{Wanted, records};

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
    /// A directory of `RUN --mount=type=cache`.
    CacheMount,
    /// What a running build works in, or a killed one left.
    Temporary,
}

impl CacheKind {
    /// All kinds.
    pub const ALL: [CacheKind; 6] = [
        CacheKind::Step,
        CacheKind::Image,
        CacheKind::Blob,
        CacheKind::Record,
        CacheKind::CacheMount,
        CacheKind::Temporary,
    ];

    /// Returns the name, as filters write it.
    pub fn as_str(self) -> &'static str {
        match self {
            CacheKind::Step => "regular",
            CacheKind::Image => "image",
            CacheKind::Blob => "blob",
            CacheKind::Record => "record",
            CacheKind::CacheMount => "exec.cachemount",
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

    /// Tells whether it changes: what builds work in, and what steps keep for themselves.
    pub fn is_mutable(&self) -> bool {
        matches!(self.kind, CacheKind::Temporary | CacheKind::CacheMount)
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
    items.extend(kept_by_steps(options)?);
    items.extend(temporary(options, store.is_used_by_others())?);
    Ok(items)
}

/// Lists the directories of `RUN --mount=type=cache`.
fn kept_by_steps(options: &ServiceOptions) -> Result<Vec<CacheItem>, BuildError> {
    let mut usage = DiskUsage::default();
    let item = |cache: StoredCache| {
        Ok(CacheItem {
            kind: CacheKind::CacheMount,
            id: cache.path.strip_prefix(&options.root).unwrap_or(&cache.path).display().to_string(),
            description: cache.about,
            size_bytes: usage.add(&cache.path).map_err(failed)?,
            created: cache.created,
            used: cache.used,
            is_wanted: true,
            is_shared: false,
            parents: Vec::new(),
            place: 0,
            path: cache.path,
        })
    };
    cache_mounts::list(options).into_iter().map(item).collect()
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
