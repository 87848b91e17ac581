// SPDX-License-Identifier: Apache-2.0
//! One repository: its index in memory, always the one on the disk, and changes of it.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use polyarch_oci::Digest;
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;

use super::batch::Batches;
use super::disk::{Disk, DiskError};
use super::identity::FileIdentity;
use super::index::{MAX_INDEX_BYTES, ManifestEntry, RepositoryIndex, blob_path_in};
use super::names::{RepositoryName, Tag};
use super::storage::{Incoming, StorageError, TempNames};

/// A blob whose existence a client asks for is as good as new again when it is older than this.
const RENEW_AFTER: Duration = Duration::from_secs(60);

/// A repository of the storage; it need not exist.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) name: RepositoryName,
    pub(super) dir: PathBuf,
    temp: Arc<TempNames>,
    disk: Arc<Disk>,
    known: Mutex<Option<(FileIdentity, Arc<RepositoryIndex>)>>,
    batches: Batches<Change, ChangeResult>,
    /// This process has synced the directory that this one is in.
    is_durable: AtomicBool,
}

/// A change of a repository's index.
#[derive(Debug)]
pub(super) enum Change {
    /// Enter a manifest whose bytes are there.
    Put { digest: Digest, entry: ManifestEntry, tags: Vec<Tag>, needed: Needed },
    /// Remove a tag.
    RemoveTag(Tag),
    /// Remove a manifest and its tags.
    RemoveManifest(Digest),
}

/// The blobs of a manifest.
#[derive(Debug)]
pub(super) struct Needed {
    pub(super) blobs: Vec<Digest>,
    /// The manifest is entered also when some are not there; else that is refused.
    pub(super) may_lack: bool,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Done,
    /// There is nothing of that name.
    NotFound,
    /// These blobs are not there; nothing was changed.
    Missing(Vec<Digest>),
}

pub(super) type ChangeResult = Result<Outcome, Arc<StorageError>>;

impl Layout {
    pub(super) fn new(name: RepositoryName, dir: PathBuf, temp: Arc<TempNames>, disk: Arc<Disk>) -> Layout {
        Layout {
            name,
            dir,
            temp,
            disk,
            known: Mutex::default(),
            batches: Batches::default(),
            is_durable: AtomicBool::new(false),
        }
    }

    /// Tells whether this process has seen to it that the repository is there after a crash.
    pub(super) fn is_durable(&self) -> bool {
        self.is_durable.load(Ordering::Acquire)
    }

    /// Says that the directory that this one is in was synced.
    pub(super) fn set_durable(&self) {
        self.is_durable.store(true, Ordering::Release);
    }

    /// Returns the index as it is on the disk now; `None` when there is no such repository.
    ///
    /// Costs one `stat` unless another process has changed it.
    pub(super) fn index(&self) -> Result<Option<Arc<RepositoryIndex>>, StorageError> {
        let path = self.index_path();
        let Some(identity) = identity_of(&path)? else { return Ok(None) };
        if let Some((found, index)) = &*self.known()
            && *found == identity
        {
            return Ok(Some(index.clone()));
        }
        // Not while others wait for what is known.
        let Some((identity, index)) = read_index(&path)? else { return Ok(None) };
        let index = Arc::new(index);
        *self.known() = Some((identity, index.clone()));
        Ok(Some(index))
    }

    /// Returns the index when it is in memory and still the one on the disk.
    pub(super) fn known_index(&self) -> Option<Arc<RepositoryIndex>> {
        let identity = identity_of(&self.index_path()).ok()??;
        let known = self.known();
        let (found, index) = known.as_ref()?;
        (*found == identity).then(|| index.clone())
    }

    /// Changes the index durably. Changes that wait for each other are written together.
    pub(super) fn change(&self, change: Change) -> ChangeResult {
        let made = self.batches.submit(change, |changes| match self.apply(&changes) {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(error) => {
                let error = Arc::new(error);
                changes.iter().map(|_| Err(error.clone())).collect()
            }
        });
        made.unwrap_or(Ok(Outcome::NotFound))
    }

    fn apply(&self, changes: &[Change]) -> Result<Vec<Outcome>, StorageError> {
        self.locked(|before| {
            let mut index = (*before).clone();
            let outcomes: Vec<Outcome> =
                changes.iter().map(|change| self.enter(&mut index, change)).collect();
            if index == *before && outcomes.contains(&Outcome::Done) {
                // As it was; but whoever wrote it may not have come to the sync.
                self.disk.sync_dir(&self.dir)?;
                return Ok((outcomes, None));
            }
            let is_changed = outcomes.contains(&Outcome::Done);
            Ok((outcomes, is_changed.then_some(index)))
        })
        .map(|outcomes| outcomes.unwrap_or_else(|| vec![Outcome::NotFound; changes.len()]))
    }

    /// Does something with the index under the lock of all processes, and replaces it when the work says so.
    /// `None` when there is no such repository.
    pub(super) fn locked<T>(
        &self,
        work: impl FnOnce(Arc<RepositoryIndex>) -> Result<(T, Option<RepositoryIndex>), StorageError>,
    ) -> Result<Option<T>, StorageError> {
        let Some(_lock) = self.lock(FlockOperation::LockExclusive)? else { return Ok(None) };
        let Some(index) = self.index()? else { return Ok(None) };
        let (result, changed) = work(index)?;
        if let Some(changed) = changed {
            self.replace_index(changed)?;
        }
        Ok(Some(result))
    }

    /// Takes the lock of all processes, until the file is closed; `None` when there is no such repository.
    fn lock(&self, kind: FlockOperation) -> Result<Option<File>, DiskError> {
        let lock = match File::open(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(DiskError::new("open", &self.dir))?,
        };
        retry_on_intr(|| flock(&lock, kind))
            .map_err(|errno| DiskError::new("lock", &self.dir)(errno.into()))?;
        Ok(Some(lock))
    }

    /// Returns those blobs that are not there.
    pub(super) fn lacking<'a>(&self, blobs: impl IntoIterator<Item = &'a Digest>) -> Vec<Digest> {
        blobs.into_iter().filter(|digest| !self.blob_path(digest).exists()).cloned().collect()
    }

    fn enter(&self, index: &mut RepositoryIndex, change: &Change) -> Outcome {
        match change {
            Change::Put { digest, entry, tags, needed } => {
                let own = self.lacking([digest]);
                let missing = self.lacking(&needed.blobs);
                if !own.is_empty() || (!missing.is_empty() && !needed.may_lack) {
                    return Outcome::Missing([own, missing].concat());
                }
                let entry = ManifestEntry { is_sparse: !missing.is_empty(), ..entry.clone() };
                index.put(digest.clone(), entry, tags.iter().cloned());
                Outcome::Done
            }
            Change::RemoveTag(tag) => match index.tags.remove(tag) {
                Some(_) => Outcome::Done,
                None => Outcome::NotFound,
            },
            Change::RemoveManifest(digest) => match index.remove(digest) {
                true => Outcome::Done,
                false => Outcome::NotFound,
            },
        }
    }

    fn replace_index(&self, index: RepositoryIndex) -> Result<(), StorageError> {
        let bytes = index.to_bytes();
        if bytes.len() as u64 > MAX_INDEX_BYTES {
            return Err(StorageError::IndexFull { repository: self.name.to_string() });
        }
        let mut incoming = Incoming::create(&self.temp, &self.disk)?;
        incoming.file.write_all(&bytes).map_err(DiskError::new("write", &incoming.path))?;
        self.disk.sync_file(&incoming.file, &incoming.path)?;
        let path = self.index_path();
        self.disk.rename(&incoming.path, &path)?;
        incoming.is_placed = true;
        self.disk.sync_dir(&self.dir)?;
        let identity = identity_of(&path)?;
        *self.known() = identity.map(|identity| (identity, Arc::new(index)));
        Ok(())
    }

    /// Opens a blob; returns its size, too. `None` when the repository does not have it.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<Option<(File, u64)>, DiskError> {
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(DiskError::new("open", &path))?,
        };
        let size = file.metadata().map_err(DiskError::new("read", &path))?.len();
        Ok(Some((file, size)))
    }

    /// Returns the size of a blob, and whether it was written or promised a moment ago. `None` when the repository
    /// does not have it.
    pub(super) fn find_blob(&self, digest: &Digest) -> Result<Option<(u64, bool)>, DiskError> {
        let path = self.blob_path(digest);
        let metadata = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(DiskError::new("read", &path))?,
        };
        // Not the inode's own time, which changes with links of other repositories.
        let is_old = metadata.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age > RENEW_AFTER));
        Ok(Some((metadata.len(), !is_old)))
    }

    /// Returns the size of a blob, and keeps it from the collection for another grace period, because the
    /// client that asks may rely on it. `None` when the repository does not have it.
    ///
    /// May wait for changes of the repository.
    pub(super) fn promise_blob(&self, digest: &Digest) -> Result<Option<u64>, DiskError> {
        match self.find_blob(digest)? {
            None => return Ok(None),
            Some((size, true)) => return Ok(Some(size)),
            Some((_, false)) => {}
        }
        // A collection looks at the time and removes the blob under one exclusive lock: it does both before, or neither.
        let Some(_lock) = self.lock(FlockOperation::LockShared)? else { return Ok(None) };
        let now = fs::FileTimes::new().set_modified(SystemTime::now());
        // On a disk that can only be read nothing is collected either.
        let _ = File::open(self.blob_path(digest)).and_then(|file| file.set_times(now));
        Ok(self.find_blob(digest)?.map(|(size, _)| size))
    }

    /// Removes a blob from this repository; tells whether it was there. A manifest's bytes are none.
    pub(super) fn remove_blob(&self, digest: &Digest) -> Result<bool, StorageError> {
        let path = self.blob_path(digest);
        // Under the lock, so that it is not entered as a manifest meanwhile, nor as a part of one.
        let removed = self.locked(|index| {
            if index.find(digest).is_some() || !self.disk.remove(&path)? {
                return Ok((false, None));
            }
            if let Some(parent) = path.parent() {
                self.disk.sync_dir(parent)?;
            }
            Ok((true, None))
        });
        Ok(removed?.unwrap_or(false))
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        blob_path_in(&self.dir, digest)
    }

    fn known(&self) -> MutexGuard<'_, Option<(FileIdentity, Arc<RepositoryIndex>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_path(&self) -> PathBuf {
        self.dir.join("index.json")
    }
}

/// Returns the time since a file was last written, linked or promised; zero for one of the future.
pub(super) fn age(metadata: &fs::Metadata) -> Duration {
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    let (seconds, nanoseconds) = changed.max((metadata.mtime(), metadata.mtime_nsec()));
    let since = u64::try_from(seconds).map(Duration::from_secs).unwrap_or_default();
    let part = u64::try_from(nanoseconds).map(Duration::from_nanos).unwrap_or_default();
    let time = SystemTime::UNIX_EPOCH.checked_add(since + part).unwrap_or(SystemTime::UNIX_EPOCH);
    SystemTime::now().duration_since(time).unwrap_or_default()
}

fn identity_of(path: &Path) -> Result<Option<FileIdentity>, StorageError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => Ok(Some(FileIdentity::of(&other.map_err(DiskError::new("read", path))?))),
    }
}

fn read_index(path: &Path) -> Result<Option<(FileIdentity, RepositoryIndex)>, StorageError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(DiskError::new("open", path))?,
    };
    let metadata = file.metadata().map_err(DiskError::new("read", path))?;
    let mut bytes = Vec::new();
    file.take(MAX_INDEX_BYTES).read_to_end(&mut bytes).map_err(DiskError::new("read", path))?;
    let index = RepositoryIndex::parse(&bytes)
        .map_err(|source| StorageError::Index { path: path.to_owned(), source })?;
    Ok(Some((FileIdentity::of(&metadata), index)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::crash_tests::put_manifest;
    use crate::server::storage::Directory;

    #[test]
    fn a_repository_that_is_full_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::open(dir.path()).unwrap();
        let text = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let outcomes: Vec<_> = (0..1000)
            .map(|number| put_manifest(&storage, "a", Some(&format!("{number:0100}")), text, None))
            .take_while(Result::is_ok)
            .collect();
        assert!((10..1000).contains(&outcomes.len()));
        let again = Directory::open(dir.path()).unwrap();
        let repository = again.repository(&RepositoryName::new("a").unwrap());
        assert_eq!(repository.index().unwrap().unwrap().tags.len(), outcomes.len());
    }
}
