// SPDX-License-Identifier: Apache-2.0
//! Files of any web server, through the same connections: proxies, authorities and time limits are those of
//! registries. No credentials are sent.

use bytes::Bytes;
use http::header::{
    CONTENT_LENGTH, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED, LOCATION, USER_AGENT,
};
use http::{Method, StatusCode};
use url::Url;

use super::Client;
use super::transport::{authority, failure};
use crate::error::RegistryError;

/// How many redirects are followed, as by Go's client.
const MAX_REDIRECTS: usize = 10;

/// Servers that treat builders apart from browsers know this one.
const LIKE: &str = "buildkit/v0.32";

/// A file on its way.
pub struct WebFile {
    /// Where it came from, after redirects.
    pub url: Url,
    /// The server's name for this version of it, quotes included.
    pub etag: Option<String>,
    /// When it changed, as the server wrote it.
    pub last_modified: Option<String>,
    /// How long it is, when the server says.
    pub size_bytes: Option<u64>,
    response: reqwest::Response,
    stall_timeout: std::time::Duration,
}

/// What a server answers.
pub enum WebAnswer {
    /// The file.
    File(Box<WebFile>),
    /// The file is still the one of the ETag that was sent.
    NotModified,
}

impl Client {
    /// Asks for a file, unless it is still the one that the server called `known`.
    ///
    /// # Errors
    /// [`RegistryError::Web`] when the server refuses or sends elsewhere without end; whatever keeps it from
    /// answering.
    pub async fn get_file(&self, url: &Url, known: Option<&str>) -> Result<WebAnswer, RegistryError> {
        // Some servers give ETags and ignore If-None-Match: to be asked first what they have costs no transfer.
        if let Some(known) = known
            && let Ok((_, response)) = self.ask(Method::HEAD, url, Some(known)).await
        {
            let told = header(&response, ETAG);
            let is_same = told.map(strong) == Some(strong(known));
            let is_unchanged = response.status() == StatusCode::NOT_MODIFIED && (told.is_none() || is_same);
            if is_unchanged || (response.status().is_success() && is_same) {
                return Ok(WebAnswer::NotModified);
            }
        }
        let (url, response) = self.ask(Method::GET, url, known).await?;
        let status = response.status();
        if status == StatusCode::NOT_MODIFIED && known.is_some() {
            return Ok(WebAnswer::NotModified);
        }
        if !status.is_success() {
            let reason = format!("invalid response status {}", status.as_u16());
            return Err(RegistryError::Web { url: shown(&url), reason });
        }
        let owned = |name| header(&response, name).map(str::to_owned);
        let size_bytes = header(&response, CONTENT_LENGTH).and_then(|value| value.parse().ok());
        let (etag, last_modified) = (owned(ETAG), owned(LAST_MODIFIED));
        let stall_timeout = self.transport().options.stall_timeout;
        Ok(WebAnswer::File(Box::new(WebFile {
            url,
            etag,
            last_modified,
            size_bytes,
            response,
            stall_timeout,
        })))
    }

    /// Sends a request and follows where it leads; returns what answered, and its answer.
    async fn ask(
        &self,
        method: Method,
        url: &Url,
        known: Option<&str>,
    ) -> Result<(Url, reqwest::Response), RegistryError> {
        let mut url = url.clone();
        let options = &self.transport().options;
        let limit = options.stall_timeout;
        for _ in 0..=MAX_REDIRECTS {
            let wrong = |reason: String| RegistryError::Web { url: shown(&url), reason };
            let mut request = self.transport().pool_for(&url)?.request(method.clone(), url.clone());
            request = request.header(USER_AGENT, format!("{} {LIKE}", options.user_agent));
            if let Some(value) = known.and_then(|known| HeaderValue::from_str(known).ok()) {
                request = request.header(IF_NONE_MATCH, value);
            }
            let text = format!("{method} {}", url.path());
            let response = match tokio::time::timeout(limit, request.send()).await {
                Ok(answer) => answer.map_err(|error| failure(&error, &url, &text, limit))?,
                Err(_) => {
                    return Err(RegistryError::Timeout { host: authority(&url), request: text, limit });
                }
            };
            if response.status() != StatusCode::NOT_MODIFIED
                && response.status().is_redirection()
                && let Some(location) = header(&response, LOCATION)
            {
                let next =
                    url.join(location).map_err(|error| wrong(format!("a malformed redirect ({error})")))?;
                // A secured transfer stays secured.
                let is_weaker = url.scheme() == "https" && next.scheme() != "https";
                if !matches!(next.scheme(), "http" | "https") || is_weaker {
                    return Err(wrong(format!("a redirect to {}, which is not followed", shown(&next))));
                }
                url = next;
                continue;
            }
            return Ok((url, response));
        }
        let reason = format!("stopped after {MAX_REDIRECTS} redirects");
        Err(RegistryError::Web { url: shown(&url), reason })
    }
}

fn header(response: &reqwest::Response, name: HeaderName) -> Option<&str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// Returns an ETag without the mark of a weak one.
fn strong(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

impl WebFile {
    /// Returns the next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks or nothing comes for too long.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let text = format!("GET {}", self.url.path());
        let limit = self.stall_timeout;
        match tokio::time::timeout(limit, self.response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| failure(&error, &self.url, &text, limit)),
            Err(_) => Err(RegistryError::Timeout { host: authority(&self.url), request: text, limit }),
        }
    }
}

/// Shows a URL without what may be secret in it.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Only URLs without a host refuse these, and they have no name and no password.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.set_query(None);
    url.into()
}
