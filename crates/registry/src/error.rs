// SPDX-License-Identifier: Apache-2.0
//! What can go wrong between us and a registry, said so that the reader knows what to do next.

use std::fmt;
use std::io;
use std::time::Duration;

use polyarch_oci::Digest;

use crate::api::ErrorBody;
use crate::credentials::CredentialsError;

/// A registry's refusal: who said what about which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The host that answered, with its port.
    pub host: String,
    /// The HTTP status.
    pub status: u16,
    /// What was asked, for example `pull manifest docker.io/library/alpine:3`.
    pub request: String,
    /// The token scopes of the request, separated by spaces; empty where none apply.
    pub scope: String,
    /// The registry's own words.
    pub body: ErrorBody,
    /// How long the registry asks to wait.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered {} to `{}`", self.host, self.status, self.request)?;
        if !self.scope.is_empty() {
            write!(f, " (scope {})", self.scope)?;
        }
        write!(f, ": {}", self.body)
    }
}

/// Which credentials a refused request carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialUse {
    /// None: there are none for this host.
    None,
    /// Some were sent.
    Sent {
        /// Where they come from, for example a file name.
        origin: String,
    },
    /// None, because those that are configured could not be had.
    Unavailable {
        /// Why, in one line.
        reason: String,
    },
}

impl Refusal {
    /// Says in words what the scopes of the request permit: `pulling team/base and pushing to team/app`.
    fn permissions(&self) -> Option<String> {
        let mut permissions = Vec::new();
        for scope in self.scope.split(' ') {
            let Some((name, actions)) =
                scope.strip_prefix("repository:").and_then(|scope| scope.rsplit_once(':'))
            else {
                continue;
            };
            let is_push = actions.split(',').any(|action| action == "push");
            permissions.push(format!(
                "{} {}/{name}",
                if is_push { "pushing to" } else { "pulling from" },
                self.host
            ));
        }
        (!permissions.is_empty()).then(|| permissions.join(" and "))
    }

    fn advice(&self, credentials: &CredentialUse) -> String {
        let host = &self.host;
        let permissions = self.permissions();
        let action = permissions.as_deref().unwrap_or("this");
        match credentials {
            CredentialUse::None => {
                format!(
                    "no credentials were sent, and {action} needs some: run `polyarch login {host}`, or check the repository's name"
                )
            }
            CredentialUse::Sent { origin } => format!(
                "the credentials from {origin} were sent, and are not valid or don't permit {action}: run `polyarch login {host}` with others"
            ),
            CredentialUse::Unavailable { reason } => {
                format!("no credentials were sent because {reason}: mend that or run `polyarch login {host}`")
            }
        }
    }
}

/// Says what could not be done with a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The registry wants (other) credentials.
    #[error("unauthorized: {refusal}; {}", refusal.advice(credentials))]
    Unauthorized {
        /// The registry's answer.
        refusal: Box<Refusal>,
        /// The credentials that the request carried.
        credentials: Box<CredentialUse>,
    },
    /// The registry knows who asks, and refuses.
    #[error("denied: {refusal}; {}", refusal.advice(credentials))]
    Denied {
        /// The registry's answer.
        refusal: Box<Refusal>,
        /// The credentials that the request carried.
        credentials: Box<CredentialUse>,
    },
    /// The repository does not exist.
    #[error("repository {repository} not found: {refusal}; check the name")]
    RepositoryUnknown {
        /// Host and repository.
        repository: String,
        /// The registry's answer.
        refusal: Box<Refusal>,
    },
    /// The repository has no such tag or digest.
    #[error("image {reference} not found: {refusal}; check the name and the tag")]
    ManifestUnknown {
        /// The reference asked for.
        reference: String,
        /// The registry's answer.
        refusal: Box<Refusal>,
    },
    /// The repository has no such blob.
    #[error(
        "blob {digest} not found in {repository}: {refusal}; the image is incomplete there, push it again"
    )]
    BlobUnknown {
        /// Host and repository.
        repository: String,
        /// The digest asked for.
        digest: Box<Digest>,
        /// The registry's answer.
        refusal: Box<Refusal>,
    },
    /// Too many requests, also after waiting.
    #[error("rate limited: {refusal}; {}", rate_advice(refusal))]
    RateLimited {
        /// The registry's answer.
        refusal: Box<Refusal>,
    },
    /// The registry does not take documents of this type, as older ones that know only Docker's.
    #[error("the registry refuses the media type {media_type}: {refusal}")]
    MediaTypeRefused {
        /// The type of the manifest or index.
        media_type: String,
        /// The registry's answer.
        refusal: Box<Refusal>,
    },
    /// Any other refusal.
    #[error("{refusal}")]
    Refused {
        /// The registry's answer.
        refusal: Box<Refusal>,
    },
    /// The host's certificate is not trusted.
    #[error(
        "{host}: certificate not trusted ({reason}); name its authority with `ca = [\"FILE\"]`, or skip the check with `insecure = true`, under [registry.\"{host}\"] in the configuration file"
    )]
    Certificate {
        /// The host.
        host: String,
        /// What is wrong with the certificate.
        reason: String,
    },
    /// TLS failed in another way.
    #[error("{host}: TLS failed: {reason}")]
    Tls {
        /// The host.
        host: String,
        /// What failed.
        reason: String,
    },
    /// The host speaks plain HTTP where TLS was expected.
    #[error(
        "{host} speaks plain http, not https; if that is intended, set `http = true` under [registry.\"{host}\"] in the configuration file (manifest and imagetools also have the flag --insecure)"
    )]
    PlainHttp {
        /// The host.
        host: String,
    },
    /// The host speaks TLS where plain HTTP is configured.
    #[error("{host} speaks https, not plain http; remove `http = true` under [registry.\"{host}\"]")]
    TlsExpected {
        /// The host.
        host: String,
    },
    /// No connection.
    #[error("cannot connect to {host}: {reason}; check the host name, the port and the network or proxy")]
    Connect {
        /// The host.
        host: String,
        /// What failed.
        reason: String,
    },
    /// The host did not go on within the time allowed.
    #[error("{host} did not answer `{request}` within {} s", limit.as_secs_f32())]
    Timeout {
        /// The host.
        host: String,
        /// What was asked.
        request: String,
        /// The time allowed.
        limit: Duration,
    },
    /// A web server has no such file, or sends elsewhere.
    #[error("{url}: {reason}")]
    Web {
        /// What was asked for.
        url: String,
        /// What it answered.
        reason: String,
    },
    /// A connection broke.
    #[error("connection to {host} broke during `{request}`: {reason}")]
    Broken {
        /// The host.
        host: String,
        /// What was asked.
        request: String,
        /// What failed.
        reason: String,
    },
    /// The bytes are not those that were asked for.
    #[error(
        "{what} from {host} has digest {actual}, expected {expected}; the registry or something before it changes or damages content"
    )]
    DigestMismatch {
        /// What was transferred.
        what: String,
        /// The host.
        host: String,
        /// The digest asked for.
        expected: Box<Digest>,
        /// The digest of what came.
        actual: Box<Digest>,
    },
    /// A blob has another size than its descriptor says.
    #[error("{what} from {host} has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// What was transferred.
        what: String,
        /// The host.
        host: String,
        /// The size that the descriptor says.
        expected: u64,
        /// The size that came or was announced; a lower bound where more was coming.
        actual: u64,
    },
    /// A document exceeds its cap.
    #[error("{what} from {host} is larger than the {limit_bytes} bytes allowed")]
    TooLarge {
        /// What was transferred.
        what: String,
        /// The host.
        host: String,
        /// The cap.
        limit_bytes: u64,
    },
    /// The host answered in a way that the protocol does not know.
    #[error("{host} answered `{request}` against the protocol: {problem}")]
    Protocol {
        /// The host.
        host: String,
        /// What was asked.
        request: String,
        /// What is wrong.
        problem: String,
    },
    /// A redirect is not followed.
    #[error("{host} redirects `{request}` to {target}: {problem}")]
    Redirect {
        /// The host.
        host: String,
        /// What was asked.
        request: String,
        /// Where to.
        target: String,
        /// Why that is not followed.
        problem: &'static str,
    },
    /// The bytes of a blob could not be read for its upload.
    #[error("cannot read blob {digest} to push it")]
    Source {
        /// The blob.
        digest: Box<Digest>,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The bytes of a blob could not be stored.
    #[error("cannot store blob {digest}")]
    Sink {
        /// The blob.
        digest: Box<Digest>,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The settings of a host cannot be used.
    #[error("configuration of registry {host}: {problem}")]
    Settings {
        /// The host.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// The reference names neither a tag nor a digest.
    #[error("reference {reference} has neither a tag nor a digest")]
    IncompleteReference {
        /// The reference.
        reference: String,
    },
    /// Credentials could not be had for a login.
    #[error("credentials for {host}")]
    Credentials {
        /// The host.
        host: String,
        /// What failed.
        #[source]
        source: CredentialsError,
    },
}

fn rate_advice(refusal: &Refusal) -> String {
    let host = &refusal.host;
    match refusal.retry_after {
        Some(wait) => {
            format!("try again in {} s, or log in for a higher limit: polyarch login {host}", wait.as_secs())
        }
        None => format!("try again later, or log in for a higher limit: polyarch login {host}"),
    }
}

impl RegistryError {
    /// Tells whether the thing asked for does not exist, as opposed to not being reachable.
    pub fn is_not_found(&self) -> bool {
        match self {
            RegistryError::RepositoryUnknown { .. }
            | RegistryError::ManifestUnknown { .. }
            | RegistryError::BlobUnknown { .. } => true,
            RegistryError::Refused { refusal } => refusal.status == 404,
            _ => false,
        }
    }

    /// Tells whether the same request may succeed later without anybody mending anything.
    pub fn is_transient(&self) -> bool {
        match self {
            RegistryError::RateLimited { .. }
            | RegistryError::Timeout { .. }
            | RegistryError::Broken { .. }
            | RegistryError::Connect { .. } => true,
            RegistryError::Refused { refusal } => {
                matches!(refusal.status, 408 | 500 | 502 | 503 | 504 | 520..=524)
            }
            _ => false,
        }
    }

    /// Tells whether what came is not what was asked for.
    pub fn is_about_content(&self) -> bool {
        matches!(
            self,
            RegistryError::DigestMismatch { .. }
                | RegistryError::SizeMismatch { .. }
                | RegistryError::TooLarge { .. }
        )
    }

    /// Returns the HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        self.refusal().map(|refusal| refusal.status)
    }

    /// Returns how long the registry asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.refusal().and_then(|refusal| refusal.retry_after)
    }

    /// Returns the registry's answer, where it answered.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            RegistryError::Unauthorized { refusal, .. }
            | RegistryError::Denied { refusal, .. }
            | RegistryError::RepositoryUnknown { refusal, .. }
            | RegistryError::ManifestUnknown { refusal, .. }
            | RegistryError::BlobUnknown { refusal, .. }
            | RegistryError::RateLimited { refusal }
            | RegistryError::MediaTypeRefused { refusal, .. }
            | RegistryError::Refused { refusal } => Some(refusal),
            _ => None,
        }
    }
}
