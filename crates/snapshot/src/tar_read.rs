// SPDX-License-Identifier: Apache-2.0
//! Reading tar archives from hostile sources, one entry at a time.
//!
//! The parser is tar-core's; this adds the reading, the caps, the fields that it leaves out (fractions
//! of seconds) and a strict check of PAX records: a number that two readers could understand
//! differently is an error, so that nothing can hide between two readings of one archive.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use tar_core::parse::{Limits, ParseError, ParseEvent, ParsedEntry, Parser};
use tar_core::{EntryType, PaxError, PaxExtensions};

use crate::attributes::{XATTR_MAX, Xattrs, is_kept_xattr};
use crate::error::SnapshotError;
use crate::layer_stream::ApplyLimits;
use crate::meta::Time;

const BLOCK: usize = 512;
const READ_BYTES: usize = 64 << 10;
/// Most bytes of headers before one entry: long names, PAX records, sparse maps.
const MAX_HEADER_BYTES: usize = 8 << 20;
const MAX_METADATA_BYTES: u32 = 2 << 20;
const MAX_SPARSE_ENTRIES: usize = 100_000;

/// What an entry makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A regular file.
    File {
        /// Size of the file.
        size: u64,
        /// Offset and length of the parts that are not holes; `None` for a plain file.
        parts: Option<Vec<(u64, u64)>>,
    },
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(PathBuf),
    /// Another name of a file.
    HardLink(PathBuf),
    /// A character device, major and minor number.
    CharDevice(u32, u32),
    /// A block device, major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry with everything that concerns its node.
#[derive(Debug, Clone)]
pub struct TarEntry {
    /// As it stands in the archive, not cleaned.
    pub path: PathBuf,
    /// What it makes.
    pub body: Body,
    /// Octal 0 to 7777.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    pub(crate) mtime: Time,
    /// Those that belong to a tree's content, sorted.
    pub(crate) xattrs: Xattrs,
}

impl TarEntry {
    /// Returns when it changed, in whole seconds since 1970.
    pub fn modified_seconds(&self) -> i64 {
        self.mtime.sec
    }
}

/// Reads entries from a stream; the content of an entry is read before the next is asked for, or skipped.
pub struct TarReader<R> {
    input: R,
    parser: Parser,
    buffer: Vec<u8>,
    start: usize,
    content_left: u64,
    padding_left: u64,
    entries: u64,
    max_entries: u64,
    /// The archive's end mark has been read.
    is_done: bool,
    /// The stream has ended.
    is_at_end: bool,
}

impl<R: Read> TarReader<R> {
    /// Starts to read.
    pub fn new(input: R, limits: &ApplyLimits) -> TarReader<R> {
        let mut parser = Parser::new(Limits {
            max_metadata_size: MAX_METADATA_BYTES,
            max_path_len: Some(limits.max_path_bytes),
            max_pending_entries: 16,
            max_sparse_entries: MAX_SPARSE_ENTRIES,
        });
        // It would refuse times before 1970 as well; the records are checked more strictly below.
        parser.set_ignore_pax_errors(true);
        TarReader {
            input,
            parser,
            buffer: Vec::new(),
            start: 0,
            content_left: 0,
            padding_left: 0,
            entries: 0,
            max_entries: limits.max_entries,
            is_done: false,
            is_at_end: false,
        }
    }

    /// Reads the next entry; `None` at the end of the archive.
    ///
    /// # Errors
    /// When the archive is malformed, cut off or exceeds a cap.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>, SnapshotError> {
        self.skip_rest()?;
        let mut wanted = BLOCK;
        loop {
            if self.is_done {
                return Ok(None);
            }
            self.fill(wanted)?;
            let buffered = self.buffer.len() - self.start;
            if buffered == 0 {
                // An archive that just ends is accepted, as by other readers.
                return Ok(None);
            }
            let event = self
                .parser
                .parse(&self.buffer[self.start..])
                .map_err(|source| SnapshotError::Archive { entry: self.entries, source })?;
            let (consumed, found) = match event {
                ParseEvent::NeedData { min_bytes } => {
                    if self.is_at_end {
                        let is_stray_zero_block = self.buffer[self.start..].iter().all(|byte| *byte == 0);
                        return if is_stray_zero_block { Ok(None) } else { Err(self.cut_off()) };
                    }
                    if min_bytes.max(buffered) >= MAX_HEADER_BYTES {
                        return Err(self.limit("size of the headers of a tar entry", MAX_HEADER_BYTES as u64));
                    }
                    // Reading much at once keeps the repeated parsing of long headers cheap.
                    wanted = min_bytes.max(2 * buffered).min(MAX_HEADER_BYTES);
                    continue;
                }
                ParseEvent::GlobalExtensions { consumed, .. } => (consumed, None),
                ParseEvent::End { consumed } => {
                    self.is_done = true;
                    (consumed, None)
                }
                ParseEvent::Entry { consumed, entry } => {
                    (consumed, Some(convert(&entry, None).map(|found| (found, entry.size))))
                }
                ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size } => {
                    let parts = sparse_map.iter().map(|part| (part.offset, part.length)).collect();
                    (
                        consumed,
                        Some(convert(&entry, Some((parts, real_size))).map(|found| (found, entry.size))),
                    )
                }
            };
            self.start += consumed;
            wanted = BLOCK;
            self.entries += 1;
            if self.entries > self.max_entries {
                return Err(self.limit("number of tar entries", self.max_entries));
            }
            let Some(found) = found else { continue };
            let (entry, size) = found.map_err(|problem| match problem {
                Problem::Parse(source) => SnapshotError::Archive { entry: self.entries, source },
                Problem::Entry(path, problem) => SnapshotError::Entry { path, problem },
            })?;
            // Entries of other types have no content, whatever their header says; Go reads them so.
            if matches!(entry.body, Body::File { .. }) {
                self.content_left = size;
                self.padding_left = size.wrapping_neg() % BLOCK as u64;
            }
            return Ok(Some(entry));
        }
    }

    /// Reads what follows the end of the archive, so that a digest covers all of the stream.
    pub(crate) fn drain(&mut self) -> Result<(), SnapshotError> {
        self.buffer = Vec::new();
        self.start = 0;
        let mut sink = vec![0; READ_BYTES];
        while read_some(&mut self.input, &mut sink)? > 0 {}
        Ok(())
    }

    fn limit(&self, what: &'static str, limit: u64) -> SnapshotError {
        SnapshotError::Limit { what, limit, path: PathBuf::from(format!("entry {}", self.entries)) }
    }

    /// Buffers at least `wanted` bytes, or all that are left.
    fn fill(&mut self, wanted: usize) -> Result<(), SnapshotError> {
        if self.buffer.len() - self.start >= wanted {
            return Ok(());
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        let mut len = self.buffer.len();
        self.buffer.resize(wanted.max(READ_BYTES), 0);
        while len < wanted {
            match read_some(&mut self.input, &mut self.buffer[len..])? {
                0 => {
                    self.is_at_end = true;
                    break;
                }
                count => len += count,
            }
        }
        self.buffer.truncate(len);
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<(), SnapshotError> {
        let mut left = self.content_left + self.padding_left;
        let expected = self.content_left;
        self.content_left = 0;
        self.padding_left = 0;
        let mut sink = Vec::new();
        while left > 0 {
            let buffered = (self.buffer.len() - self.start) as u64;
            if buffered > 0 {
                let skipped = buffered.min(left);
                self.start += skipped as usize;
                left -= skipped;
                continue;
            }
            sink.resize(READ_BYTES, 0);
            let len = (READ_BYTES as u64).min(left) as usize;
            match read_some(&mut self.input, &mut sink[..len])? {
                // Padding that is missing at the very end harms nobody.
                0 if expected == 0 => break,
                0 => return Err(self.cut_off()),
                count => left -= count as u64,
            }
        }
        Ok(())
    }

    fn cut_off(&self) -> SnapshotError {
        SnapshotError::Archive { entry: self.entries, source: ParseError::UnexpectedEof { pos: 0 } }
    }

    /// Returns how many bytes of the current entry's content are still to be read.
    pub(crate) fn content_left(&self) -> u64 {
        self.content_left
    }
}

/// Reads the content of the current entry; an archive that ends within it is an error.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let len = (bytes.len() as u64).min(self.content_left) as usize;
        if len == 0 {
            return Ok(0);
        }
        let buffered = &self.buffer[self.start..];
        let count = if buffered.is_empty() {
            self.input.read(&mut bytes[..len])?
        } else {
            let count = len.min(buffered.len());
            bytes[..count].copy_from_slice(&buffered[..count]);
            self.start += count;
            count
        };
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the tar archive ends in the middle of a file",
            ));
        }
        self.content_left -= count as u64;
        Ok(count)
    }
}

fn read_some(input: &mut impl Read, bytes: &mut [u8]) -> Result<usize, SnapshotError> {
    loop {
        match input.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(SnapshotError::Stream { action: "read the tar archive", source }),
            Ok(count) => return Ok(count),
        }
    }
}

enum Problem {
    Parse(ParseError),
    Entry(PathBuf, String),
}

fn convert(entry: &ParsedEntry<'_>, sparse: Option<(Vec<(u64, u64)>, u64)>) -> Result<TarEntry, Problem> {
    let path = path_of(&entry.path);
    let fail = |problem: String| Problem::Entry(path.clone(), problem);
    if entry.path.contains(&0) {
        return Err(fail("has a NUL byte in its name".to_owned()));
    }
    let pax = check_pax(entry.pax.unwrap_or_default()).map_err(Problem::Parse)?;
    let link = || {
        let target = entry.link_target.as_deref().unwrap_or_default();
        if target.is_empty() || target.contains(&0) {
            return Err(fail("is a link without a usable target".to_owned()));
        }
        Ok(path_of(target))
    };
    let device = || (entry.dev_major.unwrap_or(0), entry.dev_minor.unwrap_or(0));
    let body = match entry.entry_type {
        // Old archives mark a directory by the slash at its end alone.
        EntryType::Regular if entry.path.ends_with(b"/") => {
            if entry.size > 0 {
                return Err(fail("is a directory by its name and a file by its size".to_owned()));
            }
            Body::Directory
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => match sparse {
            None => Body::File { size: entry.size, parts: None },
            Some((parts, size)) => {
                check_parts(&parts, size, entry.size).map_err(|problem| fail(problem.to_owned()))?;
                Body::File { size, parts: Some(parts) }
            }
        },
        EntryType::Directory => Body::Directory,
        EntryType::Symlink => Body::Symlink(link()?),
        EntryType::Link => Body::HardLink(link()?),
        EntryType::Char => Body::CharDevice(device().0, device().1),
        EntryType::Block => Body::BlockDevice(device().0, device().1),
        EntryType::Fifo => Body::Fifo,
        other => return Err(fail(format!("has type {:?}, which is not known", char::from(other.to_byte())))),
    };
    let id = |id: u64| match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(fail(format!("has owner or group {id}, which is out of range"))),
    };
    let mut xattrs: Xattrs = entry
        .xattrs
        .iter()
        .filter(|(name, _)| is_kept_xattr(name) && !name.contains(&0))
        .map(|(name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    if let Some((name, value)) = xattrs.iter().find(|(_, value)| value.len() > XATTR_MAX) {
        let (name, size) = (String::from_utf8_lossy(name), value.len());
        return Err(fail(format!(
            "has {size} bytes in its attribute {name:?}; no kernel takes more than {XATTR_MAX}"
        )));
    }
    xattrs.sort();
    xattrs.dedup_by(|a, b| a.0 == b.0);
    let seconds = i64::try_from(entry.mtime).unwrap_or(i64::MAX);
    Ok(TarEntry {
        body,
        mode: entry.mode & 0o7777,
        owner: (id(entry.uid)?, id(entry.gid)?),
        mtime: pax.unwrap_or(Time::of_seconds(seconds)),
        xattrs,
        path,
    })
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

/// Checks that a sparse map goes upwards, lies within the file and accounts for all of the content.
fn check_parts(parts: &[(u64, u64)], size: u64, content: u64) -> Result<(), &'static str> {
    let mut end = 0u64;
    let mut total = 0u64;
    for &(offset, length) in parts {
        if offset < end {
            return Err("has a sparse map that is out of order");
        }
        end = offset.checked_add(length).ok_or("has a sparse map out of range")?;
        total = total.saturating_add(length);
    }
    if end > size {
        return Err("has a sparse map beyond its size");
    }
    if total != content {
        return Err("has a sparse map that does not account for its content");
    }
    Ok(())
}

/// Checks every PAX record and returns the modification time when one is given.
fn check_pax(pax: &[u8]) -> Result<Option<Time>, ParseError> {
    let mut mtime = None;
    for record in PaxExtensions::new(pax) {
        let record = record?;
        let key = record.key()?;
        let value = record.value_bytes();
        match key {
            "size" => check_number("size", value)?,
            "uid" => check_number("uid", value)?,
            "gid" => check_number("gid", value)?,
            "mtime" => mtime = Some(parse_time(value).ok_or_else(|| bad("mtime", value))?),
            "path" | "linkpath" if value.is_empty() => return Err(bad("path", value)),
            key if key.starts_with("GNU.sparse.") && key != "GNU.sparse.name" && key != "GNU.sparse.map" => {
                check_number("GNU.sparse.*", value)?;
            }
            _ => {}
        }
    }
    if is_all_records(pax) { Ok(mtime) } else { Err(PaxError::Malformed.into()) }
}

/// Tells whether records ("LEN key=value\n") make up all of the bytes; the iterator over them ends
/// silently at the first one without a length.
fn is_all_records(pax: &[u8]) -> bool {
    let mut rest = pax;
    while !rest.is_empty() {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let len = std::str::from_utf8(&rest[..digits]).ok().and_then(|text| text.parse::<usize>().ok());
        match len.filter(|len| *len > digits).and_then(|len| rest.get(len..)) {
            Some(after) if rest.get(digits) == Some(&b' ') => rest = after,
            _ => return false,
        }
    }
    true
}

fn check_number(key: &'static str, value: &[u8]) -> Result<(), ParseError> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    match std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok()) {
        Some(_) if is_number => Ok(()),
        _ => Err(bad(key, value)),
    }
}

fn bad(key: &'static str, value: &[u8]) -> ParseError {
    let value: String = String::from_utf8_lossy(value).chars().take(100).collect();
    ParseError::InvalidPaxValue { key, value: value.into() }
}

/// Reads a decimal number of seconds with an optional fraction, as in "-1.25".
fn parse_time(value: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let sec: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nsec: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nsec > 0 {
        return Some(Time { sec: sec.checked_sub(1)?, nsec: 1_000_000_000 - nsec });
    }
    Some(Time { sec, nsec })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(bytes: &[u8]) -> Result<Vec<TarEntry>, SnapshotError> {
        let mut reader = TarReader::new(bytes, &ApplyLimits::default());
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }

    fn header(name: &str, kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        header
    }

    fn with_pax(records: &[u8]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header("pax", tar::EntryType::XHeader, records.len() as u64), records).unwrap();
        archive.append(&header("name", tar::EntryType::Regular, 0), &b""[..]).unwrap();
        archive.into_inner().unwrap()
    }

    #[test]
    fn times_are_read_with_fraction_and_sign() {
        for (text, time) in [
            ("12", Time { sec: 12, nsec: 0 }),
            ("12.5", Time { sec: 12, nsec: 500_000_000 }),
            ("-1.25", Time { sec: -2, nsec: 750_000_000 }),
            ("-3", Time { sec: -3, nsec: 0 }),
            ("1.0000000019", Time { sec: 1, nsec: 1 }),
        ] {
            assert_eq!(parse_time(text.as_bytes()), Some(time), "{text}");
        }
        assert_eq!(parse_time(b"x"), None);
        assert_eq!(parse_time(b"1.x"), None);
        let found = entries(&with_pax(b"13 mtime=1.5\n")).unwrap();
        assert_eq!(found[0].mtime, Time { sec: 1, nsec: 500_000_000 });
    }

    #[test]
    fn ambiguous_pax_records_are_refused() {
        assert!(entries(&with_pax(b"10 path=a\n")).is_ok());
        for records in [
            &b"10 size=x\n"[..],
            b"11 size=-1\n",
            b"11 size=+1\n",
            b"8 path=a\n",
            b"10 path=a\ngarbage",
            b"11 path=a\0\n",
            b"99 path=a\n",
            b"8 size=\n",
        ] {
            assert!(entries(&with_pax(records)).is_err(), "{:?}", String::from_utf8_lossy(records));
        }
    }

    #[test]
    fn archives_that_are_cut_off_are_refused() {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header("a", tar::EntryType::Regular, 1000), &[7; 1000][..]).unwrap();
        archive.append(&header("b", tar::EntryType::Regular, 10), &[7; 10][..]).unwrap();
        let bytes = archive.into_inner().unwrap();
        assert_eq!(entries(&bytes).unwrap().len(), 2);
        for cut in [100, 600, 1300, 2000, 2050] {
            assert!(entries(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(entries(&vec![b'x'; 2048]).is_err());
        assert!(entries(b"").unwrap().is_empty());
    }

    #[test]
    fn content_of_types_without_content_is_not_skipped() {
        // A directory with a size, as a reader that skips it would miss the entry that follows.
        let mut bytes = header("d/", tar::EntryType::Directory, 512).as_bytes().to_vec();
        bytes.extend_from_slice(header("hidden", tar::EntryType::Regular, 0).as_bytes());
        bytes.extend_from_slice(&[0; 1024]);
        let paths: Vec<_> = entries(&bytes).unwrap().into_iter().map(|entry| entry.path).collect();
        assert_eq!(paths, [PathBuf::from("d/"), PathBuf::from("hidden")]);
    }

    #[test]
    fn endless_headers_are_capped() {
        // A sparse map without an end.
        let mut header = tar::Header::new_gnu();
        header.set_path("sparse").unwrap();
        header.set_entry_type(tar::EntryType::GNUSparse);
        header.set_size(0);
        header.as_gnu_mut().unwrap().set_is_extended(true);
        header.set_cksum();
        let mut block = [0u8; 512];
        block[504] = 1;
        let endless = header.as_bytes().chain(io::repeat(0).take(0)).chain(Repeat { block, at: 0 });
        let mut reader = TarReader::new(endless, &ApplyLimits::default());
        assert!(matches!(
            reader.next_entry(),
            Err(SnapshotError::Limit { .. } | SnapshotError::Archive { .. })
        ));
    }

    struct Repeat {
        block: [u8; 512],
        at: usize,
    }

    impl Read for Repeat {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            for byte in bytes.iter_mut() {
                *byte = self.block[self.at % 512];
                self.at += 1;
            }
            Ok(bytes.len())
        }
    }
}
