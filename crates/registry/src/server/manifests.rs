// SPDX-License-Identifier: Apache-2.0
//! Manifests over HTTP: asked for, pushed, deleted; always byte for byte.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use polyarch_oci::manifest::MAX_MANIFEST_BYTES;
use polyarch_oci::{Algorithm, Digest, Hasher};

use super::api_error::{ApiError, Code};
use super::backend::Repository;
use super::blobs;
use super::body::Body;
use super::disk::DiskError;
use super::document::{Inspected, inspect};
use super::index::ManifestEntry;
use super::names::{ManifestName, RepositoryName, Tag};
use super::receive::read_all;
use super::repository::{Change, Needed, Outcome};
use super::route::{Query, tag};
use super::state::{State, blocking, value};
use super::storage::StorageError;
use crate::api::{DOCKER_CONTENT_DIGEST, OCI_SUBJECT, OCI_TAG, manifest_path};

/// What is no larger is looked at in less time than it takes to hand it to a thread.
pub(super) const SMALL_BYTES: usize = 32 << 10;

/// A manifest of a repository.
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) entry: ManifestEntry,
}

/// Answers GET and HEAD.
pub(super) async fn get(
    state: &Arc<State>,
    method: &Method,
    headers: &HeaderMap,
    repository: &Arc<Repository>,
    name: &ManifestName,
) -> Result<Response<Body>, ApiError> {
    let found = find(state, repository, name).await?;
    if *method == Method::HEAD && matches!(name, ManifestName::Digest(_)) {
        // A client that is told that a manifest is there does not push it.
        blobs::promise(repository, &found.digest).await?;
    }
    let tag = format!("\"{}\"", found.digest);
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let body = match (is_known, *method == Method::HEAD) {
        (true, _) | (_, true) => Body::Empty,
        _ => Body::full(read(state, repository, &found).await?),
    };
    let mut response = Response::new(body);
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let answer = response.headers_mut();
    if let Ok(media_type) = HeaderValue::from_str(&found.entry.media_type) {
        answer.insert(CONTENT_TYPE, media_type);
    }
    if !is_known {
        answer.insert(CONTENT_LENGTH, found.entry.size.into());
    }
    answer.insert(DOCKER_CONTENT_DIGEST, value(&found.digest));
    answer.insert(ETAG, value(&tag));
    Ok(response)
}

/// Finds a manifest.
pub(super) async fn find(
    state: &State,
    repository: &Arc<Repository>,
    name: &ManifestName,
) -> Result<Found, ApiError> {
    let index = state.index(repository).await?.ok_or_else(|| ApiError::name_unknown(&repository.name))?;
    let digest = match name {
        ManifestName::Tag(tag) => index.tags.get(tag),
        ManifestName::Digest(digest) => Some(digest),
    };
    let found = digest.and_then(|digest| Some((digest.clone(), index.find(digest)?.clone())));
    let (digest, entry) = found.ok_or_else(|| unknown(&repository.name, name))?;
    Ok(Found { digest, entry })
}

fn unknown(repository: &RepositoryName, name: &ManifestName) -> ApiError {
    let what = match name {
        ManifestName::Tag(_) => "tag",
        ManifestName::Digest(_) => "manifest",
    };
    ApiError::new(
        StatusCode::NOT_FOUND,
        Code::ManifestUnknown,
        format!("the repository {repository} has no {what} {name}"),
    )
}

/// Reads the bytes of a manifest, and verifies them when they are not in memory.
pub(super) async fn read(
    state: &State,
    repository: &Arc<Repository>,
    found: &Found,
) -> Result<Bytes, ApiError> {
    if let Some(bytes) = state.manifests.get(&found.digest) {
        return Ok(bytes);
    }
    let (from, digest) = (repository.clone(), found.digest.clone());
    let bytes = blocking(move || read_file(&from, &digest)).await?;
    state.manifests.put(&found.digest, &bytes);
    Ok(bytes)
}

fn read_file(repository: &Repository, digest: &Digest) -> Result<Bytes, ApiError> {
    let damaged = |what: &str| {
        let mut error = ApiError::new(
            StatusCode::NOT_FOUND,
            Code::ManifestUnknown,
            format!("the manifest {digest} is {what} on the registry's disk; push it again"),
        );
        let place = repository.blob_place(digest);
        error.cause = Some(format!("{place} is {what}; see `polyarch registry scrub`"));
        error
    };
    let Some(content) = repository.open_blob(digest)? else { return Err(damaged("missing")) };
    let bytes = match content.size <= MAX_MANIFEST_BYTES {
        true => content.read(MAX_MANIFEST_BYTES)?,
        false => Bytes::new(),
    };
    if digest_of(digest.algorithm(), &bytes) != *digest {
        return Err(damaged("damaged"));
    }
    Ok(bytes)
}

/// Answers PUT.
pub(super) async fn put(
    state: &Arc<State>,
    request: Request<Incoming>,
    repository: &Arc<Repository>,
    name: ManifestName,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let mut tags = query.all("tag").map(tag).collect::<Result<Vec<Tag>, _>>()?;
    let declared = request.headers().get(CONTENT_TYPE).and_then(|declared| declared.to_str().ok());
    // distribution-spec, "Pushing Manifests": parameters are ignored. What curl sends unasked says nothing.
    let declared = declared.map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
    let declared = declared.filter(|text| {
        !matches!(
            text.as_str(),
            "" | "application/json" | "application/octet-stream" | "application/x-www-form-urlencoded"
        )
    });
    let limits = state.body_limits(request.headers(), MAX_MANIFEST_BYTES);
    let bytes = read_all(request.into_body(), limits).await?;
    let expected = match &name {
        ManifestName::Digest(digest) => Some(digest.clone()),
        ManifestName::Tag(tag) => {
            tags.push(tag.clone());
            None
        }
    };
    let (digest, inspected) = if bytes.len() <= SMALL_BYTES {
        examine(&bytes, expected, declared.as_deref())?
    } else {
        let bytes = bytes.clone();
        blocking(move || examine(&bytes, expected, declared.as_deref())).await?
    };
    let subject = inspected.subject.clone();
    let entry = ManifestEntry {
        media_type: inspected.media_type,
        size: bytes.len() as u64,
        subject: inspected.subject,
        is_sparse: false,
    };
    let needed = Needed { blobs: inspected.blobs, may_lack: state.allows_missing_blobs };
    store(state, repository, digest.clone(), entry, bytes, tags.clone(), needed).await?;
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(LOCATION, value(&manifest_path(repository.name.as_str(), &digest.to_string())));
    headers.insert(DOCKER_CONTENT_DIGEST, value(&digest));
    if let Some(subject) = subject {
        headers.insert(OCI_SUBJECT, value(&subject));
    }
    if matches!(name, ManifestName::Digest(_)) {
        for tag in &tags {
            headers.append(OCI_TAG, value(tag));
        }
    }
    Ok(response)
}

/// Looks at what a client sends as a manifest; returns its digest, too.
fn examine(
    bytes: &[u8],
    expected: Option<Digest>,
    declared: Option<&str>,
) -> Result<(Digest, Inspected), ApiError> {
    let found = digest_of(expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm), bytes);
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            Code::DigestInvalid,
            format!("the manifest has digest {found}, not {expected}"),
        ));
    }
    let inspected = inspect(bytes, declared)
        .map_err(|sentence| ApiError::new(StatusCode::BAD_REQUEST, Code::ManifestInvalid, sentence))?;
    Ok((found, inspected))
}

/// Enters a manifest whose digest was verified.
pub(super) async fn store(
    state: &Arc<State>,
    repository: &Arc<Repository>,
    digest: Digest,
    entry: ManifestEntry,
    bytes: Bytes,
    tags: Vec<Tag>,
    needed: Needed,
) -> Result<(), ApiError> {
    let (state, repository) = (state.clone(), repository.clone());
    blocking(move || {
        let change = Change::Put { digest: digest.clone(), entry, tags, needed };
        match repository.put_manifest(&digest, &bytes, change).map_err(|error| shared(&error))? {
            Outcome::Missing(missing) => Err(missing_blobs(&repository.name, &missing)),
            // Its bytes are in the repository, so that was there a moment ago.
            Outcome::NotFound => {
                Err(ApiError::internal(format!("the repository {} is gone", repository.name)))
            }
            Outcome::Done => {
                state.manifests.put(&digest, &bytes);
                Ok(())
            }
        }
    })
    .await
}

fn missing_blobs(repository: &RepositoryName, missing: &[Digest]) -> ApiError {
    let shown: Vec<String> = missing.iter().take(3).map(Digest::to_string).collect();
    let more = if missing.len() > 3 { format!(" and {} more", missing.len() - 3) } else { String::new() };
    ApiError::new(
        StatusCode::BAD_REQUEST,
        Code::ManifestBlobUnknown,
        format!(
            "the repository {repository} lacks blobs of this manifest: {}{more}; push them first",
            shown.join(", ")
        ),
    )
}

/// Makes the answer to a failure that several requests share.
fn shared(error: &Arc<StorageError>) -> ApiError {
    if error.is_full() {
        let source = std::io::ErrorKind::StorageFull.into();
        return StorageError::from(DiskError { action: "write", path: "index.json".into(), source }).into();
    }
    if let StorageError::IndexFull { repository } = &**error {
        return StorageError::IndexFull { repository: repository.clone() }.into();
    }
    ApiError::internal(super::api_error::chain_of(&**error))
}

/// Answers DELETE.
pub(super) async fn delete(
    repository: &Arc<Repository>,
    name: ManifestName,
) -> Result<Response<Body>, ApiError> {
    let repository = repository.clone();
    blocking(move || {
        if repository.index()?.is_none() {
            return Err(ApiError::name_unknown(&repository.name));
        }
        let change = match name.clone() {
            ManifestName::Tag(tag) => Change::RemoveTag(tag),
            ManifestName::Digest(digest) => Change::RemoveManifest(digest),
        };
        match repository.change(change).map_err(|error| shared(&error))? {
            Outcome::Done => {
                let mut response = Response::new(Body::Empty);
                *response.status_mut() = StatusCode::ACCEPTED;
                Ok(response)
            }
            _ => Err(unknown(&repository.name, &name)),
        }
    })
    .await
}

fn digest_of(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}
