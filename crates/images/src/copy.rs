// SPDX-License-Identifier: Apache-2.0
//! Copying images to a repository: blobs, then manifests, then indexes; the name last, when all is there.
//!
//! A blob that the registry has in the source's repository is mounted; one of another registry streams
//! through without being kept here. What a registry keeps beside an image (attestations, signatures) goes
//! along.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;
use polyarch_build::fetch::{Shown, registry_error};
use polyarch_build::push::transfer_progress;
use polyarch_build::{BuildError, ErrorKind, Services};
use polyarch_oci::{Descriptor, Digest, Manifest, ManifestOrIndex, Reference};
use polyarch_solver::progress::ActiveStatus;

use crate::copy_blob::FoundBlob;
use crate::found::{FoundImage, Origin};
use crate::referrers::{COPIED, referrers};

/// The deepest nesting of indexes that is copied.
const MAX_DEPTH: usize = 8;

/// The most manifests and indexes that are copied into one repository: every one asks its registry for
/// what is kept beside it.
const MAX_DOCUMENTS: usize = 10_000;

/// Copies images into one repository; what was copied once is not copied again.
pub struct Copier {
    services: Arc<Services>,
    target: Reference,
    shown: Shown,
    done: Mutex<BTreeSet<Digest>>,
}

impl Copier {
    /// Makes a copier into the repository of `target`.
    pub fn new(services: &Arc<Services>, target: &Reference, shown: &Shown) -> Copier {
        Copier {
            services: services.clone(),
            target: target.clone(),
            shown: shown.clone(),
            done: Mutex::default(),
        }
    }

    /// Copies a document that `source` consists of, with everything that it names, under its digest.
    ///
    /// # Errors
    /// When the source lacks a part, and the registries' refusals.
    pub async fn copy(&self, source: &FoundImage, document: &Descriptor) -> Result<(), BuildError> {
        self.copy_at(source, document, 0).await
    }

    /// Gives a document, whose parts are in the repository, a name: the point of no return.
    ///
    /// # Errors
    /// The registry's refusals.
    pub async fn publish(
        &self,
        name: &Reference,
        bytes: &[u8],
        descriptor: &Descriptor,
    ) -> Result<(), BuildError> {
        let text = format!("pushing {} to {}", descriptor.digest, name.familiar());
        let _status = ActiveStatus::start(self.shown.progress.clone(), self.shown.vertex.clone(), text, 0);
        self.put(name, Bytes::copy_from_slice(bytes), &descriptor.media_type).await
    }

    async fn copy_at(
        &self,
        source: &FoundImage,
        descriptor: &Descriptor,
        depth: usize,
    ) -> Result<(), BuildError> {
        if self.is_source(source) {
            return Ok(());
        }
        let copied = {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            if !done.insert(descriptor.digest.clone()) {
                return Ok(());
            }
            done.len()
        };
        let refused =
            |what: String| Err(BuildError::new(ErrorKind::Registry, format!("{}: {what}", source.name)));
        if depth > MAX_DEPTH {
            return refused(format!("{} is an index nested too deeply", descriptor.digest));
        }
        if copied > MAX_DOCUMENTS {
            return refused(format!(
                "it has more than {MAX_DOCUMENTS} manifests, those that its registry keeps beside them counted"
            ));
        }
        let document = source.read_document(descriptor).await?;
        match &document {
            ManifestOrIndex::Index(index) => {
                for entry in &index.value.manifests {
                    Box::pin(self.copy_at(source, entry, depth + 1)).await?;
                }
            }
            ManifestOrIndex::Manifest(manifest) => self.copy_blobs(source, &manifest.value).await?,
        }
        let name = self.target.with_digest(descriptor.digest.clone());
        self.put(&name, Bytes::copy_from_slice(document.bytes()), document.media_type()).await?;
        for referrer in referrers(source, &descriptor.digest).await? {
            if referrer.artifact_type.as_deref().is_some_and(|kind| COPIED.contains(&kind)) {
                Box::pin(self.copy_at(source, &referrer, depth + 1)).await?;
            }
        }
        Ok(())
    }

    async fn copy_blobs(&self, source: &FoundImage, manifest: &Manifest) -> Result<(), BuildError> {
        let mut seen = BTreeSet::new();
        let blobs = manifest.layers.iter().chain([&manifest.config]);
        let blobs: Vec<&Descriptor> =
            blobs.filter(|blob| !blob.is_foreign() && seen.insert(&blob.digest)).collect();
        // All are awaited, so that no transfer goes on behind the back of an error.
        let copied = join_all(blobs.into_iter().map(|blob| self.copy_blob(source, blob))).await;
        copied.into_iter().collect()
    }

    async fn copy_blob(&self, source: &FoundImage, blob: &Descriptor) -> Result<(), BuildError> {
        let report = transfer_progress(&self.shown, format!("copying {}", blob.digest), blob.size);
        let hints: Vec<Reference> =
            source.repository().cloned().into_iter().chain(self.services.blob_origin(&blob.digest)).collect();
        let content = FoundBlob::new(source, blob);
        let pushed = self.services.registry().push_blob(&self.target, blob, &content, &hints, &report).await;
        pushed.map(|_| ()).map_err(|error| {
            // Where the source failed, it says why itself.
            content.failure().unwrap_or_else(|| {
                let context =
                    format!("can't copy {} of {} to {}", blob.digest, source.name, self.target.name());
                registry_error(context, &error)
            })
        })
    }

    async fn put(&self, name: &Reference, bytes: Bytes, media_type: &str) -> Result<(), BuildError> {
        self.services.registry().put_manifest(name, bytes, media_type).await.map(|_| ()).map_err(|error| {
            registry_error(format!("can't push the manifest of {}", name.familiar()), &error)
        })
    }

    /// Tells whether an image comes from the target itself, which then has all of it.
    fn is_source(&self, source: &FoundImage) -> bool {
        matches!(&source.origin, Origin::Registry(from) if from.name() == self.target.name())
    }
}
