// SPDX-License-Identifier: Apache-2.0
//! Questions with one answer: credentials, secrets.

use std::time::Duration;

use tonic::Request;

use crate::Method;
use crate::api::auth::{CredentialsRequest, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest};
use crate::api::methods::client;
use crate::api::secrets::GetSecretRequest;
use crate::caller::{CallerError, ClientSession};

/// How long a client may take; its helper programs may ask its user.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The largest secret, as BuildKit has it.
const MAX_SECRET_BYTES: usize = 500 << 10;

/// A user and a password of a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryLogin {
    /// The user; empty when `secret` is an identity token.
    pub user: String,
    /// The password or identity token.
    pub secret: String,
}

impl ClientSession {
    /// Asks for the login of a registry, Docker Hub's as `registry-1.docker.io`; `None` when the client
    /// has none or lets nobody have any.
    ///
    /// # Errors
    /// When the client fails to look it up.
    pub async fn credentials(&self, host: &str) -> Result<Option<RegistryLogin>, CallerError> {
        if !self.offers(client::CREDENTIALS.path()) {
            return Ok(None);
        }
        let request = CredentialsRequest { host: host.to_owned() };
        let found = self.ask("get credentials from the client", &client::CREDENTIALS, request).await?;
        let login = RegistryLogin { user: found.username, secret: found.secret };
        Ok(Some(login).filter(|login| !login.secret.is_empty()))
    }

    /// Asks for a token, where the client gives those instead of logins; `None` when it does not.
    ///
    /// # Errors
    /// When the client fails to get it.
    pub async fn token(&self, wanted: FetchTokenRequest) -> Result<Option<FetchTokenResponse>, CallerError> {
        const WHAT: &str = "get a token from the client";
        if !self.offers(client::FETCH_TOKEN.path()) || !self.offers(client::TOKEN_AUTHORITY.path()) {
            return Ok(None);
        }
        let authority = GetTokenAuthorityRequest { host: wanted.host.clone(), salt: Vec::new() };
        match self.ask(WHAT, &client::TOKEN_AUTHORITY, authority).await {
            Ok(_) => {}
            Err(error) if error.is_not_offered() => return Ok(None),
            Err(error) => return Err(error),
        }
        self.ask(WHAT, &client::FETCH_TOKEN, wanted).await.map(Some)
    }

    /// Asks for a secret; `None` when the client has none of that name.
    ///
    /// # Errors
    /// When the client can't read it.
    pub async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, CallerError> {
        const WHAT: &str = "get a secret from the client";
        if !self.offers(client::GET_SECRET.path()) {
            return Ok(None);
        }
        let request = GetSecretRequest { id: id.to_owned(), annotations: Default::default() };
        match self.ask(WHAT, &client::GET_SECRET, request).await {
            Ok(answer) if answer.data.len() > MAX_SECRET_BYTES => Err(CallerError::Hostile {
                what: WHAT,
                problem: format!("a secret of over {MAX_SECRET_BYTES} bytes"),
            }),
            Ok(answer) => Ok(Some(answer.data)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Calls a method with one message for one message, within a time.
    pub(super) async fn ask<Q, A>(
        &self,
        what: &'static str,
        method: &Method<Q, A>,
        request: Q,
    ) -> Result<A, CallerError>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        self.ask_with(what, method, Request::new(request)).await
    }

    pub(super) async fn ask_with<Q, A>(
        &self,
        what: &'static str,
        method: &Method<Q, A>,
        request: Request<Q>,
    ) -> Result<A, CallerError>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let call = self.within(what, method.call(&self.0.channel, request));
        let in_time = tokio::time::timeout(TIMEOUT, call).await;
        in_time.unwrap_or_else(|_| Err(CallerError::TimedOut { what, seconds: TIMEOUT.as_secs() }))
    }
}
