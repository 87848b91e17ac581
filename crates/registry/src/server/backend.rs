// SPDX-License-Identifier: Apache-2.0
//! Where a registry is kept, and what the API's rooms ask of it.
//!
//! Whatever keeps it promises the same (`docs/registry.md`): what was acknowledged stays, nothing is seen that is not
//! whole, and several servers may use it. What is asked here waits for the disk or the network, so it is asked on a thread
//! that may wait (`state::blocking`); [`Repository::is_near`] says where that is not worth while.

mod content;

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use polyarch_oci::{Algorithm, Digest};

#[cfg(feature = "s3")]
use super::bucket::{self, Bucket, BucketOptions};
use super::disk::DiskError;
use super::gc::{CollectOptions, Collected};
use super::index::RepositoryIndex;
use super::names::RepositoryName;
use super::repository::{Change, ChangeResult, Layout, Outcome};
use super::scrub::{ScrubOptions, Scrubbed};
use super::storage::{Directory, Incoming, StorageError};
use super::upload::{self, UploadError, Uploads};

pub(super) use self::content::{Content, OpenUpload, WholeBlob};

/// Where a registry is kept; a clone is another handle of the same.
#[derive(Debug, Clone)]
pub struct Storage {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Directory {
        directory: Directory,
        uploads: Arc<Uploads>,
    },
    #[cfg(feature = "s3")]
    Bucket {
        bucket: Bucket,
        max_uploads: usize,
    },
}

impl Storage {
    /// Opens the directory of a registry, and makes it when there is none.
    ///
    /// # Errors
    /// When it cannot be used, or holds something else.
    pub fn open(root: &Path) -> Result<Storage, StorageError> {
        Directory::open(root).map(Storage::from)
    }

    /// Opens the directory of a registry that is there.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    pub fn open_existing(root: &Path) -> Result<Storage, StorageError> {
        Directory::open_existing(root).map(Storage::from)
    }

    /// Opens the registry of a bucket, and makes it when there is none. Not to be called from a task.
    ///
    /// # Errors
    /// When it cannot be reached or used, or holds something else.
    #[cfg(feature = "s3")]
    pub fn open_bucket(options: &BucketOptions) -> Result<Storage, StorageError> {
        Bucket::open(options).map(Storage::from)
    }

    /// Opens the registry of a bucket that is there. Not to be called from a task.
    ///
    /// # Errors
    /// When there is none, or it cannot be reached or used.
    #[cfg(feature = "s3")]
    pub fn open_existing_bucket(options: &BucketOptions) -> Result<Storage, StorageError> {
        Bucket::open_existing(options).map(Storage::from)
    }

    /// Removes what nothing leads to. Other processes may go on using the registry.
    ///
    /// # Errors
    /// When it cannot be read; repositories that cannot are told in the result.
    pub fn collect(&self, options: &CollectOptions) -> Result<Collected, StorageError> {
        match &self.place {
            Place::Directory { directory, uploads } => {
                uploads.forget_gone();
                directory.collect(options)
            }
            #[cfg(feature = "s3")]
            Place::Bucket { bucket, .. } => bucket.collect(options, std::time::SystemTime::now()),
        }
    }

    /// Reads everything and compares. Other processes may go on using the registry.
    ///
    /// # Errors
    /// When it cannot be read, or something cannot be put aside.
    pub fn scrub(
        &self,
        options: &ScrubOptions,
        progress: impl FnMut(&Scrubbed),
    ) -> Result<Scrubbed, StorageError> {
        match &self.place {
            Place::Directory { directory, .. } => directory.scrub(options, progress),
            #[cfg(feature = "s3")]
            Place::Bucket { bucket, .. } => bucket.scrub(options, progress),
        }
    }

    /// Sets how many uploads may be unfinished.
    pub(super) fn with_max_uploads(self, max_uploads: usize) -> Storage {
        let place = match self.place {
            Place::Directory { directory, .. } => {
                let uploads = Arc::new(Uploads::new(directory.clone(), max_uploads));
                Place::Directory { directory, uploads }
            }
            #[cfg(feature = "s3")]
            Place::Bucket { bucket, .. } => Place::Bucket { bucket, max_uploads },
        };
        Storage { place }
    }

    /// Lists the repositories, by name.
    pub(super) fn repository_names(&self) -> Result<Vec<RepositoryName>, StorageError> {
        match &self.place {
            Place::Directory { directory, .. } => directory.repository_names(),
            #[cfg(feature = "s3")]
            Place::Bucket { bucket, .. } => bucket.repository_names(),
        }
    }

    /// Returns a repository, whether it exists or not.
    pub(super) fn repository(&self, name: &RepositoryName) -> Arc<Repository> {
        let kept = match &self.place {
            Place::Directory { directory, uploads } => Kept::Layout {
                layout: directory.repository(name),
                directory: directory.clone(),
                uploads: uploads.clone(),
            },
            #[cfg(feature = "s3")]
            Place::Bucket { bucket, max_uploads } => Kept::Bucket {
                repository: bucket.repository(name),
                bucket: bucket.clone(),
                max_uploads: *max_uploads,
            },
        };
        Arc::new(Repository { name: name.clone(), kept })
    }

    /// Makes a file of this machine for a blob that is to be read while it comes.
    pub(super) fn incoming(&self) -> Result<Incoming, StorageError> {
        match &self.place {
            Place::Directory { directory, .. } => Ok(directory.incoming()?),
            #[cfg(feature = "s3")]
            Place::Bucket { bucket, .. } => bucket.incoming(),
        }
    }
}

impl From<Directory> for Storage {
    fn from(directory: Directory) -> Storage {
        let uploads = Arc::new(Uploads::new(directory.clone(), usize::MAX));
        Storage { place: Place::Directory { directory, uploads } }
    }
}

#[cfg(feature = "s3")]
impl From<Bucket> for Storage {
    fn from(bucket: Bucket) -> Storage {
        Storage { place: Place::Bucket { bucket, max_uploads: usize::MAX } }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Directory { directory, .. } => directory.root().display().fmt(f),
            #[cfg(feature = "s3")]
            Place::Bucket { bucket, .. } => bucket.place().fmt(f),
        }
    }
}

/// A repository; it need not exist.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) name: RepositoryName,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    Layout {
        layout: Arc<Layout>,
        directory: Directory,
        uploads: Arc<Uploads>,
    },
    #[cfg(feature = "s3")]
    Bucket {
        repository: Arc<bucket::Repository>,
        bucket: Bucket,
        max_uploads: usize,
    },
}

impl Repository {
    /// Tells whether small questions are answered faster than they are handed to a thread.
    pub(super) fn is_near(&self) -> bool {
        match &self.kept {
            Kept::Layout { .. } => true,
            #[cfg(feature = "s3")]
            Kept::Bucket { .. } => false,
        }
    }

    /// Returns the index as it is now; `None` when there is no such repository.
    pub(super) fn index(&self) -> Result<Option<Arc<RepositoryIndex>>, StorageError> {
        match &self.kept {
            Kept::Layout { layout, .. } => layout.index(),
            #[cfg(feature = "s3")]
            Kept::Bucket { repository, bucket, .. } => repository.index(bucket),
        }
    }

    /// Returns the index when that takes no time, and it is the one of now.
    pub(super) fn known_index(&self) -> Option<Arc<RepositoryIndex>> {
        match &self.kept {
            Kept::Layout { layout, .. } => layout.known_index(),
            #[cfg(feature = "s3")]
            Kept::Bucket { .. } => None,
        }
    }

    /// Removes a tag or a manifest durably.
    pub(super) fn change(&self, change: Change) -> ChangeResult {
        match &self.kept {
            Kept::Layout { layout, .. } => layout.change(change),
            #[cfg(feature = "s3")]
            Kept::Bucket { repository, bucket, .. } => repository.change(bucket, change),
        }
    }

    /// Enters a manifest whose digest was verified, durably; `change` puts it.
    pub(super) fn put_manifest(&self, digest: &Digest, bytes: &Bytes, change: Change) -> ChangeResult {
        match &self.kept {
            Kept::Layout { layout, directory, .. } => {
                // What is refused leaves nothing; what counts is looked at once more under the lock.
                if let Change::Put { needed, .. } = &change
                    && !needed.may_lack
                {
                    let missing = layout.lacking(&needed.blobs);
                    if !missing.is_empty() {
                        return Ok(Outcome::Missing(missing));
                    }
                }
                let failed = |error: DiskError| Arc::new(StorageError::from(error));
                let mut incoming = directory.incoming().map_err(failed)?;
                let written = incoming.file.write_all(bytes);
                written.map_err(|error| failed(DiskError::new("write", &incoming.path)(error)))?;
                directory.place_blob(layout, &incoming.path, &incoming.file, digest).map_err(Arc::new)?;
                drop(incoming);
                layout.change(change)
            }
            #[cfg(feature = "s3")]
            Kept::Bucket { repository, bucket, .. } => repository.put_manifest(bucket, digest, bytes, change),
        }
    }

    /// Takes over a blob that another repository has, or any; tells whether it was there.
    pub(super) fn mount(&self, from: Option<&RepositoryName>, digest: &Digest) -> Result<bool, StorageError> {
        match &self.kept {
            Kept::Layout { layout, directory, .. } => {
                let from = from.map(|from| directory.repository(from));
                directory.mount(layout, from.as_deref(), digest)
            }
            #[cfg(feature = "s3")]
            Kept::Bucket { repository, bucket, .. } => repository.mount(bucket, from, digest),
        }
    }

    /// Makes a file whose content has the digest a blob.
    pub(super) fn place_file(&self, incoming: Incoming, digest: &Digest) -> Result<(), StorageError> {
        match &self.kept {
            Kept::Layout { layout, directory, .. } => {
                directory.place_blob(layout, &incoming.path, &incoming.file, digest)
            }
            #[cfg(feature = "s3")]
            Kept::Bucket { repository, bucket, .. } => bucket.place_file(repository, &incoming, digest),
        }
    }

    /// Tells whether a blob is there.
    pub(super) fn has_blob(&self, digest: &Digest) -> Result<bool, StorageError> {
        match &self.kept {
            Kept::Layout { layout, .. } => Ok(layout.blob_path(digest).exists()),
            #[cfg(feature = "s3")]
            Kept::Bucket { repository, bucket, .. } => Ok(repository.find(bucket, digest)?.is_some()),
        }
    }

    /// Returns the size of a blob, and keeps it from the collection for another grace period, because the
    /// client that asks may rely on it. `None` when the repository does not have it.
    pub(super) fn promise_blob(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        match &self.kept {
            Kept::Layout { layout, .. } => Ok(layout.promise_blob(digest)?),
            #[cfg(feature = "s3")]
            Kept::Bucket { repository, bucket, .. } => repository.promise(bucket, digest),
        }
    }

    /// Returns the size of a blob that was promised a moment ago, when it takes no time to find that out.
    pub(super) fn promised_blob(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        match &self.kept {
            Kept::Layout { layout, .. } => {
                let found = layout.find_blob(digest)?;
                Ok(found.filter(|(_, is_promised)| *is_promised).map(|(size, _)| size))
            }
            #[cfg(feature = "s3")]
            Kept::Bucket { .. } => Ok(None),
        }
    }

    /// Opens a blob; `None` when the repository does not have it.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<Option<Content>, StorageError> {
        match &self.kept {
            Kept::Layout { layout, .. } => {
                let found = layout.open_blob(digest)?;
                Ok(found.map(|(file, size)| Content::of_file(file, size, layout.blob_path(digest))))
            }
            #[cfg(feature = "s3")]
            Kept::Bucket { repository, bucket, .. } => {
                let found = repository.open(bucket, digest)?;
                Ok(found.map(Content::of_objects))
            }
        }
    }

    /// Removes a blob; tells whether it was there.
    pub(super) fn remove_blob(&self, digest: &Digest) -> Result<bool, StorageError> {
        match &self.kept {
            Kept::Layout { layout, directory, .. } => {
                let was_there = layout.remove_blob(digest)?;
                if was_there {
                    directory.forget_unused(digest)?;
                }
                Ok(was_there)
            }
            #[cfg(feature = "s3")]
            Kept::Bucket { repository, bucket, .. } => repository.release(bucket, digest),
        }
    }

    /// Says where a blob is, or would be, for the log.
    pub(super) fn blob_place(&self, digest: &Digest) -> String {
        match &self.kept {
            Kept::Layout { layout, .. } => layout.blob_path(digest).display().to_string(),
            #[cfg(feature = "s3")]
            Kept::Bucket { bucket, .. } => format!("{digest} of {} in {}", self.name, bucket.place()),
        }
    }

    /// Begins an upload in several requests; returns its name.
    pub(super) fn begin_upload(&self, algorithm: Algorithm) -> Result<String, UploadError> {
        match &self.kept {
            Kept::Layout { uploads, .. } => uploads.start(&self.name, algorithm),
            #[cfg(feature = "s3")]
            Kept::Bucket { bucket, max_uploads, .. } => {
                bucket.start_upload(&self.name, algorithm, *max_uploads)
            }
        }
    }

    /// Returns how many bytes an upload has.
    pub(super) fn upload_bytes(&self, id: &str) -> Result<u64, UploadError> {
        match &self.kept {
            Kept::Layout { uploads, .. } => uploads.status(&self.name, id),
            #[cfg(feature = "s3")]
            Kept::Bucket { bucket, .. } => bucket.upload_bytes(&self.name, id),
        }
    }

    /// Ends an upload without a blob.
    pub(super) fn cancel_upload(&self, id: &str) -> Result<(), UploadError> {
        match &self.kept {
            Kept::Layout { uploads, .. } => uploads.cancel(&self.name, id),
            #[cfg(feature = "s3")]
            Kept::Bucket { repository, bucket, .. } => bucket.open_upload(repository, id)?.cancel(),
        }
    }

    /// Opens an upload for the rest of a request.
    pub(super) fn open_upload(&self, id: &str) -> Result<OpenUpload, UploadError> {
        match &self.kept {
            Kept::Layout { uploads, layout, .. } => {
                Ok(OpenUpload::File(uploads.open(&self.name, id)?, layout.clone()))
            }
            #[cfg(feature = "s3")]
            Kept::Bucket { repository, bucket, .. } => {
                Ok(OpenUpload::Bucket(bucket.open_upload(repository, id)?))
            }
        }
    }

    /// Begins a blob that comes whole in one request.
    pub(super) fn begin_blob(&self, algorithm: Algorithm) -> Result<WholeBlob, UploadError> {
        match &self.kept {
            Kept::Layout { directory, layout, .. } => {
                Ok(WholeBlob::File(upload::WholeBlob::start(directory, algorithm)?, layout.clone()))
            }
            #[cfg(feature = "s3")]
            Kept::Bucket { repository, bucket, .. } => {
                Ok(WholeBlob::Bucket(bucket::WholeBlob::start(bucket, repository, algorithm)?))
            }
        }
    }
}
