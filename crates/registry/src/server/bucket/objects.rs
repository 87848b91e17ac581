// SPDX-License-Identifier: Apache-2.0
//! The few things that are asked of an object store, each with what it was about when it fails.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path as Key;
use object_store::{
    Error as StoreError, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};
use tokio::runtime::Runtime;

use super::super::storage::StorageError;

/// Says what is wrong with a bucket.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The place or the settings make no sense.
    #[error("{problem}")]
    Settings {
        /// What is wrong with them.
        problem: String,
    },
    /// There is no such bucket.
    #[error("there is no bucket {bucket}")]
    NoBucket {
        /// Its name.
        bucket: String,
    },
    /// The store does not take the credentials, or they don't suffice.
    #[error("the store refuses access to {place}")]
    Denied {
        /// The bucket, and where in it.
        place: String,
        /// What it says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nobody answers.
    #[error("the store of {place} can't be reached")]
    Unreachable {
        /// The bucket, and where in it.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store replaces objects whatever is asked of it.
    #[error(
        "the store of {place} does not heed {header}, without which several servers would lose each other's tags"
    )]
    Unconditional {
        /// The bucket, and where in it.
        place: String,
        /// The header of HTTP.
        header: &'static str,
    },
    /// There is no registry.
    #[error("there is no registry in {place}")]
    Missing {
        /// The bucket, and where in it.
        place: String,
    },
    /// There are objects, but no registry's.
    #[error("{place} is not empty and holds no registry")]
    Foreign {
        /// The bucket, and where in it.
        place: String,
    },
    /// There is something else, or a registry of another version.
    #[error("{place} is not a registry of this version (its object `format` says {found:?})")]
    Format {
        /// The bucket, and where in it.
        place: String,
        /// What the object says.
        found: String,
    },
    /// An object could not be used.
    #[error("can't {action} {key} of {place}")]
    Object {
        /// What could not be done.
        action: &'static str,
        /// With what.
        key: String,
        /// The bucket, and where in it.
        place: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An object makes no sense.
    #[error("{key} of {place} is damaged: {problem}")]
    Damaged {
        /// The object.
        key: String,
        /// The bucket, and where in it.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// Other servers changed a repository again and again before this one could.
    #[error("{key} of {place} was changed by others all the time")]
    Contended {
        /// The object.
        key: String,
        /// The bucket, and where in it.
        place: String,
    },
    /// There are no random bytes.
    #[error("no random bytes: {reason}")]
    Random {
        /// Why.
        reason: String,
    },
}

/// An object of a list.
#[derive(Debug, Clone)]
pub(super) struct Listed {
    /// Its name beneath what was listed.
    pub(super) name: String,
    pub(super) size: u64,
    /// When it was written, by the store's clock.
    pub(super) written: u64,
}

/// An object that was read, and which version of it.
pub(super) struct Versioned {
    pub(super) bytes: Bytes,
    pub(super) version: UpdateVersion,
}

/// What reading on a condition found.
pub(super) enum Reading {
    /// There is none.
    Missing,
    /// It is the one that is known.
    Same,
    /// Another one.
    New(Versioned),
}

/// Access to the objects of one registry.
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    /// What every key begins with.
    prefix: Key,
    place: String,
    threads: Threads,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Threads that talk to the store, whoever waits.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Also where waiting is not allowed.
            runtime.shutdown_background();
        }
    }
}

impl Objects {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        prefix: Key,
        place: String,
    ) -> Result<Objects, StorageError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("bucket")
            .enable_all()
            .build()
            .map_err(|error| BucketError::Settings { problem: format!("can't start threads: {error}") })?;
        Ok(Objects { store, prefix, place, threads: Threads(Some(runtime)) })
    }

    /// Names the bucket, and where in it the registry is.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    fn runtime(&self) -> &Runtime {
        self.threads.0.as_ref().expect("it is taken only when the value ends")
    }

    /// Waits for the store. Not to be called where other tasks wait for the thread.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime().block_on(work)
    }

    /// Lets work go on that nobody waits for.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime().spawn(work);
    }

    pub(super) fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    pub(super) fn key(&self, name: &str) -> Key {
        // Both are written by us, and have no part that is empty or `..`.
        Key::from(format!("{}/{name}", self.prefix))
    }

    fn failed<'a>(
        &'a self,
        action: &'static str,
        name: &'a str,
    ) -> impl FnOnce(StoreError) -> StorageError + 'a {
        move |source| {
            BucketError::Object {
                action,
                key: name.to_owned(),
                place: self.place.clone(),
                source: Box::new(source),
            }
            .into()
        }
    }

    pub(super) fn damaged(&self, name: &str, problem: impl fmt::Display) -> StorageError {
        let problem = problem.to_string();
        BucketError::Damaged { key: name.to_owned(), place: self.place.clone(), problem }.into()
    }

    /// Reads an object that is no larger than `max`, unless it is the version that is known.
    pub(super) fn read(
        &self,
        name: &str,
        known: Option<&UpdateVersion>,
        max: u64,
    ) -> Result<Reading, StorageError> {
        let known = known.and_then(|version| version.e_tag.clone());
        let options = GetOptions { if_none_match: known, ..GetOptions::default() };
        let found = self.wait(async {
            let found = match self.store.get_opts(&self.key(name), options).await {
                Err(StoreError::NotModified { .. }) => return Ok(Ok(Reading::Same)),
                Err(StoreError::NotFound { .. }) => return Ok(Ok(Reading::Missing)),
                other => other?,
            };
            if found.meta.size > max {
                return Ok(Err(found.meta.size));
            }
            let version =
                UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
            Ok(Ok(Reading::New(Versioned { bytes: found.bytes().await?, version })))
        });
        found
            .map_err(self.failed("read", name))?
            .map_err(|size| self.damaged(name, format_args!("it has {size} bytes, and {max} are the most")))
    }

    /// Reads an object that never changes; `None` when it is not there.
    pub(super) fn get(&self, name: &str, max: u64) -> Result<Option<Bytes>, StorageError> {
        match self.read(name, None, max)? {
            Reading::New(found) => Ok(Some(found.bytes)),
            Reading::Missing | Reading::Same => Ok(None),
        }
    }

    /// Reads a part of an object.
    pub(super) fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StorageError> {
        self.wait(self.store.get_range(&self.key(name), range)).map_err(self.failed("read", name))
    }

    /// Writes an object under a name that nobody else uses.
    pub(super) fn put(&self, name: &str, bytes: impl IntoIterator<Item = Bytes>) -> Result<(), StorageError> {
        let payload = PutPayload::from_iter(bytes);
        self.wait(self.store.put(&self.key(name), payload)).map_err(self.failed("write", name))?;
        Ok(())
    }

    /// Writes an object if there is none (`known` is `None`), or if it is the one that is known. `None` when it is not.
    pub(super) fn replace(
        &self,
        name: &str,
        known: Option<&UpdateVersion>,
        bytes: Bytes,
    ) -> Result<Option<UpdateVersion>, StorageError> {
        let mode = known.map_or(PutMode::Create, |version| PutMode::Update(version.clone()));
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.wait(self.store.put_opts(&self.key(name), bytes.into(), options)) {
            Ok(written) => Ok(Some(written.into())),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(None),
            Err(error) => Err(self.failed("write", name)(error)),
        }
    }

    /// Removes objects; those that are gone are fine.
    pub(super) fn delete(&self, names: impl IntoIterator<Item = String>) -> Result<(), StorageError> {
        let keys: Vec<_> = names.into_iter().map(|name| Ok(self.key(&name))).collect();
        self.wait(delete(self.store.clone(), keys)).map_err(self.failed("remove", "objects"))
    }

    /// Removes objects when nobody waits for it; what stays is removed by a collection.
    pub(super) fn delete_later(&self, names: impl IntoIterator<Item = String>) {
        let keys: Vec<_> = names.into_iter().map(|name| Ok(self.key(&name))).collect();
        if keys.is_empty() {
            return;
        }
        let work = delete(self.store.clone(), keys);
        self.spawn(async move {
            if let Err(error) = work.await {
                tracing::debug!(%error, "left-over objects stay for the collection");
            }
        });
    }

    /// Lists the objects beneath a name, by their names.
    pub(super) fn list(&self, name: &str) -> Result<Vec<Listed>, StorageError> {
        self.list_some(name, usize::MAX)
    }

    /// Lists some of the objects beneath a name.
    pub(super) fn list_some(&self, name: &str, max: usize) -> Result<Vec<Listed>, StorageError> {
        let beneath = if name.is_empty() { self.prefix.clone() } else { self.key(name) };
        let listed = self.store.list(Some(&beneath)).take(max).try_collect::<Vec<_>>();
        let listed = self.wait(listed).map_err(self.failed("list", name))?;
        let own = if beneath.as_ref().is_empty() { 0 } else { beneath.as_ref().len() + 1 };
        let listed = listed.into_iter().filter_map(|object| {
            let name = object.location.as_ref().get(own..)?.to_owned();
            let written = u64::try_from(object.last_modified.timestamp()).unwrap_or_default();
            Some(Listed { name, size: object.size, written })
        });
        let mut listed: Vec<Listed> = listed.collect();
        listed.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }

    /// Gives an object another name.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), StorageError> {
        self.wait(self.store.rename(&self.key(from), &self.key(to))).map_err(self.failed("move", from))
    }
}

async fn delete(store: Arc<dyn ObjectStore>, keys: Vec<Result<Key, StoreError>>) -> Result<(), StoreError> {
    let keys: BoxStream<'static, _> = futures_util::stream::iter(keys).boxed();
    let mut removed = store.delete_stream(keys);
    while let Some(outcome) = removed.next().await {
        match outcome {
            Err(StoreError::NotFound { .. }) | Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
