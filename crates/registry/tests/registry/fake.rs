// SPDX-License-Identifier: Apache-2.0
//! A registry in this process, on loopback, that misbehaves on request and remembers every request.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use polyarch_oci::{Digest, Reference};
use polyarch_registry::{Client, ClientOptions, RetryPolicy};
use std::time::Duration;
use tokio::net::TcpListener;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What happens instead of the right answer.
#[derive(Debug, Clone)]
pub enum Act {
    /// This answer.
    Answer(u16, Vec<(&'static str, String)>, String),
    /// The right answer, broken off after some bytes of its body.
    BreakBody(usize),
    /// The right answer without (some of) its headers.
    Without(&'static str),
    /// The right answer with a header changed.
    With(&'static str, String),
    /// The right answer with its first body byte changed, and no digest header.
    Corrupt,
    /// The upload breaks after this many bytes of the request's body; they are kept.
    BreakUpload(usize),
    /// The right thing is done, but the connection ends before the answer.
    LoseAnswer,
    /// The connection ends before anything is done.
    Hang,
    /// The right answer, which stops after some bytes of its body without ending.
    StallBody(usize),
    /// Nothing is done and nothing is answered.
    Silence,
}

struct Fault {
    method: Method,
    part: String,
    times: usize,
    act: Act,
}

/// How the fake wants to be convinced.
#[derive(Clone, Default)]
pub enum Lock {
    #[default]
    Open,
    /// `user:password`.
    Basic(&'static str),
    /// Tokens, from `/token` of this or another fake; the users (`user:password`) that may do everything.
    /// Without a user, repositories that begin with `public/` may be pulled.
    Bearer { realm: Option<String>, users: Vec<&'static str>, refresh: Option<&'static str> },
}

#[derive(Default)]
struct Stored {
    blobs: BTreeMap<(String, String), Bytes>,
    manifests: BTreeMap<(String, String), (Bytes, String)>,
    uploads: BTreeMap<String, Vec<u8>>,
    tokens: BTreeMap<String, BTreeSet<String>>,
    next: u32,
}

pub struct Fake {
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    address: SocketAddr,
    lock: Lock,
    stored: Mutex<Stored>,
    faults: Mutex<Vec<Fault>>,
    seen: Mutex<Vec<Seen>>,
    has_ranges: bool,
    active: AtomicUsize,
    peak: AtomicUsize,
}

type Body = BoxBody<Bytes, io::Error>;

impl Fake {
    pub async fn start() -> Fake {
        Fake::with(Lock::Open).await
    }

    pub async fn with(lock: Lock) -> Fake {
        Fake::build(lock, true, None).await
    }

    pub async fn without_ranges() -> Fake {
        Fake::build(Lock::Open, false, None).await
    }

    pub async fn tls(config: rustls::ServerConfig) -> Fake {
        Fake::build(Lock::Open, true, Some(config)).await
    }

    async fn build(lock: Lock, has_ranges: bool, tls: Option<rustls::ServerConfig>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            address,
            lock,
            stored: Mutex::default(),
            faults: Mutex::default(),
            seen: Mutex::default(),
            has_ranges,
            active: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        });
        let acceptor = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        let shared = inner.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, acceptor) = (shared.clone(), acceptor.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| shared.clone().serve(request));
                    let http = hyper::server::conn::http1::Builder::new();
                    // Broken connections are what this fake is for.
                    let _ = match acceptor {
                        None => http.serve_connection(TokioIo::new(stream), service).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        });
        Fake { address, inner }
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }

    /// Lets `act` happen to the next `times` requests of a method whose path contains `part`.
    pub fn fault(&self, method: Method, part: &str, times: usize, act: Act) {
        self.inner.faults.lock().unwrap().push(Fault { method, part: part.to_owned(), times, act });
    }

    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let key = (repository.to_owned(), digest.to_string());
        self.inner.stored.lock().unwrap().blobs.insert(key, Bytes::copy_from_slice(bytes));
        digest
    }

    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<Bytes> {
        self.inner.stored.lock().unwrap().blobs.get(&(repository.to_owned(), digest.to_string())).cloned()
    }

    pub fn put_manifest(&self, repository: &str, tag: &str, bytes: &[u8], media_type: &str) -> Digest {
        let digest = Digest::of(bytes);
        let mut stored = self.inner.stored.lock().unwrap();
        for name in [tag.to_owned(), digest.to_string()] {
            let value = (Bytes::copy_from_slice(bytes), media_type.to_owned());
            stored.manifests.insert((repository.to_owned(), name), value);
        }
        digest
    }

    /// Forgets all tokens, as a registry does whose keys have changed.
    pub fn revoke_tokens(&self) {
        self.inner.stored.lock().unwrap().tokens.clear();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap().clone()
    }

    /// Returns the most requests that were being served at once.
    pub fn peak(&self) -> usize {
        self.inner.peak.load(Ordering::SeqCst)
    }

    /// Returns `METHOD PATH` of the requests so far, with `part` in them.
    pub fn lines(&self, part: &str) -> Vec<String> {
        let line = |seen: &Seen| format!("{} {}", seen.method, seen.path);
        self.seen().iter().map(line).filter(|line| line.contains(part)).collect()
    }
}

/// Makes the options of a client that tries again quickly.
pub fn options() -> ClientOptions {
    ClientOptions {
        retry: RetryPolicy {
            max_attempts: 4,
            first_wait: Duration::from_millis(1),
            max_wait: Duration::from_millis(4),
            max_total: Duration::from_secs(20),
        },
        ..ClientOptions::default()
    }
}

pub fn client() -> Client {
    Client::new(options())
}

/// Makes bytes that differ everywhere, so that a wrong offset shows.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

fn plain(status: u16, headers: &[(&str, String)], body: impl Into<Bytes>) -> Response<Body> {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, value);
    }
    builder.body(full(body)).unwrap()
}

fn error(status: u16, code: &str) -> Response<Body> {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"fake says {code}"}}]}}"#);
    plain(status, &[("content-type", "application/json".into())], body)
}

impl Inner {
    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
        let (head, body) = request.into_parts();
        let act = self.take_fault(&head.method, head.uri.path());
        let mut seen = Seen {
            method: head.method,
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head.headers,
            body: Bytes::new(),
        };
        let broken = || io::Error::other("broken on purpose");
        match &act {
            Some(Act::Hang) => {
                self.seen.lock().unwrap().push(seen);
                return Err(broken());
            }
            Some(Act::Silence) => {
                self.seen.lock().unwrap().push(seen);
                return std::future::pending().await;
            }
            Some(Act::BreakUpload(limit)) => {
                seen.body = read_prefix(body, *limit).await;
                self.seen.lock().unwrap().push(seen.clone());
                self.append(&seen);
                return Err(broken());
            }
            _ => seen.body = body.collect().await.map_err(io::Error::other)?.to_bytes(),
        }
        self.seen.lock().unwrap().push(seen.clone());
        if let Some(Act::Answer(status, headers, body)) = act {
            return Ok(plain(status, &headers, body));
        }
        let active = self.active.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(active, Ordering::SeqCst);
        // Lets other requests in, so that the peak shows how many a client sends at once.
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        self.active.fetch_sub(1, Ordering::SeqCst);
        let mut response = self.answer(&seen);
        match act {
            Some(Act::LoseAnswer) => return Err(broken()),
            Some(Act::Without(header)) => {
                response.headers_mut().remove(header);
            }
            Some(Act::With(header, value)) => {
                response.headers_mut().insert(header, value.parse().unwrap());
            }
            Some(Act::Corrupt) => {
                let (mut head, body) = response.into_parts();
                let mut bytes = body.collect().await?.to_bytes().to_vec();
                bytes[0] ^= 1;
                head.headers.remove("docker-content-digest");
                return Ok(Response::from_parts(head, full(bytes)));
            }
            Some(Act::StallBody(limit)) => {
                let (mut head, body) = response.into_parts();
                let bytes = body.collect().await?.to_bytes();
                head.headers.insert("content-length", bytes.len().into());
                let first = stream::iter([Ok(Frame::data(bytes.slice(..limit)))]);
                let body = StreamBody::new(first.chain(stream::pending()));
                return Ok(Response::from_parts(head, BodyExt::boxed(body)));
            }
            Some(Act::BreakBody(limit)) => {
                let (mut head, body) = response.into_parts();
                let bytes = body.collect().await?.to_bytes();
                head.headers.insert("content-length", bytes.len().into());
                let first = stream::iter([Ok(Frame::data(bytes.slice(..limit)))]);
                let end = stream::once(async move {
                    // Gives what was sent a chance to leave before the connection ends.
                    tokio::task::yield_now().await;
                    Err(broken())
                });
                return Ok(Response::from_parts(head, BodyExt::boxed(StreamBody::new(first.chain(end)))));
            }
            _ => {}
        }
        Ok(response)
    }

    fn take_fault(&self, method: &Method, path: &str) -> Option<Act> {
        let mut faults = self.faults.lock().unwrap();
        let fault = faults
            .iter_mut()
            .find(|fault| fault.times > 0 && fault.method == *method && path.contains(&fault.part))?;
        fault.times -= 1;
        Some(fault.act.clone())
    }

    /// Keeps what arrived of a broken upload.
    fn append(&self, seen: &Seen) {
        let id = seen.path.rsplit('/').next().unwrap();
        if let Some(upload) = self.stored.lock().unwrap().uploads.get_mut(id) {
            upload.extend_from_slice(&seen.body);
        }
    }

    fn answer(&self, seen: &Seen) -> Response<Body> {
        if seen.path == "/token" {
            return self.token(seen);
        }
        let Some(path) = seen.path.strip_prefix("/v2/") else { return error(404, "UNKNOWN") };
        if let Some(refusal) = self.refusal(seen, path) {
            return refusal;
        }
        if path.is_empty() {
            return plain(200, &[], "{}");
        }
        if let Some((repository, name)) = path.split_once("/manifests/") {
            return self.manifest(seen, repository, name);
        }
        if let Some((repository, id)) = path.split_once("/blobs/uploads/") {
            return self.upload(seen, repository, id);
        }
        match path.split_once("/blobs/") {
            Some((repository, digest)) => self.read_blob(seen, repository, digest),
            None => error(404, "UNKNOWN"),
        }
    }

    fn manifest(&self, seen: &Seen, repository: &str, name: &str) -> Response<Body> {
        let mut stored = self.stored.lock().unwrap();
        if seen.method == Method::PUT {
            let digest = Digest::of(&seen.body);
            for name in [name.to_owned(), digest.to_string()] {
                let value = (seen.body.clone(), seen.header("content-type").to_owned());
                stored.manifests.insert((repository.to_owned(), name), value);
            }
            return plain(201, &[("docker-content-digest", digest.to_string())], "");
        }
        match stored.manifests.get(&(repository.to_owned(), name.to_owned())) {
            Some((bytes, media_type)) => {
                let headers = [
                    ("docker-content-digest", Digest::of(bytes).to_string()),
                    ("content-type", media_type.clone()),
                    ("content-length", bytes.len().to_string()),
                ];
                plain(200, &headers, if seen.method == Method::HEAD { Bytes::new() } else { bytes.clone() })
            }
            None if stored.manifests.keys().any(|(known, _)| known == repository) => {
                error(404, "MANIFEST_UNKNOWN")
            }
            None => error(404, "NAME_UNKNOWN"),
        }
    }

    fn read_blob(&self, seen: &Seen, repository: &str, digest: &str) -> Response<Body> {
        let stored = self.stored.lock().unwrap();
        let Some(bytes) = stored.blobs.get(&(repository.to_owned(), digest.to_owned())) else {
            return error(404, "BLOB_UNKNOWN");
        };
        if seen.method == Method::HEAD {
            return plain(200, &[("content-length", bytes.len().to_string())], "");
        }
        let range = seen.header("range").strip_prefix("bytes=").and_then(|text| text.strip_suffix('-'));
        match range.filter(|_| self.has_ranges).map(|text| text.parse::<usize>().unwrap()) {
            Some(start) => {
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                plain(206, &[("content-range", range)], bytes.slice(start..))
            }
            None => plain(200, &[], bytes.clone()),
        }
    }

    fn upload(&self, seen: &Seen, repository: &str, id: &str) -> Response<Body> {
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(seen.query.as_bytes()).into_owned().collect();
        let mut stored = self.stored.lock().unwrap();
        if seen.method == Method::POST {
            if let (Some(digest), Some(from)) = (query.get("mount"), query.get("from"))
                && let Some(bytes) = stored.blobs.get(&(from.clone(), digest.clone())).cloned()
            {
                stored.blobs.insert((repository.to_owned(), digest.clone()), bytes);
                return plain(201, &[], "");
            }
            stored.next += 1;
            let id = format!("upload-{}", stored.next);
            stored.uploads.insert(id.clone(), Vec::new());
            return plain(202, &[("location", format!("/v2/{repository}/blobs/uploads/{id}?state=0"))], "");
        }
        let Some(upload) = stored.uploads.get_mut(id) else { return error(404, "BLOB_UPLOAD_UNKNOWN") };
        let location = |upload: &Vec<u8>| {
            [
                ("location", format!("/v2/{repository}/blobs/uploads/{id}?state={}", upload.len())),
                ("range", format!("0-{}", upload.len().saturating_sub(1))),
            ]
        };
        match seen.method {
            Method::GET => plain(204, &location(upload), ""),
            Method::DELETE => {
                stored.uploads.remove(id);
                plain(204, &[], "")
            }
            Method::PATCH => {
                let start = seen.header("content-range").split('-').next().unwrap();
                if start.parse::<usize>() != Ok(upload.len()) {
                    return error(416, "BLOB_UPLOAD_INVALID");
                }
                upload.extend_from_slice(&seen.body);
                plain(202, &location(upload), "")
            }
            _ => {
                upload.extend_from_slice(&seen.body);
                let digest = Digest::of(upload.as_slice());
                if query.get("digest") != Some(&digest.to_string()) {
                    return error(400, "DIGEST_INVALID");
                }
                let bytes = stored.uploads.remove(id).unwrap();
                stored.blobs.insert((repository.to_owned(), digest.to_string()), bytes.into());
                plain(201, &[], "")
            }
        }
    }

    /// Refuses a request that the lock does not let through.
    fn refusal(&self, seen: &Seen, path: &str) -> Option<Response<Body>> {
        let given = seen.header("authorization");
        match &self.lock {
            Lock::Open => None,
            Lock::Basic(user) => {
                let expected = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user));
                (given != expected).then(|| {
                    let mut response = error(401, "UNAUTHORIZED");
                    response
                        .headers_mut()
                        .insert("www-authenticate", "Basic realm=\"fake\"".parse().unwrap());
                    response
                })
            }
            Lock::Bearer { realm, .. } => {
                let wanted = wanted_scopes(seen, path);
                let granted = given
                    .strip_prefix("Bearer ")
                    .and_then(|token| self.stored.lock().unwrap().tokens.get(token).cloned());
                if granted.as_ref().is_some_and(|granted| wanted.is_subset(granted)) {
                    return None;
                }
                // The mount's source is no part of the challenge, as at real registries.
                let own = format!("http://{}/token", self.address);
                let realm = realm.as_ref().unwrap_or(&own);
                let scope = wanted.iter().next_back().cloned().unwrap_or_default();
                let challenge = format!("Bearer realm=\"{realm}\",service=\"fake\",scope=\"{scope}\"");
                let mut response = error(401, "UNAUTHORIZED");
                response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
                Some(response)
            }
        }
    }

    fn token(&self, seen: &Seen) -> Response<Body> {
        let Lock::Bearer { users, refresh, .. } = &self.lock else { return error(404, "UNKNOWN") };
        let source = if seen.method == Method::POST { &seen.body[..] } else { seen.query.as_bytes() };
        let fields: Vec<(String, String)> = url::form_urlencoded::parse(source).into_owned().collect();
        let is_known = if seen.method == Method::POST {
            let Some(refresh) = refresh else { return error(404, "UNKNOWN") };
            let given = fields.iter().find(|(name, _)| name == "refresh_token");
            if given.map(|(_, token)| token.as_str()) != Some(refresh) {
                return error(401, "UNAUTHORIZED");
            }
            true
        } else if let Some(basic) = seen.header("authorization").strip_prefix("Basic ") {
            let text = base64::engine::general_purpose::STANDARD.decode(basic).unwrap();
            if !users.iter().any(|user| user.as_bytes() == text) {
                return error(401, "UNAUTHORIZED");
            }
            true
        } else {
            false
        };
        let scopes = fields.iter().filter(|(name, _)| name == "scope");
        let mut granted = BTreeSet::new();
        for scope in scopes.flat_map(|(_, scope)| scope.split(' ')) {
            let Some((resource, actions)) = scope.rsplit_once(':') else { continue };
            for action in actions.split(',') {
                if is_known || (resource.starts_with("repository:public/") && action == "pull") {
                    granted.insert(format!("{resource}:{action}"));
                }
            }
        }
        let mut stored = self.stored.lock().unwrap();
        stored.next += 1;
        let token = format!("token-{}", stored.next);
        stored.tokens.insert(token.clone(), granted);
        let wants_identity = fields.iter().any(|(name, _)| name == "offline_token");
        match refresh.filter(|_| wants_identity && is_known) {
            Some(refresh) => plain(
                200,
                &[],
                format!(r#"{{"token":"{token}","expires_in":300,"refresh_token":"{refresh}"}}"#),
            ),
            None => plain(200, &[], format!(r#"{{"token":"{token}","expires_in":300}}"#)),
        }
    }
}

/// Returns the single permissions that a request needs, `repository:NAME:ACTION`.
fn wanted_scopes(seen: &Seen, path: &str) -> BTreeSet<String> {
    let repository = path.split("/manifests/").next().unwrap().split("/blobs/").next().unwrap();
    let action = if matches!(seen.method, Method::GET | Method::HEAD) && !path.contains("/uploads/") {
        "pull"
    } else {
        "push"
    };
    if repository.is_empty() {
        return BTreeSet::new();
    }
    let mut wanted = BTreeSet::from([format!("repository:{repository}:{action}")]);
    let from = url::form_urlencoded::parse(seen.query.as_bytes()).find(|(name, _)| name == "from");
    wanted.extend(from.map(|(_, from)| format!("repository:{from}:pull")));
    wanted
}

async fn read_prefix(body: Incoming, limit: usize) -> Bytes {
    let mut bytes = Vec::new();
    let mut frames = BodyStream::new(body);
    while bytes.len() < limit {
        match frames.next().await {
            Some(Ok(frame)) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            _ => break,
        }
    }
    bytes.truncate(limit);
    bytes.into()
}
