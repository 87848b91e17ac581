// SPDX-License-Identifier: Apache-2.0
//! Which pieces of the cache somebody means.

use std::time::{Duration, SystemTime};

use crate::inventory::{CacheItem, CacheKind};

/// Conditions on pieces of the cache, all of which must hold; by default there are none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CacheFilter {
    /// Not used for so long.
    pub unused_for: Option<Duration>,
    /// Of one of these kinds.
    pub kinds: Option<Vec<CacheKind>>,
    /// Of none of these kinds.
    pub excluded_kinds: Vec<CacheKind>,
    /// With one of these in its name, unless there are none.
    pub ids: Vec<String>,
    /// With one of these in its description, unless there are none.
    pub descriptions: Vec<String>,
    /// Named by more than one step's record, or not.
    pub is_shared: Option<bool>,
    /// What a running build works in, or not.
    pub is_in_use: Option<bool>,
    /// What changes, or not: only what builds work in does.
    pub is_mutable: Option<bool>,
}

impl CacheFilter {
    /// Tells whether a piece is meant.
    pub fn matches(&self, item: &CacheItem, now: SystemTime) -> bool {
        let is_old = |limit: Duration| now.duration_since(item.used).is_ok_and(|unused| unused >= limit);
        let has_any = |parts: &[String], text: &str| {
            parts.is_empty() || parts.iter().any(|part| text.contains(part.as_str()))
        };
        let is_as = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        self.unused_for.is_none_or(is_old)
            && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&item.kind))
            && !self.excluded_kinds.contains(&item.kind)
            && has_any(&self.ids, &item.id)
            && has_any(&self.descriptions, &item.description)
            && is_as(self.is_shared, item.is_shared)
            && is_as(self.is_in_use, item.is_in_use())
            && is_as(self.is_mutable, item.is_mutable())
    }
}
