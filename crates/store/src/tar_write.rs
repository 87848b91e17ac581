// SPDX-License-Identifier: Apache-2.0
//! Writing the tar files of this room: directories and files with names of ours, and nothing else.
//!
//! The bytes depend only on names, contents and the epoch: owner 0, fixed modes, no user names. Headers
//! are ustar; a pax header precedes what ustar cannot say (names over 100 bytes, 8 GiB and more).

use std::io::{self, Read, Write};

use tar_core::{EntryType, HEADER_SIZE, Header};

use crate::StoreError;
use crate::ingest::copy;

/// The largest number that eleven octal digits hold.
const MAX_OCTAL: u64 = 0o77_777_777_777;

/// The longest name in the header's own field.
const MAX_NAME_BYTES: usize = 100;

/// A tar stream in the making.
pub(crate) struct TarWriter<W> {
    out: W,
    epoch: u64,
}

impl<W: Write> TarWriter<W> {
    /// Starts a tar stream whose entries all have the time `epoch`, in seconds since 1970.
    pub(crate) fn new(out: W, epoch: u64) -> TarWriter<W> {
        TarWriter { out, epoch: epoch.min(MAX_OCTAL) }
    }

    /// Writes a directory; the path ends in `/`.
    pub(crate) fn directory(&mut self, path: &str) -> Result<(), StoreError> {
        self.header(path, 0, 0o755, EntryType::Directory)
    }

    /// Writes a small file.
    pub(crate) fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.file(path, bytes.len() as u64, bytes)
    }

    /// Writes a file of exactly `size` bytes.
    ///
    /// # Errors
    /// Also when the content has another size. The stream is then of no use.
    pub(crate) fn file(&mut self, path: &str, size: u64, content: impl Read) -> Result<(), StoreError> {
        self.header(path, size, 0o644, EntryType::Regular)?;
        let written = copy(content.take(size), &mut self.out).map_err(StoreError::stream("write"))?;
        if written != size {
            return Err(StoreError::Entry { path: path.to_owned(), problem: "is shorter than announced" });
        }
        self.pad(size)
    }

    /// Ends the stream and returns what it was written to, flushed.
    pub(crate) fn finish(mut self) -> Result<W, StoreError> {
        self.write(&[0; 2 * HEADER_SIZE])?;
        self.out.flush().map_err(StoreError::stream("write"))?;
        Ok(self.out)
    }

    fn header(&mut self, path: &str, size: u64, mode: u16, kind: EntryType) -> Result<(), StoreError> {
        let mut records = Vec::new();
        if path.len() > MAX_NAME_BYTES {
            records.extend(pax_record("path", path));
        }
        if size > MAX_OCTAL {
            records.extend(pax_record("size", &size.to_string()));
        }
        if !records.is_empty() {
            let size = records.len() as u64;
            self.ustar("pax", size, 0o644, EntryType::XHeader)?;
            self.write(&records)?;
            self.pad(size)?;
        }
        let mut end = path.len().min(MAX_NAME_BYTES);
        while !path.is_char_boundary(end) {
            end -= 1;
        }
        self.ustar(&path[..end], if size > MAX_OCTAL { 0 } else { size }, mode, kind)
    }

    fn ustar(&mut self, name: &str, size: u64, mode: u16, kind: EntryType) -> Result<(), StoreError> {
        const FITS: &str = "names are cut and numbers are limited before they come here";
        let mut header = Header::new_ustar();
        header.set_path(name.as_bytes()).expect(FITS);
        header.set_mode_small(mode);
        header.set_uid(0).expect(FITS);
        header.set_gid(0).expect(FITS);
        header.set_size(size).expect(FITS);
        header.set_mtime(self.epoch).expect(FITS);
        header.set_entry_type(kind);
        header.set_checksum();
        self.write(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> Result<(), StoreError> {
        // Less than a block, so it fits.
        let missing = (HEADER_SIZE as u64 - size % HEADER_SIZE as u64) % HEADER_SIZE as u64;
        io::copy(&mut io::repeat(0).take(missing), &mut self.out)
            .map(|_| ())
            .map_err(StoreError::stream("write"))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.out.write_all(bytes).map_err(StoreError::stream("write"))
    }
}

/// Writes `LENGTH KEY=VALUE\n`, where LENGTH counts itself (pax, "Extended Header").
fn pax_record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    format!("{length} {key}={value}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar_read::{EntryKind, TarReader};

    fn sample() -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new(), 1_700_000_000);
        tar.directory("blobs/").unwrap();
        tar.bytes("blobs/a", b"hello").unwrap();
        tar.bytes(&format!("blobs/{}", "x".repeat(128)), &[1; 512]).unwrap();
        tar.finish().unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = sample();
        assert_eq!(bytes.len() % 512, 0);
        let mut reader = TarReader::new(&bytes[..]);
        let mut seen = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            seen.push((entry.path, entry.kind == EntryKind::Directory, content.len()));
        }
        assert_eq!(
            seen,
            [
                ("blobs".to_owned(), true, 0),
                ("blobs/a".to_owned(), false, 5),
                (format!("blobs/{}", "x".repeat(128)), false, 512)
            ]
        );
    }

    #[test]
    fn gnu_tar_reads_it_if_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        std::fs::write(&path, sample()).unwrap();
        let Ok(output) = std::process::Command::new("tar").arg("-tvf").arg(&path).env("TZ", "UTC").output()
        else {
            println!("SKIPPED: there is no tar command");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(text.contains("drwxr-xr-x 0/0") && text.contains("2023-11-14 22:13 blobs/a"), "{text}");
        assert!(text.contains(&"x".repeat(128)), "{text}");
    }

    #[test]
    fn sizes_beyond_octal_go_into_a_pax_header() {
        let mut tar = TarWriter::new(Vec::new(), 0);
        tar.header("big", MAX_OCTAL + 1, 0o644, EntryType::Regular).unwrap();
        let mut reader = TarReader::new(&tar.out[..]);
        assert_eq!(reader.next_entry().unwrap().unwrap().size, MAX_OCTAL + 1);
        assert!(reader.next_entry().is_err(), "the content is missing");
    }

    #[test]
    fn a_pax_record_counts_itself() {
        assert_eq!(pax_record("path", "ab"), b"11 path=ab\n");
        for length in 80..120 {
            let record = pax_record("path", &"x".repeat(length));
            let text = String::from_utf8(record.clone()).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), record.len());
        }
    }

    #[test]
    fn content_of_another_size_is_an_error() {
        let mut tar = TarWriter::new(Vec::new(), 0);
        assert!(tar.file("a", 6, &b"hello"[..]).is_err());
    }
}
