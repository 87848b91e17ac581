// SPDX-License-Identifier: Apache-2.0
//! TLS of the server: a certificate and its key, read again when their files change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::identity::FileIdentity;

/// The largest file of certificates, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Says what is wrong with a certificate or a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("can't read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{} can't be used: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// The server's side of TLS connections.
#[derive(Clone)]
pub struct ServerTls(TlsAcceptor);

impl ServerTls {
    /// Reads a certificate (chain) and its key (PEM).
    ///
    /// # Errors
    /// When a file can't be read, or the two do not fit. Later, when files that changed can't be used, the ones
    /// before stay in use, and `told` is called with the reason.
    pub fn load(
        certificate: &Path,
        key: &Path,
        told: impl Fn(&TlsError) + Send + Sync + 'static,
    ) -> Result<ServerTls, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let identity = files.identity();
        let current = Mutex::new(Current { seen: identity, pair: Arc::new(files.load()?) });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| content(certificate, &error))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Reloading { files, current, told: Box::new(told) }));
        // Blobs gain nothing from HTTP/2, whose streams share one window and one core.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(ServerTls(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.0
    }
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// Both files; `None` when one is gone.
type Identity = Option<[FileIdentity; 2]>;

struct Reloading {
    files: Files,
    current: Mutex<Current>,
    told: Box<dyn Fn(&TlsError) + Send + Sync>,
}

/// The pair in use.
struct Current {
    /// The files that were read last, also those that could not be used.
    seen: Identity,
    pair: Arc<CertifiedKey>,
}

impl std::fmt::Debug for Reloading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloading").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Files {
    fn identity(&self) -> Identity {
        let of = |path: &Path| fs::metadata(path).ok().map(|metadata| FileIdentity::of(&metadata));
        Some([of(&self.certificate)?, of(&self.key)?])
    }

    fn load(&self) -> Result<CertifiedKey, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(&self.certificate)?).collect();
        let chain = chain.map_err(|error| content(&self.certificate, &error))?;
        if chain.is_empty() {
            return Err(content(&self.certificate, &"there is no certificate (PEM) in it"));
        }
        let key =
            PrivateKeyDer::from_pem_slice(&read(&self.key)?).map_err(|error| content(&self.key, &error))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = provider.key_provider.load_private_key(key).map_err(|error| content(&self.key, &error))?;
        let pair = CertifiedKey::new(chain, key);
        pair.keys_match().map_err(|error| content(&self.key, &error))?;
        Ok(pair)
    }
}

impl ResolvesServerCert for Reloading {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = self.files.identity();
        if identity.is_some() && identity != current.seen {
            current.seen = identity;
            match self.files.load() {
                Ok(pair) => current.pair = Arc::new(pair),
                // Files that are replaced one after the other do not fit for a moment.
                Err(error) => (self.told)(&error),
            }
        }
        Some(current.pair.clone())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(content(path, &"it is too large"));
    }
    fs::read(path).map_err(failed)
}

fn content(path: &Path, problem: &dyn std::fmt::Display) -> TlsError {
    TlsError::Content { path: path.to_owned(), problem: problem.to_string() }
}
