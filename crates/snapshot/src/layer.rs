// SPDX-License-Identifier: Apache-2.0
//! Image layers on their way in: decompressed, verified and unpacked in one pass.
//!
//! A layer is unpacked without regard to the layers beneath it, so that all layers of an image can be
//! unpacked at once. Two things in a layer have a meaning only on top of others: a hard link to a file
//! that it does not contain, and a directory that it needs but does not describe. Such a layer is
//! completed when its parents are known, and is kept under a name derived from the chain.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use polyarch_oci::media_type::Compression;
use polyarch_oci::{DiffId, Hasher};

use crate::attributes::Attributes;
use crate::compress::{Codec, decompressor};
use crate::error::{At, SnapshotError};
use crate::id::SnapshotId;
use crate::meta::open_host_directory;
use crate::nodes::copy_node;
use crate::resolve::{find_place, split};
use crate::snapshots::Snapshots;
use crate::stack::{Stack, StackLayer};
use crate::tar_read::TarReader;
use crate::unpack::{DirectoryAttributes, Meaning, Unpacker};
use crate::workspace::Workspace;

/// How much decompressed data goes to the unpacking thread at a time, and how often ahead.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS_AHEAD: usize = 4;

/// Caps on a layer that comes from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyLimits {
    /// Most bytes of tar, and of files when unpacked (holes of sparse files count).
    pub max_bytes: u64,
    /// Most entries.
    pub max_entries: u64,
    /// Most bytes of tar per byte of blob, looked at once [`ApplyLimits::ratio_grace_bytes`] have come.
    pub max_ratio: u64,
    /// How many bytes of tar may come before the ratio counts.
    pub ratio_grace_bytes: u64,
    /// Longest path in bytes.
    pub max_path_bytes: u32,
    /// Most path components.
    pub max_depth: u32,
}

impl Default for ApplyLimits {
    fn default() -> ApplyLimits {
        ApplyLimits {
            max_bytes: 256 << 30,
            max_entries: 10_000_000,
            max_ratio: 2_000,
            ratio_grace_bytes: 4 << 30,
            max_path_bytes: 4095,
            max_depth: 256,
        }
    }
}

/// A layer that is unpacked and verified, but not yet in the store.
///
/// Dropping it removes what was unpacked.
#[derive(Debug)]
pub struct UnpackedLayer {
    snapshots: Snapshots,
    diff_id: DiffId,
    unpacker: Unpacker,
    workspace: Workspace,
}

impl UnpackedLayer {
    /// Decompresses, hashes and unpacks a stream into a new workspace.
    pub(crate) fn read(
        snapshots: &Snapshots,
        diff_id: &DiffId,
        stream: impl Read + Send,
        compression: Compression,
        limits: &ApplyLimits,
    ) -> Result<UnpackedLayer, SnapshotError> {
        let workspace = snapshots.workspace()?;
        let files = workspace.path().join("fs");
        std::fs::create_dir(&files).at("create directory", &files)?;
        let root = open_host_directory(&files).at("open", &files)?;
        let mut unpacker = Unpacker::new(root, Meaning::Layer, limits);
        // A layer that does not describe its root leaves it as other tools make it.
        unpacker.directories.insert(
            PathBuf::new(),
            DirectoryAttributes {
                owner: (0, 0),
                mode: 0o755,
                mtime: Some(Default::default()),
                xattrs: Vec::new(),
            },
        );
        let actual = unpack_stream(&mut unpacker, diff_id, stream, compression, limits)?;
        if actual != *diff_id {
            return Err(SnapshotError::DiffIdMismatch { expected: diff_id.clone(), actual });
        }
        Ok(UnpackedLayer { snapshots: snapshots.clone(), diff_id: diff_id.clone(), unpacker, workspace })
    }

    /// Tells whether the layer's meaning depends on the layers beneath it.
    pub fn needs_parents(&self) -> bool {
        !self.unpacker.implied.is_empty() || !self.unpacker.links_below.is_empty()
    }

    /// Puts the layer into the store; `parents` (lowest first, all in the store) are read only when
    /// [`UnpackedLayer::needs_parents`].
    ///
    /// When another process or thread was faster, its result stays and this one goes.
    pub fn finish(mut self, parents: &[SnapshotId]) -> Result<SnapshotId, SnapshotError> {
        let id = if self.needs_parents() {
            self.complete(parents)?;
            SnapshotId::of_chain(parents, &self.diff_id)
        } else {
            SnapshotId::of_layer(&self.diff_id)
        };
        self.unpacker.settle()?;
        self.snapshots.put(self.workspace, &self.unpacker.records, &id)?;
        Ok(id)
    }

    /// Takes from the layers beneath what this one refers to.
    fn complete(&mut self, parents: &[SnapshotId]) -> Result<(), SnapshotError> {
        let mut stack = self.snapshots.stack(parents)?;
        let own = self.workspace.path().join("fs");
        // This layer on top: its own whiteouts and opaque directories hide what is beneath.
        stack.layers.insert(0, StackLayer::open(&own, &own.with_file_name("none"))?);
        for path in &self.unpacker.implied {
            let is_hidden = path.ancestors().skip(1).any(|above| self.unpacker.opaque.contains(above));
            if is_hidden {
                continue;
            }
            let Some(found) = stack.find_from(1, path)?.filter(|found| found.meta.is_directory()) else {
                continue;
            };
            let effective = stack.effective_of(path, &found)?;
            let attributes = DirectoryAttributes {
                owner: effective.owner,
                mode: found.meta.mode,
                mtime: Some(found.meta.mtime),
                xattrs: effective.xattrs,
            };
            self.unpacker.directories.insert(path.clone(), attributes);
        }
        for (path, target) in std::mem::take(&mut self.unpacker.links_below) {
            self.copy_from_below(&stack, &path, &target)?;
        }
        Ok(())
    }

    /// Copies the file that a hard link into a lower layer leads to: links do not cross layers.
    fn copy_from_below(&mut self, stack: &Stack, path: &Path, target: &Path) -> Result<(), SnapshotError> {
        let missing = || SnapshotError::Entry {
            path: path.to_owned(),
            problem: format!("is a hard link to {target:?}, which neither its layer nor those beneath have"),
        };
        let found = stack.find(target)?.filter(|found| !found.meta.is_directory()).ok_or_else(missing)?;
        let effective = stack.effective_of(target, &found)?;
        // Both paths were cleaned and are not the root: the archive's entry had a name.
        let (Some((parent, name)), Some((target_parent, target_name))) = (split(path), split(target)) else {
            return Err(missing());
        };
        let place =
            find_place(self.unpacker.root().as_fd(), parent).at("resolve", path)?.ok_or_else(missing)?;
        let source = find_place(stack.layers[found.layer].directory.as_fd(), target_parent)
            .at("resolve", target)?
            .ok_or_else(missing)?;
        let attributes = Attributes {
            owner: effective.owner,
            mode: found.meta.mode,
            mtime: Some(found.meta.mtime),
            xattrs: &effective.xattrs,
        };
        let from = (source.as_fd(), target_name);
        let record = copy_node(from, &found.meta, &effective, (place.as_fd(), name), &attributes)
            .at("copy the hard link's target to", path)?;
        self.unpacker.records.set(path, record);
        Ok(())
    }
}

/// Unpacks a stream while another thread decompresses and hashes it; returns the diff id of what came.
fn unpack_stream(
    unpacker: &mut Unpacker,
    diff_id: &DiffId,
    stream: impl Read + Send,
    compression: Compression,
    limits: &ApplyLimits,
) -> Result<DiffId, SnapshotError> {
    let hasher = Hasher::new(diff_id.0.algorithm());
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(CHUNKS_AHEAD);
        let feeder = scope.spawn(move || feed(stream, compression, limits, hasher, &sender));
        let mut reader = TarReader::new(Chunks { receiver, chunk: Vec::new(), start: 0 }, limits);
        let unpacked = unpacker.unpack(&mut reader).and_then(|()| reader.drain());
        // Hanging up ends the other thread, also when unpacking failed half-way.
        drop(reader);
        let fed = feeder.join().unwrap_or_else(|_| {
            Err(SnapshotError::Stream {
                action: "decompress the layer",
                source: io::Error::other("the decompressing thread panicked"),
            })
        });
        // A damaged stream makes the archive end early; the cause is what people want to read.
        match (fed, unpacked) {
            (Err(cause), _) => Err(cause),
            (Ok(_), Err(error)) => Err(error),
            (Ok(actual), Ok(())) => Ok(actual),
        }
    })
}

/// Decompresses and hashes until the end, a cap, or until the other side hangs up.
fn feed(
    stream: impl Read + Send,
    compression: Compression,
    limits: &ApplyLimits,
    mut hasher: Hasher,
    chunks: &SyncSender<Vec<u8>>,
) -> Result<DiffId, SnapshotError> {
    let failed = |source| SnapshotError::Stream { action: "decompress the layer", source };
    let compressed_bytes = AtomicU64::new(0);
    let counted = Counted { input: stream, count: &compressed_bytes };
    let mut input = decompressor(counted, Codec::of_layer(compression)).map_err(failed)?;
    let mut total = 0u64;
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut len = 0;
        while len < chunk.len() {
            match input.read(&mut chunk[len..]) {
                Ok(0) => break,
                Ok(count) => len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if len == 0 {
            return Ok(DiffId(hasher.finish()));
        }
        chunk.truncate(len);
        total += len as u64;
        let limit = |what, limit| SnapshotError::Limit { what, limit, path: PathBuf::from("the layer") };
        if total > limits.max_bytes {
            return Err(limit("decompressed size", limits.max_bytes));
        }
        let read = compressed_bytes.load(Ordering::Relaxed).max(1);
        if total > limits.ratio_grace_bytes && total / read > limits.max_ratio {
            return Err(limit("compression ratio", limits.max_ratio));
        }
        hasher.update(&chunk);
        if chunks.send(chunk).is_err() {
            // Unpacking has failed and says why; this digest is not looked at.
            return Ok(DiffId(hasher.finish()));
        }
    }
}

/// Counts what is read.
struct Counted<'a, R> {
    input: R,
    count: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(bytes)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// The reading end of the chunks; the sender's end is the end of the stream.
struct Chunks {
    receiver: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    start: usize,
}

impl Read for Chunks {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.start == self.chunk.len() {
            match self.receiver.recv() {
                Ok(chunk) => (self.chunk, self.start) = (chunk, 0),
                Err(_) => return Ok(0),
            }
        }
        let count = bytes.len().min(self.chunk.len() - self.start);
        bytes[..count].copy_from_slice(&self.chunk[self.start..self.start + count]);
        self.start += count;
        Ok(count)
    }
}
