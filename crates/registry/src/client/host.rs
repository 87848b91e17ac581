// SPDX-License-Identifier: Apache-2.0
//! A registry host: its scheme, its authorization, its limits, and requests to it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::{OnceCell, Semaphore};
use url::Url;

use super::auth::{Authorization, Authorizer};
use super::call::{self, Answer, Call, Subject};
use super::challenge::Scopes;
use super::retry::Backoff;
use super::transport::{SharedTransport, authority, failure, is_refused, is_same_origin};
use crate::config::is_loopback;
use crate::error::RegistryError;

/// How long a mirror that could not be reached is left alone.
const MIRROR_REST: Duration = Duration::from_secs(60);

/// One host that we talk to.
pub(super) struct Host {
    /// The name in references and settings.
    pub(super) name: String,
    pub(super) transport: SharedTransport,
    pub(super) downloads: Semaphore,
    pub(super) uploads: Semaphore,
    base: OnceCell<Url>,
    authorizer: Authorizer,
    resting_until: Mutex<Option<Instant>>,
}

/// Why nobody answered at a root.
struct Unanswered {
    error: RegistryError,
    /// The host is there, and nothing listens at the port.
    is_refused: bool,
}

/// What a request needs permission for.
#[derive(Clone)]
pub(super) struct Permission {
    /// The repository whose credentials apply.
    pub(super) repository: String,
    pub(super) scopes: Scopes,
}

/// How often a request may be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempts {
    /// Once; somebody else will be asked, or the caller counts.
    Once,
    /// As often as the policy says.
    ByPolicy,
}

impl Host {
    pub(super) fn new(name: &str, transport: SharedTransport) -> Host {
        let permits = |count: usize| Semaphore::new(count.clamp(1, 1024));
        Host {
            name: name.to_owned(),
            downloads: permits(transport.options.max_downloads),
            uploads: permits(transport.options.max_uploads),
            transport,
            base: OnceCell::new(),
            authorizer: Authorizer::new(name),
            resting_until: Mutex::default(),
        }
    }

    /// Makes a request for a path of this host.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        text: String,
        subject: Subject,
    ) -> Result<Call, RegistryError> {
        let base = self.base().await?;
        let mut url = base.clone();
        url.set_path(path);
        Ok(self.call_url(method, url, text, subject))
    }

    /// Makes a request for a URL that this host has given us.
    pub(super) fn call_url(&self, method: Method, url: Url, text: String, subject: Subject) -> Call {
        Call {
            host: self.name.clone(),
            text,
            subject,
            method,
            url,
            headers: HeaderMap::new(),
            body: None,
            limit: self.transport.options.answer_timeout,
        }
    }

    /// Sends a request with authorization, and again where that may help.
    pub(super) async fn send(
        &self,
        call: &Call,
        permission: &Permission,
        attempts: Attempts,
    ) -> Result<Answer, RegistryError> {
        let mut backoff = Backoff::new(&self.transport.options.retry);
        loop {
            match self.send_authorized(call, permission).await {
                Ok(answer) => return Ok(answer),
                Err(error) if attempts == Attempts::Once => return Err(error),
                Err(error) => backoff.wait(error).await?,
            }
        }
    }

    /// Sends a request; after a 401 once more, with what its challenge asks for.
    async fn send_authorized(&self, call: &Call, permission: &Permission) -> Result<Answer, RegistryError> {
        let mut scopes = permission.scopes.clone();
        let base = self.base().await?;
        let mut is_first = true;
        loop {
            let authorization = self.authorize(call, permission, &scopes).await?;
            let answer = call::send(&self.transport, call, authorization.header.as_ref()).await?;
            // A challenge of another host, reached by a redirect, is none of our business.
            let is_ours = is_same_origin(&answer.url, base);
            if answer.status() == StatusCode::UNAUTHORIZED && is_ours && is_first {
                is_first = false;
                if let Some(wanted) = self.authorizer.challenged(&answer, &scopes) {
                    scopes = wanted;
                    continue;
                }
            }
            return call::check(answer, call, &scopes.to_string(), authorization.credentials).await;
        }
    }

    /// Returns what to send with a request; nothing to URLs of other hosts.
    pub(super) async fn authorize(
        &self,
        call: &Call,
        permission: &Permission,
        scopes: &Scopes,
    ) -> Result<Authorization, RegistryError> {
        let base = self.base().await?;
        if !is_same_origin(&call.url, base) {
            return Ok(Authorization::none());
        }
        self.authorizer.authorize(&self.transport, base, &permission.repository, scopes).await
    }

    /// Tells what came of a login.
    pub(super) fn login(&self) -> super::Login {
        self.authorizer.login()
    }

    /// Returns the challenge that the host has made.
    pub(super) fn known_challenge(&self) -> Option<super::challenge::Challenge> {
        self.authorizer.known_challenge()
    }

    /// Gets a token for somebody else, with the credentials for a repository or as anybody may have it.
    pub(super) async fn lend(
        &self,
        repository: Option<&str>,
        scopes: &Scopes,
    ) -> Result<Option<super::LentToken>, RegistryError> {
        self.authorizer.lend(&self.transport, self.base().await?, repository, scopes).await
    }

    /// Takes note of a 401 to a request that was sent elsewhere; tells whether to try again.
    pub(super) fn challenged(&self, answer: &Answer, scopes: &Scopes) -> bool {
        let is_ours = self.base.get().is_some_and(|base| is_same_origin(&answer.url, base));
        is_ours && self.authorizer.challenged(answer, scopes).is_some()
    }

    /// Returns the root URL; finds out the scheme of a loopback or insecure host, once.
    pub(super) async fn base(&self) -> Result<&Url, RegistryError> {
        self.base.get_or_try_init(|| self.find_base()).await
    }

    async fn find_base(&self) -> Result<Url, RegistryError> {
        let settings = self.transport.options.hosts.get(&self.name);
        let url = |scheme: &str| {
            Url::parse(&format!("{scheme}://{}", api_authority(&self.name))).map_err(|error| {
                RegistryError::Settings { host: self.name.clone(), problem: format!("not a host ({error})") }
            })
        };
        match settings.and_then(|host| host.http) {
            Some(true) => url("http"),
            Some(false) => url("https"),
            None if !is_loopback(&self.name) && !settings.is_some_and(|host| host.insecure) => url("https"),
            // With an authority named, plain HTTP is not what is meant.
            None if settings.is_some_and(|host| !host.ca.is_empty()) => url("https"),
            None => {
                let https = url("https")?;
                match self.probe(&https).await {
                    Ok(()) => Ok(https),
                    Err(Unanswered { error: RegistryError::PlainHttp { .. }, .. }) => url("http"),
                    // Where TLS fails in any other way, somebody on the way may wish for passwords in the
                    // clear; nobody is on the way to this machine.
                    Err(unanswered) if is_loopback(&self.name) || unanswered.is_refused => {
                        let http = url("http")?;
                        // Without a port the two are different ports; with one, both fail alike.
                        self.probe(&http).await.map(|()| http).map_err(|_| unanswered.error)
                    }
                    Err(unanswered) => Err(unanswered.error),
                }
            }
        }
    }

    /// Asks whether anybody answers at a root; any answer will do.
    async fn probe(&self, root: &Url) -> Result<(), Unanswered> {
        let mut url = root.clone();
        url.set_path("/v2/");
        let call =
            self.call_url(Method::GET, url.clone(), "find out http or https".to_owned(), Subject::Other);
        let unanswered = |error| Unanswered { error, is_refused: false };
        let request = self.transport.pool_for(&url).map_err(unanswered)?.get(url.clone()).send();
        match tokio::time::timeout(call.limit, request).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Unanswered {
                is_refused: is_refused(&error),
                error: failure(&error, &url, &call.text, call.limit),
            }),
            Err(_) => Err(unanswered(RegistryError::Timeout {
                host: authority(&url),
                request: call.text,
                limit: call.limit,
            })),
        }
    }

    /// Tells whether this mirror was unreachable a short while ago.
    pub(super) fn is_resting(&self) -> bool {
        let until = self.resting_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| until > Instant::now())
    }

    /// Leaves this mirror alone for a while, when the failure says that it is unreachable.
    pub(super) fn rest_after(&self, error: &RegistryError) {
        if matches!(error, RegistryError::Connect { .. } | RegistryError::Timeout { .. }) {
            let mut until = self.resting_until.lock().unwrap_or_else(PoisonError::into_inner);
            *until = Some(Instant::now() + MIRROR_REST);
        }
    }
}

impl Authorization {
    pub(super) fn none() -> Authorization {
        Authorization { header: None, credentials: crate::error::CredentialUse::None }
    }

    /// Adds the header to a request that is sent elsewhere.
    pub(super) fn header_value(&self) -> Option<&HeaderValue> {
        self.header.as_ref()
    }
}

/// Returns where a host's API is: Docker Hub's has a name of its own.
fn api_authority(host: &str) -> &str {
    if host == polyarch_oci::reference::DEFAULT_HOST { "registry-1.docker.io" } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_api_has_another_name() {
        assert_eq!(api_authority("docker.io"), "registry-1.docker.io");
        assert_eq!(api_authority("quay.example:443"), "quay.example:443");
    }
}
