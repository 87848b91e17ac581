// SPDX-License-Identifier: Apache-2.0
//! TLS to a node: its certificate is checked against the CA that was given, and ours is shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::error::NodeError;

/// The largest file of certificates that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// The files of a TLS connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA that the node's certificate must come from.
    pub ca: PathBuf,
    /// Our certificate and its key, for nodes that ask.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The name that the node's certificate must have; the endpoint's host when absent.
    pub server_name: Option<String>,
}

/// A TLS configuration and the name that the other side must prove.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) server_name: ServerName<'static>,
}

impl TlsFiles {
    /// Reads the files.
    pub(crate) fn load(&self, host: &str) -> Result<Tls, NodeError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|error| wrong(&self.ca, error))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&self.ca, error))?
            .with_root_certificates(roots);
        let mut config = match &self.client {
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let key_bytes = read(key)?;
                let secret = PrivateKeyDer::from_pem_slice(&key_bytes).map_err(|error| wrong(key, error))?;
                builder.with_client_auth_cert(chain, secret).map_err(|error| wrong(certificate, error))?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = self.server_name.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(name.to_owned()).map_err(|_| NodeError::Endpoint {
            endpoint: host.to_owned(),
            problem: format!("{name:?} can't be the name of a server; set servername"),
        })?;
        Ok(Tls { config: Arc::new(config), server_name })
    }
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, NodeError> {
    let bytes = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let certificates = certificates.map_err(|error| wrong(path, error))?;
    if certificates.is_empty() {
        return Err(wrong(path, "it has no certificate in PEM form"));
    }
    Ok(certificates)
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, NodeError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| wrong(path, error))?;
    Ok(bytes)
}

pub(crate) fn wrong(path: &Path, problem: impl std::fmt::Display) -> NodeError {
    NodeError::Certificate { path: path.to_owned(), problem: problem.to_string() }
}
