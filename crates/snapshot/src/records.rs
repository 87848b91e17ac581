// SPDX-License-Identifier: Apache-2.0
//! The side file of a layer: what the disk could not express (`docs/snapshot-format.md`).
//!
//! One line per path: the fields that are known, then the path. Written once, before the layer is
//! committed, and never changed. A layer of which everything fitted on the disk has no such file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::attributes::Xattrs;
use crate::error::{At, SnapshotError};
use crate::meta::Kind;

const FIRST_LINE: &str = "polyarch-owners 1";
const MAX_FILE_BYTES: u64 = 1 << 30;

/// What the disk could not express of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) owner: Option<(u32, u32)>,
    /// The device node for which an empty file stands.
    pub(crate) device: Option<(Kind, u32, u32)>,
    pub(crate) xattrs: Xattrs,
}

impl Record {
    pub(crate) fn is_empty(&self) -> bool {
        self.owner.is_none() && self.device.is_none() && self.xattrs.is_empty()
    }
}

/// The records of one layer by path relative to its root, without a leading slash.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Records(BTreeMap<PathBuf, Record>);

impl Records {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, path: &Path) -> Option<&Record> {
        self.0.get(path)
    }

    /// Sets the record of a path; an empty one removes what was known.
    pub(crate) fn set(&mut self, path: &Path, record: Record) {
        if record.is_empty() {
            if !self.0.is_empty() {
                self.0.remove(path);
            }
        } else {
            self.0.insert(path.to_owned(), record);
        }
    }

    /// Gives all records away.
    pub(crate) fn into_iter(self) -> impl Iterator<Item = (PathBuf, Record)> {
        self.0.into_iter()
    }

    /// Forgets a path and everything beneath it.
    pub(crate) fn forget(&mut self, path: &Path) {
        if !self.0.is_empty() {
            self.0.retain(|known, _| !known.starts_with(path));
        }
    }

    /// Reads a side file; a missing one holds no records.
    pub(crate) fn load(path: &Path) -> Result<Records, SnapshotError> {
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Records::default()),
            Err(error) => return Err(error).at("open", path),
        };
        let mut text = String::new();
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).at("read", path)?;
        parse(&text)
            .map_err(|problem| SnapshotError::Records { path: path.to_owned(), problem: problem.to_owned() })
    }

    /// Writes a side file unless there is nothing to write.
    pub(crate) fn save(&self, path: &Path) -> Result<(), SnapshotError> {
        if self.is_empty() {
            return Ok(());
        }
        std::fs::write(path, self.text()).at("write", path)
    }

    fn text(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        for (path, record) in &self.0 {
            // Writing into a String cannot fail.
            if let Some((uid, gid)) = record.owner {
                let _ = write!(text, "owner={uid}:{gid} ");
            }
            if let Some((kind, major, minor)) = record.device {
                let letter = if kind == Kind::BlockDevice { 'b' } else { 'c' };
                let _ = write!(text, "device={letter}:{major}:{minor} ");
            }
            for (name, value) in &record.xattrs {
                let _ = write!(text, "xattr={}:{} ", hex::encode(name), hex::encode(value));
            }
            let _ = writeln!(text, "path={}", escape(path.as_os_str().as_bytes()));
        }
        let _ = writeln!(text, "end {}", self.0.len());
        text
    }
}

fn parse(text: &str) -> Result<Records, &'static str> {
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err("the first line is not the format's name");
    }
    let mut records = BTreeMap::new();
    for line in lines {
        if let Some(count) = line.strip_prefix("end ") {
            let is_whole = count.parse() == Ok(records.len());
            return if is_whole { Ok(Records(records)) } else { Err("the count at the end is wrong") };
        }
        let mut record = Record::default();
        let mut path = None;
        for field in line.split(' ') {
            let (key, value) = field.split_once('=').ok_or("a field has no value")?;
            match key {
                "owner" => {
                    let (uid, gid) = value.split_once(':').ok_or("an owner has no group")?;
                    record.owner = Some((number(uid)?, number(gid)?));
                }
                "device" => {
                    let mut parts = value.splitn(3, ':');
                    let mut part = || parts.next().ok_or("a device has too few parts");
                    let kind = if part()? == "b" { Kind::BlockDevice } else { Kind::CharDevice };
                    record.device = Some((kind, number(part()?)?, number(part()?)?));
                }
                "xattr" => {
                    let (name, value) = value.split_once(':').ok_or("an xattr has no value")?;
                    let decode = |text| hex::decode(text).map_err(|_| "an xattr is not hexadecimal");
                    record.xattrs.push((decode(name)?, decode(value)?));
                }
                "path" => path = Some(unescape(value)?),
                _ => return Err("a field is unknown"),
            }
        }
        records.insert(path.ok_or("a line has no path")?, record);
    }
    Err("the end is missing")
}

fn number(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "a number is malformed")
}

/// Writes a path with everything but plain printable characters as `%XX`.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'%' {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

fn unescape(text: &str) -> Result<PathBuf, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).ok_or("an escape in a path is cut off")?;
        let mut decoded = [0];
        hex::decode_to_slice(digits, &mut decoded).map_err(|_| "an escape in a path is malformed")?;
        bytes.push(decoded[0]);
        rest = &tail[2..];
    }
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_torn_or_foreign_file_is_refused() {
        let mut records = Records::default();
        records.set(Path::new("a"), Record { owner: Some((1, 2)), ..Record::default() });
        records.set(Path::new("b"), Record { owner: Some((3, 4)), ..Record::default() });
        let text = records.text();
        for cut in 1..text.len() - 1 {
            assert!(parse(&text[..cut]).is_err(), "{:?}", &text[..cut]);
        }
        assert!(parse("something else\nend 0\n").is_err());
    }

    #[test]
    fn forgetting_a_directory_forgets_what_is_in_it() {
        let mut records = Records::default();
        for path in ["a", "a/b", "ab"] {
            records.set(Path::new(path), Record { owner: Some((1, 1)), ..Record::default() });
        }
        records.forget(Path::new("a"));
        assert!(records.get(Path::new("a/b")).is_none());
        assert!(records.get(Path::new("ab")).is_some());
    }

    proptest! {
        #[test]
        fn records_come_back(path in proptest::collection::vec(1u8..=255, 1..40), uid: u32, gid: u32, value in proptest::collection::vec(any::<u8>(), 0..30)) {
            let mut records = Records::default();
            let path = PathBuf::from(OsString::from_vec(path));
            records.set(&path, Record {
                owner: Some((uid, gid)),
                device: Some((Kind::BlockDevice, 8, 1)),
                xattrs: vec![(b"user.x".to_vec(), value)],
            });
            prop_assert_eq!(parse(&records.text()).unwrap(), records);
        }
    }
}
