// SPDX-License-Identifier: Apache-2.0
//! Pull-through: copies of other registries' repositories, fetched when they are asked for.
//!
//! The copy of `docker.io/library/alpine` is the repository `docker.io/library/alpine`. A tag is asked after upstream
//! each time, and served from here when nobody upstream answers; what is named by its digest is fetched once. An index
//! is kept byte for byte, and of its platforms only those are fetched that somebody asks for.

mod copied;
mod download;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http::StatusCode;
use polyarch_oci::{Digest, Reference};

use self::download::Download;
use super::api_error::{ApiError, Code, chain_of};
use super::names::RepositoryName;
use crate::{Client, RegistryError};

/// The header that says where an answer's content came from.
pub(super) const SERVED_BY: &str = "polyarch-served-by";
/// Goes with an answer that is a copy because nobody upstream answered; says why, for the log.
#[derive(Debug, Clone)]
pub(super) struct UpstreamGone(pub(super) String);

/// How long an upstream that did not answer, or sent damaged content, is asked last.
const REST: Duration = Duration::from_secs(30);

/// Where copies come from.
pub struct MirrorOptions {
    /// The registries that are copied, by the host in their images' names, such as `docker.io`.
    pub registries: Vec<MirroredRegistry>,
    /// Asks upstream; its options say which of the upstream hosts speak plain HTTP, and how long they may take.
    pub client: Client,
}

/// A registry that is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirroredRegistry {
    /// The host in names of images.
    pub host: String,
    /// Who is asked, in order.
    pub upstreams: Vec<crate::config::Mirror>,
}

/// Copies of registries.
pub(super) struct Mirrors {
    registries: Vec<Mirrored>,
    client: Client,
    downloads: Mutex<HashMap<(RepositoryName, Digest), Arc<Download>>>,
}

struct Mirrored {
    host: String,
    /// The host, as the first part of repositories' names here.
    prefix: String,
    upstreams: Vec<Arc<Upstream>>,
}

struct Upstream {
    host: String,
    path: String,
    resting_until: Mutex<Option<Instant>>,
}

/// A repository that is a copy.
pub(super) struct Copied<'a> {
    mirrors: &'a Mirrors,
    mirrored: &'a Mirrored,
    /// Its name upstream.
    remote: String,
    /// Its name here.
    pub(super) local: RepositoryName,
}

/// Of what a repository is a copy.
pub(super) struct Origin {
    /// The repository, with its registry's host.
    pub(super) name: String,
    /// Who is asked, and whether they answered the last time.
    pub(super) upstreams: Vec<(String, bool)>,
}

/// Nobody upstream gave what was asked for.
enum Failure {
    /// Those who answered have no such thing.
    NotFound,
    /// Nobody answered, or not what was to be expected; with what went wrong.
    Gone(String),
}

impl Mirrors {
    pub(super) fn new(options: MirrorOptions) -> Mirrors {
        let registries = options.registries.into_iter().map(|registry| Mirrored {
            prefix: registry.host.replace([':', '[', ']'], "_").to_ascii_lowercase(),
            host: registry.host,
            upstreams: registry
                .upstreams
                .into_iter()
                .map(|mirror| {
                    Arc::new(Upstream {
                        host: mirror.host,
                        path: mirror.path,
                        resting_until: Mutex::default(),
                    })
                })
                .collect(),
        });
        Mirrors { registries: registries.collect(), client: options.client, downloads: Mutex::default() }
    }

    /// Finds out whether a name means a copy: by the parameter `ns` that clients send to mirrors (distribution-spec,
    /// "Registry Proxying"), or by the name's first part.
    pub(super) fn find(&self, name: &RepositoryName, namespace: Option<&str>) -> Option<Copied<'_>> {
        if let Some(namespace) = namespace {
            let mirrored = self.registries.iter().find(|mirrored| mirrored.host == namespace)?;
            return self.copied(mirrored, name.as_str());
        }
        let (first, rest) = name.as_str().split_once('/')?;
        let mirrored = self.registries.iter().find(|mirrored| mirrored.prefix == first)?;
        self.copied(mirrored, rest)
    }

    /// Tells of which repository one here is a copy; `None` when it is none.
    pub(super) fn origin(&self, name: &RepositoryName) -> Option<Origin> {
        let copied = self.find(name, None).filter(|copied| copied.local == *name)?;
        let upstreams = &copied.mirrored.upstreams;
        Some(Origin {
            name: format!("{}/{}", copied.mirrored.host, copied.remote),
            upstreams: upstreams.iter().map(|one| (one.host.clone(), !one.is_resting())).collect(),
        })
    }

    /// What docker asks of its `registry-mirrors` says nowhere which registry is meant: it is always Docker Hub.
    pub(super) fn of_docker(&self, name: &RepositoryName) -> Option<Copied<'_>> {
        let mirrored = self.registries.iter().find(|mirrored| mirrored.host == "docker.io")?;
        self.copied(mirrored, name.as_str())
    }

    /// Writes which upstreams answer, as Prometheus reads it.
    pub(super) fn render(&self) -> String {
        let mut text = String::from("# TYPE polyarch_registry_upstream_up gauge\n");
        for mirrored in &self.registries {
            for upstream in &mirrored.upstreams {
                // Both are hosts, which have nothing to escape.
                text.push_str(&format!(
                    "polyarch_registry_upstream_up{{registry=\"{}\",upstream=\"{}\"}} {}\n",
                    mirrored.host,
                    upstream.host,
                    u8::from(!upstream.is_resting()),
                ));
            }
        }
        text
    }

    fn copied<'a>(&'a self, mirrored: &'a Mirrored, remote: &str) -> Option<Copied<'a>> {
        let is_official = mirrored.host == "docker.io" && !remote.contains('/');
        let remote = if is_official { format!("library/{remote}") } else { remote.to_owned() };
        let local = RepositoryName::new(&format!("{}/{remote}", mirrored.prefix))?;
        Some(Copied { mirrors: self, mirrored, remote, local })
    }
}

impl Copied<'_> {
    /// Asks one upstream after the other. Those that did not answer a moment ago come last, and are waited for only when
    /// nobody else has answered and nothing is here.
    async fn ask<'a, T: 'a>(
        &'a self,
        is_here: bool,
        question: impl Fn(Reference) -> BoxFuture<'a, Result<T, RegistryError>>,
    ) -> Result<T, Failure> {
        let mut failure = Failure::NotFound;
        let mut has_answer = is_here;
        for upstream in self.upstreams() {
            if has_answer && upstream.is_resting() {
                failure = Failure::Gone(format!("{} did not answer a moment ago", upstream.host));
                continue;
            }
            let Some(reference) = self.reference(upstream) else { continue };
            match question(reference).await {
                Ok(answer) => {
                    upstream.rest(None);
                    return Ok(answer);
                }
                Err(error) if error.is_not_found() => {
                    upstream.rest(None);
                    has_answer = true;
                }
                Err(error) => {
                    upstream.failed(&error);
                    failure = Failure::Gone(chain_of(&error));
                }
            }
        }
        Err(failure)
    }

    fn upstreams(&self) -> Vec<&Arc<Upstream>> {
        let (up, resting): (Vec<_>, Vec<_>) =
            self.mirrored.upstreams.iter().partition(|upstream| !upstream.is_resting());
        up.into_iter().chain(resting).collect()
    }

    fn reference(&self, upstream: &Upstream) -> Option<Reference> {
        let separator = if upstream.path.is_empty() { "" } else { "/" };
        format!("{}/{}{separator}{}", upstream.host, upstream.path, self.remote).parse().ok()
    }

    fn refusal(&self, failure: Failure, what: &str) -> ApiError {
        match failure {
            Failure::NotFound => ApiError::new(
                StatusCode::NOT_FOUND,
                Code::ManifestUnknown,
                format!("{} has no {} with {what}", self.mirrored.host, self.remote),
            ),
            Failure::Gone(reason) => {
                let mut refusal = ApiError::new(
                    StatusCode::BAD_GATEWAY,
                    Code::ManifestUnknown,
                    format!("{what} of {} is not here, and nobody upstream gave it", self.remote),
                );
                refusal.cause = Some(reason);
                refusal
            }
        }
    }
}

impl Upstream {
    fn is_resting(&self) -> bool {
        let until = self.resting_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| until > Instant::now())
    }

    /// Takes notice of a failure: another upstream may do better.
    fn failed(&self, error: &RegistryError) {
        if error.is_transient() || error.is_about_content() {
            self.rest(Some(Instant::now() + REST));
        }
    }

    fn rest(&self, until: Option<Instant>) {
        *self.resting_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}
