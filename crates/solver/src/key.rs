// SPDX-License-Identifier: Apache-2.0
//! Cache keys: what a vertex is, as 32 bytes.

use std::fmt;

/// The key under which a result is recorded; also the digest of an operation's definition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// Returns the key as 64 hexadecimal digits, safe as a file name.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Reads what [`CacheKey::hex`] wrote; `None` for any other text.
    pub fn from_hex(text: &str) -> Option<CacheKey> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(CacheKey(bytes))
    }

    /// Returns the raw bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

/// Computes a key over named, length-prefixed parts, so that no two lists of parts collide.
pub struct KeyHasher(blake3::Hasher);

impl KeyHasher {
    /// Starts a key of one kind; keys of different kinds never collide.
    pub fn new(kind: &str) -> KeyHasher {
        let mut hasher = KeyHasher(blake3::Hasher::new());
        hasher.part(kind);
        hasher
    }

    /// Adds one part.
    pub fn part(&mut self, bytes: impl AsRef<[u8]>) -> &mut KeyHasher {
        let bytes = bytes.as_ref();
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a list of parts; its length is part of the key.
    pub fn parts<T: AsRef<[u8]>>(&mut self, parts: impl IntoIterator<Item = T>) -> &mut KeyHasher {
        let mut inner = blake3::Hasher::new();
        let mut count: u64 = 0;
        for part in parts {
            let part = part.as_ref();
            inner.update(&(part.len() as u64).to_le_bytes());
            inner.update(part);
            count += 1;
        }
        self.0.update(&count.to_le_bytes());
        self.0.update(inner.finalize().as_bytes());
        self
    }

    /// Ends the key.
    pub fn finish(&self) -> CacheKey {
        CacheKey(*self.0.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_border_between_parts_is_part_of_the_key() {
        let key = |parts: &[&str]| {
            let mut hasher = KeyHasher::new("t");
            for part in parts {
                hasher.part(part);
            }
            hasher.finish()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
    }
}
