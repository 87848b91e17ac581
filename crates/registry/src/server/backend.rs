// SPDX-License-Identifier: Apache-2.0
//! Where a registry is kept, and what the API's rooms ask of it.
//!
//! Whatever keeps it promises the same (`docs/registry.md`): what was acknowledged stays, nothing is seen that is not
//! whole, and several servers may use it. What is asked here waits for the disk or the network, so it is asked on a thread
//! that may wait (`state::blocking`); [`Repository::is_near`] says where that is not worth while.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use polyarch_oci::{Algorithm, Digest};

use super::body::{Body, read_part};
use super::disk::DiskError;
use super::gc::{CollectOptions, Collected};
use super::index::RepositoryIndex;
use super::names::RepositoryName;
use super::repository::{Change, ChangeResult, Layout, Outcome};
use super::scrub::{ScrubOptions, Scrubbed};
use super::storage::{Directory, Incoming, StorageError};
use super::upload::{self, Receive, UploadError, Uploads};

/// What is no larger is read at once: handing it to a thread would take longer.
const SMALL_BYTES: u64 = 32 << 10;

/// Where a registry is kept; a clone is another handle of the same.
#[derive(Debug, Clone)]
pub struct Storage {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Directory { directory: Directory, uploads: Arc<Uploads> },
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
        }
    }

    /// Sets how many uploads may be unfinished.
    pub(super) fn with_max_uploads(self, max_uploads: usize) -> Storage {
        let place = match self.place {
            Place::Directory { directory, .. } => {
                let uploads = Arc::new(Uploads::new(directory.clone(), max_uploads));
                Place::Directory { directory, uploads }
            }
        };
        Storage { place }
    }

    /// Lists the repositories, by name.
    pub(super) fn repository_names(&self) -> Result<Vec<RepositoryName>, StorageError> {
        match &self.place {
            Place::Directory { directory, .. } => directory.repository_names(),
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
        };
        Arc::new(Repository { name: name.clone(), kept })
    }

    /// Makes a file of this machine for a blob that is to be read while it comes.
    pub(super) fn incoming(&self) -> Result<Incoming, StorageError> {
        match &self.place {
            Place::Directory { directory, .. } => Ok(directory.incoming()?),
        }
    }
}

impl From<Directory> for Storage {
    fn from(directory: Directory) -> Storage {
        let uploads = Arc::new(Uploads::new(directory.clone(), usize::MAX));
        Storage { place: Place::Directory { directory, uploads } }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Directory { directory, .. } => directory.root().display().fmt(f),
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
    Layout { layout: Arc<Layout>, directory: Directory, uploads: Arc<Uploads> },
}

impl Repository {
    /// Tells whether small questions are answered faster than they are handed to a thread.
    pub(super) fn is_near(&self) -> bool {
        match &self.kept {
            Kept::Layout { .. } => true,
        }
    }

    /// Returns the index as it is now; `None` when there is no such repository.
    pub(super) fn index(&self) -> Result<Option<Arc<RepositoryIndex>>, StorageError> {
        match &self.kept {
            Kept::Layout { layout, .. } => layout.index(),
        }
    }

    /// Returns the index when that takes no time, and it is the one of now.
    pub(super) fn known_index(&self) -> Option<Arc<RepositoryIndex>> {
        match &self.kept {
            Kept::Layout { layout, .. } => layout.known_index(),
        }
    }

    /// Removes a tag or a manifest durably.
    pub(super) fn change(&self, change: Change) -> ChangeResult {
        match &self.kept {
            Kept::Layout { layout, .. } => layout.change(change),
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
        }
    }

    /// Takes over a blob that another repository has, or any; tells whether it was there.
    pub(super) fn mount(&self, from: Option<&RepositoryName>, digest: &Digest) -> Result<bool, StorageError> {
        match &self.kept {
            Kept::Layout { layout, directory, .. } => {
                let from = from.map(|from| directory.repository(from));
                directory.mount(layout, from.as_deref(), digest)
            }
        }
    }

    /// Makes a file whose content has the digest a blob.
    pub(super) fn place_file(&self, incoming: Incoming, digest: &Digest) -> Result<(), StorageError> {
        match &self.kept {
            Kept::Layout { layout, directory, .. } => {
                directory.place_blob(layout, &incoming.path, &incoming.file, digest)
            }
        }
    }

    /// Tells whether a blob is there.
    pub(super) fn has_blob(&self, digest: &Digest) -> Result<bool, StorageError> {
        match &self.kept {
            Kept::Layout { layout, .. } => Ok(layout.blob_path(digest).exists()),
        }
    }

    /// Returns the size of a blob, and keeps it from the collection for another grace period, because the
    /// client that asks may rely on it. `None` when the repository does not have it.
    pub(super) fn promise_blob(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        match &self.kept {
            Kept::Layout { layout, .. } => Ok(layout.promise_blob(digest)?),
        }
    }

    /// Returns the size of a blob that was promised a moment ago, when it takes no time to find that out.
    pub(super) fn promised_blob(&self, digest: &Digest) -> Result<Option<u64>, StorageError> {
        match &self.kept {
            Kept::Layout { layout, .. } => {
                let found = layout.find_blob(digest)?;
                Ok(found.filter(|(_, is_promised)| *is_promised).map(|(size, _)| size))
            }
        }
    }

    /// Opens a blob; `None` when the repository does not have it.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<Option<Content>, StorageError> {
        match &self.kept {
            Kept::Layout { layout, .. } => {
                let found = layout.open_blob(digest)?;
                Ok(found.map(|(file, size)| Content {
                    size,
                    source: Source::File(file, layout.blob_path(digest)),
                }))
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
        }
    }

    /// Says where a blob is, or would be, for the log.
    pub(super) fn blob_place(&self, digest: &Digest) -> String {
        match &self.kept {
            Kept::Layout { layout, .. } => layout.blob_path(digest).display().to_string(),
        }
    }

    /// Begins an upload in several requests; returns its name.
    pub(super) fn begin_upload(&self, algorithm: Algorithm) -> Result<String, UploadError> {
        match &self.kept {
            Kept::Layout { uploads, .. } => uploads.start(&self.name, algorithm),
        }
    }

    /// Returns how many bytes an upload has.
    pub(super) fn upload_bytes(&self, id: &str) -> Result<u64, UploadError> {
        match &self.kept {
            Kept::Layout { uploads, .. } => uploads.status(&self.name, id),
        }
    }

    /// Ends an upload without a blob.
    pub(super) fn cancel_upload(&self, id: &str) -> Result<(), UploadError> {
        match &self.kept {
            Kept::Layout { uploads, .. } => uploads.cancel(&self.name, id),
        }
    }

    /// Opens an upload for the rest of a request.
    pub(super) fn open_upload(&self, id: &str) -> Result<OpenUpload, UploadError> {
        match &self.kept {
            Kept::Layout { uploads, layout, .. } => {
                Ok(OpenUpload::File(uploads.open(&self.name, id)?, layout.clone()))
            }
        }
    }

    /// Begins a blob that comes whole in one request.
    pub(super) fn begin_blob(&self, algorithm: Algorithm) -> Result<WholeBlob, UploadError> {
        match &self.kept {
            Kept::Layout { directory, layout, .. } => {
                Ok(WholeBlob::File(upload::WholeBlob::start(directory, algorithm)?, layout.clone()))
            }
        }
    }
}

/// The bytes of a blob, to be read.
pub(super) struct Content {
    /// How many there are.
    pub(super) size: u64,
    source: Source,
}

enum Source {
    /// An open file, and its path for what may be wrong.
    File(File, std::path::PathBuf),
}

impl Content {
    /// Makes a body of a part of it.
    pub(super) fn into_body(self, first: u64, length: u64) -> Result<Body, StorageError> {
        match self.source {
            Source::File(file, _) if length > SMALL_BYTES => Ok(Body::file(file, first, length)),
            Source::File(file, path) => {
                let bytes = read_part(&file, first, length);
                Ok(Body::full(bytes.map_err(DiskError::new("read", &path))?))
            }
        }
    }

    /// Reads all of it; not more than `max` bytes.
    pub(super) fn read(self, max: u64) -> Result<Bytes, StorageError> {
        match self.source {
            Source::File(file, path) => {
                let mut bytes = Vec::new();
                file.take(max).read_to_end(&mut bytes).map_err(DiskError::new("read", &path))?;
                Ok(bytes.into())
            }
        }
    }
}

/// An upload that this request, and no other, may write to.
pub(super) enum OpenUpload {
    /// A file beneath the directory, and whose blob it is to be.
    File(upload::OpenUpload, Arc<Layout>),
}

impl OpenUpload {
    /// Returns how many bytes there are.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            OpenUpload::File(upload, _) => upload.bytes(),
        }
    }

    /// Makes the upload a blob of its repository and ends it.
    pub(super) fn finish(self, expected: &Digest) -> Result<u64, UploadError> {
        match self {
            OpenUpload::File(upload, layout) => upload.finish(&layout, expected),
        }
    }
}

impl Receive for OpenUpload {
    fn append(&mut self, pieces: &[Bytes]) -> Result<(), UploadError> {
        match self {
            OpenUpload::File(upload, _) => upload.append(pieces),
        }
    }
}

/// A blob that comes whole in one request; nothing of it stays when that fails.
pub(super) enum WholeBlob {
    /// A file beneath the directory, and whose blob it is to be.
    File(upload::WholeBlob, Arc<Layout>),
}

impl WholeBlob {
    /// Makes it a blob of its repository.
    pub(super) fn finish(self, expected: &Digest) -> Result<u64, UploadError> {
        match self {
            WholeBlob::File(blob, layout) => blob.finish(&layout, expected),
        }
    }
}

impl Receive for WholeBlob {
    fn append(&mut self, pieces: &[Bytes]) -> Result<(), UploadError> {
        match self {
            WholeBlob::File(blob, _) => blob.append(pieces),
        }
    }
}
