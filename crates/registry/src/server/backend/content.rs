// SPDX-License-Identifier: Apache-2.0
//! The bytes of blobs on their way out and in, wherever they are kept.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use polyarch_oci::Digest;

use super::super::body::{Body, read_part};
#[cfg(feature = "s3")]
use super::super::bucket;
use super::super::disk::DiskError;
use super::super::repository::Layout;
use super::super::storage::StorageError;
use super::super::upload::{self, Receive, UploadError};

/// What is no larger is read at once: handing it to a thread would take longer.
const SMALL_BYTES: u64 = 32 << 10;

/// The bytes of a blob, to be read.
pub(in crate::server) struct Content {
    /// How many there are.
    pub(in crate::server) size: u64,
    source: Source,
}

enum Source {
    /// An open file, and its path for what may be wrong.
    File(File, PathBuf),
    /// Objects.
    #[cfg(feature = "s3")]
    Bucket(bucket::Content),
}

impl Content {
    pub(super) fn of_file(file: File, size: u64, path: PathBuf) -> Content {
        Content { size, source: Source::File(file, path) }
    }

    #[cfg(feature = "s3")]
    pub(super) fn of_objects(content: bucket::Content) -> Content {
        Content { size: content.size, source: Source::Bucket(content) }
    }

    /// Makes a body of a part of it.
    pub(in crate::server) fn into_body(self, first: u64, length: u64) -> Result<Body, StorageError> {
        match self.source {
            Source::File(file, _) if length > SMALL_BYTES => Ok(Body::file(file, first, length)),
            Source::File(file, path) => {
                let bytes = read_part(&file, first, length);
                Ok(Body::full(bytes.map_err(DiskError::new("read", &path))?))
            }
            #[cfg(feature = "s3")]
            Source::Bucket(content) => Ok(content.into_body(first, length)),
        }
    }

    /// Reads all of it; not more than `max` bytes.
    pub(in crate::server) fn read(self, max: u64) -> Result<Bytes, StorageError> {
        match self.source {
            Source::File(file, path) => {
                let mut bytes = Vec::new();
                file.take(max).read_to_end(&mut bytes).map_err(DiskError::new("read", &path))?;
                Ok(bytes.into())
            }
            #[cfg(feature = "s3")]
            Source::Bucket(content) => content.read(max),
        }
    }
}

/// An upload that this request, and no other, may write to.
pub(in crate::server) enum OpenUpload {
    /// A file beneath the directory, and whose blob it is to be.
    File(upload::OpenUpload, Arc<Layout>),
    /// Objects.
    #[cfg(feature = "s3")]
    Bucket(bucket::OpenUpload),
}

impl OpenUpload {
    /// Returns how many bytes there are.
    pub(in crate::server) fn bytes(&self) -> u64 {
        match self {
            OpenUpload::File(upload, _) => upload.bytes(),
            #[cfg(feature = "s3")]
            OpenUpload::Bucket(upload) => upload.bytes(),
        }
    }

    /// Makes the upload a blob of its repository and ends it.
    pub(in crate::server) fn finish(self, expected: &Digest) -> Result<u64, UploadError> {
        match self {
            OpenUpload::File(upload, layout) => upload.finish(&layout, expected),
            #[cfg(feature = "s3")]
            OpenUpload::Bucket(upload) => upload.finish(expected),
        }
    }
}

impl Receive for OpenUpload {
    fn append(&mut self, pieces: &[Bytes]) -> Result<(), UploadError> {
        match self {
            OpenUpload::File(upload, _) => upload.append(pieces),
            #[cfg(feature = "s3")]
            OpenUpload::Bucket(upload) => upload.append(pieces),
        }
    }

    fn keep(&mut self) -> Result<(), UploadError> {
        match self {
            OpenUpload::File(upload, _) => upload.keep(),
            #[cfg(feature = "s3")]
            OpenUpload::Bucket(upload) => upload.keep(),
        }
    }
}

/// A blob that comes whole in one request; nothing of it stays when that fails.
pub(in crate::server) enum WholeBlob {
    /// A file beneath the directory, and whose blob it is to be.
    File(upload::WholeBlob, Arc<Layout>),
    /// Objects.
    #[cfg(feature = "s3")]
    Bucket(bucket::WholeBlob),
}

impl WholeBlob {
    /// Makes it a blob of its repository.
    pub(in crate::server) fn finish(self, expected: &Digest) -> Result<u64, UploadError> {
        match self {
            WholeBlob::File(blob, layout) => blob.finish(&layout, expected),
            #[cfg(feature = "s3")]
            WholeBlob::Bucket(blob) => blob.finish(expected),
        }
    }
}

impl Receive for WholeBlob {
    fn append(&mut self, pieces: &[Bytes]) -> Result<(), UploadError> {
        match self {
            WholeBlob::File(blob, _) => blob.append(pieces),
            #[cfg(feature = "s3")]
            WholeBlob::Bucket(blob) => blob.append(pieces),
        }
    }
}
