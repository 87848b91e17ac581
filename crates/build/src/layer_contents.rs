// SPDX-License-Identifier: Apache-2.0
//! What is in a layer's blob: remembered, or read and verified now.

use std::io::Read;
use std::sync::Arc;

use polyarch_contents::{LayerContents, ReadLayer};
use polyarch_oci::media_type::Compression;
use polyarch_oci::{Descriptor, Digest};
use polyarch_snapshot::SnapshotError;

use crate::error::{BuildError, ErrorKind, chain_of};
use crate::fetch::blocking;
use crate::image_source::storage_error;
use crate::services::Services;

/// The namespace of records that tell what is in a layer (`docs/store-format.md`).
pub(crate) const LAYER_CONTENTS: &str = "layer-contents";

/// Whether what was read of a layer before may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Yes: a blob of the right size is taken for what it was.
    Remembered,
    /// Yes, once the blob has been hashed and is what it was.
    Hashed,
    /// No: every byte is hashed and every file looked at again.
    Fresh,
}

/// Tells whether an error says that bytes are not those that were promised.
fn is_verdict(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<polyarch_store::StoreError>())
}

/// Reads on to the end, where a verified stream gives its verdict.
fn read_to_end(stream: &mut impl Read) -> std::io::Result<()> {
    std::io::copy(stream, &mut std::io::sink()).map(drop)
}

impl Services {
    /// Returns what is in a layer whose blob is in the store.
    ///
    /// # Errors
    /// When the blob is not here, is not what its digest and size say, or is no layer.
    pub async fn layer_contents(
        self: &Arc<Self>,
        blob: &Descriptor,
        reading: Reading,
    ) -> Result<ReadLayer, BuildError> {
        let (services, blob) = (self.clone(), blob.clone());
        blocking(move || services.read_layer(&blob, reading)).await
    }

    fn read_layer(&self, blob: &Descriptor, reading: Reading) -> Result<ReadLayer, BuildError> {
        let digest = &blob.digest;
        let damaged = |what: String| BuildError::new(ErrorKind::Registry, format!("layer {digest} {what}"));
        let compression = Compression::of_layer(&blob.media_type)
            .ok_or_else(|| damaged(format!("has the unknown media type {:?}", blob.media_type)))?;
        if reading != Reading::Fresh
            && self.store.size(digest) == Some(blob.size)
            && let Ok(Some(record)) = self.store.get_record(LAYER_CONTENTS, digest.hex())
            && let Some(layer) = ReadLayer::from_record(&record)
            && layer.compression == compression
        {
            if reading == Reading::Hashed {
                let mut stream = self.store.reader(blob).map_err(|error| storage_error(&error))?;
                read_to_end(&mut stream)
                    .map_err(|error| damaged(format!("is damaged: {}", chain_of(&error))))?;
            }
            return Ok(layer);
        }
        let mut stream = self.store.reader(blob).map_err(|error| storage_error(&error))?;
        let read = LayerContents::read(&mut stream, compression, polyarch_oci::Algorithm::Sha256);
        // Also what follows the compressed stream is in the digest; and when the layer can't be read because
        // the blob is not what it should be, that is what people want to hear.
        if let Err(error) = read_to_end(&mut stream) {
            // A reader that has failed fails again; what it said first tells more.
            let first = match &read {
                Err(SnapshotError::Stream { source, .. }) if is_verdict(source) => source,
                _ => &error,
            };
            return Err(damaged(format!("is damaged: {}", chain_of(first))));
        }
        let (contents, diff_id) =
            read.map_err(|error| damaged(format!("can't be read: {}", chain_of(&error))))?;
        let layer = ReadLayer { contents, diff_id, compression };
        self.remember_layer(digest, &layer);
        Ok(layer)
    }

    /// Remembers what is in a layer.
    pub(crate) fn remember_layer(&self, digest: &Digest, layer: &ReadLayer) {
        if let Some(record) = layer.to_record() {
            // Without the record the layer is read again; one that is too large is always read.
            let _ = self.store.put_record(LAYER_CONTENTS, digest.hex(), &record);
        }
    }
}
