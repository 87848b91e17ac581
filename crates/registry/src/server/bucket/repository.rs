// SPDX-License-Identifier: Apache-2.0
//! What a repository has: one object, read when it has changed, and replaced when nobody else has replaced it meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use object_store::UpdateVersion;
use polyarch_oci::Digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::super::batch::Batches;
use super::super::index::{ManifestEntry, RepositoryIndex};
use super::super::names::RepositoryName;
use super::super::repository::{Change, ChangeResult, Outcome};
use super::super::storage::StorageError;
use super::content::{Content, Writer};
use super::objects::{BucketError, Reading, Versioned};
use super::{Bucket, new_name, now};

/// The largest object of a repository, in bytes: about a million blobs.
const MAX_REPOSITORY_BYTES: u64 = 256 << 20;
/// A blob whose existence a client asks for is as good as new again when it is older than this, in seconds.
const RENEW_AFTER_SECONDS: u64 = 600;
/// How often a change is tried that other servers come before.
const MAX_TRIES: u32 = 100;

/// A repository of a bucket; it need not exist.
#[derive(Debug)]
pub(in crate::server) struct Repository {
    name: RepositoryName,
    known: Mutex<Option<(UpdateVersion, Arc<Contents>)>>,
    batches: Batches<Edit, ChangeResult>,
}

/// A change of what a repository has: made again when another server came first.
type Edit = Box<dyn Fn(&mut Contents) -> Outcome + Send>;

/// What a repository has.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    /// Names the write that made it.
    written: String,
    /// Blobs, those of manifests too.
    pub(super) blobs: BTreeMap<Digest, Held>,
    /// Manifests and tags.
    pub(super) index: Arc<RepositoryIndex>,
}

/// A blob of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::server) struct Held {
    /// Its size, in bytes.
    pub(super) size: u64,
    /// Its content among those of the digest.
    pub(super) content: String,
    /// When it was last pushed, mounted or promised, in seconds since 1970.
    pub(super) since: u64,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    written: String,
    blobs: BTreeMap<Digest, Held>,
    index: Box<RawValue>,
}

impl Contents {
    fn parse(bytes: &[u8]) -> Result<Contents, serde_json::Error> {
        let wire: Wire = serde_json::from_slice(bytes)?;
        let index = Arc::new(RepositoryIndex::parse(wire.index.get().as_bytes())?);
        Ok(Contents { written: wire.written, blobs: wire.blobs, index })
    }

    fn to_bytes(&self) -> Result<Bytes, serde_json::Error> {
        let index = RawValue::from_string(String::from_utf8_lossy(&self.index.to_bytes()).into_owned())?;
        let wire = Wire { written: self.written.clone(), blobs: self.blobs.clone(), index };
        Ok(serde_json::to_vec(&wire)?.into())
    }

    fn enter(&mut self, change: &Change) -> Outcome {
        match change {
            Change::Put { digest, entry, tags, needed } => {
                let missing = self.lacking(&needed.blobs);
                if !missing.is_empty() && !needed.may_lack {
                    return Outcome::Missing(missing);
                }
                let entry = ManifestEntry { is_sparse: !missing.is_empty(), ..entry.clone() };
                self.index_mut().put(digest.clone(), entry, tags.iter().cloned());
                Outcome::Done
            }
            Change::RemoveTag(tag) if self.index.tags.contains_key(tag) => {
                self.index_mut().tags.remove(tag);
                Outcome::Done
            }
            Change::RemoveManifest(digest) if self.index.find(digest).is_some() => {
                self.index_mut().remove(digest);
                Outcome::Done
            }
            Change::RemoveTag(_) | Change::RemoveManifest(_) => Outcome::NotFound,
        }
    }

    /// Returns those blobs that are not there.
    fn lacking(&self, blobs: &[Digest]) -> Vec<Digest> {
        blobs.iter().filter(|digest| !self.blobs.contains_key(*digest)).cloned().collect()
    }

    pub(super) fn index_mut(&mut self) -> &mut RepositoryIndex {
        Arc::make_mut(&mut self.index)
    }
}

impl Repository {
    pub(super) fn new(name: RepositoryName) -> Repository {
        Repository { name, known: Mutex::default(), batches: Batches::default() }
    }

    pub(super) fn name(&self) -> &RepositoryName {
        &self.name
    }

    pub(super) fn key(&self) -> String {
        format!("repositories/{}.json", self.name)
    }

    /// Returns the index as it is now; `None` when there is no such repository.
    pub(in crate::server) fn index(
        &self,
        bucket: &Bucket,
    ) -> Result<Option<Arc<RepositoryIndex>>, StorageError> {
        Ok(self.read(bucket)?.map(|(_, contents)| contents.index.clone()))
    }

    /// Returns a blob as it is now.
    pub(in crate::server) fn find(
        &self,
        bucket: &Bucket,
        digest: &Digest,
    ) -> Result<Option<Held>, StorageError> {
        Ok(self.read(bucket)?.and_then(|(_, contents)| contents.blobs.get(digest).cloned()))
    }

    /// Reads what the repository has, when it is not what is known; costs one request.
    pub(super) fn read(
        &self,
        bucket: &Bucket,
    ) -> Result<Option<(UpdateVersion, Arc<Contents>)>, StorageError> {
        let known = self.known().clone();
        let version = known.as_ref().map(|(version, _)| version);
        let key = self.key();
        match bucket.objects().read(&key, version, MAX_REPOSITORY_BYTES)? {
            Reading::Same => Ok(known),
            Reading::Missing => Ok(None),
            Reading::New(Versioned { bytes, version }) => {
                let contents =
                    Contents::parse(&bytes).map_err(|error| bucket.objects().damaged(&key, error))?;
                let found = (version, Arc::new(contents));
                *self.known() = Some(found.clone());
                Ok(Some(found))
            }
        }
    }

    /// Changes what the repository has, as often as it takes until no other server has come first. The work returns
    /// what is to be returned, and whether it changed anything.
    ///
    /// What is known is tried first: when it is old, the store refuses the change.
    pub(super) fn update<T>(
        &self,
        bucket: &Bucket,
        work: impl Fn(&mut Contents) -> (T, bool),
    ) -> Result<T, StorageError> {
        let key = self.key();
        let written = new_name()?;
        let mut before = self.known().clone();
        let mut is_fresh = false;
        let mut sent = None;
        for tries in 0..MAX_TRIES {
            if before.is_none() && !is_fresh {
                before = self.read(bucket)?;
                is_fresh = true;
            }
            if let Some((_, contents)) = &before
                && contents.written == written
                && let Some(result) = sent
            {
                // It was this very change that came first: its answer was lost.
                return Ok(result);
            }
            let mut after = before.as_ref().map(|(_, contents)| (**contents).clone()).unwrap_or_default();
            let (result, is_changed) = work(&mut after);
            if !is_changed {
                if is_fresh {
                    return Ok(result);
                }
                before = self.read(bucket)?;
                is_fresh = true;
                continue;
            }
            after.written.clone_from(&written);
            let bytes = after.to_bytes().map_err(|error| bucket.objects().damaged(&key, error))?;
            if bytes.len() as u64 > MAX_REPOSITORY_BYTES {
                return Err(StorageError::IndexFull { repository: self.name.to_string() });
            }
            let version = before.as_ref().map(|(version, _)| version);
            // The point of no return: from here on others see it.
            if let Some(version) = bucket.objects().replace(&key, version, bytes)? {
                *self.known() = Some((version, Arc::new(after)));
                return Ok(result);
            }
            if tries > 1 {
                // Others are busy with it; so that not all come back at the same moment.
                let pause =
                    Duration::from_millis(u64::from(tries.min(20)) * 5 + u64::from(std::process::id() % 7));
                std::thread::sleep(pause);
            }
            sent = Some(result);
            before = self.read(bucket)?;
            is_fresh = true;
        }
        Err(BucketError::Contended { key, place: bucket.place().to_owned() }.into())
    }

    /// Makes changes that wait for each other with one write.
    fn edit(&self, bucket: &Bucket, edit: Edit) -> ChangeResult {
        let made = self.batches.submit(edit, |edits| {
            let outcomes = self.update(bucket, |contents| {
                let outcomes: Vec<Outcome> = edits.iter().map(|edit| edit(contents)).collect();
                let is_changed = outcomes.contains(&Outcome::Done);
                (outcomes, is_changed)
            });
            match outcomes {
                Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
                Err(error) => {
                    let error = Arc::new(error);
                    edits.iter().map(|_| Err(error.clone())).collect()
                }
            }
        });
        made.unwrap_or(Ok(Outcome::NotFound))
    }

    /// Changes the index durably.
    pub(in crate::server) fn change(&self, bucket: &Bucket, change: Change) -> ChangeResult {
        self.edit(bucket, Box::new(move |contents| contents.enter(&change)))
    }

    /// Enters a manifest whose digest was verified, durably.
    pub(in crate::server) fn put_manifest(
        &self,
        bucket: &Bucket,
        digest: &Digest,
        bytes: &Bytes,
        change: Change,
    ) -> ChangeResult {
        // What is refused leaves nothing; what counts is looked at once more when it is entered.
        if let Change::Put { needed, .. } = &change
            && !needed.may_lack
        {
            let found = self.read(bucket)?;
            let missing =
                found.map_or_else(|| needed.blobs.clone(), |(_, contents)| contents.lacking(&needed.blobs));
            if !missing.is_empty() {
                return Ok(Outcome::Missing(missing));
            }
        }
        let mut writer = Writer::new(bucket.clone(), new_name()?, Vec::new());
        writer.append(bytes)?;
        let content = writer.seal(digest)?;
        let digest = digest.clone();
        let held = Held { size: bytes.len() as u64, content, since: now() };
        self.edit(
            bucket,
            Box::new(move |contents| {
                let before = contents.blobs.insert(digest.clone(), held.clone());
                let outcome = contents.enter(&change);
                if outcome != Outcome::Done {
                    // Others of the batch may be written.
                    match before {
                        Some(before) => contents.blobs.insert(digest.clone(), before),
                        None => contents.blobs.remove(&digest),
                    };
                }
                outcome
            }),
        )
    }

    /// Makes content that is there a blob of the repository, durably.
    pub(in crate::server) fn hold(
        &self,
        bucket: &Bucket,
        digest: &Digest,
        held: Held,
    ) -> Result<(), StorageError> {
        let digest = digest.clone();
        let edit = Box::new(move |contents: &mut Contents| {
            contents.blobs.insert(digest.clone(), held.clone());
            Outcome::Done
        });
        self.edit(bucket, edit).map(|_| ()).map_err(StorageError::Shared)
    }

    /// Takes over a blob that another repository has, or any; tells whether it was there.
    pub(in crate::server) fn mount(
        &self,
        bucket: &Bucket,
        from: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<bool, StorageError> {
        let found = match from {
            Some(from) => bucket.repository(from).find(bucket, digest)?.map(|held| (held.content, held.size)),
            None => bucket.any_content(digest)?,
        };
        let Some((content, size)) = found else { return Ok(false) };
        self.hold(bucket, digest, Held { size, content, since: now() })?;
        Ok(true)
    }

    /// Returns the size of a blob, and keeps it from the collection for another grace period.
    pub(in crate::server) fn promise(
        &self,
        bucket: &Bucket,
        digest: &Digest,
    ) -> Result<Option<u64>, StorageError> {
        let Some(held) = self.find(bucket, digest)? else { return Ok(None) };
        if now().saturating_sub(held.since) <= RENEW_AFTER_SECONDS {
            return Ok(Some(held.size));
        }
        let wanted = digest.clone();
        let edit = Box::new(move |contents: &mut Contents| match contents.blobs.get_mut(&wanted) {
            Some(held) => {
                held.since = now();
                Outcome::Done
            }
            None => Outcome::NotFound,
        });
        let outcome = self.edit(bucket, edit).map_err(StorageError::Shared)?;
        Ok((outcome == Outcome::Done).then_some(held.size))
    }

    /// Opens a blob; `None` when the repository does not have it.
    pub(in crate::server) fn open(
        &self,
        bucket: &Bucket,
        digest: &Digest,
    ) -> Result<Option<Content>, StorageError> {
        let held = self.find(bucket, digest)?;
        held.map(|held| bucket.content(digest, &held)).transpose()
    }

    /// Removes a blob; tells whether it was there. Its content stays for the collection. A manifest's bytes are none.
    pub(in crate::server) fn release(&self, bucket: &Bucket, digest: &Digest) -> Result<bool, StorageError> {
        let digest = digest.clone();
        let edit = Box::new(move |contents: &mut Contents| {
            if contents.index.find(&digest).is_some() || contents.blobs.remove(&digest).is_none() {
                return Outcome::NotFound;
            }
            Outcome::Done
        });
        Ok(self.edit(bucket, edit).map_err(StorageError::Shared)? == Outcome::Done)
    }

    fn known(&self) -> MutexGuard<'_, Option<(UpdateVersion, Arc<Contents>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
