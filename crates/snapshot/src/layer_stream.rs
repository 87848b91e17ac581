// SPDX-License-Identifier: Apache-2.0
//! A layer's stream, decompressed and hashed by one thread while another reads the tar.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use polyarch_oci::digest::Algorithm;
use polyarch_oci::media_type::Compression;
use polyarch_oci::{DiffId, Hasher};

use crate::compress::{Codec, decompressor};
use crate::error::SnapshotError;
use crate::tar_read::TarReader;

/// How much decompressed data goes to the reading thread at a time, and how often ahead.
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
    /// Most bytes that unpacking keeps in memory until its end: paths of directories and of links to lower
    /// layers, and extended attributes.
    pub max_remembered_bytes: u64,
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
            max_remembered_bytes: 256 << 20,
        }
    }
}

/// Reads a layer's tar with `read` while another thread decompresses and hashes it; returns what `read`
/// gave and the diff id of all that came.
///
/// # Errors
/// What `read` gave, a damaged or overlong stream; the cause that lies nearer to the source wins.
pub fn read_layer<T>(
    stream: impl Read + Send,
    compression: Compression,
    algorithm: Algorithm,
    limits: &ApplyLimits,
    read: impl FnOnce(&mut TarReader<LayerBytes>) -> Result<T, SnapshotError>,
) -> Result<(T, DiffId), SnapshotError> {
    let hasher = Hasher::new(algorithm);
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(CHUNKS_AHEAD);
        let feeder = scope.spawn(move || feed(stream, compression, limits, hasher, &sender));
        let mut reader = TarReader::new(LayerBytes::new(receiver), limits);
        let result = read(&mut reader).and_then(|value| reader.drain().map(|()| value));
        // Hanging up ends the other thread, also when reading failed half-way.
        drop(reader);
        let fed = feeder.join().unwrap_or_else(|_| {
            Err(SnapshotError::Stream {
                action: "decompress the layer",
                source: io::Error::other("the decompressing thread panicked"),
            })
        });
        // A damaged stream makes the archive end early; the cause is what people want to read.
        match (fed, result) {
            (Err(cause), _) => Err(cause),
            (Ok(_), Err(error)) => Err(error),
            (Ok(actual), Ok(value)) => Ok((value, actual)),
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
    let expansion = Expansion::new(limits, "the layer");
    let mut input = decompressor(expansion.counted(stream), Codec::of_layer(compression)).map_err(failed)?;
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
        expansion.check(total)?;
        hasher.update(&chunk);
        if chunks.send(chunk).is_err() {
            // Unpacking has failed and says why; this digest is not looked at.
            return Ok(DiffId(hasher.finish()));
        }
    }
}

/// Compares what comes out of a compressed stream with what went in.
pub(crate) struct Expansion<'a> {
    limits: &'a ApplyLimits,
    what: &'static str,
    compressed_bytes: AtomicU64,
}

impl<'a> Expansion<'a> {
    /// Nothing has been read of `what`, as messages call it.
    pub(crate) fn new(limits: &'a ApplyLimits, what: &'static str) -> Expansion<'a> {
        Expansion { limits, what, compressed_bytes: AtomicU64::new(0) }
    }

    /// Wraps the compressed stream.
    pub(crate) fn counted<R>(&self, input: R) -> Counted<'_, R> {
        Counted { input, count: &self.compressed_bytes }
    }

    /// Judges how much has come out so far.
    pub(crate) fn check(&self, decompressed_bytes: u64) -> Result<(), SnapshotError> {
        let limit = |what, limit| SnapshotError::Limit { what, limit, path: PathBuf::from(self.what) };
        if decompressed_bytes > self.limits.max_bytes {
            return Err(limit("decompressed size", self.limits.max_bytes));
        }
        let read = self.compressed_bytes.load(Ordering::Relaxed).max(1);
        if decompressed_bytes > self.limits.ratio_grace_bytes
            && decompressed_bytes / read > self.limits.max_ratio
        {
            return Err(limit("compression ratio", self.limits.max_ratio));
        }
        Ok(())
    }
}

/// Counts what is read.
pub(crate) struct Counted<'a, R> {
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

/// The uncompressed tar of a layer as it comes from another thread, piece by piece.
///
/// The sender's end is the end of the stream.
pub struct LayerBytes {
    receiver: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    start: usize,
}

impl LayerBytes {
    /// Makes the reading end of a channel of pieces.
    pub fn new(receiver: Receiver<Vec<u8>>) -> LayerBytes {
        LayerBytes { receiver, chunk: Vec::new(), start: 0 }
    }
}

impl Read for LayerBytes {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        // An empty piece is not the end.
        while self.start == self.chunk.len() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_as_one_stream_that_ends_with_its_sender() {
        let (sender, receiver) = sync_channel(4);
        for piece in [&b"ab"[..], b"", b"cde"] {
            sender.send(piece.to_vec()).unwrap();
        }
        drop(sender);
        let mut text = String::new();
        LayerBytes::new(receiver).read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcde");
    }
}
