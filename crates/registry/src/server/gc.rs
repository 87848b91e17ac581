// SPDX-License-Identifier: Apache-2.0
//! Collection: what nothing leads to is removed, also while servers run (`docs/registry.md`, "Collection").

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use polyarch_oci::Digest;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use tokio::sync::watch;

use super::api_error::chain_of;
use super::disk::{DiskError, names_in};
use super::document::inspect;
use super::index::{ALGORITHMS, RepositoryIndex};
use super::repository::{Layout, age};
use super::storage::{Directory, StorageError};
use super::{ServerEvent, Shared};

/// What a collection removes, and when one happens.
#[derive(Debug, Clone)]
pub struct CollectOptions {
    /// What is younger stays, whatever leads to it.
    pub grace: Duration,
    /// Uploads without a change for so long go.
    pub uploads: Duration,
    /// Whether manifests go that no tag, no index and no subject that stays leads to.
    pub deletes_untagged: bool,
    /// Whether nothing is removed, and only counted.
    pub is_dry_run: bool,
    /// The time between two collections of a server.
    pub every: Duration,
}

impl Default for CollectOptions {
    fn default() -> CollectOptions {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        CollectOptions {
            grace: DAY,
            uploads: DAY,
            deletes_untagged: false,
            is_dry_run: false,
            every: Duration::from_secs(60 * 60),
        }
    }
}

/// What a collection removed, or would have.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Collected {
    /// Manifests.
    pub manifests: u64,
    /// Blobs of repositories.
    pub blobs: u64,
    /// Bytes of the disk.
    pub bytes: u64,
    /// Uploads and files that were not finished.
    pub unfinished: u64,
    /// Repositories that could not be looked through, and why.
    pub left_alone: Vec<(String, String)>,
}

/// How many names of a file a dry run would have removed, by device and inode.
type Going = HashMap<(u64, u64), u64>;

/// What manifests lead to; they never change.
pub(super) type Leads = HashMap<Digest, Vec<Digest>>;

impl Directory {
    /// Removes what nothing leads to. Other processes may go on using the directory.
    ///
    /// # Errors
    /// When the directory cannot be read; repositories that cannot are told in the result.
    pub fn collect(&self, options: &CollectOptions) -> Result<Collected, StorageError> {
        let mut collected = Collected::default();
        let mut going = Going::new();
        self.collect_unfinished(options, &mut collected)?;
        for name in self.repository_names()? {
            let repository = self.repository(&name);
            if let Err(error) = self.collect_repository(&repository, options, &mut going, &mut collected) {
                collected.left_alone.push((name.to_string(), error));
            }
        }
        self.collect_pool(options, &going, &mut collected)?;
        Ok(collected)
    }

    fn collect_unfinished(
        &self,
        options: &CollectOptions,
        collected: &mut Collected,
    ) -> Result<(), StorageError> {
        for (dir, data) in [(self.uploads_dir(), "data"), (self.root().join("incoming"), "")] {
            for name in names_in(&dir)? {
                let path = dir.join(name);
                let file = if data.is_empty() { path.clone() } else { path.join(data) };
                let metadata = fs::metadata(&file).or_else(|_| fs::symlink_metadata(&path));
                // Gone in the meantime, when there is none.
                let Some(metadata) = metadata.ok().filter(|metadata| age(metadata) >= options.uploads) else {
                    continue;
                };
                collected.unfinished += 1;
                if metadata.nlink() == 1 && metadata.is_file() {
                    collected.bytes += metadata.len();
                }
                if !options.is_dry_run {
                    remove_unfinished(&path, &file)?;
                }
            }
        }
        Ok(())
    }

    /// Removes uploads that nothing was written to for a while, unless a request has one open.
    pub(super) fn collect_uploads(&self, idle: Duration) -> Result<(), StorageError> {
        for name in names_in(&self.uploads_dir())? {
            let path = self.uploads_dir().join(name);
            let data = path.join("data");
            if fs::metadata(&data).is_ok_and(|metadata| age(&metadata) >= idle) {
                remove_unfinished(&path, &data)?;
            }
        }
        Ok(())
    }

    fn collect_repository(
        &self,
        repository: &Layout,
        options: &CollectOptions,
        going: &mut Going,
        collected: &mut Collected,
    ) -> Result<(), String> {
        let told = |error: StorageError| chain_of(&error);
        let Some(index) = repository.index().map_err(told)? else { return Ok(()) };
        // Documents are read before the lock is taken; under it only those that came in between are.
        let mut leads = Leads::new();
        read_leads(repository, &index, &mut leads)?;
        let mut untagged = Vec::new();
        if options.deletes_untagged {
            let found = repository.locked(|index| {
                if let Err(reason) = read_leads(repository, &index, &mut leads) {
                    return Ok((Err(reason), None));
                }
                let untagged = unwanted(&index, &leads, |digest| {
                    fs::metadata(repository.blob_path(digest))
                        .is_ok_and(|metadata| age(&metadata) < options.grace)
                });
                let is_changed = !untagged.is_empty() && !options.is_dry_run;
                let kept = is_changed.then(|| index.without(&untagged));
                Ok((Ok(untagged), kept))
            });
            untagged = found.map_err(told)?.unwrap_or_else(|| Ok(Vec::new()))?;
        }
        // Only when the index no longer names manifests may their bytes go: hence a second time under the lock.
        let swept = repository.locked(|index| {
            if let Err(reason) = read_leads(repository, &index, &mut leads) {
                return Ok((Err(reason), None));
            }
            // After a dry run they are still there; else one that is has come back.
            let gone: HashSet<&Digest> = untagged.iter().filter(|_| options.is_dry_run).collect();
            let kept = index.manifests.keys().filter(|digest| !gone.contains(digest));
            let live: HashSet<&Digest> =
                kept.flat_map(|digest| leads[digest].iter().chain([digest])).collect();
            self.sweep_blobs(repository, &live, options, going, collected)?;
            Ok((Ok(()), None))
        });
        swept.map_err(told)?.unwrap_or(Ok(()))?;
        collected.manifests += untagged.len() as u64;
        Ok(())
    }

    fn sweep_blobs(
        &self,
        repository: &Layout,
        live: &HashSet<&Digest>,
        options: &CollectOptions,
        going: &mut Going,
        collected: &mut Collected,
    ) -> Result<(), StorageError> {
        for digest in self.digests_in(&repository.dir)? {
            let path = repository.blob_path(&digest);
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if live.contains(&digest) || age(&metadata) < options.grace {
                continue;
            }
            if !options.is_dry_run {
                self.disk().remove(&path)?;
            }
            collected.blobs += 1;
            let gone = going.entry((metadata.dev(), metadata.ino())).or_default();
            *gone += u64::from(options.is_dry_run);
            if metadata.nlink().saturating_sub(gone.saturating_sub(1)) == 1 {
                collected.bytes += metadata.len();
            }
        }
        Ok(())
    }

    fn collect_pool(
        &self,
        options: &CollectOptions,
        going: &Going,
        collected: &mut Collected,
    ) -> Result<(), StorageError> {
        for digest in self.digests_in(self.root())? {
            let path = self.pool_path(&digest);
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let gone = going.get(&(metadata.dev(), metadata.ino())).copied().unwrap_or_default();
            // A repository that links it at this moment keeps it; only the sharing is lost.
            if metadata.nlink().saturating_sub(gone) == 1 && age(&metadata) >= options.grace {
                collected.bytes += metadata.len();
                if !options.is_dry_run {
                    self.disk().remove(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Lists the blobs below a directory; other files are not ours.
    pub(super) fn digests_in(&self, dir: &Path) -> Result<Vec<Digest>, StorageError> {
        let mut digests = Vec::new();
        for algorithm in ALGORITHMS {
            let names = names_in(&dir.join("blobs").join(algorithm.as_str()))?;
            digests.extend(
                names
                    .iter()
                    .filter_map(|name| format!("{}:{name}", algorithm.as_str()).parse::<Digest>().ok()),
            );
        }
        Ok(digests)
    }
}

/// Removes an upload, if nobody writes to it, or another unfinished thing.
fn remove_unfinished(path: &Path, data: &Path) -> Result<(), StorageError> {
    let is_in_use =
        File::open(data).is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err());
    if is_in_use {
        return Ok(());
    }
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DiskError::new("remove", path)(error).into())
        }
        _ => Ok(()),
    }
}

/// Reads what the manifests of an index lead to, and that was not read yet; the error is a sentence.
fn read_leads(repository: &Layout, index: &RepositoryIndex, leads: &mut Leads) -> Result<(), String> {
    for (digest, entry) in &index.manifests {
        if leads.contains_key(digest) {
            continue;
        }
        let path = repository.blob_path(digest);
        let bytes = fs::read(&path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
        let inspected = inspect(&bytes, Some(&entry.media_type))
            .map_err(|sentence| format!("{} is damaged: {sentence}", path.display()))?;
        leads.insert(digest.clone(), inspected.blobs.into_iter().chain(inspected.manifests).collect());
    }
    Ok(())
}

/// Finds manifests that no tag leads to: not by itself, not as a part of an index, and not by their subject.
pub(super) fn unwanted(
    index: &RepositoryIndex,
    leads: &Leads,
    is_young: impl Fn(&Digest) -> bool,
) -> Vec<Digest> {
    let mut wanted: HashSet<&Digest> = HashSet::new();
    let mut next: Vec<&Digest> = index.tags.values().collect();
    next.extend(index.manifests.keys().filter(|digest| is_young(digest)));
    while let Some(digest) = next.pop() {
        if !index.manifests.contains_key(digest) || !wanted.insert(digest) {
            continue;
        }
        next.extend(leads.get(digest).into_iter().flatten());
        next.extend(index.referrers(digest));
    }
    index.manifests.keys().filter(|digest| !wanted.contains(digest)).cloned().collect()
}

/// Collects again and again, until the server ends.
pub(super) async fn collect_regularly(shared: Arc<Shared>, mut ended: watch::Receiver<bool>) {
    let Some(options) = shared.collect.clone() else { return };
    loop {
        tokio::select! {
            () = tokio::time::sleep(options.every) => {}
            () = async { drop(ended.wait_for(|is_ending| *is_ending).await) } => return,
        }
        let (storage, options) = (shared.state.storage.clone(), options.clone());
        match tokio::task::spawn_blocking(move || storage.collect(&options)).await {
            Ok(Ok(collected)) => {
                shared.metrics.collected_bytes.fetch_add(collected.bytes, Ordering::Relaxed);
                shared.tell(ServerEvent::Collected(&collected));
            }
            Ok(Err(error)) => {
                shared.tell(ServerEvent::Trouble(format!("the collection failed: {}", chain_of(&error))));
            }
            Err(error) => shared.tell(ServerEvent::Trouble(format!("the collection failed: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::server::crash_tests::{image, put_blob, put_manifest};

    const NOW: CollectOptions = CollectOptions {
        grace: Duration::ZERO,
        uploads: Duration::ZERO,
        deletes_untagged: false,
        is_dry_run: false,
        every: Duration::MAX,
    };

    fn day_options() -> CollectOptions {
        CollectOptions::default()
    }

    #[test]
    fn what_is_young_stays() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::open(dir.path()).unwrap();
        put_blob(&storage, "a", b"lonely").unwrap();
        let collected = storage.collect(&day_options()).unwrap();
        assert_eq!((collected.blobs, collected.bytes), (0, 0));
    }

    #[test]
    fn what_nothing_leads_to_goes_in_all_repositories_and_from_the_pool() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::open(dir.path()).unwrap();
        image(&storage, "a", "v1", b"layer").unwrap();
        put_blob(&storage, "a", b"lonely").unwrap();
        put_blob(&storage, "b", b"lonely").unwrap();
        let dry = storage.collect(&CollectOptions { is_dry_run: true, ..NOW }).unwrap();
        assert_eq!((dry.blobs, dry.bytes), (2, 6));
        assert!(storage.pool_path(&Digest::of("lonely")).exists());
        let collected = storage.collect(&NOW).unwrap();
        assert_eq!((collected.blobs, collected.bytes), (2, 6));
        assert!(!storage.pool_path(&Digest::of("lonely")).exists());
        let again = storage.collect(&NOW).unwrap();
        assert_eq!((again.blobs, again.bytes), (0, 0));
        assert!(storage.pool_path(&Digest::of("layer")).exists());
    }

    #[test]
    fn a_promise_waits_for_a_collection() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::open(dir.path()).unwrap();
        let digest = put_blob(&storage, "a", b"lonely").unwrap();
        let repository = storage.repository(&super::super::RepositoryName::new("a").unwrap());
        let path = repository.blob_path(&digest);
        let old = SystemTime::UNIX_EPOCH;
        File::open(&path).unwrap().set_times(fs::FileTimes::new().set_modified(old)).unwrap();
        let asks = repository.clone();
        let promised = repository.locked(|_| {
            let (ready, begun) = std::sync::mpsc::channel();
            let asking = std::thread::spawn(move || {
                ready.send(()).unwrap();
                asks.promise_blob(&digest).unwrap()
            });
            begun.recv().unwrap();
            for _ in 0..1000 {
                std::thread::yield_now();
                assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
            }
            fs::remove_file(&path).unwrap();
            Ok((asking, None))
        });
        assert_eq!(promised.unwrap().unwrap().join().unwrap(), None, "what is gone is not promised");
    }

    #[test]
    fn untagged_manifests_go_when_that_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::open(dir.path()).unwrap();
        let old = image(&storage, "a", "v1", b"old").unwrap();
        let new = image(&storage, "a", "v1", b"new").unwrap();
        let about = |subject: &Digest| {
            let text = format!(
                r#"{{"schemaVersion":2,"config":{{"digest":"{subject}","size":1}},"layers":[],"subject":{{"digest":"{subject}"}}}}"#
            );
            put_manifest(&storage, "a", None, text.as_bytes(), Some(subject.clone())).unwrap()
        };
        let (of_old, of_new) = (about(&old), about(&new));
        assert_eq!(storage.collect(&NOW).unwrap().manifests, 0);
        let collected = storage.collect(&CollectOptions { deletes_untagged: true, ..NOW }).unwrap();
        assert_eq!(collected.manifests, 2);
        let repository = storage.repository(&super::super::RepositoryName::new("a").unwrap());
        let index = repository.index().unwrap().unwrap();
        assert!(index.find(&new).is_some() && index.find(&of_new).is_some());
        assert!(index.find(&old).is_none() && index.find(&of_old).is_none());
        // The next collection takes what only they led to.
        assert!(!repository.blob_path(&Digest::of("old")).exists());
    }

    #[test]
    fn a_repository_with_a_damaged_manifest_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::open(dir.path()).unwrap();
        let manifest = image(&storage, "a", "v1", b"layer").unwrap();
        put_blob(&storage, "a", b"lonely").unwrap();
        let repository = storage.repository(&super::super::RepositoryName::new("a").unwrap());
        fs::remove_file(repository.blob_path(&manifest)).unwrap();
        let collected = storage.collect(&NOW).unwrap();
        assert_eq!(collected.left_alone.len(), 1);
        assert!(repository.blob_path(&Digest::of("lonely")).exists());
    }
}
