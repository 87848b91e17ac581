// SPDX-License-Identifier: Apache-2.0
//! What files were hashed to, so that unchanged ones need not be read again (`docs/snapshot-format.md`).

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::error::{At, SnapshotError};
use crate::meta::{Meta, Time};

const MAGIC: &[u8; 16] = b"polyarch-hashes1";
const ENTRY_BYTES: usize = 80;
const CHECK_BYTES: usize = 32;
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Beyond this many entries those that were not used are dropped.
const MAX_IDLE_ENTRIES: usize = 500_000;
/// A file that changed within this time may change again without looking different: clocks of file
/// systems can be as coarse as two seconds.
const SETTLING_SECONDS: i64 = 2;

/// Remembers the hashes of files by (device, inode, size, mtime, ctime).
///
/// Shared by threads; one file on disk, replaced atomically by [`HashMemory::save`]. Several processes
/// may use one file: the last to save wins, which costs others some hashing and nothing else.
#[derive(Debug, Default)]
pub struct HashMemory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<(u32, u32, u64), Known>,
    is_changed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    size: u64,
    mtime: Time,
    ctime: Time,
    hash: [u8; 32],
    /// Not kept on disk.
    is_used: bool,
}

impl HashMemory {
    /// Reads the memory back; a missing or damaged file is an empty memory.
    pub fn load(path: &Path) -> HashMemory {
        let known = match std::fs::metadata(path) {
            Ok(meta) if meta.len() <= MAX_FILE_BYTES => {
                std::fs::read(path).ok().and_then(|bytes| parse(&bytes)).unwrap_or_default()
            }
            _ => HashMap::new(),
        };
        HashMemory { state: Mutex::new(State { known, is_changed: false }) }
    }

    /// Writes the memory when it has changed.
    pub fn save(&self, path: &Path) -> Result<(), SnapshotError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.is_changed {
            return Ok(());
        }
        if state.known.len() > MAX_IDLE_ENTRIES {
            state.known.retain(|_, known| known.is_used);
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory).at("create a file in", directory)?;
        file.write_all(&text(&state.known)).at("write", path)?;
        file.persist(path).map_err(|error| error.error).at("write", path)?;
        state.is_changed = false;
        Ok(())
    }

    /// Returns the hash of a file that looks as it did.
    pub(crate) fn recall(&self, meta: &Meta) -> Option<[u8; 32]> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.known.get_mut(&(meta.dev.0, meta.dev.1, meta.ino))?;
        if (known.size, known.mtime, known.ctime) != (meta.size, meta.mtime, meta.ctime) {
            return None;
        }
        known.is_used = true;
        Some(known.hash)
    }

    /// Remembers the hash of a file, unless it changed shortly before `started`.
    pub(crate) fn remember(&self, meta: &Meta, hash: [u8; 32], started: Time) {
        let settled = started.sec - SETTLING_SECONDS;
        if meta.ctime.sec >= settled || meta.mtime.sec >= settled {
            return;
        }
        let known = Known { size: meta.size, mtime: meta.mtime, ctime: meta.ctime, hash, is_used: true };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.known.insert((meta.dev.0, meta.dev.1, meta.ino), known);
        state.is_changed = true;
    }
}

/// Magic, entries of a fixed size, and a hash over both.
fn text(known: &HashMap<(u32, u32, u64), Known>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + known.len() * ENTRY_BYTES + CHECK_BYTES);
    bytes.extend_from_slice(MAGIC);
    for ((major, minor, ino), known) in known {
        bytes.extend_from_slice(&major.to_le_bytes());
        bytes.extend_from_slice(&minor.to_le_bytes());
        bytes.extend_from_slice(&ino.to_le_bytes());
        bytes.extend_from_slice(&known.size.to_le_bytes());
        bytes.extend_from_slice(&known.mtime.sec.to_le_bytes());
        bytes.extend_from_slice(&known.ctime.sec.to_le_bytes());
        bytes.extend_from_slice(&known.mtime.nsec.to_le_bytes());
        bytes.extend_from_slice(&known.ctime.nsec.to_le_bytes());
        bytes.extend_from_slice(&known.hash);
    }
    let check = blake3::hash(&bytes);
    bytes.extend_from_slice(check.as_bytes());
    bytes
}

fn parse(bytes: &[u8]) -> Option<HashMap<(u32, u32, u64), Known>> {
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
    if blake3::hash(body).as_bytes() != check {
        return None;
    }
    let entries = body.strip_prefix(MAGIC)?;
    let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    entries.iter().map(parse_entry).collect()
}

fn parse_entry(entry: &[u8; ENTRY_BYTES]) -> Option<((u32, u32, u64), Known)> {
    let mut rest = &entry[..];
    let mut take = |len: usize| -> Option<&[u8]> {
        let (field, after) = rest.split_at_checked(len)?;
        rest = after;
        Some(field)
    };
    let key = (short(take(4)?)?, short(take(4)?)?, long(take(8)?)?);
    let size = long(take(8)?)?;
    let (mtime, ctime) = (long(take(8)?)? as i64, long(take(8)?)? as i64);
    let (mtime_nsec, ctime_nsec) = (short(take(4)?)?, short(take(4)?)?);
    let known = Known {
        size,
        mtime: Time { sec: mtime, nsec: mtime_nsec },
        ctime: Time { sec: ctime, nsec: ctime_nsec },
        hash: take(32)?.try_into().ok()?,
        is_used: false,
    };
    Some((key, known))
}

fn short(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn long(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta_of(path: &Path) -> Meta {
        Meta::of(std::fs::File::open(path).unwrap()).unwrap()
    }

    #[test]
    fn hashes_come_back_and_changed_files_are_strangers() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        let store = base.path().join("memory");
        std::fs::write(&file, "content").unwrap();
        let meta = meta_of(&file);
        let later = Time { sec: meta.ctime.sec + 10, nsec: 0 };
        let memory = HashMemory::load(&store);
        memory.remember(&meta, [7; 32], later);
        memory.save(&store).unwrap();
        let memory = HashMemory::load(&store);
        assert_eq!(memory.recall(&meta), Some([7; 32]));
        let touched = Meta { ctime: Time { nsec: meta.ctime.nsec ^ 1, ..meta.ctime }, ..meta.clone() };
        assert_eq!(memory.recall(&touched), None);

        let mut bytes = std::fs::read(&store).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&store, bytes).unwrap();
        assert_eq!(HashMemory::load(&store).recall(&meta), None);
        assert_eq!(HashMemory::load(&base.path().join("none")).recall(&meta), None);
    }

    #[test]
    fn files_that_have_just_changed_are_not_trusted() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("file");
        std::fs::write(&file, "content").unwrap();
        let meta = meta_of(&file);
        let memory = HashMemory::default();
        memory.remember(&meta, [7; 32], meta.ctime);
        memory.remember(&meta, [7; 32], Time { sec: meta.ctime.sec + 2, nsec: 0 });
        assert_eq!(memory.recall(&meta), None);
        memory.remember(&meta, [7; 32], Time { sec: meta.ctime.sec + 3, nsec: 0 });
        assert_eq!(memory.recall(&meta), Some([7; 32]));
    }
}
