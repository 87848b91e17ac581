// SPDX-License-Identifier: Apache-2.0
//! Trees become blobs: the tar of each layer hashed, compressed and hashed again in one pass.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use futures_util::future::join_all;
use polyarch_contents::{LayerContents, ReadLayer};
use polyarch_oci::{Descriptor, DiffId, Hasher};
use polyarch_snapshot::{LayerBytes, LayerTimes, SnapshotId, compressor};
use polyarch_solver::KeyHasher;
use serde::{Deserialize, Serialize};

use crate::error::{BuildError, ErrorKind, chain_of};
use crate::fetch::{Shown, blocking};
use crate::image::{LayerBlob, REWRITTEN};
use crate::image_source::storage_error;
use crate::ops::file::UNKNOWN_TIME;
use crate::request::{BuildRequest, ImageOptions};
use crate::services::Services;
use crate::tree::{Layer, Tree};

/// The namespace of records that tell which blob a layer directory became.
pub(crate) const LAYER_BLOBS: &str = "layer-blobs";

/// Changes when the bytes of tar or compression change, so that old blobs are not mistaken for new ones.
const CODEC_VERSION: &str = "1";

/// How many pieces of a layer's tar may wait for who reads along.
const COPIES_AHEAD: usize = 4;

/// How layers become blobs.
#[derive(Clone)]
pub(crate) struct LayerOptions {
    pub(crate) image: ImageOptions,
    pub(crate) source_date_epoch: Option<i64>,
    pub(crate) threads: usize,
}

impl LayerOptions {
    /// Returns how the layers of a request's image become blobs.
    pub(crate) fn of(request: &BuildRequest) -> LayerOptions {
        LayerOptions {
            image: request.image.clone(),
            source_date_epoch: request.source_date_epoch.filter(|_| !request.image.keeps_layer_times),
            threads: request.threads,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct BlobRecord {
    diff_id: DiffId,
    pub(crate) descriptor: Descriptor,
}

impl Services {
    /// Returns the blobs of a tree's layers, lowest first, making those of steps as needed.
    pub(crate) async fn layer_blobs(
        self: &Arc<Self>,
        tree: &Tree,
        options: &LayerOptions,
        shown: &Shown,
    ) -> Result<Vec<LayerBlob>, BuildError> {
        let blobs = (0..tree.layers.len()).map(|at| self.layer_blob(tree, at, options, shown));
        join_all(blobs).await.into_iter().collect()
    }

    async fn layer_blob(
        self: &Arc<Self>,
        tree: &Tree,
        at: usize,
        options: &LayerOptions,
        shown: &Shown,
    ) -> Result<LayerBlob, BuildError> {
        match &tree.layers[at] {
            Layer::Image(layer) => {
                let mut descriptor = layer.descriptor.clone();
                // What was done to it for the base is no work of this build.
                descriptor.annotations.remove(REWRITTEN);
                Ok(LayerBlob { diff_id: layer.diff_id.clone(), descriptor, from: layer.from.clone() })
            }
            Layer::Step { id } => {
                let clamp = options.source_date_epoch;
                let times = LayerTimes { clamp, unknown: Some(UNKNOWN_TIME) };
                let key = blob_key(id, options, &times);
                let mut blob = self
                    .blobs
                    .get(&key, || async {
                        if let Some(blob) = self.recorded_blob(&key) {
                            return Ok(blob);
                        }
                        let below = Tree::new(tree.layers[..at].to_vec(), Vec::new());
                        let parents = self.directories(&below, shown).await?;
                        let (services, id, options) = (self.clone(), id.clone(), options.clone());
                        let blob =
                            blocking(move || services.write_blob(&id, &parents, &times, &options)).await?;
                        self.record_blob(&key, &blob);
                        Ok(blob)
                    })
                    .await?;
                if let Some(epoch) = clamp {
                    let annotations = &mut blob.descriptor.annotations;
                    annotations.insert(REWRITTEN.to_owned(), epoch.to_string());
                }
                Ok(blob)
            }
        }
    }

    fn recorded_blob(&self, key: &str) -> Option<LayerBlob> {
        let bytes = self.store.get_record(LAYER_BLOBS, key).ok()??;
        let record: BlobRecord = serde_json::from_slice(&bytes).ok()?;
        let is_here = self.store.contains(&record.descriptor.digest);
        self.store.mark_used(&record.descriptor.digest);
        is_here.then_some(LayerBlob { diff_id: record.diff_id, descriptor: record.descriptor, from: None })
    }

    fn record_blob(&self, key: &str, blob: &LayerBlob) {
        let record = BlobRecord { diff_id: blob.diff_id.clone(), descriptor: blob.descriptor.clone() };
        if let Ok(bytes) = serde_json::to_vec(&record) {
            // Without the record the blob is made again, with the same bytes.
            let _ = self.store.put_record(LAYER_BLOBS, key, &bytes);
        }
    }

    fn write_blob(
        &self,
        id: &SnapshotId,
        parents: &[SnapshotId],
        times: &LayerTimes,
        options: &LayerOptions,
    ) -> Result<LayerBlob, BuildError> {
        let image = &options.image;
        let writing = |error: io::Error| {
            BuildError::new(ErrorKind::Storage, format!("can't write a layer into the store: {error}"))
        };
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let blob = self.store.writer().map_err(|error| storage_error(&error))?;
        let compressed =
            compressor(image.compression, image.compression_level, threads, blob).map_err(writing)?;
        // What is in the layer is read off as it goes by, so that nobody has to read the blob for that.
        let (copy, receiver) = std::sync::mpsc::sync_channel(COPIES_AHEAD);
        let mut tar = HashingWriter { inner: compressed, hasher: Hasher::sha256(), copy: Some(copy) };
        let contents = std::thread::scope(|scope| {
            let reading = scope.spawn(move || LayerContents::read_tar(LayerBytes::new(receiver)));
            let written = self.snapshots.write_layer(id, parents, times, &mut tar);
            // The end of what is read.
            tar.copy = None;
            let contents = reading.join().ok().and_then(Result::ok);
            written.map(|()| contents)
        })
        .map_err(|error| BuildError::new(ErrorKind::Storage, chain_of(&error)))?;
        let diff_id = DiffId(tar.hasher.finish());
        let blob = tar.inner.finish().map_err(writing)?;
        let (digest, size) = blob.commit(None).map_err(|error| storage_error(&error))?;
        if let Some(contents) = contents {
            let layer = ReadLayer { contents, diff_id: diff_id.clone(), compression: image.compression };
            self.remember_layer(&digest, &layer);
        }
        let media_type = image.compression.layer_media_type(image.flavour);
        Ok(LayerBlob { diff_id, descriptor: Descriptor::new(media_type, digest, size), from: None })
    }
}

fn blob_key(id: &SnapshotId, options: &LayerOptions, times: &LayerTimes) -> String {
    let image = &options.image;
    let mut hasher = KeyHasher::new("layer blob");
    hasher
        .part(CODEC_VERSION)
        .part(id.as_str())
        .part(image.compression.as_str())
        .part(format!("{:?} {:?}", image.compression_level, image.flavour))
        .part(match times.clamp {
            Some(epoch) => epoch.to_string(),
            None => String::new(),
        });
    hasher.finish().hex()
}

/// Passes bytes on, hashes them, and gives a copy to whoever wants to read along.
struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    copy: Option<SyncSender<Vec<u8>>>,
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        let sent = self.copy.as_ref().map(|copy| copy.send(bytes[..count].to_vec()));
        if matches!(sent, Some(Err(_))) {
            // Who read along has read enough.
            self.copy = None;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
