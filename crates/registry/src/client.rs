// SPDX-License-Identifier: Apache-2.0
//! The client of the distribution API: manifests and blobs of any number of registries.
//!
//! A [`Client`] does nothing until used. It keeps, per host, one connection pool, the host's
//! authorization state and the limits on parallel transfers, so one client should serve a whole
//! process. Pulls try a host's mirrors in order and then the host itself; pushes only the host.

mod auth;
mod call;
mod challenge;
mod download;
mod endpoint;
mod host;
mod lend;
mod manifest;
mod options;
mod pages;
mod push;
mod referrers;
mod retry;
mod sending;
mod stream;
mod tags;
mod tls;
mod transport;
mod upload;
mod web;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::Method;
use polyarch_oci::{Descriptor, Digest, Reference};

use self::call::Subject;
use self::endpoint::Endpoint;
use self::host::{Attempts, Host, Permission};
use self::transport::{SharedTransport, Transport};
use crate::config::canonical_host;
use crate::error::RegistryError;

pub use lend::{AuthScheme, LentToken};
pub use options::{ClientOptions, Login, ProxySettings, RetryPolicy, TrustRoots};
pub use stream::{BlobReader, BlobSink, BlobSource, FnSink, Progress};
pub use upload::UploadSession;
pub use web::{WebAnswer, WebFile};

/// A manifest or index, byte for byte as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedManifest {
    /// The exact bytes.
    pub bytes: Bytes,
    /// The media type: the one that the document names, else the one that the registry named.
    pub media_type: String,
    /// The digest of the bytes, in the algorithm of the reference's digest, else SHA-256.
    pub digest: Digest,
    /// The host that served it: the origin or a mirror.
    pub served_by: String,
}

impl FetchedManifest {
    /// Returns the descriptor of the document.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.digest.clone(), self.bytes.len() as u64)
    }
}

/// What became of an attempt to mount a blob.
#[derive(Debug)]
pub enum MountOutcome {
    /// The repository has the blob now.
    Mounted,
    /// The registry did not mount, and has opened an upload instead.
    Upload(UploadSession),
}

/// How a blob came to be in the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushOutcome {
    /// It was there.
    Existed,
    /// The registry took it from another of its repositories.
    Mounted {
        /// That repository.
        from: Reference,
    },
    /// It was sent.
    Uploaded,
}

/// A client of registries; cheap to clone, all clones share their state.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    transport: SharedTransport,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    running: push::Running,
}

impl Client {
    /// Makes a client; nothing is read or connected yet.
    pub fn new(options: ClientOptions) -> Client {
        let transport = Arc::new(Transport::new(options));
        let inner = Inner { transport, hosts: Mutex::default(), running: push::Running::default() };
        Client { inner: Arc::new(inner) }
    }

    /// Checks that a host accepts the credentials (or their absence), as a login does.
    ///
    /// # Errors
    /// [`RegistryError::Unauthorized`] when it does not; whatever keeps the host from answering.
    pub async fn check_login(&self, host: &str) -> Result<Login, RegistryError> {
        let host = self.host(host);
        let text = format!("log in to {}", host.name);
        let call = host.call(Method::GET, "/v2/", text, Subject::Other).await?;
        let permission = Permission { repository: String::new(), scopes: challenge::Scopes::default() };
        host.send(&call, &permission, Attempts::ByPolicy).await?;
        Ok(host.login())
    }

    /// Returns where a repository can be pulled from: its mirrors that are up, then its own host.
    fn pull_endpoints(&self, reference: &Reference) -> Vec<Endpoint> {
        let settings = self.transport().options.hosts.get(reference.host());
        let mirrors = settings.map(|settings| settings.mirrors.as_slice()).unwrap_or_default();
        let mut endpoints: Vec<Endpoint> = mirrors
            .iter()
            .map(|mirror| {
                let separator = if mirror.path.is_empty() { "" } else { "/" };
                Endpoint {
                    host: self.host(&mirror.host),
                    repository: format!("{}{separator}{}", mirror.path, reference.repository()),
                    is_mirror: true,
                    origin: reference.host().to_owned(),
                }
            })
            .filter(|endpoint| !endpoint.host.is_resting())
            .collect();
        endpoints.push(self.origin(reference));
        endpoints
    }

    /// Returns a repository at its own host.
    fn origin(&self, reference: &Reference) -> Endpoint {
        Endpoint {
            host: self.host(reference.host()),
            repository: reference.repository().to_owned(),
            is_mirror: false,
            origin: reference.host().to_owned(),
        }
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let name = canonical_host(name);
        let mut hosts = self.inner.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || Arc::new(Host::new(name, self.inner.transport.clone()));
        hosts.entry(name.to_owned()).or_insert_with(make).clone()
    }

    fn transport(&self) -> &Transport {
        &self.inner.transport
    }

    fn running(&self) -> &push::Running {
        &self.inner.running
    }
}
