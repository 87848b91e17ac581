// SPDX-License-Identifier: Apache-2.0
//! Reading foreign tar streams entry by entry. Nothing is ever extracted: paths are only names.

use std::io::{self, Read};

use tar_core::HEADER_SIZE;
use tar_core::parse::{Limits, ParseEvent, Parser};

use crate::StoreError;

/// The largest headers of one entry, in bytes.
const MAX_HEADERS_BYTES: usize = 1 << 20;

/// The largest number of entries.
const MAX_ENTRIES: usize = 200_000;

/// The most bytes of paths and link targets of all entries together, which readers keep.
const MAX_NAMES_BYTES: usize = 64 << 20;

/// One entry of a tar stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TarEntry {
    /// The path, relative, without `.`, `..` and empty parts.
    pub(crate) path: String,
    pub(crate) kind: EntryKind,
    /// The size of the content that follows.
    pub(crate) size: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EntryKind {
    File,
    Directory,
    /// A link within the archive; the target is resolved like `path`.
    Link(String),
    /// Anything else: devices, pipes, links that lead out of the archive.
    Other,
}

/// Reads entries; as a [`Read`] it gives the content of the current one.
pub(crate) struct TarReader<R> {
    inner: R,
    parser: Parser,
    /// Bytes that were read and not yet consumed.
    buffer: Vec<u8>,
    path: String,
    content: u64,
    padding: u64,
    entries: usize,
    /// How many bytes the names of the entries that are left may have.
    left_names_bytes: usize,
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> TarReader<R> {
        let limits = Limits {
            max_metadata_size: 128 << 10,
            max_path_len: Some(4096),
            max_pending_entries: 8,
            max_sparse_entries: 1,
        };
        TarReader {
            inner,
            parser: Parser::new(limits),
            buffer: Vec::new(),
            path: String::new(),
            content: 0,
            padding: 0,
            entries: 0,
            left_names_bytes: MAX_NAMES_BYTES,
        }
    }

    /// Goes to the next entry, leaving out what was not read of this one; `None` at the end.
    pub(crate) fn next_entry(&mut self) -> Result<Option<TarEntry>, StoreError> {
        self.skip_content()?;
        loop {
            let parsed = self.parser.parse(&self.buffer).map_err(|source| StoreError::Tar { source })?;
            let (consumed, entry) = match parsed {
                ParseEvent::NeedData { min_bytes } => {
                    let wanted = min_bytes.max(self.buffer.len() + 1);
                    if !self.fill(wanted)? {
                        return Ok(None);
                    }
                    continue;
                }
                ParseEvent::GlobalExtensions { consumed, .. } => (consumed, None),
                ParseEvent::End { .. } => return Ok(None),
                ParseEvent::SparseEntry { entry, .. } => {
                    let path = entry.path_lossy().into_owned();
                    return Err(StoreError::Entry {
                        path,
                        problem: "is a sparse file, which images do not have",
                    });
                }
                ParseEvent::Entry { consumed, entry } => {
                    let path = String::from_utf8_lossy(&entry.path).into_owned();
                    let kind = if entry.is_file() {
                        EntryKind::File
                    } else if entry.is_dir() {
                        EntryKind::Directory
                    } else {
                        let target = entry.link_target_lossy().unwrap_or_default();
                        // Symbolic links start at their directory, hard links at the archive's root.
                        let base = if entry.is_symlink() { parent_of(&path) } else { "" };
                        match resolve(base, &target) {
                            Some(target) if entry.is_symlink() || entry.is_hard_link() => {
                                EntryKind::Link(target)
                            }
                            _ => EntryKind::Other,
                        }
                    };
                    (consumed, Some((path, kind, entry.size)))
                }
            };
            self.buffer.drain(..consumed.min(self.buffer.len()));
            if let Some((path, kind, size)) = entry {
                return self.enter(path, kind, size).map(Some);
            }
        }
    }

    fn enter(&mut self, raw: String, kind: EntryKind, size: u64) -> Result<TarEntry, StoreError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(StoreError::Entry { path: raw, problem: "is one entry too many (200000 are read)" });
        }
        let target = if let EntryKind::Link(target) = &kind { target.len() } else { 0 };
        match self.left_names_bytes.checked_sub(raw.len() + target) {
            Some(left) => self.left_names_bytes = left,
            None => {
                return Err(StoreError::Entry { path: raw, problem: "is past 64 MiB of names of entries" });
            }
        }
        let Some(path) = resolve("", &raw) else {
            return Err(StoreError::Entry { path: raw, problem: "leads out of the archive" });
        };
        self.path.clone_from(&path);
        self.content = size;
        self.padding = (HEADER_SIZE as u64 - size % HEADER_SIZE as u64) % HEADER_SIZE as u64;
        Ok(TarEntry { path, kind, size })
    }

    fn skip_content(&mut self) -> Result<(), StoreError> {
        crate::ingest::copy(&mut *self, io::sink()).map_err(StoreError::stream("read"))?;
        self.content = std::mem::take(&mut self.padding);
        crate::ingest::copy(&mut *self, io::sink()).map_err(StoreError::stream("read"))?;
        Ok(())
    }

    /// Reads until the buffer has `wanted` bytes; `false` at an end between two entries.
    ///
    /// Some tools write no end marker. That is safe here: what is missing is noticed by its digest.
    fn fill(&mut self, wanted: usize) -> Result<bool, StoreError> {
        let problem = "has headers that are too large";
        if wanted > MAX_HEADERS_BYTES {
            return Err(StoreError::Entry { path: format!("after {}", self.path), problem });
        }
        let missing = wanted - self.buffer.len();
        let got = (&mut self.inner)
            .take(missing as u64)
            .read_to_end(&mut self.buffer)
            .map_err(StoreError::stream("read"))?;
        if got < missing && !self.buffer.is_empty() {
            let path = format!("after {}", self.path);
            return Err(StoreError::Entry { path, problem: "is cut short" });
        }
        Ok(got == missing)
    }
}

impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.content).unwrap_or(usize::MAX).min(out.len());
        if room == 0 {
            return Ok(0);
        }
        let got = if self.buffer.is_empty() {
            self.inner.read(&mut out[..room])?
        } else {
            let got = room.min(self.buffer.len());
            out[..got].copy_from_slice(&self.buffer[..got]);
            self.buffer.drain(..got);
            got
        };
        if got == 0 {
            let problem = "is cut short";
            return Err(StoreError::Entry { path: self.path.clone(), problem }.into());
        }
        self.content -= got as u64;
        Ok(got)
    }
}

fn parent_of(path: &str) -> &str {
    path.trim_end_matches('/').rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Resolves a path against a directory without looking at any disk; `None` when it leads out.
///
/// A leading `/` means the archive's root.
pub(crate) fn resolve(base: &str, path: &str) -> Option<String> {
    let base = if path.starts_with('/') { "" } else { base };
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tar_write::TarWriter;

    #[test]
    fn paths_stay_within() {
        assert_eq!(resolve("", "./a//b/"), Some("a/b".to_owned()));
        assert_eq!(resolve("a/b", "../c"), Some("a/c".to_owned()));
        assert_eq!(resolve("a", "/c"), Some("c".to_owned()));
        assert_eq!(resolve("a", "../../c"), None);
        let mut tar = TarWriter::new(Vec::new(), 0);
        tar.bytes("../../etc/passwd", b"x").unwrap();
        let bytes = tar.finish().unwrap();
        let error = TarReader::new(&bytes[..]).next_entry().unwrap_err();
        assert!(error.to_string().contains("leads out of the archive"), "{error}");
    }

    #[test]
    fn names_have_a_limit_together() {
        let long = "a".repeat(90);
        let mut tar = TarWriter::new(Vec::new(), 0);
        (0..3).for_each(|at| tar.bytes(&format!("{long}{at}"), b"x").unwrap());
        let bytes = tar.finish().unwrap();
        let mut reader = TarReader::new(&bytes[..]);
        reader.left_names_bytes = 200;
        assert!(reader.next_entry().unwrap().is_some() && reader.next_entry().unwrap().is_some());
        let error = reader.next_entry().unwrap_err();
        assert!(error.to_string().contains("64 MiB of names"), "{error}");
    }

    #[test]
    fn a_stream_cut_anywhere_is_an_error_or_has_fewer_entries() {
        let mut tar = TarWriter::new(Vec::new(), 0);
        tar.bytes("a", &[7; 600]).unwrap();
        tar.bytes("b", b"x").unwrap();
        let bytes = tar.finish().unwrap();
        let count = |bytes: &[u8]| -> Result<usize, StoreError> {
            let mut reader = TarReader::new(bytes);
            let mut count = 0;
            while reader.next_entry()?.is_some() {
                count += 1;
            }
            Ok(count)
        };
        assert_eq!(count(&bytes).unwrap(), 2);
        for length in 0..bytes.len() {
            match count(&bytes[..length]) {
                Ok(found) => assert!(length % 512 == 0 && found <= 2, "{length}: {found}"),
                Err(error) => assert!(length > 0, "{error}"),
            }
        }
        assert!(count(&bytes[..1024]).is_err(), "the content is not all there");
    }

    proptest! {
        #[test]
        fn noise_does_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), flip in any::<usize>()) {
            let mut tar = TarWriter::new(Vec::new(), 0);
            tar.bytes("a/b", b"hello").unwrap();
            let mut real = tar.finish().unwrap();
            let at = flip % real.len();
            real[at] ^= 1 + (flip >> 16) as u8 % 255;
            real.append(&mut bytes);
            let mut reader = TarReader::new(&real[..]);
            while let Ok(Some(_)) = reader.next_entry() {}
        }
    }
}
