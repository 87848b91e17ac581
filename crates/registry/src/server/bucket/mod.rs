// SPDX-License-Identifier: Apache-2.0
//! A registry in a bucket of an object store that speaks S3's API (`docs/registry.md`, "In a bucket").
//!
//! It owns the bucket's format. What a repository has stands in one object, which is replaced only on the condition that
//! it is the one that was read; every other object is written once, under a name that is never used again. So there are no
//! locks, and any number of servers may use one bucket.

mod collect;
mod content;
mod objects;
mod open;
mod repository;
mod scrub;
#[cfg(test)]
mod tests;
mod upload;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use polyarch_oci::Digest;

use super::disk::{Disk, DiskError};
use super::names::RepositoryName;
use super::storage::{Incoming, StorageError, TempNames};

pub use self::objects::BucketError;
pub use self::open::BucketOptions;

pub(super) use self::content::{Content, WholeBlob};
pub(super) use self::repository::Repository;
pub(super) use self::upload::OpenUpload;

use self::content::Piece;
use self::objects::Objects;
use super::upload::Hashed;

/// Repositories that are kept in memory without being used.
const MAX_IDLE_REPOSITORIES: usize = 4096;
/// Lists of pieces that are kept in memory.
const MAX_KNOWN_LISTS: usize = 1024;

/// A registry in a bucket; a clone is another handle of the same.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    objects: Objects,
    repositories: Mutex<HashMap<RepositoryName, Arc<Repository>>>,
    /// What contents of several pieces are made of; it never changes.
    lists: Mutex<HashMap<String, Arc<Vec<Piece>>>>,
    /// How far this process has hashed which upload.
    hashed: Mutex<HashMap<String, Hashed>>,
    /// For blobs that are read while they come.
    scratch: TempNames,
    disk: Arc<Disk>,
}

impl Bucket {
    fn new(objects: Objects, scratch: PathBuf) -> Result<Bucket, StorageError> {
        let inner = Inner {
            objects,
            repositories: Mutex::default(),
            lists: Mutex::default(),
            hashed: Mutex::default(),
            scratch: TempNames::new(scratch)?,
            disk: Arc::default(),
        };
        Ok(Bucket { inner: Arc::new(inner) })
    }

    fn objects(&self) -> &Objects {
        &self.inner.objects
    }

    /// Names the bucket, and where in it the registry is.
    pub(super) fn place(&self) -> &str {
        self.objects().place()
    }

    /// Lists the repositories, by name.
    pub(super) fn repository_names(&self) -> Result<Vec<RepositoryName>, StorageError> {
        let mut names = Vec::new();
        for object in self.objects().list("repositories")? {
            // Others are not ours.
            names.extend(object.name.strip_suffix(".json").and_then(RepositoryName::new));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Returns a repository, whether it exists or not.
    pub(super) fn repository(&self, name: &RepositoryName) -> Arc<Repository> {
        let mut known = self.inner.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(repository) = known.get(name) {
            return repository.clone();
        }
        if known.len() >= MAX_IDLE_REPOSITORIES {
            known.retain(|_, repository| Arc::strong_count(repository) > 1);
        }
        let repository = Arc::new(Repository::new(name.clone()));
        known.insert(name.clone(), repository.clone());
        repository
    }

    /// Makes a file of this machine.
    pub(super) fn incoming(&self) -> Result<Incoming, StorageError> {
        std::fs::create_dir_all(self.inner.scratch.dir())
            .map_err(DiskError::new("create", self.inner.scratch.dir()))?;
        Ok(Incoming::create(&self.inner.scratch, &self.inner.disk)?)
    }

    fn lists(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Vec<Piece>>>> {
        self.inner.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hashed(&self) -> std::sync::MutexGuard<'_, HashMap<String, Hashed>> {
        self.inner.hashed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a name that nobody else uses.
fn new_name() -> Result<String, StorageError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| BucketError::Random { reason: error.to_string() })?;
    Ok(hex::encode(random))
}

/// Returns the seconds since 1970.
fn now() -> u64 {
    seconds_of(SystemTime::now())
}

fn seconds_of(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn age(now: u64, then: u64) -> Duration {
    Duration::from_secs(now.saturating_sub(then))
}

/// Where the contents of a digest are.
fn contents_key(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}
