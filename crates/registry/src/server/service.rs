// SPDX-License-Identifier: Apache-2.0
//! One request: who asks, whether it may, what it gets, and what the log says.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Frame, Incoming, SizeHint};

use super::access::Who;
use super::api_error::{ApiError, Code};
use super::body::Body;
use super::mirror::{Copied, Mirrors, SERVED_BY, UpstreamGone};
use super::page::PageRequest;
use super::route::{Query, Route};
use super::{ServerEvent, Shared, blob_uploads, blobs, listing, manifests};
use crate::api::one_line;

/// What the log says about a request.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// When it came.
    pub time: SystemTime,
    /// Who sent it.
    pub remote: IpAddr,
    /// As whom.
    pub user: Option<String>,
    /// Its method.
    pub method: String,
    /// Its path and parameters, on one line, and not too long.
    pub target: String,
    /// What the client says that it is, likewise.
    pub agent: String,
    /// The answer's status.
    pub status: u16,
    /// How many bytes of the answer's body went out.
    pub sent_bytes: u64,
    /// How long all of it took.
    pub duration: Duration,
    /// Where the content came from, when not from here.
    pub served_by: Option<String>,
    /// What failed inside.
    pub cause: Option<String>,
}

/// A body that tells what became of it when it is gone.
pub(super) struct Told {
    body: Body,
    shared: Arc<Shared>,
    began: Instant,
    record: RequestRecord,
}

impl Shared {
    /// Answers a request, whatever it is.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        remote: IpAddr,
    ) -> Response<Told> {
        let began = Instant::now();
        let header = |name: HeaderName| {
            request.headers().get(name).map(|value| one_line(&String::from_utf8_lossy(value.as_bytes()), 200))
        };
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let mut record = RequestRecord {
            time: SystemTime::now(),
            remote,
            user: None,
            method: one_line(request.method().as_str(), 20),
            target: one_line(target, 500),
            agent: header(http::header::USER_AGENT).unwrap_or_default(),
            status: 0,
            sent_bytes: 0,
            duration: Duration::ZERO,
            served_by: None,
            cause: None,
        };
        let page = if self.serves_page { PageRequest::of(&request) } else { None };
        let mut response = match page {
            Some(page) => {
                let who = match self.check_rate(remote) {
                    Ok(()) => self.identify(&request, &mut record).await,
                    Err(refusal) => Err(refusal),
                };
                let (response, cause) = self.answer_page(&request, page, who).await;
                record.cause = cause;
                response
            }
            None => match self.respond(request, remote, &mut record).await {
                Ok(response) => response,
                Err(error) => {
                    record.cause = error.cause.clone();
                    error.into_response()
                }
            },
        };
        let version = HeaderValue::from_static("registry/2.0");
        response.headers_mut().insert("docker-distribution-api-version", version);
        response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        record.status = response.status().as_u16();
        response.map(|body| Told { body, shared: self, began, record })
    }

    /// Finds out who asks.
    async fn identify(
        &self,
        request: &Request<Incoming>,
        record: &mut RequestRecord,
    ) -> Result<Who, ApiError> {
        self.access.check_sender(request.method(), request.headers())?;
        let who = self.access.identify(request.headers()).await?;
        if let Who::User(user) = &who {
            record.user = Some(one_line(user, 100));
        }
        Ok(who)
    }

    /// Refuses an address that asks too often.
    fn check_rate(&self, remote: IpAddr) -> Result<(), ApiError> {
        if let Some(rate) = &self.rate
            && !rate.admit(remote, Instant::now())
        {
            self.metrics.refused_rate.fetch_add(1, Ordering::Relaxed);
            return Err(ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::TooManyRequests,
                "this address sends more requests than this registry allows; go slower",
            )
            .header(RETRY_AFTER, "1"));
        }
        Ok(())
    }

    async fn respond(
        self: &Arc<Self>,
        request: Request<Incoming>,
        remote: IpAddr,
        record: &mut RequestRecord,
    ) -> Result<Response<Body>, ApiError> {
        self.check_rate(remote)?;
        let mut route = Route::parse(request.uri().path())?;
        if route == Route::Health {
            return Ok(text("ok\n"));
        }
        let who = self.identify(&request, record).await?;
        let is_upload = matches!(route, Route::Uploads(_) | Route::Upload(..));
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD) && !is_upload;
        let query = Query::parse(request.uri().query())?;
        let copied = self.copied(&route, &query, is_read).await?;
        if let Some(copied) = &copied {
            // Access is to the copy, whatever it was called.
            route.rename(&copied.local);
        }
        let is_for_all = match route {
            // What an anonymous client may see of the catalog is decided name by name.
            Route::Catalog => self.access.has_anonymous(),
            Route::Base => who == Who::Guest,
            _ => false,
        };
        if !is_for_all {
            self.access.check(&who, route.repository(), is_read)?;
        }
        match copied {
            Some(copied) => {
                let namespace = query.get("ns").and_then(|namespace| HeaderValue::from_str(namespace).ok());
                let mut response = self.pull_through(&request, &route, &copied, &query).await?;
                if let Some(namespace) = namespace {
                    response.headers_mut().insert("oci-namespace", namespace);
                }
                let served_by = response.headers().get(SERVED_BY).and_then(|name| name.to_str().ok());
                record.served_by = served_by.map(str::to_owned);
                record.cause = response.extensions_mut().remove::<UpstreamGone>().map(|gone| gone.0);
                Ok(response)
            }
            None => self.dispatch(request, route, &query, &who).await,
        }
    }

    /// Finds out whether a copy is meant; a copy can only be read.
    async fn copied(
        &self,
        route: &Route,
        query: &Query,
        is_read: bool,
    ) -> Result<Option<Copied<'_>>, ApiError> {
        let (Some(mirrors), Some(name)) = (&self.mirrors, route.repository()) else { return Ok(None) };
        if let Some(copied) = mirrors.find(name, query.get("ns")) {
            if is_read {
                return Ok(Some(copied));
            }
            return Err(ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::Unsupported,
                format!("{} is a copy of another registry's repository; it can only be read", copied.local),
            ));
        }
        // What was pushed here comes first.
        let is_asked = is_read && query.get("ns").is_none();
        if !is_asked || self.state.index(&self.state.storage.repository(name)).await?.is_some() {
            return Ok(None);
        }
        Ok(mirrors.of_docker(name))
    }

    async fn pull_through(
        &self,
        request: &Request<Incoming>,
        route: &Route,
        copied: &Copied<'_>,
        query: &Query,
    ) -> Result<Response<Body>, ApiError> {
        let repository = self.state.storage.repository(&copied.local);
        let (state, method, headers) = (&self.state, request.method(), request.headers());
        match route {
            Route::Manifest(_, name) => copied.manifest(state, method, headers, &repository, name).await,
            Route::Blob(_, digest) => copied.blob(state, method, headers, &repository, digest).await,
            Route::Tags(_) => copied.tags(state, &repository, query).await,
            Route::Referrers(_, subject) => copied.referrers(state, &repository, subject, query).await,
            _ => Err(ApiError::method("GET, HEAD")),
        }
    }

    async fn dispatch(
        self: &Arc<Self>,
        request: Request<Incoming>,
        route: Route,
        query: &Query,
        who: &Who,
    ) -> Result<Response<Body>, ApiError> {
        let state = &self.state;
        let method = request.method().clone();
        let repository = route.repository().map(|name| state.storage.repository(name));
        let is_get = matches!(method, Method::GET | Method::HEAD);
        match (route, repository) {
            (Route::Base, _) if is_get => Ok(json("{}")),
            (Route::Metrics, _) if is_get => {
                let upstreams = self.mirrors.as_ref().map(Mirrors::render).unwrap_or_default();
                Ok(text(&(self.metrics.render() + &upstreams)))
            }
            (Route::Catalog, _) if is_get => {
                listing::catalog(state, query, |name| self.access.may_read(who, name)).await
            }
            (Route::Tags(_), Some(repository)) if is_get => listing::tags(state, &repository, query).await,
            (Route::Referrers(_, subject), Some(repository)) if is_get => {
                listing::referrers(state, &repository, &subject, query).await
            }
            (Route::Manifest(_, name), Some(repository)) => match method {
                Method::GET | Method::HEAD => {
                    manifests::get(state, &method, request.headers(), &repository, &name).await
                }
                Method::PUT => manifests::put(state, request, &repository, name, query).await,
                Method::DELETE => manifests::delete(&repository, name).await,
                _ => Err(ApiError::method("GET, HEAD, PUT, DELETE")),
            },
            (Route::Blob(_, digest), Some(repository)) => match method {
                Method::GET | Method::HEAD => {
                    blobs::get(&method, request.headers(), &repository, &digest).await
                }
                Method::DELETE => blobs::delete(&repository, digest).await,
                _ => Err(ApiError::method("GET, HEAD, DELETE")),
            },
            (Route::Uploads(_), Some(repository)) => match method {
                Method::POST => blob_uploads::start(state, request, &repository, query).await,
                _ => Err(ApiError::method("POST")),
            },
            (Route::Upload(_, id), Some(repository)) => match method {
                Method::GET | Method::HEAD => blob_uploads::status(&repository, id).await,
                Method::PATCH => blob_uploads::append(state, request, &repository, id).await,
                Method::PUT => blob_uploads::finish(state, request, &repository, id, query).await,
                Method::DELETE => blob_uploads::cancel(&repository, id).await,
                _ => Err(ApiError::method("GET, PATCH, PUT, DELETE")),
            },
            _ => Err(ApiError::method("GET, HEAD")),
        }
    }
}

fn text(text: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::copy_from_slice(text.as_bytes())));
    let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

fn json(text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::full(Bytes::from_static(text.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl hyper::body::Body for Told {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                self.record.sent_bytes += frame.data_ref().map_or(0, |piece| piece.len() as u64);
            }
            Some(Err(error)) => self.record.cause = Some(error.to_string()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.record.duration = self.began.elapsed();
        let record = &self.record;
        self.shared.metrics.count(&record.method, record.status, record.duration, record.sent_bytes);
        self.shared.tell(ServerEvent::Request(record));
    }
}
