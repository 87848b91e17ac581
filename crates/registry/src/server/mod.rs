// SPDX-License-Identifier: Apache-2.0
//! The server: a registry over one directory, or in a bucket (`docs/registry.md`).
//!
//! It owns the directory's format, the API's answers, access and limits. It promises that what it acknowledged is there
//! after a crash, and that nothing is seen that is not whole. Several servers may use one directory.
//!
//! Its page for browsers is in `page/`.

mod access;
mod api_error;
mod backend;
mod batch;
mod blob_uploads;
mod blobs;
mod body;
#[cfg(feature = "s3")]
mod bucket;
mod cache;
#[cfg(test)]
mod crash_tests;
mod disk;
mod document;
mod gc;
mod identity;
mod index;
mod limits;
mod listen;
mod listing;
mod manifests;
mod metrics;
mod mirror;
mod names;
mod paced;
mod page;
#[cfg(test)]
mod power;
mod receive;
mod repository;
mod route;
mod scrub;
mod sender;
mod service;
mod state;
mod storage;
mod tls;
mod upload;
mod users;

use std::sync::Arc;

use tokio::sync::Semaphore;

use self::limits::RateLimiter;
use self::metrics::Metrics;
use self::mirror::Mirrors;
use self::state::State;

pub use access::Access;
pub use backend::Storage;
#[cfg(feature = "s3")]
pub use bucket::{BucketError, BucketOptions};
pub use disk::DiskError;
pub use gc::{CollectOptions, Collected};
pub use limits::Limits;
pub use mirror::{MirrorOptions, MirroredRegistry};
pub use names::RepositoryName;
pub use scrub::{Damage, DamageKind, ScrubOptions, Scrubbed};
pub use service::RequestRecord;
pub use storage::StorageError;
pub use tls::{ServerTls, TlsError};
pub use users::{HtpasswdError, Users};

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerEvent<'a> {
    /// A request was answered.
    Request(&'a RequestRecord),
    /// What nothing leads to was removed.
    Collected(&'a Collected),
    /// Something is wrong that its owner should know, and that no request is to blame for.
    Trouble(String),
}

/// Takes what happened, to tell it.
pub type ServerLog = Arc<dyn Fn(ServerEvent<'_>) + Send + Sync>;

/// What a server is made of.
pub struct ServerOptions {
    /// Where everything is kept.
    pub storage: Storage,
    /// Who may do what.
    pub access: Access,
    /// How much of it.
    pub limits: Limits,
    /// Whether an image may be pushed whose blobs are not there.
    pub allows_missing_blobs: bool,
    /// Whether browsers get a page of what is here.
    pub serves_page: bool,
    /// What is copied from elsewhere.
    pub mirrors: Option<MirrorOptions>,
    /// What is removed while serving, and when; `None` for nothing.
    pub collect: Option<CollectOptions>,
    /// Who is told what happens.
    pub log: Option<ServerLog>,
}

/// A registry server; a clone is another handle of the same.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    state: Arc<State>,
    access: Arc<Access>,
    limits: Limits,
    rate: Option<RateLimiter>,
    metrics: Metrics,
    serves_page: bool,
    /// Bounds the memory of pages that are being made.
    page_turns: Semaphore,
    mirrors: Option<Mirrors>,
    collect: Option<CollectOptions>,
    log: Option<ServerLog>,
}

impl Server {
    /// Makes a server; it listens to nobody yet.
    pub fn new(options: ServerOptions) -> Server {
        let state = State::new(options.storage, &options.limits, options.allows_missing_blobs);
        Server {
            shared: Arc::new(Shared {
                state: Arc::new(state),
                access: Arc::new(options.access),
                rate: options.limits.requests_per_second.map(RateLimiter::new),
                limits: options.limits,
                metrics: Metrics::default(),
                serves_page: options.serves_page,
                page_turns: Semaphore::new(page::MAX_AT_ONCE),
                mirrors: options.mirrors.map(Mirrors::new),
                collect: options.collect,
                log: options.log,
            }),
        }
    }
}

impl Shared {
    fn tell(&self, event: ServerEvent<'_>) {
        if let Some(log) = &self.log {
            log(event);
        }
    }
}
