// SPDX-License-Identifier: Apache-2.0
//! Credentials: docker's `config.json`, podman's `auth.json`, `DOCKER_AUTH_CONFIG` and credential helpers.
//!
//! All sources have one format. They are asked in the order in which the caller passes them; within
//! one source a helper named for the host comes first, then stored entries, then the default helper.
//! The caller reads and writes files; this module only parses and changes texts and runs helpers. A source
//! that makes no sense is an error only for those who look for credentials and find none elsewhere.

mod credential_file;
mod credential_helper;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Deserializer};

use crate::client::LentToken;
use crate::config::canonical_host;
pub use credential_file::CredentialFile;
pub use credential_helper::{HelperError, erase_with_helper, store_with_helper};

/// The key under which Docker Hub's credentials are kept.
pub const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Says why credentials could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A source is not JSON of this form.
    #[error(
        "{origin} is not a valid credentials file (docker's config.json or podman's auth.json): {problem}"
    )]
    Json {
        /// Which source.
        origin: String,
        /// What the parser said, with line and column; it shows no values.
        problem: String,
    },
    /// A source can't be read.
    #[error("{problem}")]
    Unreadable {
        /// Which, and why.
        problem: String,
    },
    /// An entry's `auth` field is not base64 of `user:password`.
    #[error(
        "{origin}: the `auth` field of {host:?} is not base64 of `user:password`; run `polyarch login {host}` again"
    )]
    Auth {
        /// Which source.
        origin: String,
        /// The entry.
        host: String,
    },
    /// Somebody who was asked failed.
    #[error("{origin}: {problem}")]
    Lookup {
        /// Who.
        origin: String,
        /// How.
        problem: String,
    },
    /// A helper failed.
    #[error("{origin} names the credential helper {helper:?}, which failed")]
    Helper {
        /// Which source.
        origin: String,
        /// The helper, without `docker-credential-`.
        helper: String,
        /// How.
        #[source]
        source: HelperError,
    },
}

/// One source: a file's content and its name for messages.
#[derive(Clone)]
pub struct AuthFile {
    /// How messages call the source: a file name or a variable's name.
    pub origin: String,
    /// The content, JSON.
    pub text: String,
}

/// What to present to a registry or its token server.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password.
    UserPassword {
        /// The user.
        user: String,
        /// The password or access token.
        password: String,
    },
    /// An OAuth2 refresh token.
    IdentityToken {
        /// The token.
        token: String,
    },
    /// A bearer token to send as it is.
    RegistryToken {
        /// The token.
        token: String,
    },
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets stay out of logs.
        f.write_str(match self {
            Credential::UserPassword { .. } => "UserPassword",
            Credential::IdentityToken { .. } => "IdentityToken",
            Credential::RegistryToken { .. } => "RegistryToken",
        })
    }
}

/// A credential and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCredential {
    /// The credential.
    pub credential: Credential,
    /// Its source, for messages.
    pub origin: String,
}

/// Somebody who is asked for credentials when they are needed, as a client of a builder.
pub trait CredentialLookup: Send + Sync {
    /// Finds the credential for a host, Docker Hub being `docker.io`; the error says why it can't be told.
    fn find<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<Credential>, String>>;

    /// Gets a token instead of credentials, where there are none; `None` when nobody gives any.
    fn token<'a>(&'a self, wanted: TokenWanted<'a>) -> BoxFuture<'a, Result<Option<LentToken>, String>>;
}

/// A token that a host wants, in the words of its challenge.
#[derive(Debug, Clone)]
pub struct TokenWanted<'a> {
    /// The host, Docker Hub being `docker.io`.
    pub host: &'a str,
    /// The token server.
    pub realm: &'a str,
    /// What the host is called there; may be empty.
    pub service: &'a str,
    /// What the token shall permit, `repository:NAME:pull`.
    pub scopes: Vec<String>,
}

/// All sources of credentials; cheap to clone.
#[derive(Clone, Default)]
pub struct Credentials {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    sources: Vec<Source>,
    /// What is wrong with sources that can't be read.
    unreadable: Vec<String>,
    helper_directories: Vec<PathBuf>,
    answers: credential_helper::Answers,
    lookup: Option<Lookup>,
}

/// Somebody to ask, and what was answered: once per host.
struct Lookup {
    origin: String,
    asked: Arc<dyn CredentialLookup>,
    answers: tokio::sync::Mutex<BTreeMap<String, Option<Credential>>>,
}

struct Source {
    origin: String,
    /// The content, or what is wrong with it.
    file: Result<ConfigFile, String>,
}

/// The fields of `config.json` that matter here.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigFile {
    #[serde(default, deserialize_with = "null_as_default")]
    auths: BTreeMap<String, AuthEntry>,
    #[serde(default, deserialize_with = "null_as_default")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_as_default")]
    creds_store: String,
}

#[derive(Default, Deserialize)]
struct AuthEntry {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

impl Credentials {
    /// Returns credentials for nobody.
    pub fn anonymous() -> Credentials {
        Credentials::default()
    }

    /// Parses sources, the first being asked first; helpers are searched in `helper_directories`
    /// (the directories of `PATH`). Empty texts count as empty files; what is wrong with a source, or with an
    /// entry of it, is told when it is needed.
    pub fn new(sources: Vec<AuthFile>, helper_directories: Vec<PathBuf>) -> Credentials {
        Credentials::with_unreadable(sources, Vec::new(), helper_directories)
    }

    /// The same where some sources can't be read: which and why is told to those who find nothing elsewhere.
    pub fn with_unreadable(
        sources: Vec<AuthFile>,
        unreadable: Vec<String>,
        helper_directories: Vec<PathBuf>,
    ) -> Credentials {
        let parse = |source: AuthFile| Source {
            file: parse(&source.text).map_err(|e| problem_of(&e)),
            origin: source.origin,
        };
        let sources = sources.into_iter().map(parse).collect();
        Credentials::of_sources(sources, unreadable, helper_directories)
    }

    /// Returns one user's password for one host, as a login tries it; `origin` says where it comes from.
    pub fn of_user(host: &str, user: &str, password: &str, origin: &str) -> Credentials {
        let entry =
            AuthEntry { username: user.to_owned(), password: password.to_owned(), ..AuthEntry::default() };
        let auths = BTreeMap::from([(canonical_host(host).to_owned(), entry)]);
        let file = ConfigFile { auths, ..ConfigFile::default() };
        let source = Source { origin: origin.to_owned(), file: Ok(file) };
        Credentials::of_sources(vec![source], Vec::new(), Vec::new())
    }

    /// Returns the credentials that somebody else has; `origin` says who, for messages.
    pub fn of_lookup(asked: Arc<dyn CredentialLookup>, origin: &str) -> Credentials {
        let lookup = Lookup { origin: origin.to_owned(), asked, answers: tokio::sync::Mutex::default() };
        Credentials { inner: Arc::new(Inner { lookup: Some(lookup), ..Inner::default() }) }
    }

    fn of_sources(
        sources: Vec<Source>,
        unreadable: Vec<String>,
        helper_directories: Vec<PathBuf>,
    ) -> Credentials {
        let answers = credential_helper::Answers::default();
        let inner = Inner { sources, unreadable, helper_directories, answers, lookup: None };
        Credentials { inner: Arc::new(inner) }
    }

    /// Finds the credential for a repository of a host; `None` means to go without.
    ///
    /// May run a credential helper; its answer is remembered for the life of this value.
    ///
    /// # Errors
    /// When a stored entry is malformed, a helper fails, or nothing is found and a source can't be read.
    /// A helper that knows nothing is no error.
    pub async fn find(
        &self,
        host: &str,
        repository: &str,
    ) -> Result<Option<FoundCredential>, CredentialsError> {
        let host = canonical_host(host);
        if let Some(lookup) = &self.inner.lookup {
            return lookup.find(host).await;
        }
        let mut broken = None;
        for source in &self.inner.sources {
            let file = match &source.file {
                Ok(file) => file,
                Err(problem) => {
                    broken.get_or_insert(CredentialsError::Json {
                        origin: source.origin.clone(),
                        problem: problem.clone(),
                    });
                    continue;
                }
            };
            if let Some(helper) = file.helper_of(host) {
                let found = self.ask_helper(source, helper, host).await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            if let Some(credential) = file.entry_of(&source.origin, host, repository)? {
                return Ok(Some(FoundCredential { credential, origin: source.origin.clone() }));
            }
            if !file.creds_store.is_empty() {
                let found = self.ask_helper(source, &file.creds_store, host).await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        let unreadable = || {
            let problem = self.inner.unreadable.first()?.clone();
            Some(CredentialsError::Unreadable { problem })
        };
        broken.or_else(unreadable).map_or(Ok(None), Err)
    }

    /// Asks for a token instead of credentials; returns it with who gave it.
    pub(crate) async fn borrow_token(
        &self,
        wanted: TokenWanted<'_>,
    ) -> Result<Option<(LentToken, String)>, CredentialsError> {
        let Some(lookup) = &self.inner.lookup else { return Ok(None) };
        let wrong = |problem| CredentialsError::Lookup { origin: lookup.origin.clone(), problem };
        let lent = lookup.asked.token(wanted).await.map_err(wrong)?;
        Ok(lent.map(|lent| (lent, lookup.origin.clone())))
    }

    async fn ask_helper(
        &self,
        source: &Source,
        helper: &str,
        host: &str,
    ) -> Result<Option<FoundCredential>, CredentialsError> {
        let answer = self.inner.answers.get(&self.inner.helper_directories, helper, key_of_host(host)).await;
        match answer {
            Ok(credential) => Ok(credential.map(|credential| FoundCredential {
                credential,
                origin: format!("docker-credential-{helper}"),
            })),
            Err(error) => Err(CredentialsError::Helper {
                origin: source.origin.clone(),
                helper: helper.to_owned(),
                source: error,
            }),
        }
    }
}

impl Lookup {
    async fn find(&self, host: &str) -> Result<Option<FoundCredential>, CredentialsError> {
        let mut answers = self.answers.lock().await;
        let found = match answers.get(host) {
            Some(found) => found.clone(),
            None => {
                let found = self
                    .asked
                    .find(host)
                    .await
                    .map_err(|problem| CredentialsError::Lookup { origin: self.origin.clone(), problem })?;
                answers.insert(host.to_owned(), found.clone());
                found
            }
        };
        Ok(found.map(|credential| FoundCredential { credential, origin: self.origin.clone() }))
    }
}

impl ConfigFile {
    fn helper_of(&self, host: &str) -> Option<&str> {
        self.cred_helpers.iter().find(|(key, _)| host_of_key(key) == host).map(|(_, name)| name.as_str())
    }

    /// Finds the stored entry with the longest matching name: podman's keys may name a repository or
    /// a namespace of it (containers-auth.json(5)).
    fn entry_of(
        &self,
        origin: &str,
        host: &str,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialsError> {
        let mut name = format!("{host}/{repository}");
        loop {
            for (key, entry) in &self.auths {
                if name_of_key(key) == name
                    && let Some(credential) = entry.credential(origin, key)?
                {
                    return Ok(Some(credential));
                }
            }
            match name.rfind('/') {
                Some(at) => name.truncate(at),
                None => return Ok(None),
            }
        }
    }
}

impl AuthEntry {
    fn credential(&self, origin: &str, host: &str) -> Result<Option<Credential>, CredentialsError> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credential::RegistryToken { token: self.registrytoken.clone() }));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::IdentityToken { token: self.identitytoken.clone() }));
        }
        if !self.auth.is_empty() {
            let malformed = || CredentialsError::Auth { origin: origin.to_owned(), host: host.to_owned() };
            let text = self.auth.trim();
            let bytes =
                STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).map_err(|_| malformed())?;
            let text = String::from_utf8(bytes).map_err(|_| malformed())?;
            let (user, password) = text.split_once(':').ok_or_else(malformed)?;
            // Docker pads what it stores with zero bytes.
            let password = password.trim_end_matches('\0');
            return Ok(Some(Credential::UserPassword {
                user: user.to_owned(),
                password: password.to_owned(),
            }));
        }
        if !self.username.is_empty() {
            let (user, password) = (self.username.clone(), self.password.clone());
            return Ok(Some(Credential::UserPassword { user, password }));
        }
        // Docker leaves `{}` as a mark that the default helper knows more.
        Ok(None)
    }
}

fn parse(text: &str) -> Result<ConfigFile, serde_json::Error> {
    serde_json::from_str(if text.trim().is_empty() { "{}" } else { text })
}

/// Says what is wrong with a file, and where, without showing anything that stands in it.
fn problem_of(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => {
            format!("a value is not of the expected kind at line {} column {}", error.line(), error.column())
        }
        _ => error.to_string(),
    }
}

fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Returns the key under which a host's credentials are kept, in files and by helpers.
pub fn key_of_host(host: &str) -> &str {
    let host = canonical_host(host);
    if host == polyarch_oci::reference::DEFAULT_HOST { DOCKER_HUB_KEY } else { host }
}

/// Returns the host that is meant by what a user gives to a login: a host, a URL, an image's name.
pub fn host_of_server(server: &str) -> String {
    let host = host_of_key(server.trim());
    if host.is_empty() { polyarch_oci::reference::DEFAULT_HOST.to_owned() } else { host }
}

/// Strips what docker puts around a host in its keys: a scheme, and `/v1/` or `/v2/`.
fn name_of_key(key: &str) -> String {
    let name = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let name = name.trim_end_matches('/');
    let name = name.strip_suffix("/v1").or_else(|| name.strip_suffix("/v2")).unwrap_or(name);
    match name.split_once('/') {
        Some((host, path)) => format!("{}/{path}", canonical_host(host)),
        None => canonical_host(name).to_owned(),
    }
}

fn host_of_key(key: &str) -> String {
    let name = name_of_key(key);
    name.split('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(text: &str) -> Credentials {
        let file = AuthFile { origin: "config.json".into(), text: text.into() };
        Credentials::new(vec![file], Vec::new())
    }

    async fn user_of(credentials: &Credentials, host: &str, repository: &str) -> Option<String> {
        match credentials.find(host, repository).await.unwrap()?.credential {
            Credential::UserPassword { user, .. } => Some(user),
            other => Some(format!("{other:?}")),
        }
    }

    #[tokio::test]
    async fn keys_match_as_docker_and_podman_write_them() {
        let auth = |user: &str| STANDARD.encode(format!("{user}:secret:with:colons"));
        let text = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": {"auth": auth("hub")},
            "https://old.example/v2/": {"auth": auth("old")},
            "quay.example": {"auth": auth("whole")},
            "quay.example/team": {"auth": auth("team")},
            "quay.example/team/app": {"username": "app", "password": "x"},
            "id.example": {"auth": auth("ignored"), "identitytoken": "t"},
            "localhost:5000": {"registrytoken": "t"},
            "empty.example": {},
        }});
        let credentials = credentials(&text.to_string());
        let table = [
            ("docker.io", "library/alpine", Some("hub")),
            ("registry-1.docker.io", "library/alpine", Some("hub")),
            ("old.example", "a", Some("old")),
            ("quay.example", "other/app", Some("whole")),
            ("quay.example", "team/other", Some("team")),
            ("quay.example", "team/app", Some("app")),
            ("quay.example", "teamster/app", Some("whole")),
            ("id.example", "a", Some("IdentityToken")),
            ("localhost:5000", "a", Some("RegistryToken")),
            ("localhost:5001", "a", None),
            ("empty.example", "a", None),
        ];
        for (host, repository, user) in table {
            assert_eq!(user_of(&credentials, host, repository).await.as_deref(), user, "{host}/{repository}");
        }
        let found = credentials.find("old.example", "a").await.unwrap().unwrap();
        assert_eq!(found.origin, "config.json");
        let expected = Credential::UserPassword { user: "old".into(), password: "secret:with:colons".into() };
        assert_eq!(found.credential, expected);
    }

    #[tokio::test]
    async fn malformed_entries_are_named_without_their_secret() {
        let credentials = credentials(r#"{"auths":{"a.example":{"auth":"c2VjcmV0"}}}"#);
        let error = credentials.find("a.example", "x").await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("a.example") && text.contains("config.json") && !text.contains("c2VjcmV0"));
    }

    #[tokio::test]
    async fn a_broken_file_is_an_error_only_for_who_finds_nothing_elsewhere() {
        let broken = AuthFile {
            origin: "auth.json".into(),
            text: "{\n  \"auths\": {\"h.example\": \"c2VjcmV0\"}}".into(),
        };
        let good = AuthFile {
            origin: "config.json".into(),
            text: r#"{"auths":{"a.example":{"username":"u","password":"p"}},"credHelpers":null}"#.into(),
        };
        let empty = AuthFile { origin: "empty".into(), text: String::new() };
        let credentials = Credentials::new(vec![broken, empty, good], Vec::new());
        assert_eq!(user_of(&credentials, "a.example", "x").await.as_deref(), Some("u"));
        let error = credentials.find("b.example", "x").await.unwrap_err().to_string();
        assert!(error.starts_with("auth.json is not a valid") && error.contains("line 2 column"), "{error}");
        assert!(!error.contains("c2VjcmV0"), "{error}");
        let torn = AuthFile { origin: "auth.json".into(), text: "{".into() };
        let error = Credentials::new(vec![torn], Vec::new()).find("a", "x").await.unwrap_err().to_string();
        assert!(error.contains("line 1 column 1"), "{error}");
        let unreadable = vec!["can't read auth.json: it is secret".to_owned()];
        let empty = Credentials::with_unreadable(Vec::new(), unreadable, Vec::new());
        assert!(empty.find("a", "x").await.unwrap_err().to_string().contains("it is secret"));
    }

    #[test]
    fn servers_are_named_in_many_ways() {
        for (server, host) in [
            ("", "docker.io"),
            ("docker.io", "docker.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("https://r.example:5000/v2/", "r.example:5000"),
            ("http://r.example", "r.example"),
            ("ghcr.example/team/app", "ghcr.example"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(host_of_server(server), host, "{server}");
        }
        assert_eq!(key_of_host("docker.io"), DOCKER_HUB_KEY);
        assert_eq!(key_of_host("r.example"), "r.example");
    }

    #[tokio::test]
    async fn the_first_source_that_knows_the_host_wins() {
        let file = |origin: &str, user: &str| AuthFile {
            origin: origin.into(),
            text: format!(r#"{{"auths":{{"a.example":{{"username":"{user}","password":"p"}}}}}}"#),
        };
        let none = AuthFile { origin: "none".into(), text: "{}".into() };
        let credentials =
            Credentials::new(vec![none, file("one", "first"), file("two", "second")], Vec::new());
        assert_eq!(user_of(&credentials, "a.example", "x").await.as_deref(), Some("first"));
    }
}
