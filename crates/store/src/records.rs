// SPDX-License-Identifier: Apache-2.0
//! Records: small named values of the build cache.
//!
//! A record is complete or absent. It has its own digest inside, because unlike a blob it has no
//! digest for a name.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use polyarch_oci::Digest;

use crate::disk::names_in;
use crate::{Durability, Store, StoreError};

/// The largest record, in bytes.
pub const MAX_RECORD_BYTES: u64 = 8 << 20;

/// Room for the header line.
const MAX_HEADER_BYTES: u64 = 200;

const MAGIC: &str = "polyarch-record 1";

impl Store {
    /// Keeps a record. Atomic; the last writer wins; durable as [`Durability`] says, and never before
    /// the blobs that were written before it.
    ///
    /// The namespace is 1 to 64 of `a-z 0-9 -`, the key 1 to 128 of `a-z 0-9 _ -` (a digest's
    /// hexadecimal part, for instance); neither starts with `-`.
    pub fn put_record(&self, namespace: &str, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let paths = self.record_paths(namespace, key)?;
        let size = bytes.len() as u64;
        if size > MAX_RECORD_BYTES {
            let (namespace, key) = (namespace.to_owned(), key.to_owned());
            return Err(StoreError::RecordSize { namespace, key, size, cap: MAX_RECORD_BYTES });
        }
        let mut file = format!("{MAGIC} {} {size}\n", Digest::of(bytes)).into_bytes();
        file.extend_from_slice(bytes);
        match (self.inner.durability, &paths.staged) {
            (Durability::Batched, Some(staged)) => self.inner.replace(staged, &file, false),
            _ => {
                // Also so that an older staged record cannot replace this one later.
                self.sync()?;
                self.inner.replace(&paths.durable, &file, true)
            }
        }
    }

    /// Reads a record; `None` when it is absent, torn, or of another version.
    pub fn get_record(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let paths = self.record_paths(namespace, key)?;
        // A staged record is newer than a durable one; it may be promoted between two looks.
        for path in paths.staged.iter().chain([&paths.durable]) {
            if let Some(record) = read_record(path)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Removes a record; tells whether it was there.
    pub fn remove_record(&self, namespace: &str, key: &str) -> Result<bool, StoreError> {
        let paths = self.record_paths(namespace, key)?;
        let mut was_there = false;
        for path in paths.staged.iter().chain([&paths.durable]) {
            was_there |= path.exists();
            self.inner.disk.remove(path)?;
        }
        Ok(was_there)
    }

    /// Lists the records of a namespace, sorted by key; torn ones are left out.
    ///
    /// The keys are read at once, each value when the iterator comes to it.
    pub fn records(
        &self,
        namespace: &str,
    ) -> Result<impl Iterator<Item = Result<(String, Vec<u8>), StoreError>> + use<>, StoreError> {
        let mut keys = Vec::new();
        let paths = self.record_paths(namespace, "0")?;
        for path in paths.staged.iter().chain([&paths.durable]) {
            if let Some(dir) = path.parent() {
                keys.extend(names_in(dir)?.into_iter().filter(|key| is_key(key)));
            }
        }
        keys.sort_unstable();
        keys.dedup();
        let (store, namespace) = (self.clone(), namespace.to_owned());
        Ok(keys.into_iter().filter_map(move |key| match store.get_record(&namespace, &key) {
            Ok(record) => record.map(|bytes| Ok((key, bytes))),
            Err(error) => Some(Err(error)),
        }))
    }

    fn record_paths(&self, namespace: &str, key: &str) -> Result<RecordPaths, StoreError> {
        if !is_namespace(namespace) || !is_key(key) {
            let clip = |text: &str| text.chars().take(150).collect();
            return Err(StoreError::RecordName { namespace: clip(namespace), key: clip(key) });
        }
        let beneath = |dir: &Path| dir.join("records").join(namespace).join(key);
        Ok(RecordPaths {
            durable: beneath(&self.inner.root),
            staged: self.inner.staged.as_deref().map(beneath),
        })
    }
}

struct RecordPaths {
    durable: PathBuf,
    staged: Option<PathBuf>,
}

fn is_namespace(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(is_word) && !text.starts_with('-')
}

fn is_key(text: &str) -> bool {
    let is_word =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    (1..=128).contains(&text.len()) && text.bytes().all(is_word) && !text.starts_with('-')
}

fn read_record(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(StoreError::io("open", path))?,
    };
    let mut bytes = Vec::new();
    let limit = MAX_RECORD_BYTES + MAX_HEADER_BYTES;
    file.take(limit).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    Ok(parse(bytes))
}

/// Checks the header line against what follows it.
fn parse(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let header = std::str::from_utf8(&bytes[..end]).ok()?;
    let (digest, size) = header.strip_prefix(MAGIC)?.strip_prefix(' ')?.split_once(' ')?;
    let (digest, size): (Digest, usize) = (digest.parse().ok()?, size.parse().ok()?);
    let record = bytes.split_off(end + 1);
    (record.len() == size && Digest::of(&record) == digest).then_some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_both_ways_of_keeping() {
        for durability in [Durability::Each, Durability::Batched] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open_with(dir.path(), durability).unwrap();
            assert_eq!(store.get_record("steps", "a").unwrap(), None);
            store.put_record("steps", "a", b"1").unwrap();
            store.put_record("steps", "a", b"two\nlines").unwrap();
            store.put_record("steps", "b", b"").unwrap();
            assert_eq!(store.get_record("steps", "a").unwrap().unwrap(), b"two\nlines");
            let all: Vec<_> = store.records("steps").unwrap().map(Result::unwrap).collect();
            assert_eq!(all, [("a".to_owned(), b"two\nlines".to_vec()), ("b".to_owned(), Vec::new())]);
            assert!(store.remove_record("steps", "a").unwrap());
            assert!(!store.remove_record("steps", "a").unwrap());
            assert_eq!(store.records("steps").unwrap().count(), 1);
            assert_eq!(store.records("none").unwrap().count(), 0);
        }
    }

    #[test]
    fn the_newest_wins_across_both_ways() {
        let dir = tempfile::tempdir().unwrap();
        let batched = Store::open(dir.path()).unwrap();
        let each = Store::open_with(dir.path(), Durability::Each).unwrap();
        batched.put_record("steps", "a", b"1").unwrap();
        each.put_record("steps", "a", b"2").unwrap();
        assert_eq!(batched.get_record("steps", "a").unwrap().unwrap(), b"2");
        batched.put_record("steps", "a", b"3").unwrap();
        assert_eq!(each.get_record("steps", "a").unwrap().unwrap(), b"3");
        each.sync().unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("records/steps")).unwrap().count(), 1);
        assert_eq!(batched.get_record("steps", "a").unwrap().unwrap(), b"3");
    }

    #[test]
    fn torn_records_are_absent() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), Durability::Each).unwrap();
        store.put_record("steps", "a", b"some bytes").unwrap();
        let path = dir.path().join("records/steps/a");
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(store.get_record("steps", "a").unwrap(), None, "{length} bytes");
        }
        let mut other = whole.clone();
        *other.last_mut().unwrap() ^= 1;
        assert_eq!(parse(other), None);
        assert_eq!(parse([whole.clone(), b"more".to_vec()].concat()), None);
        assert!(parse(whole).is_some());
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for (namespace, key) in [("..", "a"), ("a", ".."), ("a/b", "c"), ("", "a"), ("a", ""), ("a", "A")] {
            let error = store.put_record(namespace, key, b"").unwrap_err();
            assert!(matches!(error, StoreError::RecordName { .. }), "{namespace}/{key}");
        }
        let too_large = vec![0; MAX_RECORD_BYTES as usize + 1];
        assert!(matches!(store.put_record("a", "a", &too_large), Err(StoreError::RecordSize { .. })));
    }
}
