// SPDX-License-Identifier: Apache-2.0
//! Manifests in memory, by digest: what is asked for often is read once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use polyarch_oci::Digest;

/// A bounded cache; what was not asked for the longest goes first.
#[derive(Debug)]
pub(super) struct ManifestCache {
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: usize,
    clock: u64,
    /// Each with the time of its last use.
    entries: HashMap<Digest, (Bytes, u64)>,
}

impl ManifestCache {
    pub(super) fn new(max_bytes: usize) -> ManifestCache {
        ManifestCache { max_bytes, state: Mutex::default() }
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<Bytes> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let now = state.clock;
        let (bytes, used) = state.entries.get_mut(digest)?;
        *used = now;
        Some(bytes.clone())
    }

    /// Keeps bytes that have the digest.
    pub(super) fn put(&self, digest: &Digest, bytes: &Bytes) {
        // One that takes a good part of the whole is not worth what it would drive out.
        if bytes.len() > self.max_bytes / 4 {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clock += 1;
        let now = state.clock;
        state.bytes += bytes.len();
        // A copy of its own, so that it does not hold the buffer that it came in.
        let kept = Bytes::copy_from_slice(bytes);
        if let Some((old, _)) = state.entries.insert(digest.clone(), (kept, now)) {
            state.bytes -= old.len();
        }
        if state.bytes > self.max_bytes {
            state.shrink(self.max_bytes / 4 * 3);
        }
    }
}

impl State {
    /// Lets the oldest go; many at once, so that sorting them is seldom.
    fn shrink(&mut self, target: usize) {
        let mut by_age: Vec<(u64, Digest)> =
            self.entries.iter().map(|(digest, (_, used))| (*used, digest.clone())).collect();
        by_age.sort_unstable();
        for (_, digest) in by_age {
            if self.bytes <= target {
                break;
            }
            if let Some((bytes, _)) = self.entries.remove(&digest) {
                self.bytes -= bytes.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_whole_is_bounded() {
        let cache = ManifestCache::new(1000);
        let put = |name: &str| cache.put(&Digest::of(name), &Bytes::from(vec![0; 100]));
        put("kept");
        for number in 0..50 {
            put(&number.to_string());
            assert!(cache.get(&Digest::of("kept")).is_some());
        }
        assert!(cache.state.lock().unwrap().bytes <= 1000);
        assert!(cache.get(&Digest::of("0")).is_none() && cache.get(&Digest::of("49")).is_some());
        cache.put(&Digest::of("large"), &Bytes::from(vec![0; 900]));
        assert!(cache.get(&Digest::of("large")).is_none());
    }
}
