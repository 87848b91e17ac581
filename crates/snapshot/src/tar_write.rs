// SPDX-License-Identifier: Apache-2.0
//! Writing tar archives with the bytes that Go's archive/tar writes for the same entries.
//!
//! Headers are plain ustar where everything fits (POSIX.1-2001, pax, "ustar Interchange Format"),
//! preceded by PAX records, sorted by key, where something does not. Names of users and groups, access
//! and change times are never written, and modification times are whole seconds: so do the tools whose
//! layers ours are compared with.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use crate::attributes::Xattrs;

const BLOCK: usize = 512;
const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
const COPY_BUFFER_BYTES: usize = 256 << 10;

/// Type flags of ustar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeFlag {
    Regular = b'0' as isize,
    HardLink = b'1' as isize,
    Symlink = b'2' as isize,
    CharDevice = b'3' as isize,
    BlockDevice = b'4' as isize,
    Directory = b'5' as isize,
    Fifo = b'6' as isize,
}

/// Everything a header says.
#[derive(Debug, Clone)]
pub(crate) struct Header<'a> {
    /// With a trailing slash for a directory.
    pub(crate) name: &'a [u8],
    pub(crate) link: &'a [u8],
    pub(crate) flag: TypeFlag,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: &'a Xattrs,
}

/// Writes entries one after the other; the archive is complete after [`TarWriter::finish`].
pub(crate) struct TarWriter<W> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> TarWriter<W> {
        TarWriter { out }
    }

    /// Writes an entry without content.
    pub(crate) fn entry(&mut self, header: &Header<'_>) -> io::Result<()> {
        self.header(header)
    }

    /// Writes an entry with exactly the content that its header announces.
    pub(crate) fn file(&mut self, header: &Header<'_>, mut content: impl Read) -> io::Result<()> {
        self.header(header)?;
        let mut left = header.size;
        let len = usize::try_from(header.size).unwrap_or(usize::MAX).min(COPY_BUFFER_BYTES);
        let mut buffer = vec![0; len];
        while left > 0 {
            let len = (buffer.len() as u64).min(left) as usize;
            match content.read(&mut buffer[..len]) {
                Ok(0) => {
                    let text = "the file became shorter while it was read";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                Ok(count) => {
                    self.out.write_all(&buffer[..count])?;
                    left -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.pad(header.size)
    }

    /// Writes the end of the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let len = (size.wrapping_neg() % BLOCK as u64) as usize;
        self.out.write_all(&[0; BLOCK][..len])
    }

    fn header(&mut self, header: &Header<'_>) -> io::Result<()> {
        let split = split_name(header.name);
        let mut records: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut needs_pax = !header.xattrs.is_empty();
        let is_too_long = header.name.len() > NAME_BYTES;
        if !header.name.is_ascii() || is_too_long {
            records.insert(b"path".to_vec(), header.name.to_vec());
            needs_pax = needs_pax || split.is_none();
        }
        if !header.link.is_ascii() || header.link.len() > NAME_BYTES {
            records.insert(b"linkpath".to_vec(), header.link.to_vec());
            needs_pax = true;
        }
        let numbers = [
            ("uid", 8, i64::from(header.owner.0)),
            ("gid", 8, i64::from(header.owner.1)),
            ("size", 12, i64::try_from(header.size).map_err(io::Error::other)?),
            ("mtime", 12, header.mtime),
        ];
        for (key, width, number) in numbers {
            if !fits_octal(width, number) {
                records.insert(key.into(), number.to_string().into_bytes());
                needs_pax = true;
            }
        }
        for (name, value) in header.xattrs {
            records.insert([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone());
        }
        if needs_pax {
            self.pax(header.name, &records)?;
            return self.out.write_all(&block(header, &ascii(header.name), b"", &ascii(header.link)));
        }
        let (prefix, name) = split.unwrap_or((b"", header.name));
        self.out.write_all(&block(header, name, prefix, header.link))
    }

    /// Writes the extended header that precedes an entry.
    fn pax(&mut self, name: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<()> {
        let mut data = Vec::new();
        for (key, value) in records {
            push_record(&mut data, key, value);
        }
        let mut block = [0; BLOCK];
        let mut pax_name = ascii(&pax_name(name));
        pax_name.truncate(NAME_BYTES);
        while pax_name.ends_with(b"/") {
            pax_name.pop();
        }
        put_text(&mut block[..NAME_BYTES], &pax_name);
        put_octal(&mut block[100..108], 0);
        put_octal(&mut block[108..116], 0);
        put_octal(&mut block[116..124], 0);
        put_octal(&mut block[124..136], data.len() as i64);
        put_octal(&mut block[136..148], 0);
        block[156] = b'x';
        seal(&mut block);
        self.out.write_all(&block)?;
        self.out.write_all(&data)?;
        self.pad(data.len() as u64)
    }
}

/// Makes the main header of an entry.
fn block(header: &Header<'_>, name: &[u8], prefix: &[u8], link: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put_text(&mut block[..NAME_BYTES], name);
    put_octal(&mut block[100..108], i64::from(header.mode));
    put_octal(&mut block[108..116], i64::from(header.owner.0));
    put_octal(&mut block[116..124], i64::from(header.owner.1));
    put_octal(&mut block[124..136], i64::try_from(header.size).unwrap_or(-1));
    put_octal(&mut block[136..148], header.mtime);
    block[156] = header.flag as u8;
    put_text(&mut block[157..257], link);
    put_octal(&mut block[329..337], i64::from(header.device.0));
    put_octal(&mut block[337..345], i64::from(header.device.1));
    put_text(&mut block[345..345 + PREFIX_BYTES], prefix);
    seal(&mut block);
    block
}

/// Sets magic, version and checksum.
fn seal(block: &mut [u8; BLOCK]) {
    block[257..263].copy_from_slice(b"ustar\0");
    block[263..265].copy_from_slice(b"00");
    block[148..156].fill(b' ');
    let sum: i64 = block.iter().map(|byte| i64::from(*byte)).sum();
    put_octal(&mut block[148..155], sum);
    block[155] = b' ';
}

/// Puts as much of a text as fits; without a slash as the last byte of one that is cut off, which
/// readers would take for a directory.
fn put_text(field: &mut [u8], text: &[u8]) {
    let len = text.len().min(field.len());
    field[..len].copy_from_slice(&text[..len]);
    if text.len() > field.len() && field[field.len() - 1] == b'/' {
        let kept = field[..field.len() - 1].iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
        field[kept] = 0;
    }
}

/// Puts a number in octal with leading zeros and a NUL; one that does not fit becomes zero.
fn put_octal(field: &mut [u8], number: i64) {
    let number = if fits_octal(field.len(), number) { number } else { 0 };
    let text = format!("{number:0width$o}", width = field.len() - 1);
    field[..text.len()].copy_from_slice(text.as_bytes());
    field[text.len()] = 0;
}

fn fits_octal(width: usize, number: i64) -> bool {
    number >= 0 && number < 1 << ((width - 1) * 3).min(62)
}

/// Splits a name that is too long for its field at a slash, so that the first part fits the prefix.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME_BYTES || !name.is_ascii() {
        return None;
    }
    let mut length = name.len();
    if length > PREFIX_BYTES + 1 {
        length = PREFIX_BYTES + 1;
    } else if name[length - 1] == b'/' {
        length -= 1;
    }
    let at = name[..length].iter().rposition(|byte| *byte == b'/')?;
    let rest = name.len() - at - 1;
    (at > 0 && rest > 0 && rest <= NAME_BYTES).then(|| (&name[..at], &name[at + 1..]))
}

/// Leaves out what is not ASCII.
fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| byte.is_ascii() && *byte != 0).collect()
}

/// Names the extended header of an entry: `PaxHeaders.0` in the entry's directory.
fn pax_name(name: &[u8]) -> Vec<u8> {
    let at = name.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (directory, file) = name.split_at(at);
    let mut joined = directory.to_vec();
    joined.extend_from_slice(b"PaxHeaders.0");
    if !file.is_empty() {
        joined.push(b'/');
        joined.extend_from_slice(file);
    }
    joined
}

/// Appends "LEN key=value\n", where LEN counts itself.
fn push_record(data: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut len = body + body.to_string().len();
    if body + len.to_string().len() != len {
        len = body + len.to_string().len();
    }
    data.extend_from_slice(len.to_string().as_bytes());
    data.push(b' ');
    data.extend_from_slice(key);
    data.push(b'=');
    data.extend_from_slice(value);
    data.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(header: &Header<'_>) -> Vec<u8> {
        let mut writer = TarWriter::new(Vec::new());
        writer.entry(header).unwrap();
        writer.finish().unwrap()
    }

    fn plain<'a>(name: &'a [u8], xattrs: &'a Xattrs) -> Header<'a> {
        Header {
            name,
            link: b"",
            flag: TypeFlag::Regular,
            mode: 0o644,
            owner: (0, 0),
            size: 0,
            mtime: 1_700_000_000,
            device: (0, 0),
            xattrs,
        }
    }

    fn type_flags(bytes: &[u8]) -> Vec<char> {
        // None of these entries has content, save extended headers of one block.
        bytes
            .chunks(512)
            .filter(|block| &block[257..262] == b"ustar")
            .map(|block| char::from(block[156]))
            .collect()
    }

    #[test]
    fn a_plain_header_has_the_fields_of_ustar() {
        let none = Xattrs::new();
        let bytes = written(&Header { owner: (1000, 33), ..plain(b"a/b.txt", &none) });
        assert_eq!(&bytes[..8], b"a/b.txt\0");
        assert_eq!(&bytes[100..108], b"0000644\0");
        assert_eq!(&bytes[108..116], b"0001750\0");
        assert_eq!(&bytes[116..124], b"0000041\0");
        assert_eq!(&bytes[124..136], b"00000000000\0");
        assert_eq!(&bytes[136..148], b"14524770400\0");
        assert_eq!(bytes[156], b'0');
        assert_eq!(&bytes[257..265], b"ustar\x0000");
        assert_eq!(&bytes[265..329], [0; 64]);
        assert_eq!(&bytes[329..345], b"0000000\x000000000\0");
        assert_eq!(bytes.len(), 512 + 1024);
        let sum: u32 = bytes[..512]
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        assert_eq!(&bytes[148..156], format!("{sum:06o}\0 ").as_bytes());
    }

    #[test]
    fn long_names_use_the_prefix_where_they_can_and_pax_where_not() {
        let none = Xattrs::new();
        let fits = [[b'd'; 90].as_slice(), b"/", &[b'f'; 90]].concat();
        let bytes = written(&plain(&fits, &none));
        assert_eq!(type_flags(&bytes), ['0']);
        assert_eq!(&bytes[345..435], [b'd'; 90]);
        assert_eq!(&bytes[..90], [b'f'; 90]);
        for name in [vec![b'x'; 101], "ä".as_bytes().to_vec(), [[b'd'; 160].as_slice(), b"/f"].concat()] {
            let bytes = written(&plain(&name, &none));
            assert_eq!(type_flags(&bytes), ['x', '0'], "{}", String::from_utf8_lossy(&name));
            let mut archive = tar::Archive::new(&bytes[..]);
            let entry = archive.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(&*entry.path_bytes(), name);
        }
    }

    #[test]
    fn numbers_and_xattrs_beyond_ustar_go_into_sorted_records() {
        let xattrs =
            vec![(b"security.capability".to_vec(), vec![1, 0, 0, 2]), (b"user.a".to_vec(), b"=\n".to_vec())];
        let header = Header { owner: (3_000_000, 0), mtime: -5, ..plain(b"dir/file", &xattrs) };
        let bytes = written(&header);
        assert_eq!(type_flags(&bytes), ['x', '0']);
        assert_eq!(&bytes[..22], b"dir/PaxHeaders.0/file\0");
        let text = &bytes[512..1024];
        let at = |needle: &[u8]| text.windows(needle.len()).position(|window| window == needle).unwrap();
        assert!(at(b"SCHILY.xattr.security") < at(b"26 SCHILY.xattr.user.a==\n\n"));
        assert!(at(b"SCHILY.xattr.user.a") < at(b"12 mtime=-5\n"));
        assert!(at(b"12 mtime=-5\n") < at(b"15 uid=3000000\n"));
        // Where the records decide, the fields are zero.
        assert_eq!(&bytes[1024 + 108..1024 + 116], b"0000000\0");
        assert_eq!(&bytes[1024 + 136..1024 + 148], b"00000000000\0");
    }

    #[test]
    fn record_lengths_count_themselves_also_at_the_turn_of_a_digit() {
        for len in 0..2000 {
            let mut data = Vec::new();
            push_record(&mut data, b"path", &vec![b'x'; len]);
            let text = std::str::from_utf8(&data).unwrap();
            assert_eq!(text.split_once(' ').unwrap().0.parse::<usize>().unwrap(), data.len());
        }
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let none = Xattrs::new();
        let mut writer = TarWriter::new(Vec::new());
        let header = Header { size: 10, ..plain(b"f", &none) };
        assert!(writer.file(&header, &b"short"[..]).is_err());
    }
}
