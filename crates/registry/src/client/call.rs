// SPDX-License-Identifier: Apache-2.0
//! One HTTP exchange: a request, its redirects, and the answer or what is wrong with it.
//!
//! Nothing here knows of tokens or attempts. The `Authorization` header goes only to the origin that it
//! is meant for: a redirect to another scheme, host or port goes without.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use reqwest::Response;
use url::Url;

use super::retry::retry_after;
use super::transport::{Transport, authority, failure, is_same_origin};
use crate::api::{ErrorBody, MAX_ERROR_BYTES};
use crate::error::{CredentialUse, Refusal, RegistryError};

/// Redirects followed before giving up.
const MAX_REDIRECTS: usize = 8;

/// What a request is about; decides what a 404 means.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    /// A manifest, by its full reference.
    Manifest(String),
    /// A blob of a repository (host and name).
    Blob(String, polyarch_oci::Digest),
    /// An upload into a repository (host and name).
    Upload(String),
    /// Anything else.
    Other,
}

/// A request that can be sent again.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// The host's name for people; not the API's host where those differ.
    pub(super) host: String,
    /// What is asked, for messages.
    pub(super) text: String,
    pub(super) subject: Subject,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    /// The time for the answer to begin.
    pub(super) limit: Duration,
}

impl Call {
    /// Adds a header whose value is of our own making.
    pub(super) fn header(mut self, name: impl http::header::IntoHeaderName, value: &str) -> Call {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Says that the answer is against the protocol.
    pub(super) fn protocol_error(&self, problem: impl Into<String>) -> RegistryError {
        RegistryError::Protocol {
            host: self.host.clone(),
            request: self.text.clone(),
            problem: problem.into(),
        }
    }
}

/// An answer and the URL that gave it.
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) url: Url,
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }
}

/// Sends a request without a streaming body and follows redirects.
pub(super) async fn send(
    transport: &Transport,
    call: &Call,
    authorization: Option<&HeaderValue>,
) -> Result<Answer, RegistryError> {
    let mut url = call.url.clone();
    for _ in 0..=MAX_REDIRECTS {
        let pool = transport.pool_for(&url)?;
        let mut request = pool.request(call.method.clone(), url.clone()).headers(call.headers.clone());
        if let Some(value) = authorization.filter(|_| is_same_origin(&url, &call.url)) {
            request = request.header(AUTHORIZATION, value.clone());
        }
        if let Some(body) = &call.body {
            request = request.body(body.clone());
        }
        let response = tokio::time::timeout(call.limit, request.send())
            .await
            .map_err(|_| RegistryError::Timeout {
                host: authority(&url),
                request: call.text.clone(),
                limit: call.limit,
            })?
            .map_err(|error| failure(&error, &url, &call.text, call.limit))?;
        match redirect_target(transport, call, &url, &response)? {
            Some(target) => url = target,
            None => return Ok(Answer { response, url }),
        }
    }
    Err(call.protocol_error(format!("more than {MAX_REDIRECTS} redirects")))
}

fn redirect_target(
    transport: &Transport,
    call: &Call,
    url: &Url,
    response: &Response,
) -> Result<Option<Url>, RegistryError> {
    let keeps_method = matches!(response.status().as_u16(), 307 | 308);
    let is_read = matches!(call.method, Method::GET | Method::HEAD);
    let is_redirect = keeps_method || (is_read && matches!(response.status().as_u16(), 301..=303));
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let Some(location) = location.filter(|_| is_redirect) else { return Ok(None) };
    let refuse = |problem| RegistryError::Redirect {
        host: authority(url),
        request: call.text.clone(),
        target: crate::api::one_line(location, 200),
        problem,
    };
    let target = url.join(location).map_err(|_| refuse("that is not a URL"))?;
    if !matches!(target.scheme(), "http" | "https") || !target.has_host() {
        return Err(refuse("only http and https are followed"));
    }
    // A body may hold a refresh token or a private manifest.
    if !is_read && !is_same_origin(&target, url) {
        return Err(refuse("what is written is not sent to another host"));
    }
    let may_be_plain =
        transport.options.hosts.get(&authority(&target)).and_then(|host| host.http) == Some(true);
    if url.scheme() == "https" && target.scheme() == "http" && !may_be_plain {
        return Err(refuse(
            "from https to plain http is not followed; set `http = true` for that host if it is intended",
        ));
    }
    Ok(Some(target))
}

/// Passes on answers of success, and turns others into errors.
pub(super) async fn check(
    answer: Answer,
    call: &Call,
    scope: &str,
    credentials: CredentialUse,
) -> Result<Answer, RegistryError> {
    let status = answer.status();
    if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE && call.method == Method::GET {
        return Ok(answer);
    }
    let wait = retry_after(answer.response.headers());
    let is_plain = answer.url.scheme() == "http";
    let host = authority(&answer.url);
    // What a failed body says is a courtesy: its own failure changes nothing.
    let bytes = read_prefix(answer.response, MAX_ERROR_BYTES, call.limit).await;
    let refusal = Box::new(Refusal {
        host: call.host.clone(),
        status: status.as_u16(),
        request: call.text.clone(),
        scope: scope.to_owned(),
        body: ErrorBody::parse(&bytes),
        retry_after: wait,
    });
    let credentials = Box::new(credentials);
    Err(match (status.as_u16(), &call.subject) {
        (401, _) => RegistryError::Unauthorized { refusal, credentials },
        (403, _) => RegistryError::Denied { refusal, credentials },
        (429, _) => RegistryError::RateLimited { refusal },
        (400, _) if is_plain && says_https(&refusal.body) => RegistryError::TlsExpected { host },
        (404, Subject::Manifest(reference)) if refusal.body.has_code("NAME_UNKNOWN") => {
            let repository = reference.split('@').next().unwrap_or_default().to_owned();
            RegistryError::RepositoryUnknown { repository, refusal }
        }
        (404, Subject::Manifest(reference)) => {
            RegistryError::ManifestUnknown { reference: reference.clone(), refusal }
        }
        (404, Subject::Blob(repository, digest)) => RegistryError::BlobUnknown {
            repository: repository.clone(),
            digest: Box::new(digest.clone()),
            refusal,
        },
        (404, Subject::Upload(repository)) if refusal.body.has_code("NAME_UNKNOWN") => {
            RegistryError::RepositoryUnknown { repository: repository.clone(), refusal }
        }
        _ => RegistryError::Refused { refusal },
    })
}

/// Recognises what Go's and nginx's servers say to plain HTTP on a TLS port.
fn says_https(body: &ErrorBody) -> bool {
    let text = body.text.to_ascii_lowercase();
    text.contains("to an https server") || text.contains("to https port")
}

/// Reads up to `limit_bytes` of a body and forgets the rest.
async fn read_prefix(mut response: Response, limit_bytes: usize, limit: Duration) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < limit_bytes {
        match tokio::time::timeout(limit, response.chunk()).await {
            Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk),
            _ => break,
        }
    }
    bytes.truncate(limit_bytes);
    bytes
}

/// Reads a whole body that must not exceed `limit_bytes`.
pub(super) async fn read_all(
    mut answer: Answer,
    call: &Call,
    what: &str,
    limit_bytes: u64,
) -> Result<Bytes, RegistryError> {
    let too_large =
        || RegistryError::TooLarge { what: what.to_owned(), host: call.host.clone(), limit_bytes };
    if answer.response.content_length().is_some_and(|length| length > limit_bytes) {
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut answer, call, call.limit).await? {
        if (bytes.len() + chunk.len()) as u64 > limit_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// Reads the next bytes of a body; `limit` is the time in which some must come.
pub(super) async fn next_chunk(
    answer: &mut Answer,
    call: &Call,
    limit: Duration,
) -> Result<Option<Bytes>, RegistryError> {
    tokio::time::timeout(limit, answer.response.chunk())
        .await
        .map_err(|_| RegistryError::Timeout {
            host: authority(&answer.url),
            request: call.text.clone(),
            limit,
        })?
        .map_err(|error| failure(&error, &answer.url, &call.text, limit))
}
