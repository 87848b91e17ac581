// SPDX-License-Identifier: Apache-2.0
//! Tokens for somebody who shall not have the password, such as the node that builds for us.
//!
//! Who asks names a host and repositories and nothing else: which token server there is the host says to us, and
//! a token permits to pull.

use std::time::Duration;

use http::header::WWW_AUTHENTICATE;
use http::{Method, StatusCode};

use super::Client;
use super::call::{self, Subject};
use super::challenge::{Challenge, Scopes};
use super::host::Host;
use crate::error::RegistryError;

/// How a host wants to be convinced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthScheme {
    /// It asks for nothing.
    Open,
    /// By a user and a password with each request.
    Password,
    /// By tokens of a token server.
    Token,
}

/// A token and how long it is good for.
#[derive(Clone, PartialEq, Eq)]
pub struct LentToken {
    /// The token.
    pub token: String,
    /// Its life, from when it was given.
    pub life: Duration,
}

impl std::fmt::Debug for LentToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets stay out of logs.
        write!(f, "LentToken for {:?}", self.life)
    }
}

impl Client {
    /// Asks a host how it wants to be convinced, unless it has said so before.
    ///
    /// # Errors
    /// Whatever keeps the host from answering.
    pub async fn auth_scheme(&self, host: &str) -> Result<AuthScheme, RegistryError> {
        Ok(match self.host(host).challenge().await? {
            Some(Challenge::Bearer { .. }) => AuthScheme::Token,
            Some(Challenge::Basic) => AuthScheme::Password,
            None => AuthScheme::Open,
        })
    }

    /// Gets a token that permits to pull from repositories of a host, with our credentials or as anybody may have it;
    /// `None` where the host wants no tokens.
    ///
    /// # Errors
    /// When the host or its token server does not answer, or refuses us.
    pub async fn pull_token(
        &self,
        host: &str,
        repositories: &[String],
        with_credentials: bool,
    ) -> Result<Option<LentToken>, RegistryError> {
        let host = self.host(host);
        if host.challenge().await?.is_none() {
            return Ok(None);
        }
        let scopes = repositories.iter().fold(Scopes::default(), |scopes, name| scopes.and(name, &["pull"]));
        let repository = repositories.first().filter(|_| with_credentials).map(String::as_str);
        host.lend(repository, &scopes).await
    }

    /// Returns where a repository can be pulled from, its host and its mirrors: each as a host and a repository.
    pub fn pull_places(&self, reference: &polyarch_oci::Reference) -> Vec<(String, String)> {
        let endpoints = self.pull_endpoints(reference).into_iter();
        endpoints.map(|endpoint| (endpoint.host.name.clone(), endpoint.repository)).collect()
    }
}

impl Host {
    /// Returns the host's challenge, asking for it where there was none yet; `None` when it asks for nothing.
    async fn challenge(&self) -> Result<Option<Challenge>, RegistryError> {
        if let Some(known) = self.known_challenge() {
            return Ok(Some(known));
        }
        let text = "find out how it wants to be convinced".to_owned();
        let call = self.call(Method::GET, "/v2/", text, Subject::Other).await?;
        let answer = call::send(&self.transport, &call, None).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(None);
        }
        let headers = answer.response.headers().get_all(WWW_AUTHENTICATE);
        let is_challenge = headers.iter().next().is_some();
        // Noted for our own requests, too; a challenge of another host, reached by a redirect, is none of our business.
        if !self.challenged(&answer, &Scopes::default()) && is_challenge {
            return Err(call.protocol_error("it wants to be convinced in a way that nobody knows"));
        }
        Ok(self.known_challenge())
    }
}
