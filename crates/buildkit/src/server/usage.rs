// SPDX-License-Identifier: Apache-2.0
//! What the cache holds and what goes from it, in BuildKit's terms.

use std::time::{Duration, SystemTime};

use polyarch_build::inventory::{CacheItem, CacheKind, inventory};
use polyarch_build::{BuildError, PruneRequest, plan_prune};
use regex::{Regex, RegexBuilder};
use tonic::Status;

use crate::api::control::{self, DiskUsageRequest, DiskUsageResponse, UsageRecord};
use crate::caller::KeptDirectories;
use crate::server::Server;
use crate::server::errors::{status_of, status_of_lost_task};
use crate::server::status::timestamp;

impl Server {
    /// Answers `Control.DiskUsage`.
    pub(super) async fn disk_usage(&self, request: DiskUsageRequest) -> Result<DiskUsageResponse, Status> {
        let filters = Filters::parse(&request.filter, request.age_limit)?;
        let options = self.0.options.services.clone();
        let items = blocking(move || inventory(&options)).await?;
        let now = SystemTime::now();
        let record = items.iter().filter(|item| filters.match_item(item, now)).map(record_of).collect();
        Ok(DiskUsageResponse { record })
    }

    /// Answers `Control.Prune` with what went.
    pub(super) async fn prune(&self, request: control::PruneRequest) -> Result<Vec<UsageRecord>, Status> {
        let filters = Filters::parse(&request.filter, request.keep_duration)?;
        let bytes = |count: i64| u64::try_from(count).ok().filter(|count| *count > 0);
        let prune = PruneRequest {
            // The cache of builds is what a builder has; without its parts that may be used again there is
            // nothing to remove.
            all: true,
            reserved_bytes: bytes(request.reserved_space),
            max_used_bytes: bytes(request.max_used_space),
            min_free_bytes: bytes(request.min_free_space),
            ..PruneRequest::default()
        };
        let options = self.0.options.services.clone();
        // What clients sent is no piece of the cache that could be counted; it goes when all that is unused goes.
        let limits = [request.reserved_space, request.max_used_space, request.min_free_space];
        let takes_contexts = filters.any.is_empty() && limits.iter().all(|bytes| *bytes <= 0);
        let unused_for = filters.unused_for.unwrap_or_default();
        let gone = blocking(move || {
            if takes_contexts {
                KeptDirectories::of_store(&options.root).remove_unused(unused_for).map_err(|error| {
                    BuildError::io("can't remove what clients sent from", &options.root, &error)
                })?;
            }
            let mut plan = plan_prune(&options, &prune)?;
            let now = SystemTime::now();
            plan.items.retain(|item| filters.match_item(item, now));
            polyarch_build::prune(&options, &prune, &plan, |_| {})
        });
        Ok(gone.await?.items.iter().map(record_of).collect())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|lost| status_of_lost_task(&lost))?.map_err(|error| status_of(&error))
}

fn record_of(item: &CacheItem) -> UsageRecord {
    UsageRecord {
        id: item.id.clone(),
        mutable: item.is_mutable(),
        in_use: item.is_in_use(),
        size: i64::try_from(item.size_bytes).unwrap_or(i64::MAX),
        created_at: timestamp(Some(item.created)),
        last_used_at: timestamp(Some(item.used)),
        usage_count: 1,
        description: item.description.clone(),
        record_type: kind_of(item).to_owned(),
        shared: item.is_shared,
        parents: item.parents.clone(),
        ..UsageRecord::default()
    }
}

/// Returns BuildKit's name of a kind.
fn kind_of(item: &CacheItem) -> &'static str {
    match item.kind {
        CacheKind::Record | CacheKind::Temporary => "internal",
        _ => "regular",
    }
}

/// The largest pattern of a filter, compiled, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// Filters, one of which must match, each of conditions that must all hold.
struct Filters {
    any: Vec<Vec<Condition>>,
    unused_for: Option<Duration>,
}

struct Condition {
    key: String,
    /// `None` asks whether it is so; else how the text is compared.
    value: Option<(Comparison, String)>,
    /// What a value must match.
    pattern: Option<Regex>,
}

#[derive(Clone, Copy)]
enum Comparison {
    Is,
    IsNot,
    Matches,
}

impl Filters {
    fn parse(filters: &[String], nanoseconds: i64) -> Result<Filters, Status> {
        let parse = |text: &String| text.split(',').map(|part| Condition::parse(part.trim())).collect();
        let unused_for = u64::try_from(nanoseconds).ok().filter(|count| *count > 0).map(Duration::from_nanos);
        let given = filters.iter().filter(|text| !text.trim().is_empty());
        Ok(Filters { any: given.map(parse).collect::<Result<_, _>>()?, unused_for })
    }

    fn match_item(&self, item: &CacheItem, now: SystemTime) -> bool {
        let is_old = |limit: Duration| now.duration_since(item.used).is_ok_and(|unused| unused >= limit);
        self.unused_for.is_none_or(is_old)
            && (self.any.is_empty() || self.any.iter().any(|all| all.iter().all(|it| it.match_item(item))))
    }
}

impl Condition {
    fn parse(text: &str) -> Result<Condition, Status> {
        let known =
            ["id", "type", "description", "parents", "inuse", "mutable", "immutable", "shared", "private"];
        let found = [("==", Comparison::Is), ("!=", Comparison::IsNot), ("~=", Comparison::Matches)]
            .into_iter()
            .find_map(|(sign, comparison)| Some((text.split_once(sign)?, comparison)));
        let (key, value) = match found {
            Some(((key, value), comparison)) => (key, Some((comparison, value.trim_matches('"').to_owned()))),
            None => (text, None),
        };
        if !known.contains(&key) {
            return Err(Status::invalid_argument(format!(
                "failed to parse prune filters [{text}]: no field {key:?}; there are {}",
                known.join(", ")
            )));
        }
        let pattern = match &value {
            Some((Comparison::Matches, text)) => Some(compile(text)?),
            _ => None,
        };
        Ok(Condition { key: key.to_owned(), value, pattern })
    }

    fn match_text(&self, field: &str) -> bool {
        match (&self.value, &self.pattern) {
            (None, _) => !field.is_empty(),
            (_, Some(pattern)) => pattern.is_match(field),
            (Some((Comparison::IsNot, text)), _) => field != text,
            (Some((_, text)), _) => field == text,
        }
    }

    fn match_item(&self, item: &CacheItem) -> bool {
        let truth = |is: bool| match &self.value {
            None => is,
            Some((Comparison::IsNot, text)) => (text == "true") != is,
            Some((_, text)) => (text == "true") == is,
        };
        let compare = |field: &str| self.match_text(field);
        match self.key.as_str() {
            "id" => compare(&item.id),
            "type" => compare(kind_of(item)),
            "description" => compare(&item.description),
            "parents" => compare(&item.parents.join(";")),
            "inuse" => truth(item.is_in_use()),
            "mutable" => truth(item.is_mutable()),
            "immutable" => truth(!item.is_mutable()),
            "shared" => truth(item.is_shared),
            _ => truth(!item.is_shared),
        }
    }
}

fn compile(pattern: &str) -> Result<Regex, Status> {
    RegexBuilder::new(pattern).size_limit(MAX_PATTERN_BYTES).build().map_err(|error| {
        Status::invalid_argument(format!("failed to parse prune filters: {pattern:?} is no pattern: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_containerd() {
        let matches = |filter: &str| Condition::parse(filter).unwrap().match_text("steps/0a1b");
        for filter in ["id~=^steps/", "id~=steps/[0-9a-f]+$", "id~=\"a1\"", "id==steps/0a1b", "id!=steps"] {
            assert!(matches(filter), "{filter}");
        }
        for filter in ["id~=^0a1b", "id~=steps.0a1b.", "id==steps", "id!=steps/0a1b"] {
            assert!(!matches(filter), "{filter}");
        }
        for filter in ["id~=(", "id~=(a{1000}){1000}", "colour==red"] {
            assert!(Condition::parse(filter).is_err(), "{filter}");
        }
    }
}
