// SPDX-License-Identifier: Apache-2.0
//! The client of the distribution API: manifests and blobs of any number of registries.
//!
//! A [`Client`] does nothing until used. It keeps, per host, one connection pool, the host's
//! authorization state and the limits on parallel transfers, so one client should serve a whole
//! process. Pulls try a host's mirrors in order and then the host itself; pushes only the host.

mod options;
mod stream;

use std::sync::Arc;

use bytes::Bytes;
use polyarch_oci::{Descriptor, Digest, Reference};

use crate::error::RegistryError;

pub use options::{ClientOptions, ProxySettings, RetryPolicy, TrustRoots};
pub use stream::{BlobReader, BlobSink, BlobSource, FnSink, Progress};

/// A manifest or index, byte for byte as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedManifest {
    /// The exact bytes.
    pub bytes: Bytes,
    /// The media type: the one that the document names, else the one that the registry named.
    pub media_type: String,
    /// The digest of the bytes, in the algorithm of the reference's digest, else SHA-256.
    pub digest: Digest,
    /// The host that served it: the origin or a mirror.
    pub served_by: String,
}

impl FetchedManifest {
    /// Returns the descriptor of the document.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.digest.clone(), self.bytes.len() as u64)
    }
}

/// What became of an attempt to mount a blob.
#[derive(Debug)]
pub enum MountOutcome {
    /// The repository has the blob now.
    Mounted,
    /// The registry did not mount, and has opened an upload instead.
    Upload(UploadSession),
}

/// An upload that a registry has opened; dropping it leaves its end to the registry.
#[derive(Debug)]
pub struct UploadSession {
    _private: (),
}

/// How a blob came to be in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushOutcome {
    /// It was there.
    Existed,
    /// The registry took it from another of its repositories.
    Mounted {
        /// That repository.
        from: Reference,
    },
    /// It was sent.
    Uploaded,
}

/// A client of registries; cheap to clone, all clones share their state.
#[derive(Clone)]
pub struct Client {
    _options: Arc<ClientOptions>,
}

impl Client {
    /// Makes a client; nothing is read or connected yet.
    pub fn new(options: ClientOptions) -> Client {
        Client { _options: Arc::new(options) }
    }

    /// Asks what a tag or digest points at, without fetching it.
    ///
    /// Falls back to fetching where the registry does not tell the digest.
    ///
    /// # Errors
    /// [`RegistryError::ManifestUnknown`] when there is none; whatever keeps the registry from answering.
    pub async fn head_manifest(&self, _reference: &Reference) -> Result<Descriptor, RegistryError> {
        Err(unfinished())
    }

    /// Fetches a manifest or index; a reference's digest wins over its tag.
    ///
    /// The digest is verified against the reference's and against what the registry claims.
    ///
    /// # Errors
    /// [`RegistryError::ManifestUnknown`] when there is none, [`RegistryError::DigestMismatch`],
    /// [`RegistryError::TooLarge`]; whatever keeps the registry from answering.
    pub async fn get_manifest(&self, _reference: &Reference) -> Result<FetchedManifest, RegistryError> {
        Err(unfinished())
    }

    /// Tells whether a repository has a blob. Asks the origin, not the mirrors.
    ///
    /// # Errors
    /// Whatever keeps the registry from answering.
    pub async fn blob_exists(
        &self,
        _repository: &Reference,
        _blob: &Descriptor,
    ) -> Result<bool, RegistryError> {
        Err(unfinished())
    }

    /// Fetches a blob of a repository into a sink; size and digest are verified.
    ///
    /// A broken transfer goes on from where it broke. Sources are the descriptor's own data, mirrors,
    /// the origin, then the descriptor's `urls`. Returns the host that served (the end of) it.
    /// The sink has seen unverified bytes until this returns: commit only afterwards.
    ///
    /// # Errors
    /// [`RegistryError::BlobUnknown`] when there is none, [`RegistryError::DigestMismatch`],
    /// [`RegistryError::SizeMismatch`], [`RegistryError::Sink`]; whatever keeps the registry from answering.
    pub async fn get_blob<S: BlobSink>(
        &self,
        _repository: &Reference,
        _blob: &Descriptor,
        _into: &mut S,
        _progress: &Progress,
    ) -> Result<String, RegistryError> {
        Err(unfinished())
    }

    /// Asks a registry to take a blob from another of its repositories.
    ///
    /// # Errors
    /// Whatever keeps the registry from answering. That it does not mount is no error.
    pub async fn mount_blob(
        &self,
        _target: &Reference,
        _blob: &Descriptor,
        _from: &Reference,
    ) -> Result<MountOutcome, RegistryError> {
        Err(unfinished())
    }

    /// Brings a blob into a repository: looks whether it is there, mounts it from one of the
    /// repositories in `mount_from` that are on the same host, else uploads it.
    ///
    /// The same blob pushed into the same repository by several callers at once is uploaded once.
    ///
    /// # Errors
    /// [`RegistryError::Source`] when the source cannot be read; the registry's refusals; what
    /// remains of connection errors after retries.
    pub async fn push_blob<S: BlobSource>(
        &self,
        _repository: &Reference,
        _blob: &Descriptor,
        _source: &S,
        _mount_from: &[Reference],
        _progress: &Progress,
    ) -> Result<PushOutcome, RegistryError> {
        Err(unfinished())
    }

    /// Puts a manifest or index under a tag, or under its digest when the reference has no tag.
    ///
    /// Everything that it refers to must be in the repository. Returns the digest of the bytes.
    ///
    /// # Errors
    /// [`RegistryError::DigestMismatch`] when the reference's digest or the registry's answer differs
    /// from that of the bytes; the registry's refusals.
    pub async fn put_manifest(
        &self,
        _reference: &Reference,
        _bytes: Bytes,
        _media_type: &str,
    ) -> Result<Digest, RegistryError> {
        Err(unfinished())
    }

    /// Checks that a host accepts the credentials (or their absence), as a login does.
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`] when it does not; whatever keeps the host from answering.
    pub async fn check_login(&self, _host: &str) -> Result<(), RegistryError> {
        Err(unfinished())
    }
}

fn unfinished() -> RegistryError {
    RegistryError::Settings { host: String::new(), problem: "not available in this version".to_owned() }
}
