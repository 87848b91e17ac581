// SPDX-License-Identifier: Apache-2.0
//! What nobody needs any more, removed: planned, shown, then done.
//!
//! A plan is made while others work. Carrying it out waits until nobody else has the store open, looks again,
//! and removes of what was planned only what nobody has used since: a build loses nothing, and nothing goes
//! that wasn't shown, but what builds left that were killed meanwhile. Left-overs go all together.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use polyarch_oci::Digest;
use polyarch_store::{ExclusiveStore, Store, StoreError};

use crate::cache_filter::CacheFilter;
use crate::error::BuildError;
use crate::image_source::storage_error;
use crate::inventory::{CacheItem, CacheKind, Place, SCRATCH, failed, places, take};
use crate::services::ServiceOptions;

/// How long a prune waits for builds to end before it says so, and after that.
const WAIT: Duration = Duration::from_millis(500);
const LONG_WAIT: Duration = Duration::from_secs(60);

/// What to remove. Images that have a name, and what running builds work in, stay in any case.
#[derive(Debug, Clone, Default)]
pub struct PruneRequest {
    /// Also what a build may use again.
    pub all: bool,
    /// Only this.
    pub filter: CacheFilter,
    /// The cache is not made smaller than this many bytes.
    pub reserved_bytes: Option<u64>,
    /// The cache is made so small that it has this many bytes at most.
    pub max_used_bytes: Option<u64>,
    /// The cache is made so small that so many bytes of the disk are free.
    pub min_free_bytes: Option<u64>,
}

/// What would go.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PrunePlan {
    /// The pieces, what goes first being first.
    pub items: Vec<CacheItem>,
    /// The bytes of the whole cache before.
    pub cache_bytes: u64,
}

impl PrunePlan {
    /// Returns how many bytes of the disk become free.
    pub fn size_bytes(&self) -> u64 {
        self.items.iter().map(|item| item.size_bytes).sum()
    }
}

/// Finds what would go.
///
/// # Errors
/// When the store can't be read.
pub fn plan_prune(options: &ServiceOptions, request: &PruneRequest) -> Result<PrunePlan, BuildError> {
    let store = Store::open(&options.root).map_err(|error| storage_error(&error))?;
    let items = take(options, &store, &places(options)?)?;
    let free_bytes = free_bytes(options)?;
    Ok(choose(items, request, free_bytes, SystemTime::now()))
}

/// Removes what was planned, unless it was used since; returns what went. `waiting` is told whom it waits for.
///
/// # Errors
/// When builds use the store for a minute, or the disk fails. Then some of it may be gone.
pub fn prune(
    options: &ServiceOptions,
    request: &PruneRequest,
    plan: &PrunePlan,
    waiting: impl FnOnce(&str),
) -> Result<PrunePlan, BuildError> {
    let mut store = lock(options, waiting)?;
    let places = places(options)?;
    let now = choose(take(options, &store, &places)?, request, free_bytes(options)?, SystemTime::now());
    let planned: HashSet<(CacheKind, &str, SystemTime)> =
        plan.items.iter().map(|item| (item.kind, item.id.as_str(), item.used)).collect();
    let is_planned = |item: &CacheItem| planned.contains(&(item.kind, item.id.as_str(), item.used));
    // Nobody else is here: what is in the working directories was left.
    let is_leftover = |item: &CacheItem| item.kind == CacheKind::Temporary;
    let cache_bytes = now.cache_bytes;
    let items: Vec<CacheItem> =
        now.items.into_iter().filter(|item| is_planned(item) || is_leftover(item)).collect();
    remove(options, &mut store, &places, &items)?;
    Ok(PrunePlan { items, cache_bytes })
}

fn lock(options: &ServiceOptions, waiting: impl FnOnce(&str)) -> Result<ExclusiveStore, BuildError> {
    let open = || Store::open(&options.root).map_err(|error| storage_error(&error));
    let error = match open()?.lock_exclusive(WAIT) {
        Ok(store) => return Ok(store),
        Err(error) => error,
    };
    if let StoreError::Busy { holders, .. } = &error {
        waiting(holders);
        return open()?.lock_exclusive(LONG_WAIT).map_err(|error| {
            storage_error(&error).with_hint("wait until the running builds have ended, or stop them")
        });
    }
    Err(storage_error(&error))
}

fn free_bytes(options: &ServiceOptions) -> Result<u64, BuildError> {
    let found = rustix::fs::statvfs(&options.root)
        .map_err(|error| BuildError::io("can't look at", &options.root, &error.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Chooses what goes: what is of no use first, then what was not used for longest.
fn choose(items: Vec<CacheItem>, request: &PruneRequest, free_bytes: u64, now: SystemTime) -> PrunePlan {
    let cache_bytes: u64 = items.iter().map(|item| item.size_bytes).sum();
    let target = request.target(cache_bytes, free_bytes);
    let may_go = |item: &CacheItem| (request.all || !item.is_wanted) && !item.is_in_use();
    let (mut candidates, others): (Vec<CacheItem>, Vec<CacheItem>) =
        items.into_iter().partition(|item| may_go(item) && request.filter.matches(item, now));
    // Records that need nothing on the disk come last: they are small, and what they save is large. A layer
    // goes before those beneath it, which were used with it.
    candidates.sort_by_key(|item| {
        let is_record = item.kind == CacheKind::Record;
        (item.is_wanted, is_record, item.used, std::cmp::Reverse(item.parents.len()))
    });
    let mut left = cache_bytes;
    let mut chosen: Vec<CacheItem> = Vec::new();
    let mut kept = others;
    let mut gone: HashSet<(usize, String)> = HashSet::new();
    for item in candidates {
        if target.is_some_and(|target| left <= target) {
            kept.push(item);
            continue;
        }
        left -= item.size_bytes;
        // An image's layer is unpacked again, or fetched again.
        if matches!(item.kind, CacheKind::Step | CacheKind::Blob) {
            gone.insert((item.place, item.id.clone()));
        }
        chosen.push(item);
    }
    // A record whose layers or blob go says nothing any more.
    let is_void = |item: &CacheItem| {
        item.kind == CacheKind::Record
            && item.parents.iter().any(|layer| gone.contains(&(item.place, layer.clone())))
    };
    chosen.extend(kept.into_iter().filter(is_void));
    PrunePlan { items: chosen, cache_bytes }
}

impl PruneRequest {
    /// Returns how small the cache is to become; `None` when there is no limit to that.
    fn target(&self, cache_bytes: u64, free_bytes: u64) -> Option<u64> {
        let by_free =
            self.min_free_bytes.map(|wanted| cache_bytes.saturating_sub(wanted.saturating_sub(free_bytes)));
        let limit = match (self.max_used_bytes, by_free) {
            (Some(max), Some(free)) => Some(max.min(free)),
            (max, free) => max.or(free),
        };
        match (limit, self.reserved_bytes) {
            (Some(limit), Some(reserved)) => Some(limit.max(reserved)),
            (limit, reserved) => limit.or(reserved),
        }
    }
}

/// Removes: records first, so that none names what is gone, then layers, then blobs.
fn remove(
    options: &ServiceOptions,
    store: &mut ExclusiveStore,
    places: &[Place],
    items: &[CacheItem],
) -> Result<(), BuildError> {
    for item in items.iter().filter(|item| item.kind == CacheKind::Record) {
        if let Some((namespace, key)) = item.id.split_once('/') {
            store.remove_record(namespace, key).map_err(|error| storage_error(&error))?;
        }
    }
    for item in items.iter().filter(|item| matches!(item.kind, CacheKind::Step | CacheKind::Image)) {
        if let Ok(id) = item.id.parse() {
            places[item.place].snapshots.remove(&id).map_err(failed)?;
        }
    }
    let going: HashSet<&str> =
        items.iter().filter(|item| item.kind == CacheKind::Blob).map(|item| item.id.as_str()).collect();
    // What is left of killed builds: of the store's own, of layers, and the rest.
    let left: Vec<&CacheItem> = items.iter().filter(|item| item.kind == CacheKind::Temporary).collect();
    if !going.is_empty() || !left.is_empty() {
        let blobs = store.blob_files().map_err(|error| storage_error(&error))?;
        let digests = blobs.into_iter().map(|(digest, _)| digest);
        let kept: Vec<Digest> = digests.filter(|it| !going.contains(it.to_string().as_str())).collect();
        store.gc(kept).map_err(|error| storage_error(&error))?;
    }
    if !left.is_empty() {
        for place in places {
            place.snapshots.sweep().map_err(failed)?;
        }
    }
    for item in items.iter().filter(|item| item.kind == CacheKind::CacheMount) {
        std::fs::remove_dir_all(&item.path)
            .map_err(|error| BuildError::io("can't remove", &item.path, &error))?;
    }
    let scratch = options.root.join(SCRATCH);
    for item in left.iter().filter(|item| item.path.starts_with(&scratch)) {
        std::fs::remove_dir_all(&item.path)
            .or_else(|_| std::fs::remove_file(&item.path))
            .map_err(|error| BuildError::io("can't remove", &item.path, &error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str, kind: CacheKind, size_bytes: u64, age: u64, is_wanted: bool) -> CacheItem {
        let used = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age);
        CacheItem {
            kind,
            id: id.to_owned(),
            description: format!("RUN {id}"),
            size_bytes,
            created: used,
            used,
            is_wanted,
            is_shared: false,
            parents: Vec::new(),
            place: 0,
            path: id.into(),
        }
    }

    fn cache() -> Vec<CacheItem> {
        let mut record = item("steps/old", CacheKind::Record, 4, 0, true);
        record.parents = vec!["below".into(), "old".into()];
        let mut old = item("old", CacheKind::Step, 100, 500, true);
        old.parents = vec!["below".into()];
        vec![
            item("new", CacheKind::Step, 100, 10, true),
            item("below", CacheKind::Step, 1000, 500, true),
            old,
            item("garbage", CacheKind::Image, 50, 1, false),
            item("sha256:b", CacheKind::Blob, 30, 400, true),
            record,
        ]
    }

    fn chosen(request: PruneRequest, free_bytes: u64) -> Vec<String> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let plan = choose(cache(), &request, free_bytes, now);
        assert_eq!(plan.cache_bytes, 1284);
        plan.items.into_iter().map(|item| item.id).collect()
    }

    #[test]
    fn what_goes_is_what_was_asked_for_and_the_least_used_first() {
        let idle = PruneRequest::default;
        assert_eq!(chosen(idle(), 0), ["garbage"]);
        let request = || PruneRequest { all: true, ..PruneRequest::default() };
        assert_eq!(chosen(request(), 0), ["garbage", "old", "below", "sha256:b", "new", "steps/old"]);
        let keep = |bytes| PruneRequest { reserved_bytes: Some(bytes), ..request() };
        assert_eq!(chosen(keep(1300), 0), [""; 0]);
        assert_eq!(chosen(keep(1234), 0), ["garbage"]);
        assert_eq!(chosen(keep(1200), 0), ["garbage", "old", "steps/old"]);
        assert_eq!(chosen(keep(200), 0), ["garbage", "old", "below", "steps/old"]);
        let of = |filter| PruneRequest { filter, ..request() };
        let any = CacheFilter::default;
        let until = CacheFilter { unused_for: Some(Duration::from_secs(450)), ..any() };
        assert_eq!(chosen(of(until.clone()), 0), ["old", "below", "steps/old"]);
        assert_eq!(chosen(PruneRequest { filter: until, ..idle() }, 0), [""; 0], "builds may use them");
        let kind = CacheFilter { kinds: Some(vec![CacheKind::Blob]), ..any() };
        assert_eq!(chosen(of(kind), 0), ["sha256:b"]);
        let none = CacheFilter { kinds: Some(Vec::new()), ..any() };
        assert_eq!(chosen(of(none), 0), [""; 0]);
        let others = CacheFilter { excluded_kinds: vec![CacheKind::Step, CacheKind::Record], ..any() };
        assert_eq!(chosen(of(others), 0), ["garbage", "sha256:b"]);
        let description = CacheFilter { descriptions: vec!["RUN ne".into()], ..any() };
        assert_eq!(chosen(of(description), 0), ["new"]);
        let shared = CacheFilter { is_shared: Some(true), ..any() };
        assert_eq!(chosen(of(shared), 0), [""; 0]);
        let free = |bytes| PruneRequest { min_free_bytes: Some(bytes), ..request() };
        assert_eq!(chosen(free(10_000), 10_000), [""; 0], "there is room");
        assert_eq!(chosen(free(10_040), 10_000), ["garbage"]);
        let both = PruneRequest { max_used_bytes: Some(0), reserved_bytes: Some(1240), ..request() };
        assert_eq!(chosen(both, 0), ["garbage"]);
    }

    #[test]
    fn what_a_running_build_works_in_stays() {
        let now = SystemTime::now();
        let request = PruneRequest { all: true, ..PruneRequest::default() };
        let items = vec![item("active/1", CacheKind::Temporary, 5, 10, true)];
        assert!(choose(items, &request, 0, now).items.is_empty());
        assert_eq!(
            choose(vec![item("active/1", CacheKind::Temporary, 5, 10, false)], &request, 0, now).items.len(),
            1
        );
    }
}
