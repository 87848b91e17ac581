// SPDX-License-Identifier: Apache-2.0
//! What a client is made of: settings, credentials, limits.

use std::time::Duration;

use crate::config::HostTable;
use crate::credentials::{Credential, Credentials};

/// Everything that a client needs to know; the default is anonymous, direct and strict.
#[derive(Clone)]
pub struct ClientOptions {
    /// Settings per host.
    pub hosts: HostTable,
    /// Credentials per host.
    pub credentials: Credentials,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// Proxies.
    pub proxy: ProxySettings,
    /// Which certificate authorities are trusted for hosts in general.
    pub roots: TrustRoots,
    /// Parallel blob downloads per host.
    pub max_downloads: usize,
    /// Parallel blob uploads per host.
    pub max_uploads: usize,
    /// What to do about failures that may pass.
    pub retry: RetryPolicy,
    /// The time for a connection to be made.
    pub connect_timeout: Duration,
    /// The time for an answer to begin.
    pub answer_timeout: Duration,
    /// The same for a mirror, after which the next one is asked.
    pub mirror_timeout: Duration,
    /// The time in which a transfer may make no progress.
    pub stall_timeout: Duration,
    /// The size of an upload's pieces where it is sent in pieces, in bytes.
    pub piece_bytes: u64,
    /// Whether token servers are asked for an identity token as well, which a login keeps instead of the
    /// password.
    pub wants_identity_token: bool,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            hosts: HostTable::default(),
            credentials: Credentials::anonymous(),
            user_agent: concat!("polyarch/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxy: ProxySettings::default(),
            roots: TrustRoots::System,
            max_downloads: 8,
            max_uploads: 8,
            retry: RetryPolicy::default(),
            connect_timeout: Duration::from_secs(15),
            answer_timeout: Duration::from_secs(60),
            mirror_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(120),
            piece_bytes: 16 << 20,
            wants_identity_token: false,
        }
    }
}

/// Proxies, as the variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` write them.
#[derive(Clone, Default)]
pub struct ProxySettings {
    /// The proxy of plain HTTP requests.
    pub http: Option<String>,
    /// The proxy of HTTPS requests.
    pub https: Option<String>,
    /// Hosts, domains and address ranges that are reached directly.
    pub no_proxy: Option<String>,
}

/// Which certificate authorities are trusted.
#[derive(Clone, Default)]
pub enum TrustRoots {
    /// The system's, loaded when the first TLS connection needs them.
    #[default]
    System,
    /// These (PEM) and no others.
    Pem(Vec<u8>),
}

/// What to do about failures that may pass: 408, 429, 5xx and broken connections.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// The number of attempts, the first one included.
    pub max_attempts: u32,
    /// The wait after the first failure; it doubles with each further one.
    pub first_wait: Duration,
    /// The longest wait, unless the registry asks for a longer one.
    pub max_wait: Duration,
    /// The time after which no further attempt is made.
    pub max_total: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            max_attempts: 5,
            first_wait: Duration::from_millis(400),
            max_wait: Duration::from_secs(15),
            max_total: Duration::from_secs(180),
        }
    }
}

/// What a host said to a login that it accepted.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// Whether the host asked who it is at all.
    pub was_asked: bool,
    /// The identity token (OAuth2 refresh token) that its token server gave in exchange for the password.
    pub identity_token: Option<Credential>,
}
