// SPDX-License-Identifier: Apache-2.0
//! An image that was found: its document, and the way to everything that the document names.
//!
//! Documents and configs are small and are kept in the store as they are read; layers come only when
//! asked for. Nothing here sets a name.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use polyarch_build::fetch::{Shown, registry_error};
use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind, Services};
use polyarch_oci::config::MAX_CONFIG_BYTES;
use polyarch_oci::manifest::MAX_MANIFEST_BYTES;
use polyarch_oci::{
    Descriptor, Digest, Document, ImageConfig, Manifest, ManifestOrIndex, Platform, Reference,
};

use crate::layout_files::LayoutFiles;

/// Where an image was found, and so where its blobs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The local store. A name whose parts are not all here can bring them from its repository.
    Store(Option<Reference>),
    /// A repository of a registry.
    Registry(Reference),
    /// An OCI layout directory.
    Layout(PathBuf),
    /// An archive, which is in the store now.
    Archive(PathBuf),
}

/// An image that was found.
#[derive(Clone)]
pub struct FoundImage {
    pub(crate) services: Arc<Services>,
    pub(crate) shown: Shown,
    /// What it was asked by, for messages.
    pub name: String,
    /// The descriptor of its document, with what the place it was found in says about it.
    pub descriptor: Descriptor,
    /// Its document, byte for byte.
    pub document: ManifestOrIndex,
    /// Where it was found.
    pub origin: Origin,
}

impl FoundImage {
    /// Returns the repository that blobs come from, and can be mounted from.
    pub fn repository(&self) -> Option<&Reference> {
        match &self.origin {
            Origin::Store(repository) => repository.as_ref(),
            Origin::Registry(repository) => Some(repository),
            Origin::Layout(_) | Origin::Archive(_) => None,
        }
    }

    /// Reads a document that the image consists of; its bytes have the digest of the descriptor.
    ///
    /// # Errors
    /// When it is missing, damaged, or neither a manifest nor an index.
    pub async fn read_document(&self, descriptor: &Descriptor) -> Result<ManifestOrIndex, BuildError> {
        if descriptor.digest == self.descriptor.digest {
            return Ok(self.document.clone());
        }
        let bytes = self.read_document_bytes(descriptor).await?;
        self.parse(descriptor, bytes)
    }

    /// Reads a manifest that the image consists of.
    ///
    /// # Errors
    /// As [`FoundImage::read_document`]; also when it is an index.
    pub async fn read_manifest(&self, descriptor: &Descriptor) -> Result<Document<Manifest>, BuildError> {
        match self.read_document(descriptor).await? {
            ManifestOrIndex::Manifest(manifest) => Ok(manifest),
            ManifestOrIndex::Index(_) => {
                Err(self.damaged(format!("{} is an index where a manifest is needed", descriptor.digest)))
            }
        }
    }

    /// Reads the config of a manifest.
    ///
    /// # Errors
    /// When it is missing, damaged or too large.
    pub async fn config(&self, manifest: &Manifest) -> Result<Document<ImageConfig>, BuildError> {
        let bytes = self.read_blob(&manifest.config, MAX_CONFIG_BYTES).await?;
        Document::parse(bytes, "image config")
            .map_err(|error| self.damaged(format!("{}: {}", manifest.config.digest, text_of(&error))))
    }

    /// Reads the platform that a manifest's config declares.
    ///
    /// # Errors
    /// As [`FoundImage::config`].
    pub async fn declared_platform(&self, manifest: &Manifest) -> Result<Platform, BuildError> {
        Ok(self.config(manifest).await?.value.platform())
    }

    /// Reads a blob of at most `cap` bytes, verified; it is in the store afterwards.
    ///
    /// # Errors
    /// When it is missing, damaged or too large.
    pub async fn read_blob(&self, blob: &Descriptor, cap: u64) -> Result<Vec<u8>, BuildError> {
        if blob.size > cap {
            return Err(self.damaged(format!("{} is larger than the {cap} bytes allowed", blob.digest)));
        }
        self.ensure_blob(blob).await?;
        self.services.store().read(blob, cap).map_err(|error| self.of_image(storage_error(&error)))
    }

    /// Brings a blob into the store, unless it is there.
    ///
    /// # Errors
    /// When the place that the image was found in does not have it, or gives other bytes.
    pub async fn ensure_blob(&self, blob: &Descriptor) -> Result<(), BuildError> {
        if self.services.store().contains(&blob.digest) {
            return Ok(());
        }
        match &self.origin {
            Origin::Layout(path) => LayoutFiles::new(path)
                .import(self.services.store(), blob)
                .map_err(|error| self.of_image(error)),
            Origin::Registry(from) | Origin::Store(Some(from)) => {
                self.services.ensure_blob(blob, Some(from), &self.shown).await
            }
            Origin::Store(None) | Origin::Archive(_) => {
                self.services.ensure_blob(blob, None, &self.shown).await.map_err(|error| self.of_image(error))
            }
        }
    }

    /// Brings everything that a document consists of into the store.
    ///
    /// # Errors
    /// As [`FoundImage::ensure_blob`]; also when its indexes are nested too deeply or are too many.
    pub async fn ensure_all(&self, descriptor: &Descriptor) -> Result<(), BuildError> {
        // Reading a document keeps it; the image's own was read when it was found.
        if descriptor.digest == self.descriptor.digest {
            self.services
                .store()
                .put_as(&descriptor.digest, self.document.bytes())
                .map_err(|error| storage_error(&error))?;
        }
        let mut seen = BTreeSet::new();
        for (_, manifest) in self.manifests_below(descriptor).await? {
            for blob in manifest.value.layers.iter().chain([&manifest.value.config]) {
                if seen.insert(blob.digest.clone()) {
                    self.ensure_blob(blob).await?;
                }
            }
        }
        Ok(())
    }

    async fn read_document_bytes(&self, descriptor: &Descriptor) -> Result<Vec<u8>, BuildError> {
        let store = self.services.store();
        if let Some(size) = store.size(&descriptor.digest) {
            // Where the descriptor is of a registry and the size a lie, the stored size tells.
            self.check_size(&descriptor.digest, descriptor.size, size)?;
            return store
                .read(descriptor, MAX_MANIFEST_BYTES)
                .map_err(|error| self.of_image(storage_error(&error)));
        }
        match &self.origin {
            Origin::Layout(_) => self.read_blob(descriptor, MAX_MANIFEST_BYTES).await,
            Origin::Registry(from) | Origin::Store(Some(from)) => {
                let fetched = self
                    .services
                    .registry()
                    .get_manifest(&from.with_digest(descriptor.digest.clone()))
                    .await
                    .map_err(|error| {
                        registry_error(format!("can't fetch {} of {}", descriptor.digest, self.name), &error)
                    })?;
                self.check_size(&descriptor.digest, descriptor.size, fetched.bytes.len() as u64)?;
                store.put_as(&descriptor.digest, &fetched.bytes).map_err(|error| storage_error(&error))?;
                Ok(fetched.bytes.to_vec())
            }
            Origin::Store(None) | Origin::Archive(_) => Err(self
                .damaged(format!("its manifest {} is not in the store", descriptor.digest))
                .with_hint("pull the whole image: polyarch pull --all-platforms NAME")),
        }
    }

    fn check_size(&self, digest: &Digest, expected: u64, found: u64) -> Result<(), BuildError> {
        if expected == found {
            return Ok(());
        }
        Err(self.damaged(format!("{digest} has {found} bytes, its descriptor says {expected}")))
    }

    fn parse(&self, descriptor: &Descriptor, bytes: Vec<u8>) -> Result<ManifestOrIndex, BuildError> {
        ManifestOrIndex::parse(bytes, &descriptor.media_type)
            .map_err(|error| self.damaged(format!("{}: {}", descriptor.digest, text_of(&error))))
    }

    /// Makes the error of an image whose content is not what it should be.
    pub(crate) fn damaged(&self, what: String) -> BuildError {
        BuildError::new(ErrorKind::Registry, format!("{}: {what}", self.name))
    }

    fn of_image(&self, mut error: BuildError) -> BuildError {
        error.message = format!("{}: {}", self.name, error.message);
        error
    }
}

pub(crate) fn text_of(error: &(dyn std::error::Error + 'static)) -> String {
    polyarch_build::error::chain_of(error)
}
