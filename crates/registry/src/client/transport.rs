// SPDX-License-Identifier: Apache-2.0
//! Connections: one pool for hosts in general, one for each host with settings of its own.
//!
//! HTTP/1.1 on purpose: blobs then have connections, flow control and TLS work of their own instead of
//! sharing those of one connection.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::redirect::Policy;
use rustls::RootCertStore;
use url::Url;

use super::ClientOptions;
use super::tls::{self, Check};
use crate::config::{HostSettings, is_loopback};
use crate::error::RegistryError;

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The connection pools.
pub(super) struct Transport {
    pub(super) options: ClientOptions,
    roots: OnceLock<Result<RootCertStore, String>>,
    pools: Mutex<HashMap<String, reqwest::Client>>,
}

impl Transport {
    pub(super) fn new(options: ClientOptions) -> Transport {
        Transport { options, roots: OnceLock::new(), pools: Mutex::default() }
    }

    /// Returns the pool for a URL.
    pub(super) fn pool_for(&self, url: &Url) -> Result<reqwest::Client, RegistryError> {
        let host = authority(url);
        let settings = self.options.hosts.get(&host);
        let is_special = is_loopback(&host)
            || settings.is_some_and(|own| own.insecure || !own.ca.is_empty() || own.keypair.is_some());
        // Plain HTTP needs no authorities, and loading them takes milliseconds.
        let key = match (url.scheme(), is_special) {
            ("http", _) => format!("http {}", is_loopback(&host)),
            (_, true) => format!("https {host}"),
            (_, false) => "https".to_owned(),
        };
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&key) {
            return Ok(pool.clone());
        }
        let pool = self
            .make_pool(url, &host, settings)
            .map_err(|problem| RegistryError::Settings { host: host.clone(), problem })?;
        pools.insert(key, pool.clone());
        Ok(pool)
    }

    fn make_pool(
        &self,
        url: &Url,
        host: &str,
        settings: Option<&HostSettings>,
    ) -> Result<reqwest::Client, String> {
        let empty = HostSettings::default();
        let settings = settings.unwrap_or(&empty);
        // Docker does not check certificates of loopback hosts either; with `ca` we do.
        let is_unchecked = settings.insecure || (is_loopback(host) && settings.ca.is_empty());
        let tls = if url.scheme() == "http" || is_unchecked {
            tls::client_config(&RootCertStore::empty(), Check::Nothing, settings.keypair.as_ref())?
        } else {
            let roots = self.roots.get_or_init(|| tls::load_roots(&self.options.roots)).as_ref();
            tls::client_config(
                roots.map_err(Clone::clone)?,
                Check::Authorities(&settings.ca),
                settings.keypair.as_ref(),
            )?
        };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .redirect(Policy::none())
            .no_proxy()
            .user_agent(&self.options.user_agent)
            .connect_timeout(self.options.connect_timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(30))
            .tcp_nodelay(true);
        if !is_loopback(host) {
            for proxy in self.proxies()? {
                builder = builder.proxy(proxy);
            }
        }
        builder.build().map_err(|error| chain_text(&error))
    }

    fn proxies(&self) -> Result<Vec<reqwest::Proxy>, String> {
        let settings = &self.options.proxy;
        let except = settings.no_proxy.as_deref().and_then(reqwest::NoProxy::from_string);
        let given = [
            settings.http.as_deref().map(|url| (url, reqwest::Proxy::http(url))),
            settings.https.as_deref().map(|url| (url, reqwest::Proxy::https(url))),
        ];
        given
            .into_iter()
            .flatten()
            .filter(|(url, _)| !url.is_empty())
            // The URL may hold a password, so it is not shown.
            .map(|(_, proxy)| {
                proxy
                    .map(|proxy| proxy.no_proxy(except.clone()))
                    .map_err(|_| "the proxy's URL is malformed".to_owned())
            })
            .collect()
    }
}

/// Returns `host[:port]`, without the port where it is the scheme's own.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Tells whether two URLs have scheme, host and port in common.
pub(super) fn is_same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// Sorts the failure of a request or of its body into our errors.
pub(super) fn failure(error: &reqwest::Error, url: &Url, request: &str, limit: Duration) -> RegistryError {
    let host = authority(url);
    if let Some(tls) = tls_cause(error) {
        return match tls {
            rustls::Error::InvalidCertificate(reason) => {
                RegistryError::Certificate { host, reason: reason.to_string() }
            }
            // What a server says that was spoken to in TLS and only knows HTTP.
            rustls::Error::InvalidMessage(_) => RegistryError::PlainHttp { host },
            other => RegistryError::Tls { host, reason: other.to_string() },
        };
    }
    if error.is_connect() {
        return RegistryError::Connect { host, reason: connect_text(error) };
    }
    if error.is_timeout() {
        return RegistryError::Timeout { host, request: request.to_owned(), limit };
    }
    RegistryError::Broken { host, request: request.to_owned(), reason: chain_text(error) }
}

/// Tells whether a host said that nothing listens at the port.
pub(super) fn is_refused(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = next {
        let io = current.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        next = current.source();
    }
    false
}

fn tls_cause(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(tls) = current.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        // An io::Error's `source` is that of the error within, so the one within needs a look of its own.
        let mut within = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        while let Some(inner) = within {
            if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
                return Some(tls);
            }
            within = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        }
        next = current.source();
    }
    None
}

/// Joins the causes of an error, without the outermost one, which only repeats the URL.
/// Says why there is no connection, without the words that only repeat it.
fn connect_text(error: &reqwest::Error) -> String {
    let text = chain_text(error);
    let text = text.strip_prefix("client error (Connect): ").unwrap_or(&text);
    match text.strip_prefix("dns error: ") {
        // The resolver ends with the whole query, which is the name again.
        Some(dns) => {
            let why = dns.rsplit("DNS error: ").next().unwrap_or(dns);
            let why = why.split_once(" for Query").map_or(why, |(why, _)| why);
            format!("its name can't be resolved ({why})")
        }
        None => text.strip_prefix("tcp connect error: ").unwrap_or(text).to_owned(),
    }
}

fn chain_text(error: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(current) = next {
        let text = current.to_string();
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
        next = current.source();
    }
    if parts.is_empty() { error.to_string() } else { parts.join(": ") }
}

/// Shares a transport between hosts.
pub(super) type SharedTransport = Arc<Transport>;
