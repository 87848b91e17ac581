// SPDX-License-Identifier: Apache-2.0
//! Layers of images brought here: blobs into the store, directories into the snapshots.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use polyarch_oci::media_type::Compression;
use polyarch_oci::{Descriptor, Digest, Reference};
use polyarch_registry::{BlobSink, Progress as TransferProgress, RegistryError};
use polyarch_snapshot::{ApplyLimits, SnapshotId, UnpackedLayer};
use polyarch_solver::progress::{ActiveStatus, Progress};
use polyarch_store::{BlobWriter, Store, StoreError};

use crate::error::{BuildError, ErrorKind};
use crate::image_source::storage_error;
use crate::services::Services;
use crate::tree::{ImageLayer, Layer, Tree};

/// Where progress of transfers is shown: a step, and the sender of events.
#[derive(Clone)]
pub struct Shown {
    /// The sender of events.
    pub progress: Progress,
    /// The step.
    pub vertex: Arc<str>,
}

impl Services {
    /// Brings a blob into the store, unless it is there; asked for twice at once, it is fetched once.
    ///
    /// # Errors
    /// When no registry is known to have it, or gives it.
    pub async fn ensure_blob(
        &self,
        blob: &Descriptor,
        from: Option<&Reference>,
        shown: &Shown,
    ) -> Result<(), BuildError> {
        if self.store.contains(&blob.digest) {
            return Ok(());
        }
        self.fetches.get(&blob.digest.to_string(), || self.fetch_blob(blob, from, shown)).await
    }

    /// Brings a config into the store, unless it is there for this build to use.
    pub(crate) async fn ensure_document(
        &self,
        blob: &Descriptor,
        from: Option<&Reference>,
        shown: &Shown,
    ) -> Result<(), BuildError> {
        if self.has_document(&blob.digest, from) {
            return Ok(());
        }
        let key = format!("{} of {}", blob.digest, from.map(Reference::name).unwrap_or_default());
        self.fetches.get(&key, || self.fetch_blob(blob, from, shown)).await?;
        if let Some(from) = from {
            self.note_served(&blob.digest, from);
        }
        Ok(())
    }

    async fn fetch_blob(
        &self,
        blob: &Descriptor,
        from: Option<&Reference>,
        shown: &Shown,
    ) -> Result<(), BuildError> {
        let remembered = self.blob_origin(&blob.digest);
        let Some(from) = from.or(remembered.as_ref()) else {
            return Err(BuildError::new(
                ErrorKind::Storage,
                format!("the store has lost the blob {} and knows no registry that has it", blob.digest),
            )
            .with_hint("pull or build the image again"));
        };
        let mut sink = StoreSink::new(&self.store, &blob.digest);
        let status = ActiveStatus::start(
            shown.progress.clone(),
            shown.vertex.clone(),
            blob.digest.to_string(),
            blob.size,
        );
        let status = std::sync::Mutex::new(status);
        let report = TransferProgress::new(move |bytes| {
            if let Ok(mut status) = status.lock() {
                status.update(bytes);
            }
        });
        self.registry
            .get_blob(from, blob, &mut sink, &report)
            .await
            .map_err(|error| registry_error(format!("can't fetch {} of {from}", blob.digest), &error))?;
        sink.commit(blob.size).map_err(|error| storage_error(&error))
    }

    /// Returns the layer directories of a tree, lowest first; image layers are fetched and unpacked as needed.
    ///
    /// # Errors
    /// What keeps layers from being fetched or unpacked.
    pub async fn directories(
        self: &Arc<Self>,
        tree: &Tree,
        shown: &Shown,
    ) -> Result<Vec<SnapshotId>, BuildError> {
        let image_layers: Vec<ImageLayer> = tree.image_layers().cloned().collect();
        let mut ids = if image_layers.is_empty() {
            Vec::new()
        } else {
            let key: String = image_layers.iter().map(|layer| format!("{} ", layer.diff_id)).collect();
            self.unpackings.get(&key, || self.unpack_all(&image_layers, shown)).await?
        };
        for layer in &tree.layers {
            if let Layer::Step { id } = layer {
                ids.push(id.clone());
            }
        }
        for id in &ids {
            self.mark_snapshot_used(id);
        }
        Ok(ids)
    }

    /// Fetches and unpacks all layers at once; then puts them in place, lowest first.
    async fn unpack_all(
        self: &Arc<Self>,
        layers: &[ImageLayer],
        shown: &Shown,
    ) -> Result<Vec<SnapshotId>, BuildError> {
        let mut found = Vec::with_capacity(layers.len());
        for layer in layers {
            match self.snapshots.find_layer(&layer.diff_id, &found) {
                Some(id) => found.push(id),
                None => break,
            }
        }
        let missing = &layers[found.len()..];
        let unpacked = join_all(missing.iter().map(|layer| self.unpack_one(layer, shown))).await;
        for layer in unpacked {
            let layer = layer?;
            let parents = found.clone();
            let finish = move || layer.finish(&parents);
            let id = blocking(finish)
                .await
                .map_err(|error| self.snapshot_error("can't unpack a layer", &error))?;
            found.push(id);
        }
        Ok(found)
    }

    async fn unpack_one(
        self: &Arc<Self>,
        layer: &ImageLayer,
        shown: &Shown,
    ) -> Result<UnpackedLayer, BuildError> {
        self.ensure_blob(&layer.descriptor, layer.from.as_ref(), shown).await?;
        let (services, layer) = (self.clone(), layer.clone());
        let id = format!("extracting {}", layer.descriptor.digest);
        let _status = ActiveStatus::start(shown.progress.clone(), shown.vertex.clone(), id, 0);
        blocking(move || {
            let media_type = &layer.descriptor.media_type;
            let compression = Compression::of_layer(media_type).ok_or_else(|| {
                BuildError::new(
                    ErrorKind::Registry,
                    format!("layer {} has the unknown media type {media_type:?}", layer.descriptor.digest),
                )
            })?;
            let blob =
                services.store.open_blob(&layer.descriptor.digest).map_err(|error| storage_error(&error))?;
            services
                .snapshots
                .unpack(&layer.diff_id, blob, compression, &ApplyLimits::default())
                .map_err(|error| services.snapshot_error("can't unpack a layer", &error))
        })
        .await
    }

    /// Makes the error of a file tree, with a hint where missing identifiers may be the reason.
    pub fn snapshot_error(&self, action: &str, error: &polyarch_snapshot::SnapshotError) -> BuildError {
        let failure = BuildError::from_source(ErrorKind::Storage, action, error);
        match self.mapping_hint() {
            Some(hint) if failure.message.contains("Invalid argument") => failure.with_hint(hint),
            _ => failure,
        }
    }

    /// Remembers which repository has a blob that the store does not.
    pub(crate) fn remember_origin(&self, layer: &crate::image::LayerBlob) {
        if let Some(from) = &layer.from {
            self.remember_blob_origin(&layer.descriptor.digest, from);
        }
    }

    /// Remembers a repository that has a blob, unless the store has it.
    pub fn remember_blob_origin(&self, digest: &Digest, from: &Reference) {
        if !self.store.contains(digest) {
            // Without the record the image must be pulled again before it can be run: no harm to its truth.
            let _ = self.store.put_record(ORIGINS, digest.hex(), from.to_string().as_bytes());
        }
    }

    /// Returns a repository that is known to have a blob which the store may lack.
    pub fn blob_origin(&self, digest: &Digest) -> Option<Reference> {
        blob_origin(&self.store, digest)
    }
}

/// The same for a store.
pub(crate) fn blob_origin(store: &Store, digest: &Digest) -> Option<Reference> {
    let bytes = store.get_record(ORIGINS, digest.hex()).ok()??;
    std::str::from_utf8(&bytes).ok()?.parse().ok()
}

/// The namespace of records that tell where a blob can be had.
pub(crate) const ORIGINS: &str = "origins";

/// Runs blocking work on its own thread.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(value) => value,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is being shut down, and whoever waits here will be dropped.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// Makes the error of a registry; the registry's own message says what to do.
pub fn registry_error(context: String, error: &RegistryError) -> BuildError {
    let kind = match error {
        // It was our disk that failed.
        RegistryError::Sink { .. } | RegistryError::Source { .. } => ErrorKind::Storage,
        _ => ErrorKind::Registry,
    };
    let mut failure = BuildError::from_source(kind, context, error);
    failure.is_obstacle = !error.is_not_found() && !error.is_about_content();
    match error {
        RegistryError::MediaTypeRefused { .. } => failure
            .with_hint(
                "older registries take only Docker's media types: polyarch manifest push --format docker",
            )
            .with_hint("or build with them: polyarch build --output type=registry,oci-mediatypes=false"),
        _ => failure,
    }
}

/// Writes a blob into the store as it comes.
struct StoreSink {
    store: Store,
    digest: Digest,
    /// Opened with the first bytes: of an image with many layers most wait, and each would hold a file open.
    writer: Option<BlobWriter>,
}

impl StoreSink {
    fn new(store: &Store, digest: &Digest) -> StoreSink {
        StoreSink { store: store.clone(), digest: digest.clone(), writer: None }
    }

    fn open(&self) -> Result<BlobWriter, StoreError> {
        self.store.writer_of(self.digest.algorithm())
    }

    fn commit(mut self, size: u64) -> Result<(), StoreError> {
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.open()?,
        };
        writer.commit(Some((&self.digest, size))).map(drop)
    }
}

impl BlobSink for StoreSink {
    async fn write(&mut self, chunk: Bytes) -> std::io::Result<()> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.open().map_err(std::io::Error::other)?,
        };
        let written = writer.write_all(&chunk);
        self.writer = Some(writer);
        written
    }

    async fn restart(&mut self) -> std::io::Result<()> {
        self.writer = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fails_is_no_fault_of_the_registry() {
        let digest = Box::new(Digest::of("blob"));
        let full = std::io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
        let error = RegistryError::Sink { digest, source: full };
        let failure = registry_error("can't fetch it".to_owned(), &error);
        assert_eq!((failure.kind, failure.is_obstacle), (ErrorKind::Storage, true));
        assert!(failure.hints[0].contains("polyarch prune"), "{failure:?}");
    }
}
