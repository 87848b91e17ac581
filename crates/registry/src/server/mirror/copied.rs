// SPDX-License-Identifier: Apache-2.0
//! Answers from a copy: what upstream has, kept here, or what is here.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Method, Response, StatusCode};
use polyarch_oci::{Descriptor, Digest};

use super::download::Download;
use super::{Copied, Failure, SERVED_BY, UpstreamGone};
use crate::server::api_error::{ApiError, Code};
use crate::server::backend::Repository;
use crate::server::body::Body;
use crate::server::document::inspect;
use crate::server::index::ManifestEntry;
use crate::server::manifests::{self, Found};
use crate::server::names::ManifestName;
use crate::server::repository::Needed;
use crate::server::route::Query;
use crate::server::state::{State, ask, value};
use crate::server::{blobs, listing};
use crate::{FetchedManifest, RegistryError};

/// What `Polyarch-Served-By` says of what was here.
const HERE: &str = "this registry";

impl Copied<'_> {
    /// Answers GET and HEAD of a manifest.
    pub(in crate::server) async fn manifest(
        &self,
        state: &Arc<State>,
        method: &Method,
        headers: &HeaderMap,
        repository: &Arc<Repository>,
        name: &ManifestName,
    ) -> Result<Response<Body>, ApiError> {
        let here = manifests::find(state, repository, name).await.ok();
        let mut gone = None;
        let served_by = match (name, &here) {
            (ManifestName::Digest(_), Some(_)) => HERE.to_owned(),
            _ => match self.fetch_manifest(name, here.as_ref()).await {
                Ok(Some(fetched)) => {
                    let served_by = fetched.served_by.clone();
                    self.keep(state, repository, name, fetched).await?;
                    served_by
                }
                Ok(None) => HERE.to_owned(),
                Err(Failure::Gone(reason)) if here.is_some() => {
                    gone = Some(reason);
                    HERE.to_owned()
                }
                Err(failure) => return Err(self.refusal(failure, &format!("the manifest {name}"))),
            },
        };
        let mut response = manifests::get(state, method, headers, repository, name).await?;
        response.headers_mut().insert(SERVED_BY, value(&served_by));
        if let Some(reason) = gone {
            self.mark(&mut response, reason);
        }
        Ok(response)
    }

    /// Says that an answer is the copy, because nobody upstream answered.
    fn mark(&self, response: &mut Response<Body>, reason: String) {
        let warning = format!("299 - \"{} is not to be had; this is the copy\"", self.mirrored.host);
        response.headers_mut().insert(http::header::WARNING, value(&warning));
        response.headers_mut().insert(SERVED_BY, value(HERE));
        response.extensions_mut().insert(UpstreamGone(reason));
    }

    /// Answers GET and HEAD of a blob; one that is not here is sent while it comes.
    pub(in crate::server) async fn blob(
        &self,
        state: &Arc<State>,
        method: &Method,
        headers: &HeaderMap,
        repository: &Arc<Repository>,
        digest: &Digest,
    ) -> Result<Response<Body>, ApiError> {
        let wanted = digest.clone();
        if ask(repository, move |repository| repository.has_blob(&wanted)).await? {
            let mut response = blobs::get(method, headers, repository, digest).await?;
            response.headers_mut().insert(SERVED_BY, value(HERE));
            return Ok(response);
        }
        // Only what a manifest leads to that somebody has asked for: the rest is nobody's business, and its size is
        // known to nobody.
        let descriptor = self.descriptor(state, repository, digest).await?;
        let descriptor = descriptor.ok_or_else(|| ApiError::blob_unknown(digest, &repository.name))?;
        if descriptor.size > state.max_blob_bytes {
            let message = format!("{digest} has {} bytes, more than this registry takes", descriptor.size);
            return Err(ApiError::new(StatusCode::BAD_GATEWAY, Code::SizeInvalid, message));
        }
        let range = blobs::wanted_range(headers, descriptor.size)?;
        let (first, last) = range.unwrap_or((0, descriptor.size.saturating_sub(1)));
        let length = if descriptor.size == 0 { 0 } else { last - first + 1 };
        let (body, served_by) = if *method == Method::HEAD {
            (Body::Empty, None)
        } else {
            let download = self.download(state, repository, &descriptor)?;
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
    pub(in crate::server) async fn tags(
        &self,
        state: &Arc<State>,
        repository: &Arc<Repository>,
        query: &Query,
    ) -> Result<Response<Body>, ApiError> {
        let is_here = state.index(repository).await?.is_some();
        let asked = self.ask(is_here, |reference| {
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
            Err(Failure::Gone(reason)) => {
                let mut response = listing::tags(state, repository, query).await?;
                self.mark(&mut response, reason);
                Ok(response)
            }
            Err(failure) => Err(self.refusal(failure, "the list of tags")),
        }
    }

    /// Answers `referrers`: what upstream has, or what is here when nobody answers.
    pub(in crate::server) async fn referrers<'a>(
        &'a self,
        state: &Arc<State>,
        repository: &Arc<Repository>,
        subject: &'a Digest,
        query: &Query,
    ) -> Result<Response<Body>, ApiError> {
        let is_here = state.index(repository).await?.is_some();
        let asked = self.ask(is_here, |reference| {
            async move {
                let entries =
                    self.mirrors.client.get_referrers(&reference.with_digest(subject.clone())).await?;
                Ok((entries, reference.host().to_owned()))
            }
            .boxed()
        });
        match asked.await {
            Ok((entries, served_by)) => {
                let mut response = listing::referrer_list(entries, query);
                response.headers_mut().insert(SERVED_BY, value(&served_by));
                Ok(response)
            }
            Err(failure) => {
                let mut response = listing::referrers(state, repository, subject, query).await?;
                if let Failure::Gone(reason) = failure {
                    self.mark(&mut response, reason);
                }
                Ok(response)
            }
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
        self.ask(here.is_some(), |repository| {
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
            is_sparse: false,
        };
        // They are fetched when somebody asks for them.
        let needed = Needed { blobs: inspected.blobs, may_lack: true };
        let tags = match name {
            ManifestName::Tag(tag) => vec![tag.clone()],
            ManifestName::Digest(_) => Vec::new(),
        };
        // A buffer of its own, because the fetched one may be a part of a larger one.
        let bytes = Bytes::copy_from_slice(&fetched.bytes);
        manifests::store(state, repository, fetched.digest, entry, bytes, tags, needed).await
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
            // Most are about others, which is seen without reading them as documents.
            if !std::str::from_utf8(&bytes).is_ok_and(|text| text.contains(digest.hex())) {
                continue;
            }
            let Ok(polyarch_oci::ManifestOrIndex::Manifest(document)) =
                polyarch_oci::ManifestOrIndex::parse(bytes.to_vec(), &entry.media_type)
            else {
                continue;
            };
            let manifest = document.value;
            let blobs = std::iter::once(manifest.config).chain(manifest.layers);
            if let Some(mut descriptor) = blobs.into_iter().find(|blob| blob.digest == *digest) {
                // Whoever made the image does not say whom this server asks: it may reach what they can't.
                descriptor.urls.clear();
                return Ok(Some(descriptor));
            }
        }
        Ok(None)
    }

    /// Returns the download of a blob that is under way, or begins one.
    fn download(
        &self,
        state: &Arc<State>,
        repository: &Arc<Repository>,
        descriptor: &Descriptor,
    ) -> Result<Arc<Download>, ApiError> {
        let key = (self.local.clone(), descriptor.digest.clone());
        let sources = self
            .upstreams()
            .into_iter()
            .filter_map(|upstream| Some((upstream.clone(), self.reference(upstream)?)))
            .collect();
        let mut known = self.mirrors.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        // What has ended is here now, or has failed, and whoever asks again may have more luck.
        known.retain(|_, download| !download.has_ended());
        if let Some(download) = known.get(&key) {
            return Ok(download.clone());
        }
        let download =
            Download::start(state, repository, descriptor.clone(), self.mirrors.client.clone(), sources)?;
        known.insert(key, download.clone());
        Ok(download)
    }
}
