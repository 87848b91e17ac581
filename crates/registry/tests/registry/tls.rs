// SPDX-License-Identifier: Apache-2.0
//! Schemes and certificates. Loopback hosts find out by themselves, as with docker.

use std::sync::Arc;

use polyarch_oci::media_type::OCI_MANIFEST;
use polyarch_registry::{Client, ClientOptions, HostSettings, KeyPairBytes, RegistryError, TrustRoots};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::fake::{Act, Fake, client, options};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

struct Identity {
    key: KeyPair,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    fn sign(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { key, certificate }
    }

    fn pem(&self) -> Vec<u8> {
        self.certificate.pem().into_bytes()
    }
}

impl Identity {
    fn der(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        (vec![self.certificate.der().clone()], key)
    }
}

fn server(identity: &Identity, clients: Option<&Authority>) -> rustls::ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let (chain, key) = identity.der();
    match clients {
        None => builder.with_no_client_auth().with_single_cert(chain, key).unwrap(),
        Some(authority) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(authority.certificate.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap()
        }
    }
}

async fn get(fake: &Fake, change: impl FnOnce(&mut HostSettings)) -> Result<(), RegistryError> {
    fake.put_manifest("app", "v1", br#"{"layers":[]}"#, OCI_MANIFEST);
    let mut options = options();
    change(options.hosts.entry(&fake.host()));
    Client::new(options).get_manifest(&fake.reference("app:v1")).await.map(|_| ())
}

#[tokio::test]
async fn loopback_hosts_find_out_http_or_https() {
    let plain = Fake::start().await;
    get(&plain, |_| {}).await.unwrap();
    let secure = Fake::tls(server(&Authority::new().sign("127.0.0.1"), None)).await;
    get(&secure, |_| {}).await.unwrap();
    assert_eq!(secure.lines("/v2/").len(), 2, "the probe and the request");
}

#[tokio::test]
async fn localhost_is_a_name_that_is_resolved() {
    let fake = Fake::start().await;
    fake.put_manifest("app", "v1", br#"{"layers":[]}"#, OCI_MANIFEST);
    let reference = format!("localhost:{}/app:v1", fake.port()).parse().unwrap();
    client().get_manifest(&reference).await.unwrap();
}

#[tokio::test]
async fn general_authorities_count_besides_those_of_the_host() {
    let authority = Authority::new();
    let fake = Fake::tls(server(&authority.sign("127.0.0.1"), None)).await;
    fake.put_manifest("app", "v1", br#"{"layers":[]}"#, OCI_MANIFEST);
    let mut options = ClientOptions { roots: TrustRoots::Pem(authority.pem()), ..options() };
    options.hosts.entry(&fake.host()).ca = vec![Authority::new().pem()];
    Client::new(options).get_manifest(&fake.reference("app:v1")).await.unwrap();
}

#[tokio::test]
async fn an_authority_that_is_named_is_trusted_and_no_other() {
    let authority = Authority::new();
    let fake = Fake::tls(server(&authority.sign("127.0.0.1"), None)).await;
    get(&fake, |host| host.ca = vec![authority.pem()]).await.unwrap();
    let error = get(&fake, |host| host.ca = vec![Authority::new().pem()]).await.unwrap_err();
    let RegistryError::Certificate { host, .. } = &error else { panic!("{error}") };
    assert_eq!(host, &fake.host());
    let text = error.to_string();
    assert!(text.contains("ca = [") && text.contains(&format!("[registry.\"{}\"]", fake.host())), "{text}");
    get(&fake, |host| {
        host.ca = vec![Authority::new().pem()];
        host.insecure = true;
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_trusted() {
    let authority = Authority::new();
    let fake = Fake::tls(server(&authority.sign("registry.example"), None)).await;
    let error = get(&fake, |host| host.ca = vec![authority.pem()]).await.unwrap_err();
    assert!(matches!(error, RegistryError::Certificate { .. }), "{error}");
}

#[tokio::test]
async fn a_self_signed_certificate_that_is_named_is_trusted_for_its_names() {
    for (name, is_trusted) in [("127.0.0.1", true), ("registry.example", false)] {
        for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.is_ca = is_ca;
            let certificate = params.self_signed(&key).unwrap();
            let pem = certificate.pem().into_bytes();
            let fake = Fake::tls(server(&Identity { key, certificate }, None)).await;
            let result = get(&fake, |host| host.ca = vec![pem]).await;
            assert_eq!(result.is_ok(), is_trusted, "{name}: {result:?}");
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_asked_for() {
    let authority = Authority::new();
    let fake = Fake::tls(server(&authority.sign("127.0.0.1"), Some(&authority))).await;
    let user = authority.sign("ann");
    let pair = KeyPairBytes {
        key: user.key.serialize_pem().into_bytes(),
        cert: user.certificate.pem().into_bytes(),
    };
    get(&fake, |host| {
        host.ca = vec![authority.pem()];
        host.keypair = Some(pair);
    })
    .await
    .unwrap();
    let error = get(&fake, |host| host.ca = vec![authority.pem()]).await.unwrap_err();
    assert!(matches!(error, RegistryError::Tls { .. } | RegistryError::Broken { .. }), "{error}");
}

#[tokio::test]
async fn schemes_that_do_not_fit_are_told_apart() {
    let plain = Fake::start().await;
    let error = get(&plain, |host| host.http = Some(false)).await.unwrap_err();
    assert!(matches!(error, RegistryError::PlainHttp { .. }), "{error}");
    assert!(error.to_string().contains("http = true"), "{error}");
    // What Go's server says to plain HTTP on its TLS port.
    let words = "Client sent an HTTP request to an HTTPS server.\n".to_owned();
    plain.fault(http::Method::GET, "/manifests/", 1, Act::Answer(400, vec![], words));
    let error = get(&plain, |host| host.http = Some(true)).await.unwrap_err();
    assert!(matches!(error, RegistryError::TlsExpected { .. }), "{error}");
}

#[tokio::test]
async fn malformed_settings_are_told_with_their_host() {
    let fake = Fake::start().await;
    let error = get(&fake, |host| host.ca = vec![b"no pem".to_vec()]).await.unwrap_err();
    let RegistryError::Settings { host, problem } = &error else { panic!("{error}") };
    assert!(*host == fake.host() && problem.contains("no PEM certificate"), "{error}");
}

#[tokio::test]
async fn a_redirect_from_https_to_plain_http_is_not_followed() {
    let plain = Fake::start().await;
    let secure = Fake::tls(server(&Authority::new().sign("127.0.0.1"), None)).await;
    let target = format!("http://{}/v2/app/manifests/v1", plain.host());
    secure.fault(
        http::Method::GET,
        "/manifests/",
        1,
        Act::Answer(302, vec![("location", target)], String::new()),
    );
    let error = client().get_manifest(&secure.reference("app:v1")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Redirect { .. }), "{error}");
    assert!(plain.seen().is_empty());
}
