// SPDX-License-Identifier: Apache-2.0
//! Pull-through: copies of other registries' repositories, fetched when they are asked for.
//!
//! The copy of `docker.io/library/alpine` is the repository `docker.io/library/alpine`. A tag is asked after upstream
//! each time, and served from here when nobody upstream answers; what is named by its digest is fetched once. An index
//! is kept byte for byte, and of its platforms only those are fetched that somebody asks for.

mod download;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Response, StatusCode};
use polyarch_oci::{Descriptor, Digest, Reference};

use self::download::Download;
use super::api_error::{ApiError, Code, chain_of};
use super::body::Body;
use super::document::inspect;
use super::index::ManifestEntry;
use super::manifests::{self, Found};
use super::names::{ManifestName, RepositoryName};
use super::repository::Repository;
use super::state::{State, value};
use super::{blobs, listing};
use crate::{Client, FetchedManifest, RegistryError};

/// The header that says where an answer's content came from.
pub(super) const SERVED_BY: &str = "polyarch-served-by";
/// What it says of what was here.
const HERE: &str = "this registry";
/// Goes with an answer that is a copy because nobody upstream answered; says why, for the log.
#[derive(Debug, Clone)]
pub(super) struct UpstreamGone(pub(super) String);

/// How long an upstream that did not answer is not asked.
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
    upstreams: Vec<Upstream>,
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

/// Nobody upstream gave what was asked for.
enum Failure {
    /// Those who answered have no such thing.
    NotFound,
    /// Nobody answered, or not what was to be expected.
    Gone(RegistryError),
}

impl Mirrors {
    pub(super) fn new(options: MirrorOptions) -> Mirrors {
        let registries = options.registries.into_iter().map(|registry| Mirrored {
            prefix: registry.host.replace([':', '[', ']'], "_").to_ascii_lowercase(),
            host: registry.host,
            upstreams: registry
                .upstreams
                .into_iter()
                .map(|mirror| Upstream {
                    host: mirror.host,
                    path: mirror.path,
                    resting_until: Mutex::default(),
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

    /// What docker asks of its `registry-mirrors` says nowhere which registry is meant: it is always Docker Hub.
    pub(super) fn of_docker(&self, name: &RepositoryName) -> Option<Copied<'_>> {
        let mirrored = self.registries.iter().find(|mirrored| mirrored.host == "docker.io")?;
        self.copied(mirrored, name.as_str())
    }

    fn copied<'a>(&'a self, mirrored: &'a Mirrored, remote: &str) -> Option<Copied<'a>> {
        let is_official = mirrored.host == "docker.io" && !remote.contains('/');
        let remote = if is_official { format!("library/{remote}") } else { remote.to_owned() };
        let local = RepositoryName::new(&format!("{}/{remote}", mirrored.prefix))?;
        Some(Copied { mirrors: self, mirrored, remote, local })
    }
}

impl Copied<'_> {
    /// Answers GET and HEAD of a manifest.
    pub(super) async fn manifest(
        &self,
        state: &Arc<State>,
        method: &Method,
        headers: &HeaderMap,
        repository: &Arc<Repository>,
        name: &ManifestName,
    ) -> Result<Response<Body>, ApiError> {
        let here = manifests::find(state, repository, name).await.ok();
        let (mut warning, mut gone) = (None, None);
        let served_by = match (name, &here) {
            (ManifestName::Digest(_), Some(_)) => HERE.to_owned(),
            _ => match self.fetch_manifest(name, here.as_ref()).await {
                Ok(Some(fetched)) => {
                    let served_by = fetched.served_by.clone();
                    self.keep(state, repository, name, fetched).await?;
                    served_by
                }
                Ok(None) => HERE.to_owned(),
                Err(Failure::Gone(error)) if here.is_some() => {
                    warning =
                        Some(format!("299 - \"{} is not to be had; this is the copy\"", self.mirrored.host));
                    gone = Some(UpstreamGone(chain_of(&error)));
                    HERE.to_owned()
                }
                Err(failure) => return Err(self.refusal(failure, &format!("the manifest {name}"))),
            },
        };
        let mut response = manifests::get(state, method, headers, repository, name).await?;
        if let Some(warning) = warning {
            response.headers_mut().insert(http::header::WARNING, value(&warning));
        }
        if let Some(gone) = gone {
            response.extensions_mut().insert(gone);
        }
        response.headers_mut().insert(SERVED_BY, value(&served_by));
        Ok(response)
    }

    /// Answers GET and HEAD of a blob; one that is not here is sent while it comes.
    pub(super) async fn blob(
        &self,
        state: &Arc<State>,
        method: &Method,
        headers: &HeaderMap,
        repository: &Arc<Repository>,
        digest: &Digest,
    ) -> Result<Response<Body>, ApiError> {
        if repository.blob_path(digest).exists() {
            let mut response = blobs::get(method, headers, repository, digest).await?;
            response.headers_mut().insert(SERVED_BY, value(HERE));
            return Ok(response);
        }
        // Only what a manifest leads to that somebody has asked for: the rest is nobody's business, and its size is
        // known to nobody.
        let descriptor = self.descriptor(state, repository, digest).await?;
        let descriptor = descriptor.ok_or_else(|| ApiError::blob_unknown(digest, &repository.name))?;
        let range = blobs::wanted_range(headers, descriptor.size)?;
        let (first, last) = range.unwrap_or((0, descriptor.size.saturating_sub(1)));
        let length = if descriptor.size == 0 { 0 } else { last - first + 1 };
        let (body, served_by) = if *method == Method::HEAD {
            (Body::Empty, None)
        } else {
            let download = self.download(state, repository, &descriptor).await?;
            // A failure that comes later can only break the answer off.
            let served_by = download.begun().await.map_err(|reason| {
                let message = format!("{digest} of {} is not here, and nobody upstream gave it", self.remote);
                let mut refusal = ApiError::new(StatusCode::BAD_GATEWAY, Code::BlobUnknown, message);
                refusal.cause = Some(reason);
                refusal
            })?;
            (download.read(first, length), Some(served_by))
        };
        let mut response = Response::new(body);
        if let Some((first, last)) = range.filter(|_| *method == Method::GET) {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let text = format!("bytes {first}-{last}/{}", descriptor.size);
            response.headers_mut().insert(http::header::CONTENT_RANGE, value(&text));
        }
        let length = if *method == Method::HEAD { descriptor.size } else { length };
        blobs::describe(&mut response, digest, length);
        if let Some(served_by) = served_by {
            response.headers_mut().insert(SERVED_BY, value(&served_by));
        }
        Ok(response)
    }

    /// Answers `tags/list`: what upstream has, or what is here when nobody answers.
    pub(super) async fn tags(
        &self,
        state: &Arc<State>,
        repository: &Arc<Repository>,
        query: &super::route::Query,
    ) -> Result<Response<Body>, ApiError> {
        let asked = self.ask(|reference| {
            async move {
                let tags = self.mirrors.client.list_tags(&reference).await?;
                Ok((tags, reference.host().to_owned()))
            }
            .boxed()
        });
        match asked.await {
            Ok((tags, served_by)) => {
                let mut response = listing::tag_page(&repository.name, tags, query)?;
                response.headers_mut().insert(SERVED_BY, value(&served_by));
                Ok(response)
            }
            Err(Failure::Gone(_)) => listing::tags(state, repository, query).await,
            Err(failure) => Err(self.refusal(failure, "the list of tags")),
        }
    }

    /// Fetches a manifest; `None` when what is here is what upstream has.
    async fn fetch_manifest<'a>(
        &'a self,
        name: &'a ManifestName,
        here: Option<&'a Found>,
    ) -> Result<Option<FetchedManifest>, Failure> {
        let client = &self.mirrors.client;
        let known = here.map(|here| &here.digest);
        self.ask(|repository| {
            async move {
                let reference = match name {
                    ManifestName::Digest(digest) => repository.with_digest(digest.clone()),
                    // A checked name and a checked tag make a reference.
                    ManifestName::Tag(tag) => {
                        format!("{}:{tag}", repository.name()).parse().map_err(|_| {
                            RegistryError::IncompleteReference { reference: repository.to_string() }
                        })?
                    }
                };
                if known.is_some() && Some(&client.head_manifest(&reference).await?.digest) == known {
                    return Ok(None);
                }
                client.get_manifest(&reference).await.map(Some)
            }
            .boxed()
        })
        .await
    }

    async fn keep(
        &self,
        state: &Arc<State>,
        repository: &Arc<Repository>,
        name: &ManifestName,
        fetched: FetchedManifest,
    ) -> Result<(), ApiError> {
        let inspected = inspect(&fetched.bytes, Some(&fetched.media_type)).map_err(|sentence| {
            ApiError::new(
                StatusCode::BAD_GATEWAY,
                Code::ManifestInvalid,
                format!("from {}: {sentence}", fetched.served_by),
            )
        })?;
        let entry = ManifestEntry {
            media_type: inspected.media_type,
            size: fetched.bytes.len() as u64,
            subject: inspected.subject,
        };
        let tags = match name {
            ManifestName::Tag(tag) => vec![tag.clone()],
            ManifestName::Digest(_) => Vec::new(),
        };
        // A buffer of its own, because the fetched one may be a part of a larger one.
        let bytes = Bytes::copy_from_slice(&fetched.bytes);
        manifests::store(state, repository, fetched.digest, entry, bytes, tags, Vec::new()).await
    }

    /// Finds the descriptor of a blob in the manifests that are here.
    async fn descriptor(
        &self,
        state: &Arc<State>,
        repository: &Arc<Repository>,
        digest: &Digest,
    ) -> Result<Option<Descriptor>, ApiError> {
        let Some(index) = state.index(repository).await? else { return Ok(None) };
        for (manifest, entry) in &index.manifests {
            let found = Found { digest: manifest.clone(), entry: entry.clone() };
            let Ok(bytes) = manifests::read(state, repository, &found).await else { continue };
            let Ok(polyarch_oci::ManifestOrIndex::Manifest(document)) =
                polyarch_oci::ManifestOrIndex::parse(bytes.to_vec(), &entry.media_type)
            else {
                continue;
            };
            let manifest = document.value;
            let blobs = std::iter::once(manifest.config).chain(manifest.layers);
            if let Some(descriptor) = blobs.into_iter().find(|blob| blob.digest == *digest) {
                return Ok(Some(descriptor));
            }
        }
        Ok(None)
    }

    /// Returns the download of a blob that is under way, or begins one.
    async fn download(
        &self,
        state: &Arc<State>,
        repository: &Arc<Repository>,
        descriptor: &Descriptor,
    ) -> Result<Arc<Download>, ApiError> {
        let key = (self.local.clone(), descriptor.digest.clone());
        let downloads = || self.mirrors.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(download) = downloads().get(&key) {
            return Ok(download.clone());
        }
        let sources: Vec<Reference> =
            self.upstreams().into_iter().filter_map(|upstream| self.reference(upstream)).collect();
        let mut known = downloads();
        known.retain(|_, download| !download.has_ended());
        if let Some(download) = known.get(&key) {
            return Ok(download.clone());
        }
        let download =
            Download::start(state, repository, descriptor.clone(), self.mirrors.client.clone(), sources)?;
        known.insert(key, download.clone());
        Ok(download)
    }

    /// Asks one upstream after the other, those that did not answer a moment ago last.
    async fn ask<'a, T: 'a>(
        &'a self,
        question: impl Fn(Reference) -> BoxFuture<'a, Result<T, RegistryError>>,
    ) -> Result<T, Failure> {
        let mut failure = Failure::NotFound;
        for upstream in self.upstreams() {
            let Some(reference) = self.reference(upstream) else { continue };
            match question(reference).await {
                Ok(answer) => {
                    upstream.rest(None);
                    return Ok(answer);
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    if error.is_transient()
                        || matches!(error, RegistryError::Connect { .. } | RegistryError::Timeout { .. })
                    {
                        upstream.rest(Some(Instant::now() + REST));
                    }
                    failure = Failure::Gone(error);
                }
            }
        }
        Err(failure)
    }

    fn upstreams(&self) -> Vec<&Upstream> {
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
            Failure::Gone(error) => {
                let mut refusal = ApiError::new(
                    StatusCode::BAD_GATEWAY,
                    Code::ManifestUnknown,
                    format!("{what} of {} is not here, and nobody upstream gave it", self.remote),
                );
                refusal.cause = Some(chain_of(&error));
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

    fn rest(&self, until: Option<Instant>) {
        *self.resting_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}
