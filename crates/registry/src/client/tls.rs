// SPDX-License-Identifier: Apache-2.0
//! TLS settings of a host: trusted authorities, client certificate, no check where that is asked for.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::TrustRoots;
use crate::config::KeyPairBytes;

/// How a host's certificate is checked.
pub(super) enum Check<'a> {
    /// Against the general authorities and these (PEM).
    Authorities(&'a [Vec<u8>]),
    /// Not at all.
    Nothing,
}

/// Makes the TLS settings of a host; the error text says what is wrong with the host's settings.
pub(super) fn client_config(
    roots: &RootCertStore,
    check: Check<'_>,
    keypair: Option<&KeyPairBytes>,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match check {
        Check::Nothing => Arc::new(AcceptAny(provider.clone())),
        Check::Authorities(files) => Arc::new(PinningVerifier::new(roots.clone(), files, provider.clone())?),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match keypair {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let chain = certificates(&pair.cert).map_err(|error| format!("keypair cert: {error}"))?;
            let key = PrivateKeyDer::from_pem_slice(&pair.key)
                .map_err(|error| format!("keypair key is not a PEM private key ({error})"))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| format!("keypair: {error}"))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Loads the general authorities; an empty store is no error before a certificate has to be checked.
pub(super) fn load_roots(roots: &TrustRoots) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match roots {
        TrustRoots::Pem(bytes) => {
            for certificate in certificates(bytes)? {
                store.add(certificate).map_err(|error| error.to_string())?;
            }
        }
        TrustRoots::System => {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::debug!(%error, "a certificate of the system was not read");
            }
            store.add_parsable_certificates(found.certs);
        }
    }
    Ok(store)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(list) if list.is_empty() => Err("no PEM certificate in the file".to_owned()),
        Ok(list) => Ok(list),
        Err(error) => Err(format!("not a PEM certificate ({error})")),
    }
}

/// Checks against authorities, and takes a certificate that the user has named itself.
///
/// Self-signed certificates as `openssl req -x509` makes them claim to be authorities, which WebPKI
/// refuses for a server; named in `ca`, they are trusted for the names that they hold.
#[derive(Debug)]
struct PinningVerifier {
    inner: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl PinningVerifier {
    fn new(
        mut roots: RootCertStore,
        files: &[Vec<u8>],
        provider: Arc<CryptoProvider>,
    ) -> Result<PinningVerifier, String> {
        let mut named = Vec::new();
        for file in files {
            named.extend(certificates(file).map_err(|error| format!("ca: {error}"))?);
        }
        for certificate in &named {
            roots.add(certificate.clone()).map_err(|error| format!("ca: {error}"))?;
        }
        if roots.is_empty() {
            return Err("this system has no certificate authorities: install the package \
                        ca-certificates, or name a file with `ca`"
                .to_owned());
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(PinningVerifier { inner, named })
    }
}

impl ServerCertVerifier for PinningVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if verified.is_err() && self.named.iter().any(|named| named.as_ref() == end_entity.as_ref()) {
            let parsed = ParsedCertificate::try_from(end_entity)?;
            rustls::client::verify_server_name(&parsed, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Accepts any certificate, where `insecure` asks for it; the handshake itself is still checked.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
