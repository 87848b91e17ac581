// SPDX-License-Identifier: Apache-2.0
//! What the store takes of the disk: images, cache and the rest, adding up to what `du -s` says of its root.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use polyarch_oci::Digest;
use polyarch_snapshot::DiskUsage;
use polyarch_store::{Missing, Store};

use crate::error::BuildError;
use crate::image_source::storage_error;
use crate::inventory::{CacheItem, failed, places, take};
use crate::services::ServiceOptions;

/// What a name takes.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedUsage {
    /// The name, without what everybody leaves out; of a list that is being made, with `list` before it.
    pub name: String,
    /// The index or manifest; none of a list that is being made.
    pub digest: Option<Digest>,
    /// When the name was last set.
    pub updated: Timestamp,
    /// The bytes of all its blobs that are here.
    pub size_bytes: u64,
    /// Those of them that other names need as well.
    pub shared_bytes: u64,
}

/// A part of the store that is neither image nor cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherUsage {
    /// What it is.
    pub name: &'static str,
    /// Its bytes.
    pub size_bytes: u64,
}

/// The account of a store, in allocated bytes of the disk; files with several names count once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoreUsage {
    /// The names.
    pub images: Vec<NamedUsage>,
    /// The bytes of the blobs that names reach, each once.
    pub images_bytes: u64,
    /// The pieces of the cache.
    pub cache: Vec<CacheItem>,
    /// Everything else.
    pub others: Vec<OtherUsage>,
    /// All of it: what `du -s --block-size=1` says of the root.
    pub total_bytes: u64,
}

/// Adds up what the store takes.
///
/// # Errors
/// When it can't be read.
pub fn store_usage(options: &ServiceOptions) -> Result<StoreUsage, BuildError> {
    let store = Store::open(&options.root).map_err(|error| storage_error(&error))?;
    let mut usage = DiskUsage::default();
    let mut cache = take(options, &store, &places(options)?)?;
    for item in &mut cache {
        item.size_bytes = usage.add(&item.path).map_err(failed)?;
    }
    let mut sizes: HashMap<Digest, u64> = HashMap::new();
    let reached = store.reached().map_err(|error| storage_error(&error))?;
    for (digest, file) in store.blob_files().map_err(|error| storage_error(&error))? {
        if reached.contains(&digest) {
            *sizes.entry(digest).or_default() += usage.add(&file.path).map_err(failed)?;
        }
    }
    let mut others = Vec::new();
    let mut add = |name, paths: &[&str]| -> Result<(), BuildError> {
        let mut size_bytes = 0;
        for path in paths {
            size_bytes += usage.add(&options.root.join(path)).map_err(failed)?;
        }
        others.push(OtherUsage { name, size_bytes });
        Ok(())
    };
    add("Emulators", &["emulation"])?;
    add("Names", &["refs", "lists"])?;
    // What is left: the directories themselves, origins of blobs, remembered hashes of files, locks.
    add("Bookkeeping", &["."])?;
    let images_bytes = sizes.values().sum();
    let total_bytes = images_bytes
        + cache.iter().map(|item| item.size_bytes).sum::<u64>()
        + others.iter().map(|other| other.size_bytes).sum::<u64>();
    Ok(StoreUsage { images: named(&store, &sizes)?, images_bytes, cache, others, total_bytes })
}

fn named(store: &Store, sizes: &HashMap<Digest, u64>) -> Result<Vec<NamedUsage>, BuildError> {
    let mut roots = Vec::new();
    for (name, entry) in store.refs().map_err(|error| storage_error(&error))? {
        let digest = Some(entry.descriptor.digest.clone());
        roots.push((name.familiar().to_string(), digest, entry.updated, vec![entry.descriptor]));
    }
    for (name, list) in store.lists().map_err(|error| storage_error(&error))? {
        let entries = list.entries.into_iter().map(|entry| entry.descriptor).collect();
        roots.push((format!("list {}", name.familiar()), None, list.updated, entries));
    }
    let mut found = Vec::new();
    let mut users: HashMap<Digest, usize> = HashMap::new();
    for (name, digest, updated, descriptors) in roots {
        let mut blobs: HashSet<Digest> = HashSet::new();
        for descriptor in descriptors {
            let closure = store.closure(&descriptor, Missing::Skip).map_err(|error| storage_error(&error))?;
            blobs.extend(closure.into_iter().map(|descriptor| descriptor.digest));
        }
        for blob in &blobs {
            *users.entry(blob.clone()).or_default() += 1;
        }
        found.push((name, digest, updated, blobs));
    }
    let size = |blob: &&Digest| sizes.get(*blob).copied().unwrap_or(0);
    let usages = found.iter().map(|(name, digest, updated, blobs)| NamedUsage {
        name: name.clone(),
        digest: digest.clone(),
        updated: *updated,
        size_bytes: blobs.iter().map(|blob| size(&blob)).sum(),
        shared_bytes: blobs.iter().filter(|blob| users[*blob] > 1).map(|blob| size(&blob)).sum(),
    });
    Ok(usages.collect())
}
