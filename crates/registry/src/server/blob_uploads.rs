// SPDX-License-Identifier: Apache-2.0
//! Uploads over HTTP: begun, continued, asked after, closed, cancelled, or made needless by a mount
//! (distribution-spec, "Push").

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, LOCATION, RANGE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use polyarch_oci::{Algorithm, Digest};

use super::api_error::{ApiError, Code};
use super::backend::{OpenUpload, Repository};
use super::body::Body;
use super::receive::receive;
use super::route::{Query, repository as repository_name};
use super::state::{State, blocking, value};
use super::upload::{Receive as _, UploadError};
use crate::api::one_line;
use crate::api::{DOCKER_CONTENT_DIGEST, DOCKER_UPLOAD_UUID, blob_path, uploads_path};

/// Answers POST: a mount, a whole blob, or the beginning of an upload.
pub(super) async fn start(
    state: &Arc<State>,
    request: Request<Incoming>,
    repository: &Arc<Repository>,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let mut algorithm = Algorithm::Sha256;
    if let Some(digest) = query.digest("mount")? {
        algorithm = digest.algorithm();
        let from = query.get("from").filter(|from| !from.is_empty()).map(repository_name).transpose()?;
        let (target, wanted) = (repository.clone(), digest.clone());
        let is_mounted = blocking(move || target.mount(from.as_ref(), &wanted)).await?;
        if is_mounted {
            return Ok(created(repository, &digest));
        }
    } else if let Some(digest) = query.digest("digest")? {
        let limits = state.body_limits(request.headers(), state.max_blob_bytes);
        let (target, algorithm) = (repository.clone(), digest.algorithm());
        let sink = blocking(move || target.begin_blob(algorithm)).await?;
        let sink = receive(request.into_body(), sink, limits).await?;
        let wanted = digest.clone();
        blocking(move || sink.finish(&wanted)).await?;
        return Ok(created(repository, &digest));
    }
    let algorithm = match query.get("digest-algorithm") {
        None => algorithm,
        Some("sha256") => Algorithm::Sha256,
        Some("sha512") => Algorithm::Sha512,
        Some(other) => {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                Code::DigestInvalid,
                format!(
                    "this registry has the digest algorithms sha256 and sha512, and not {:?}",
                    one_line(other, 50)
                ),
            ));
        }
    };
    let target = repository.clone();
    let id = blocking(move || target.begin_upload(algorithm)).await?;
    Ok(progress(StatusCode::ACCEPTED, repository, &id, 0))
}

/// Answers GET: how far it is.
pub(super) async fn status(repository: &Arc<Repository>, id: String) -> Result<Response<Body>, ApiError> {
    let (target, wanted) = (repository.clone(), id.clone());
    let bytes = blocking(move || target.upload_bytes(&wanted)).await?;
    Ok(progress(StatusCode::NO_CONTENT, repository, &id, bytes))
}

/// Answers PATCH: the next piece.
pub(super) async fn append(
    state: &Arc<State>,
    request: Request<Incoming>,
    repository: &Arc<Repository>,
    id: String,
) -> Result<Response<Body>, ApiError> {
    let upload = open(repository, &id, request.headers()).await?;
    let mut upload = take_body(state, request, upload).await?;
    let bytes = upload.bytes();
    // Another request may write on as soon as the client has the answer.
    blocking(move || upload.keep()).await?;
    Ok(progress(StatusCode::ACCEPTED, repository, &id, bytes))
}

/// Answers PUT: the last piece, if there is one, and the end.
pub(super) async fn finish(
    state: &Arc<State>,
    request: Request<Incoming>,
    repository: &Arc<Repository>,
    id: String,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    let digest = query.digest("digest")?.ok_or_else(|| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            Code::DigestInvalid,
            "the request that ends an upload needs the parameter `digest`, that of the whole blob",
        )
    })?;
    let upload = open(repository, &id, request.headers()).await?;
    let upload = take_body(state, request, upload).await?;
    let wanted = digest.clone();
    blocking(move || upload.finish(&wanted)).await?;
    Ok(created(repository, &digest))
}

/// Answers DELETE: it is not wanted any more.
pub(super) async fn cancel(repository: &Arc<Repository>, id: String) -> Result<Response<Body>, ApiError> {
    let target = repository.clone();
    blocking(move || target.cancel_upload(&id)).await?;
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Opens an upload, when the piece of this request is the next one.
async fn open(repository: &Arc<Repository>, id: &str, headers: &HeaderMap) -> Result<OpenUpload, ApiError> {
    let piece = piece_range(headers)?;
    let (target, wanted) = (repository.clone(), id.to_owned());
    let upload = blocking(move || target.open_upload(&wanted)).await?;
    let bytes = upload.bytes();
    match piece {
        Some(start) if start != bytes => Err(ApiError::from(UploadError::OutOfOrder { start, bytes })
            .header(LOCATION, &upload_path(repository, id))
            .header(RANGE, &range_of(bytes))),
        _ => Ok(upload),
    }
}

async fn take_body(
    state: &State,
    request: Request<Incoming>,
    upload: OpenUpload,
) -> Result<OpenUpload, UploadError> {
    // The whole may have the size, not each of its pieces.
    let left = state.max_blob_bytes.saturating_sub(upload.bytes());
    let limits = state.body_limits(request.headers(), left);
    let max = state.max_blob_bytes;
    receive(request.into_body(), upload, limits).await.map_err(|error| match error {
        UploadError::TooLarge { .. } => UploadError::TooLarge { limit: max },
        other => other,
    })
}

/// Reads a `Content-Range`, `FIRST-LAST` (distribution-spec, "Pushing a blob in chunks"); returns its first byte.
fn piece_range(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(range) = headers.get(CONTENT_RANGE) else { return Ok(None) };
    let text = range.to_str().unwrap_or_default();
    let malformed = |problem: &str| {
        let shown = one_line(text, 100);
        ApiError::new(
            StatusCode::BAD_REQUEST,
            Code::SizeInvalid,
            format!("the header Content-Range {shown:?} {problem}; write FIRST-LAST, such as 0-1023"),
        )
    };
    // RFC 9110 writes `bytes FIRST-LAST/SIZE`, which some clients send.
    let numbers = text.strip_prefix("bytes ").unwrap_or(text).split('/').next().unwrap_or_default();
    let numbers = numbers.split_once('-').and_then(|(first, last)| {
        Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?))
    });
    let (first, last) = numbers.ok_or_else(|| malformed("has no two numbers"))?;
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if last < first || length.is_some_and(|length| last - first != length.wrapping_sub(1)) {
        return Err(malformed("does not fit the length of the body"));
    }
    Ok(Some(first))
}

fn created(repository: &Repository, digest: &Digest) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::CREATED;
    let headers = response.headers_mut();
    headers.insert(LOCATION, value(&blob_path(repository.name.as_str(), digest)));
    headers.insert(DOCKER_CONTENT_DIGEST, value(digest));
    response
}

fn progress(status: StatusCode, repository: &Repository, id: &str, bytes: u64) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(LOCATION, value(&upload_path(repository, id)));
    headers.insert(RANGE, value(&range_of(bytes)));
    headers.insert(DOCKER_UPLOAD_UUID, value(id));
    if status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    response
}

fn upload_path(repository: &Repository, id: &str) -> String {
    format!("{}{id}", uploads_path(repository.name.as_str()))
}

/// Says how far an upload is; without a byte as other registries say it, because the form has no word for that.
fn range_of(bytes: u64) -> String {
    format!("0-{}", bytes.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_says_where_it_belongs() {
        let read = |range: &str, length: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, HeaderValue::from_str(range).unwrap());
            headers.insert(CONTENT_LENGTH, HeaderValue::from_str(length).unwrap());
            piece_range(&headers).ok().flatten()
        };
        assert_eq!(read("0-9", "10"), Some(0));
        assert_eq!(read("bytes 5-9/100", "5"), Some(5));
        for (range, length) in
            [("0-9", "9"), ("9-0", "10"), ("0", "1"), ("-", "0"), ("a-b", "1"), ("0-0", "0")]
        {
            assert_eq!(read(range, length), None, "{range}");
        }
    }
}
