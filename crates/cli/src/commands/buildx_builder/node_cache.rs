// SPDX-License-Identifier: Apache-2.0
//! The caches of a builder's nodes elsewhere: what is there, and removing it.

use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use polyarch_build::BuildError;
use polyarch_buildkit::NodeError;
use polyarch_buildkit::api::control::{PruneRequest, UsageRecord};
use polyarch_buildkit::client::{Endpoint, Node};

use super::super::cache_filters::read_age;
use super::super::cache_rows::CacheRow;
use super::examine::connect_options;
use crate::CommandError;
use crate::builders::driver::{NodeKind, node_kind};
use crate::builders::{Builder, BuilderNode};
use crate::session::Session;

/// How long connecting to a node may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The most records that are taken of one node.
const MAX_RECORDS: usize = 1_000_000;

/// What nodes answered.
#[derive(Debug)]
pub struct Answers {
    /// The pieces of all nodes that answered.
    pub(in crate::commands) rows: Vec<CacheRow>,
    /// Whether this machine is a node of the builder, which is looked at in its own way.
    pub is_local_meant: bool,
    /// The first node that failed.
    pub failure: Option<CommandError>,
}

impl Answers {
    /// Stands for a builder that is this program itself.
    pub fn of_this_machine() -> Answers {
        Answers { rows: Vec::new(), is_local_meant: true, failure: None }
    }
}

/// Returns the nodes of a builder that are elsewhere.
///
/// # Errors
/// When an endpoint makes no sense.
pub fn remote_nodes(builder: &Builder) -> Result<Vec<(&BuilderNode, Endpoint)>, CommandError> {
    let mut nodes = Vec::new();
    for node in &builder.nodes {
        if let NodeKind::Remote(endpoint) = node_kind(&builder.driver, &node.endpoint)? {
            nodes.push((node, endpoint));
        }
    }
    Ok(nodes)
}

/// Asks every node what its cache holds.
///
/// # Errors
/// When the filters or an endpoint make no sense.
pub fn disk_usage(builder: &Builder, filters: &[String], session: &Session) -> Result<Answers, CommandError> {
    let (filter, unused_for) = node_filters(filters)?;
    let age = nanoseconds(unused_for.unwrap_or_default());
    on_each(builder, session, async |node| node.disk_usage(filter.clone(), age).await)
}

/// Makes the request that removes cache; `limits` are bytes to keep, to have at most, and to have free.
///
/// # Errors
/// When the filters make no sense.
pub fn prune_request(
    is_all: bool,
    filters: &[String],
    limits: [Option<u64>; 3],
) -> Result<PruneRequest, CommandError> {
    let (filter, unused_for) = node_filters(filters)?;
    let [reserved_space, max_used_space, min_free_space] =
        limits.map(|bytes| bytes.map_or(0, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)));
    Ok(PruneRequest {
        filter,
        all: is_all,
        keep_duration: nanoseconds(unused_for.unwrap_or_default()),
        reserved_space,
        max_used_space,
        min_free_space,
    })
}

/// Removes cache of every node; returns what went.
///
/// # Errors
/// When an endpoint makes no sense.
pub fn prune(builder: &Builder, request: &PruneRequest, session: &Session) -> Result<Answers, CommandError> {
    on_each(builder, session, async |node| {
        let mut removed = Vec::new();
        let take = |record| {
            if removed.len() < MAX_RECORDS {
                removed.push(record);
            }
        };
        node.prune(request.clone(), take).await?;
        Ok(removed)
    })
}

/// Does something at all nodes that are elsewhere, at the same time.
fn on_each(
    builder: &Builder,
    session: &Session,
    work: impl AsyncFn(&Node) -> Result<Vec<UsageRecord>, NodeError>,
) -> Result<Answers, CommandError> {
    let nodes = remote_nodes(builder)?;
    let is_local_meant = nodes.len() < builder.nodes.len();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::io("can't start", "a runtime", &error))?;
    let asked = nodes.iter().map(async |(node, endpoint)| {
        let options = connect_options(&session.environment, node, TIMEOUT);
        let (connection, _) = Node::connect(endpoint, &options).await?;
        work(&connection).await
    });
    let answers = runtime.block_on(join_all(asked));
    // What this machine has is looked at in a user namespace, which is entered by one thread.
    runtime.shutdown_timeout(Duration::from_secs(1));
    let (mut rows, mut failure) = (Vec::new(), None);
    for ((node, _), answer) in nodes.iter().zip(answers) {
        match answer {
            Ok(records) => {
                rows.extend(records.into_iter().take(MAX_RECORDS).map(|record| row(&node.name, record)));
            }
            Err(error) if failure.is_none() => {
                let mut error = BuildError::from(error);
                error.message = format!("the node {} did not answer: {}", node.name, error.message);
                failure = Some(error.with_hint("see `polyarch buildx ls`").into());
            }
            Err(error) => {
                let text = polyarch_build::error::chain_of(&error);
                session.printer.warning(&format!("the node {} did not answer: {text}", node.name));
            }
        }
    }
    Ok(Answers { rows, is_local_meant, failure })
}

/// Puts filters into the words of nodes: `type=regular` is `type==regular`, an id is found by a part of it; a time is a
/// field of its own.
fn node_filters(filters: &[String]) -> Result<(Vec<String>, Option<Duration>), CommandError> {
    let (mut words, mut unused_for) = (Vec::new(), None);
    for filter in filters {
        let wrong = |problem: String| CommandError::usage(format!("--filter {filter:?}: {problem}"));
        match filter.split_once('=') {
            Some(("until" | "unused-for", age)) => {
                if unused_for.replace(read_age(age).map_err(wrong)?).is_some() {
                    return Err(wrong("one time is enough".to_owned()));
                }
            }
            Some(("id", value)) => words.push(format!("id~={value}")),
            Some((key, value)) if key.ends_with(['!', '~']) => words.push(format!("{key}={value}")),
            Some((key, value)) => words.push(format!("{key}=={value}")),
            None => words.push(filter.clone()),
        }
    }
    // All of them must match: that is one filter of several fields.
    Ok((if words.is_empty() { words } else { vec![words.join(",")] }, unused_for))
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn row(node: &str, record: UsageRecord) -> CacheRow {
    let time = |time: Option<prost_types::Timestamp>| time.and_then(|time| SystemTime::try_from(time).ok());
    let created = time(record.created_at).unwrap_or(SystemTime::UNIX_EPOCH);
    let parents = match record.parents.is_empty() {
        true => Some(record.parent).filter(|parent| !parent.is_empty()).into_iter().collect(),
        false => record.parents,
    };
    CacheRow {
        id: record.id,
        kind: record.record_type,
        description: record.description,
        size_bytes: u64::try_from(record.size).unwrap_or_default(),
        created,
        used: time(record.last_used_at).unwrap_or(created),
        is_in_use: record.in_use,
        is_mutable: record.mutable,
        is_shared: record.shared,
        is_wanted: None,
        parents,
        node: Some(node.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_put_into_the_words_of_nodes() {
        let of = |filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(|filter| (*filter).to_owned()).collect();
            node_filters(&filters)
        };
        let (words, age) = of(&["type=regular", "until=24h", "id=abc", "type!=frontend", "shared"]).unwrap();
        assert_eq!(words, ["type==regular,id~=abc,type!=frontend,shared"]);
        assert_eq!(age, Some(Duration::from_secs(24 * 3600)));
        assert_eq!(of(&[]).unwrap(), (Vec::new(), None));
        assert!(of(&["until=1h", "until=2h"]).is_err());
        assert!(of(&["until=x"]).is_err());
    }
}
