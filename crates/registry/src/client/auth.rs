// SPDX-License-Identifier: Apache-2.0
//! Authorization at one host: the challenge it made, the tokens it takes (distribution's token
//! authentication specification; OAuth2 for identity tokens).
//!
//! Nothing is sent before the host has asked. Its first challenge decides for later requests, whose
//! tokens are then fetched in advance, once per set of scopes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use url::Url;

use super::call::{self, Answer, Call, Subject};
use super::challenge::{Challenge, Scopes};
use super::lend::LentToken;
use super::options::Login;
use super::retry::Backoff;
use super::transport::{SharedTransport, authority};
use crate::api::MAX_TOKEN_BYTES;
use crate::config::is_loopback;
use crate::credentials::{Credential, CredentialsError, FoundCredential, TokenWanted};
use crate::error::{CredentialUse, RegistryError};

/// Our name at token servers.
const CLIENT_ID: &str = "polyarch";
/// The life of a token whose server does not tell it (token specification, `expires_in`).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// The authorization state of a host.
pub(super) struct Authorizer {
    host: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    tokens: HashMap<Scopes, TokenCell>,
    identity_token: Option<String>,
}

/// Locked while the token is being fetched, so that it is fetched once.
type TokenCell = Arc<tokio::sync::Mutex<Option<Token>>>;

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    credentials: CredentialUse,
    renew_at: Instant,
}

/// What to send with a request, and what that says about credentials.
pub(super) struct Authorization {
    pub(super) header: Option<HeaderValue>,
    pub(super) credentials: CredentialUse,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
    expires_in: Option<u64>,
}

impl TokenAnswer {
    fn token(&self) -> &str {
        if self.token.is_empty() { &self.access_token } else { &self.token }
    }

    fn into_token(self) -> String {
        if self.token.is_empty() { self.access_token } else { self.token }
    }
}

impl Authorizer {
    pub(super) fn new(host: &str) -> Authorizer {
        Authorizer { host: host.to_owned(), state: Mutex::default() }
    }

    /// Returns what to send with a request that needs `scopes` on (mostly) `repository`.
    pub(super) async fn authorize(
        &self,
        transport: &SharedTransport,
        origin: &Url,
        repository: &str,
        scopes: &Scopes,
    ) -> Result<Authorization, RegistryError> {
        let (challenge, cell) = {
            let mut state = self.lock();
            let Some(challenge) = state.challenge.clone() else {
                return Ok(Authorization { header: None, credentials: CredentialUse::None });
            };
            (challenge, state.tokens.entry(scopes.clone()).or_default().clone())
        };
        let mut token = cell.lock().await;
        if let Some(token) = token.as_ref().filter(|token| token.renew_at > Instant::now()) {
            return Ok(Authorization {
                header: Some(token.header.clone()),
                credentials: token.credentials.clone(),
            });
        }
        let (found, mut credentials) = self.find(transport, repository).await;
        let lent = match (&challenge, &found) {
            (Challenge::Bearer { realm, service, .. }, None) => {
                self.borrow(transport, realm, service.as_deref(), scopes, &mut credentials).await
            }
            _ => None,
        };
        let fresh = match (&challenge, found) {
            _ if lent.is_some() => lent.map(|lent| (bearer(&lent.token), lent.life)),
            (Challenge::Bearer { .. }, Some(Credential::RegistryToken { token })) => {
                Some((bearer(&token), DEFAULT_LIFE))
            }
            (Challenge::Bearer { realm, service, .. }, credential) => {
                let server = TokenServer { host: &self.host, realm, service: service.as_deref(), origin };
                let answer = server.fetch(transport, credential.as_ref(), scopes, &credentials).await?;
                if !answer.refresh_token.is_empty() {
                    self.lock().identity_token = Some(answer.refresh_token.clone());
                }
                Some(server.header_and_life(transport, &answer)?)
            }
            (Challenge::Basic, Some(Credential::UserPassword { user, password })) => {
                Some((basic(&user, &password), Duration::from_secs(3600)))
            }
            (Challenge::Basic, Some(_)) => {
                let reason = "a token is configured, and the host only takes user and password".to_owned();
                let credentials = CredentialUse::Unavailable { reason };
                return Ok(Authorization { header: None, credentials });
            }
            (Challenge::Basic, None) => None,
        };
        let Some((Some(header), life)) = fresh else {
            return Ok(Authorization { header: None, credentials });
        };
        // Renewed a little early, so that it does not end on its way.
        let renew_at = Instant::now() + life.mul_f64(0.8);
        *token = Some(Token { header: header.clone(), credentials: credentials.clone(), renew_at });
        Ok(Authorization { header: Some(header), credentials })
    }

    /// Returns the challenge that holds.
    pub(super) fn known_challenge(&self) -> Option<Challenge> {
        self.lock().challenge.clone()
    }

    /// Gets a token that is not kept, with the credentials for a repository or as anybody may have it.
    pub(super) async fn lend(
        &self,
        transport: &SharedTransport,
        origin: &Url,
        repository: Option<&str>,
        scopes: &Scopes,
    ) -> Result<Option<LentToken>, RegistryError> {
        let Some(Challenge::Bearer { realm, service, .. }) = self.known_challenge() else { return Ok(None) };
        let (found, credentials) = match repository {
            Some(repository) => self.find(transport, repository).await,
            None => (None, CredentialUse::None),
        };
        if let Some(Credential::RegistryToken { token }) = found {
            return Ok(Some(LentToken { token, life: DEFAULT_LIFE }));
        }
        let server = TokenServer { host: &self.host, realm: &realm, service: service.as_deref(), origin };
        let answer = server.fetch(transport, found.as_ref(), scopes, &credentials).await?;
        let (_, life) = server.header_and_life(transport, &answer)?;
        Ok(Some(LentToken { token: answer.into_token(), life }))
    }

    /// Takes note of a 401: its challenge holds from now on, and the token sent is void.
    ///
    /// Returns the scopes to try again with; `None` when there is no challenge that we can meet.
    pub(super) fn challenged(&self, answer: &Answer, scopes: &Scopes) -> Option<Scopes> {
        let headers = answer.response.headers().get_all(WWW_AUTHENTICATE);
        let challenge = Challenge::choose(headers.iter().filter_map(|value| value.to_str().ok()))?;
        let mut state = self.lock();
        state.tokens.remove(scopes);
        let scopes = match &challenge {
            Challenge::Bearer { scopes: wanted, .. } => scopes.clone().union(wanted),
            Challenge::Basic => scopes.clone(),
        };
        state.tokens.remove(&scopes);
        state.challenge = Some(challenge);
        Some(scopes)
    }

    /// Finds credentials; that they cannot be had is told only when the host refuses us without.
    async fn find(
        &self,
        transport: &SharedTransport,
        repository: &str,
    ) -> (Option<Credential>, CredentialUse) {
        match transport.options.credentials.find(&self.host, repository).await {
            Ok(Some(FoundCredential { credential, origin })) => {
                (Some(credential), CredentialUse::Sent { origin })
            }
            Ok(None) => (None, CredentialUse::None),
            Err(error) => (None, self.unavailable(&error)),
        }
    }

    /// Asks whoever has credentials for a token instead.
    async fn borrow(
        &self,
        transport: &SharedTransport,
        realm: &Url,
        service: Option<&str>,
        scopes: &Scopes,
        credentials: &mut CredentialUse,
    ) -> Option<LentToken> {
        let (host, service) = (self.host.as_str(), service.unwrap_or_default());
        let wanted = TokenWanted { host, realm: realm.as_str(), service, scopes: scopes.iter().collect() };
        match transport.options.credentials.borrow_token(wanted).await {
            Ok(lent) => {
                let (lent, origin) = lent?;
                *credentials = CredentialUse::Sent { origin };
                Some(lent)
            }
            Err(error) => {
                *credentials = self.unavailable(&error);
                None
            }
        }
    }

    /// Notes that credentials cannot be had.
    fn unavailable(&self, error: &CredentialsError) -> CredentialUse {
        let mut reason = error.to_string();
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            reason = format!("{reason}: {cause}");
            next = cause.source();
        }
        tracing::warn!(host = %self.host, %reason, "going without credentials");
        CredentialUse::Unavailable { reason }
    }

    /// Tells what came of a login.
    pub(super) fn login(&self) -> Login {
        let state = self.lock();
        let token = state.identity_token.clone();
        Login {
            was_asked: state.challenge.is_some(),
            identity_token: token.map(|token| Credential::IdentityToken { token }),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request for a token.
struct TokenServer<'a> {
    host: &'a str,
    realm: &'a Url,
    service: Option<&'a str>,
    origin: &'a Url,
}

impl TokenServer<'_> {
    async fn fetch(
        &self,
        transport: &SharedTransport,
        credential: Option<&Credential>,
        scopes: &Scopes,
        credentials: &CredentialUse,
    ) -> Result<TokenAnswer, RegistryError> {
        let is_plain = self.realm.scheme() == "http" && !is_loopback(&authority(self.realm));
        if credential.is_some() && is_plain && self.origin.scheme() == "https" {
            let problem = "its token server is on plain http, where credentials would be readable";
            return Err(self.call(transport, Method::GET).protocol_error(problem));
        }
        match credential {
            Some(Credential::IdentityToken { token }) => {
                let posted = self.post(transport, token, scopes);
                match self.send(transport, posted, None, scopes, credentials).await {
                    // Older token servers know only GET; a refresh token then goes as a password.
                    Err(error) if matches!(error.status(), Some(404 | 405)) => {
                        let header = basic("<token>", token);
                        self.send(transport, self.get(transport, scopes), header, scopes, credentials).await
                    }
                    other => other,
                }
            }
            Some(Credential::UserPassword { user, password }) => {
                let mut call = self.get(transport, scopes);
                if transport.options.wants_identity_token {
                    call.url.query_pairs_mut().append_pair("offline_token", "true");
                }
                self.send(transport, call, basic(user, password), scopes, credentials).await
            }
            Some(Credential::RegistryToken { .. }) | None => {
                self.send(transport, self.get(transport, scopes), None, scopes, credentials).await
            }
        }
    }

    fn header_and_life(
        &self,
        transport: &SharedTransport,
        answer: &TokenAnswer,
    ) -> Result<(Option<HeaderValue>, Duration), RegistryError> {
        let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
        let text = answer.token();
        let header = bearer(text).filter(|_| !text.is_empty());
        if header.is_none() {
            return Err(self.call(transport, Method::GET).protocol_error("the token server sent no token"));
        }
        Ok((header, life.min(Duration::from_secs(24 * 3600))))
    }

    fn get(&self, transport: &SharedTransport, scopes: &Scopes) -> Call {
        let mut call = self.call(transport, Method::GET);
        {
            let mut query = call.url.query_pairs_mut();
            if let Some(service) = self.service {
                query.append_pair("service", service);
            }
            for scope in scopes.iter() {
                query.append_pair("scope", &scope);
            }
            query.append_pair("client_id", CLIENT_ID);
        }
        call
    }

    fn post(&self, transport: &SharedTransport, refresh_token: &str, scopes: &Scopes) -> Call {
        let mut call =
            self.call(transport, Method::POST).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token").append_pair("client_id", CLIENT_ID);
        if let Some(service) = self.service {
            form.append_pair("service", service);
        }
        let scopes = scopes.to_string();
        if !scopes.is_empty() {
            form.append_pair("scope", &scopes);
        }
        form.append_pair("refresh_token", refresh_token);
        call.body = Some(form.finish().into());
        call
    }

    fn call(&self, transport: &SharedTransport, method: Method) -> Call {
        Call {
            host: self.host.to_owned(),
            text: format!("get a token from {}", authority(self.realm)),
            subject: Subject::Other,
            method,
            url: self.realm.clone(),
            headers: HeaderMap::new(),
            body: None,
            limit: transport.options.answer_timeout,
        }
        .header(ACCEPT, "application/json")
    }

    async fn send(
        &self,
        transport: &SharedTransport,
        call: Call,
        authorization: Option<HeaderValue>,
        scopes: &Scopes,
        credentials: &CredentialUse,
    ) -> Result<TokenAnswer, RegistryError> {
        let mut backoff = Backoff::new(&transport.options.retry);
        let attempt = || async {
            let answer = call::send(transport, &call, authorization.as_ref()).await?;
            let answer = call::check(answer, &call, &scopes.to_string(), credentials.clone()).await?;
            call::read_all(answer, &call, "token", MAX_TOKEN_BYTES as u64).await
        };
        let bytes = loop {
            match attempt().await {
                Ok(bytes) => break bytes,
                Err(error) => backoff.wait(error).await?,
            }
        };
        // The parser's words could show parts of the token.
        serde_json::from_slice(&bytes)
            .map_err(|_| call.protocol_error("the token is not in the expected JSON"))
    }
}

fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    secret(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

fn bearer(token: &str) -> Option<HeaderValue> {
    secret(&format!("Bearer {token}"))
}

/// Makes a header value that is kept out of logs; `None` when it has characters that no header may have.
fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
