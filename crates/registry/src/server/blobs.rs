// SPDX-License-Identifier: Apache-2.0
//! Blobs over HTTP: asked for, whole or in part, and deleted.

use std::sync::Arc;

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use polyarch_oci::Digest;

use super::api_error::{ApiError, Code};
use super::backend::Repository;
use super::body::Body;
use super::state::{ask, blocking, value};
use crate::api::DOCKER_CONTENT_DIGEST;

/// Answers GET and HEAD.
pub(super) async fn get(
    method: &Method,
    headers: &HeaderMap,
    repository: &Arc<Repository>,
    digest: &Digest,
) -> Result<Response<Body>, ApiError> {
    if *method == Method::HEAD {
        let size = promise(repository, digest).await?;
        let size = size.ok_or_else(|| ApiError::blob_unknown(digest, &repository.name))?;
        let mut response = Response::new(Body::Empty);
        describe(&mut response, digest, size);
        return Ok(response);
    }
    let wanted = digest.clone();
    let found = ask(repository, move |repository| repository.open_blob(&wanted)).await?;
    let content = found.ok_or_else(|| ApiError::blob_unknown(digest, &repository.name))?;
    let size = content.size;
    let mut response = match wanted_range(headers, size)? {
        None => Response::new(content.into_body(0, size)?),
        Some((first, last)) => {
            let mut response = Response::new(content.into_body(first, last - first + 1)?);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            response.headers_mut().insert(CONTENT_RANGE, value(&format!("bytes {first}-{last}/{size}")));
            response
        }
    };
    let length = hyper::body::Body::size_hint(response.body()).exact().unwrap_or(size);
    describe(&mut response, digest, length);
    Ok(response)
}

/// Adds the headers of a blob's bytes.
pub(super) fn describe(response: &mut Response<Body>, digest: &Digest, length: u64) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(DOCKER_CONTENT_DIGEST, value(digest));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(ETAG, value(&format!("\"{digest}\"")));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=31536000, immutable"));
}

/// Reads a `Range` (RFC 9110, section 14); several ranges and other units are answered whole, as it permits.
pub(super) fn wanted_range(headers: &HeaderMap, size: u64) -> Result<Option<(u64, u64)>, ApiError> {
    let Some(text) = headers.get(RANGE).and_then(|range| range.to_str().ok()) else { return Ok(None) };
    let Some(range) = text.trim().strip_prefix("bytes=").filter(|range| !range.contains(',')) else {
        return Ok(None);
    };
    let Some((first, last)) = range.split_once('-') else { return Ok(None) };
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| -> Option<u64> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // A number that is too large lies behind every end.
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let found = match (number(first), number(last)) {
        (Some(first), Some(last)) => (first, last.min(size.saturating_sub(1))),
        (Some(first), None) if last.is_empty() => (first, size.saturating_sub(1)),
        (None, Some(suffix)) if first.is_empty() && suffix > 0 => {
            (size.saturating_sub(suffix), size.saturating_sub(1))
        }
        (None, Some(_)) if first.is_empty() => (size, 0),
        _ => return Ok(None),
    };
    if found.0 >= size || found.0 > found.1 {
        let message = format!("the blob has {size} bytes, of which {range:?} are none");
        return Err(ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::SizeInvalid, message)
            .header(CONTENT_RANGE, &format!("bytes */{size}"))
            .header(HeaderName::from_static("accept-ranges"), "bytes"));
    }
    Ok(Some(found))
}

/// Returns the size of a blob, which the client may rely on; `None` when the repository does not have it.
pub(super) async fn promise(repository: &Arc<Repository>, digest: &Digest) -> Result<Option<u64>, ApiError> {
    // Mostly that was promised a moment ago, and there is nothing to wait for.
    if let Some(size) = repository.promised_blob(digest)? {
        return Ok(Some(size));
    }
    let (repository, digest) = (repository.clone(), digest.clone());
    blocking(move || repository.promise_blob(&digest)).await
}

/// Answers DELETE.
pub(super) async fn delete(repository: &Arc<Repository>, digest: Digest) -> Result<Response<Body>, ApiError> {
    let repository = repository.clone();
    blocking(move || {
        let Some(index) = repository.index()? else {
            return Err(ApiError::name_unknown(&repository.name));
        };
        if index.find(&digest).is_some() {
            let path = crate::api::manifest_path(repository.name.as_str(), &digest.to_string());
            return Err(ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::Unsupported,
                format!("{digest} is a manifest; delete it as one, at {path}"),
            ));
        }
        if !repository.remove_blob(&digest)? {
            return Err(ApiError::blob_unknown(&digest, &repository.name));
        }
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::ACCEPTED;
        Ok(response)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_specification() {
        let range = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, HeaderValue::from_str(text).unwrap());
            wanted_range(&headers, 100).map_err(|_| ())
        };
        for (text, expected) in [
            ("bytes=0-0", Ok(Some((0, 0)))),
            ("bytes=10-", Ok(Some((10, 99)))),
            ("bytes=-10", Ok(Some((90, 99)))),
            ("bytes=-1000", Ok(Some((0, 99)))),
            ("bytes=90-1000", Ok(Some((90, 99)))),
            ("bytes=5-4", Err(())),
            ("bytes=100-", Err(())),
            ("bytes=-0", Err(())),
            ("bytes=99999999999999999999-", Err(())),
            ("bytes=0-1,3-4", Ok(None)),
            ("bytes=a-b", Ok(None)),
            ("bytes=", Ok(None)),
            ("items=0-1", Ok(None)),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
    }
}
