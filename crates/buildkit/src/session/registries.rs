// SPDX-License-Identifier: Apache-2.0
//! What a daemon may have of our access to registries: a token for what the build names, and a password only
//! where a registry takes nothing else.
//!
//! A daemon asks for tokens when we say that we have the authority to fetch them (`GetTokenAuthority`). Which
//! token server there is we ask the registry and not the daemon, which could name one of its own; what it wants
//! beyond pulling it does not get.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use polyarch_oci::Reference;
use polyarch_registry::{AuthScheme, Client, Credential, Credentials, RegistryError};
use tonic::{Request, Status};

use crate::api::auth::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse,
};
use crate::session::Attachments;

/// The host under which Docker Hub's daemons ask for its credentials.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// The most scopes of one token.
const MAX_SCOPES: usize = 64;

/// Our access to registries, as far as a daemon may have it.
pub struct SharedRegistries {
    client: Client,
    credentials: Credentials,
    /// The repositories that may be pulled with credentials, by their hosts; `None` is all of all hosts.
    named: Option<BTreeMap<String, BTreeSet<String>>>,
    /// Told by those who ask whether we fetch tokens. Nobody holds the private half, so that what a daemon keeps of a
    /// session is of no use to another.
    key: [u8; 32],
}

impl SharedRegistries {
    /// Shares the access to the images that a build names, `None` being any image.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(
        client: Client,
        credentials: Credentials,
        images: Option<&[Reference]>,
    ) -> Result<SharedRegistries, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        let named = images.map(|images| {
            let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (host, repository) in images.iter().flat_map(|image| client.pull_places(image)) {
                named.entry(host).or_default().insert(repository);
            }
            named
        });
        Ok(SharedRegistries { client, credentials, named, key })
    }

    fn is_named(&self, host: &str) -> bool {
        self.named.as_ref().is_none_or(|named| named.contains_key(host))
    }

    fn is_repository_named(&self, host: &str, repository: &str) -> bool {
        let Some(named) = &self.named else { return true };
        named.get(host).is_some_and(|repositories| repositories.contains(repository))
    }

    /// Tells whether a host is convinced by tokens, as far as it can be asked from here: a registry that only the
    /// daemon can reach gives us none.
    async fn takes_tokens(&self, host: &str) -> Result<bool, Status> {
        match self.client.auth_scheme(host).await {
            Ok(scheme) => Ok(scheme == AuthScheme::Token),
            Err(RegistryError::Connect { .. } | RegistryError::Timeout { .. }) => Ok(false),
            Err(error) => Err(Status::failed_precondition(crate::error::chain_of(&error))),
        }
    }

    async fn login(&self, host: &str) -> Result<CredentialsResponse, Status> {
        if !self.is_named(host) || self.takes_tokens(host).await? {
            return Ok(CredentialsResponse::default());
        }
        let found = self.credentials.find(host, "").await;
        let found = found.map_err(|error| Status::failed_precondition(crate::error::chain_of(&error)))?;
        Ok(match found.map(|found| found.credential) {
            Some(Credential::UserPassword { user, password }) => {
                CredentialsResponse { username: user, secret: password }
            }
            // Without a user the secret is taken for a refresh token.
            Some(Credential::IdentityToken { token }) => {
                CredentialsResponse { username: String::new(), secret: token }
            }
            Some(Credential::RegistryToken { .. }) | None => CredentialsResponse::default(),
        })
    }

    /// Gets a token for those of the repositories that the build names; where it names none of them, as anybody may
    /// have it.
    async fn token(&self, host: &str, scopes: &[String]) -> Result<FetchTokenResponse, Status> {
        if !self.is_named(host) {
            return Err(Status::permission_denied(format!("the build names no image of {host}")));
        }
        let asked: BTreeSet<&str> = scopes
            .iter()
            .flat_map(|scope| scope.split_ascii_whitespace())
            .take(MAX_SCOPES)
            .filter_map(|scope| scope.strip_prefix("repository:")?.rsplit_once(':'))
            .map(|(repository, _)| repository)
            .collect();
        let owned = |names: Vec<&&str>| names.into_iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let named = owned(asked.iter().filter(|name| self.is_repository_named(host, name)).collect());
        let lent = match named.is_empty() {
            true => self.client.pull_token(host, &owned(asked.iter().collect()), false).await,
            false => self.client.pull_token(host, &named, true).await,
        };
        match lent {
            Ok(Some(lent)) => Ok(FetchTokenResponse {
                token: lent.token,
                expires_in: i64::try_from(lent.life.as_secs()).unwrap_or(i64::MAX).max(1),
                issued_at: 0,
            }),
            Ok(None) => Err(Status::unavailable(format!("{host} takes no tokens"))),
            Err(error) => Err(Status::failed_precondition(crate::error::chain_of(&error))),
        }
    }
}

/// Returns a host as references have it.
fn known_as(host: &str) -> &str {
    if host == DOCKER_HUB { "docker.io" } else { host }
}

fn shared(attachments: &Attachments) -> Result<&SharedRegistries, Status> {
    attachments.registries.as_ref().ok_or_else(|| Status::unimplemented("this session has no credentials"))
}

/// Tells a user and password of a registry; both empty where there are none.
pub(super) async fn credentials(
    attachments: Arc<Attachments>,
    request: Request<CredentialsRequest>,
) -> Result<CredentialsResponse, Status> {
    shared(&attachments)?.login(known_as(&request.get_ref().host)).await
}

/// Fetches a token.
pub(super) async fn fetch_token(
    attachments: Arc<Attachments>,
    request: Request<FetchTokenRequest>,
) -> Result<FetchTokenResponse, Status> {
    let request = request.into_inner();
    shared(&attachments)?.token(known_as(&request.host), &request.scopes).await
}

/// Tells whether we fetch the tokens of a registry.
pub(super) async fn token_authority(
    attachments: Arc<Attachments>,
    request: Request<GetTokenAuthorityRequest>,
) -> Result<GetTokenAuthorityResponse, Status> {
    let shared = shared(&attachments)?;
    let host = known_as(&request.get_ref().host);
    match shared.is_named(host) && shared.takes_tokens(host).await? {
        true => Ok(GetTokenAuthorityResponse { public_key: shared.key.to_vec() }),
        // The word for it in the protocol: daemons then ask for a password.
        false => Err(Status::unavailable(format!("no tokens of {host} are fetched here"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use polyarch_registry::{AuthFile, ClientOptions, HostTable};

    use super::*;

    /// A registry that answers everything alike but its token server; it tells what it was sent.
    fn registry(challenge: &'static str) -> (String, std::sync::mpsc::Receiver<String>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let challenge = challenge.replace("HOST", &host);
        let (sender, requests) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut bytes = vec![0; 16 << 10];
                let length = stream.read(&mut bytes).unwrap();
                let request = String::from_utf8_lossy(&bytes[..length]).into_owned();
                let body = r#"{"token":"lent","expires_in":300}"#;
                let answer = match request.starts_with("GET /token") {
                    true => format!("200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
                    false => {
                        format!("401 No\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n")
                    }
                };
                // Whoever only probes for TLS is gone already.
                let _ = stream.write_all(
                    format!("HTTP/1.1 {}", answer.replacen("\r\n", "\r\nConnection: close\r\n", 1))
                        .as_bytes(),
                );
                let _ = sender.send(request);
            }
        });
        (host, requests)
    }

    fn shared(host: &str, images: Option<&[&str]>) -> SharedRegistries {
        let text = format!(r#"{{"auths":{{"{host}":{{"username":"ann","password":"secret"}}}}}}"#);
        let credentials = Credentials::new(vec![AuthFile { origin: "test".into(), text }], Vec::new());
        let mut hosts = HostTable::default();
        hosts.entry(host).http = Some(true);
        let options = ClientOptions { hosts, credentials: credentials.clone(), ..ClientOptions::default() };
        let images: Option<Vec<Reference>> =
            images.map(|images| images.iter().map(|image| image.parse().unwrap()).collect());
        SharedRegistries::new(Client::new(options), credentials, images.as_deref()).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_told_for_hosts_that_are_named_and_take_nothing_else() {
        let (host, requests) = registry("Basic realm=\"x\"");
        let none = CredentialsResponse::default();
        assert_eq!(shared(&host, Some(&["other.example/a"])).login(&host).await.unwrap(), none);
        assert_eq!(requests.try_iter().count(), 0, "nobody is asked on behalf of a host that is not named");
        let image = format!("{host}/a");
        for images in [Some(&[image.as_str()][..]), None] {
            let login = shared(&host, images).login(&host).await.unwrap();
            assert_eq!((login.username.as_str(), login.secret.as_str()), ("ann", "secret"));
        }
    }

    #[tokio::test]
    async fn where_tokens_are_taken_the_password_stays_here() {
        let (host, requests) = registry("Bearer realm=\"http://HOST/token\",service=\"s\"");
        let image = format!("{host}/team/app:1");
        let shared = shared(&host, Some(&[&image]));
        assert_eq!(shared.login(&host).await.unwrap(), CredentialsResponse::default());
        requests.try_iter().for_each(drop);
        let tokens = async |scopes: &[&str]| {
            let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            let lent = shared.token(&host, &scopes).await.unwrap();
            assert_eq!((lent.token.as_str(), lent.expires_in), ("lent", 300));
            let request = requests.recv().unwrap().to_lowercase();
            (request.lines().next().unwrap().to_owned(), request.contains("authorization: basic"))
        };
        let (asked, with_login) = tokens(&["repository:team/app:pull,push,*"]).await;
        assert!(asked.contains("scope=repository%3ateam%2fapp%3apull&"), "{asked}");
        assert!(with_login);
        let (asked, with_login) = tokens(&["repository:team/app:pull repository:other/app:pull"]).await;
        assert!(!asked.contains("other") && with_login, "{asked}");
        let (asked, with_login) = tokens(&["repository:other/app:pull"]).await;
        assert!(asked.contains("other%2fapp") && !with_login, "{asked}");
        assert_eq!(
            shared.token("other.example", &[]).await.unwrap_err().code(),
            tonic::Code::PermissionDenied
        );
    }
}
