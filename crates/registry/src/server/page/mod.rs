// SPDX-License-Identifier: Apache-2.0
//! The page for browsers: what the registry has, as HTML, on the port of the API.
//!
//! It only reads, through the same functions as the API and under the same rules of access. Everything that was pushed
//! may be hostile: documents are read up to fixed sizes and numbers, templates escape, and the browser is told to run and
//! load nothing but the page's own style and script. It works without the script.

mod address;
mod assets;
mod attached;
mod compare;
mod documents;
mod home;
mod image;
mod instructions;
mod language;
mod listing;
mod order;
mod reader;
mod repository;
mod settings;
mod shown;
mod site;
mod tag;
mod verdict;
mod words;

use std::sync::Arc;

use askama::Template;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use polyarch_oci::Digest;

use self::address::Address;
use self::assets::ASSETS;
use self::reader::Reader;
use self::site::Site;
use self::words::Words;
use super::Shared;
use super::access::Who;
use super::api_error::ApiError;
use super::body::Body;
use super::route::Query;
use super::state::value;

/// How many pages are made at a time; more wait. Each may hold what it reads, and several times as much parsed.
pub(super) const MAX_AT_ONCE: usize = 4;

/// What the browser may do with the page: show it with its own style and script, and send the forms back here.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// A request for the page.
pub(super) struct PageRequest {
    site: Site,
    is_head: bool,
    known: Option<HeaderValue>,
}

impl PageRequest {
    /// Takes what it needs from a request; `None` when the request is for the API.
    pub(super) fn of(request: &Request<Incoming>) -> Option<PageRequest> {
        address::is_page(request).then(|| PageRequest {
            site: Site::of(request),
            is_head: *request.method() == Method::HEAD,
            known: request.headers().get(IF_NONE_MATCH).cloned(),
        })
    }

    /// Answers with a style, a script or the icon; `None` when the address is none of theirs.
    pub(super) fn asset(&self, path: &str) -> Option<Response<Body>> {
        let asset = ASSETS.find(path)?;
        let content = Bytes::from_static(asset.content.as_bytes());
        let mut response = self.answer(StatusCode::OK, content, asset.media_type);
        let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
        response.headers_mut().insert(CACHE_CONTROL, forever);
        Some(response)
    }

    /// Answers with a page.
    pub(super) async fn page(
        &mut self,
        shared: &Shared,
        request: &Request<Incoming>,
        who: &Who,
    ) -> Result<Response<Body>, ApiError> {
        let access = &shared.access;
        match who {
            Who::User(user) => self.site.user = Some(shown::visible(user)),
            Who::Anonymous | Who::Guest => self.site.may_sign_in = true,
            Who::Anybody => {}
        }
        let query = Query::parse(request.uri().query())?;
        let address = Address::parse(request.uri().path());
        let html = match address {
            Some(Address::Home) => {
                let is_asked = query.get("sign-in").is_some() || !access.has_anonymous();
                if is_asked {
                    access.check(who, None, true)?;
                }
                home::render(shared, &mut self.site, who, &query).await?
            }
            Some(Address::Repository(name)) => {
                access.check(who, Some(&name), true)?;
                let mut reader = Reader::open(&shared.state, shared.state.storage.repository(&name)).await?;
                match (query.get("a"), query.get("b")) {
                    (Some(a), Some(b)) => compare::render(&self.site, &mut reader, a, b).await?,
                    _ => repository::render(shared, &self.site, &mut reader, &query).await?,
                }
            }
            Some(Address::Image(repository, name)) => {
                access.check(who, Some(&repository), true)?;
                let mut reader =
                    Reader::open(&shared.state, shared.state.storage.repository(&repository)).await?;
                tag::render(shared, &self.site, &mut reader, &name, query.get("platform")).await?
            }
            // What isn't there isn't told to those who may not read everything either.
            Some(Address::Asset) | None => return Err(not_found()),
        };
        Ok(self.html(StatusCode::OK, html))
    }

    /// Answers with a refusal, as a page.
    pub(super) fn refuse(&self, refusal: ApiError) -> Response<Body> {
        let (status, headers) = refusal.into_head();
        let words = self.site.language.words();
        let (title, sentence) = match status {
            StatusCode::NOT_FOUND => (words.not_found, words.not_found_sentence),
            StatusCode::UNAUTHORIZED => (words.unauthorized, words.unauthorized_sentence),
            StatusCode::FORBIDDEN => (words.denied, words.denied_sentence),
            StatusCode::TOO_MANY_REQUESTS => (words.too_many, words.too_many_sentence),
            status if status.is_client_error() => (words.bad_request, words.bad_request_sentence),
            _ => (words.failed, words.failed_sentence),
        };
        let page = RefusalPage { site: &self.site, w: words, status: status.as_u16(), title, sentence };
        // Its words are ours; without them the status says it all.
        let html = page.render().unwrap_or_else(|_| title.to_owned());
        let mut response = self.html(status, html);
        for (name, value) in headers {
            response.headers_mut().append(name, value);
        }
        response
    }

    fn html(&self, status: StatusCode, html: String) -> Response<Body> {
        let mut response = self.answer(status, Bytes::from(html), "text/html; charset=utf-8");
        let headers = response.headers_mut();
        // What it shows may change with the next push, and with who asks.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Language, Authorization, Host"));
        response
    }

    fn answer(&self, status: StatusCode, content: Bytes, media_type: &'static str) -> Response<Body> {
        let tag = format!("\"{:.24}\"", Digest::of(&content).hex());
        let is_known =
            status == StatusCode::OK && self.known.as_ref().is_some_and(|known| matches(known, &tag));
        let length = content.len();
        let body = if is_known || self.is_head { Body::Empty } else { Body::full(content) };
        let mut response = Response::new(body);
        *response.status_mut() = if is_known { StatusCode::NOT_MODIFIED } else { status };
        let headers = response.headers_mut();
        if !is_known {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        if status == StatusCode::OK {
            headers.insert(ETAG, value(&tag));
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        protect(headers);
        response
    }
}

fn protect(headers: &mut HeaderMap) {
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
}

/// Compares `If-None-Match` with an entity's tag (RFC 9110, 13.1.2: weakly).
fn matches(known: &HeaderValue, tag: &str) -> bool {
    let Ok(known) = known.to_str() else { return false };
    known
        .split(',')
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

fn not_found() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        super::api_error::Code::Unsupported,
        "there is nothing at this address",
    )
}

/// Renders a template; it fails only when memory does.
fn render(template: &impl Template) -> Result<String, ApiError> {
    template.render().map_err(ApiError::internal)
}

#[derive(Template)]
#[template(path = "page/refusal.html", whitespace = "minimize")]
struct RefusalPage<'a> {
    site: &'a Site,
    w: &'static Words,
    status: u16,
    title: &'a str,
    sentence: &'a str,
}

impl Shared {
    /// Answers a request for the page, whatever becomes of it; the second value is what the log should say.
    pub(super) async fn answer_page(
        self: &Arc<Self>,
        request: &Request<Incoming>,
        mut page: PageRequest,
        who: Result<Who, ApiError>,
    ) -> (Response<Body>, Option<String>) {
        // Styles are nobody's secret, and a page that asks for a password has one, too.
        if let Some(asset) = page.asset(request.uri().path()) {
            return (asset, None);
        }
        let answer = match who {
            Ok(who) => {
                let turn = self.page_turns.acquire().await;
                let answer = page.page(self, request, &who).await;
                drop(turn);
                answer
            }
            Err(refusal) => Err(refusal),
        };
        match answer {
            Ok(response) => (response, None),
            Err(mut refusal) => {
                let cause = refusal.cause.take();
                (page.refuse(refusal), cause)
            }
        }
    }
}
