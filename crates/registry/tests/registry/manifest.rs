// SPDX-License-Identifier: Apache-2.0
//! Manifests: byte for byte, verified, from mirrors, again after failures that pass.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use polyarch_oci::media_type::{DOCKER_INDEX, OCI_INDEX, OCI_MANIFEST};
use polyarch_oci::{Algorithm, Digest, Hasher, Reference};
use polyarch_registry::config::Mirror;
use polyarch_registry::{Client, RegistryError};

use crate::fake::{Act, Fake, client, options};

// White space and order are as nobody would write them, to show that nothing is written anew.
const MANIFEST: &[u8] = b"{ \"layers\" :[ ],\n\t\"schemaVersion\":2 }\n";

fn status(status: u16) -> Act {
    Act::Answer(status, vec![], String::new())
}

#[tokio::test]
async fn manifests_come_and_go_byte_for_byte() {
    let fake = Fake::start().await;
    let client = client();
    let tagged = fake.reference("team/app:v1");
    let digest = client.put_manifest(&tagged, Bytes::from_static(MANIFEST), OCI_MANIFEST).await.unwrap();
    assert_eq!(digest, Digest::of(MANIFEST));
    let fetched = client.get_manifest(&tagged).await.unwrap();
    assert_eq!(fetched.bytes, MANIFEST);
    assert_eq!((fetched.media_type.as_str(), &fetched.digest), (OCI_MANIFEST, &digest));
    assert_eq!(fetched.served_by, fake.host());
    assert_eq!(client.head_manifest(&tagged).await.unwrap(), fetched.descriptor());

    let by_digest = tagged.with_digest(digest.clone());
    assert_eq!(client.get_manifest(&by_digest).await.unwrap().bytes, MANIFEST);
    let accept = fake.seen().pop().unwrap().header("accept").to_owned();
    assert!(accept.contains(OCI_INDEX) && accept.contains(DOCKER_INDEX), "{accept}");
    let untagged = fake.reference("other/app");
    client.put_manifest(&untagged, Bytes::from_static(MANIFEST), OCI_MANIFEST).await.unwrap();
    assert_eq!(fake.lines("PUT").last().unwrap(), &format!("PUT /v2/other/app/manifests/{digest}"));
}

#[tokio::test]
async fn the_digest_wins_over_the_tag_and_is_verified() {
    let fake = Fake::start().await;
    fake.put_manifest("app", "v1", b"{\"layers\":[],\"a\":1}", OCI_MANIFEST);
    let digest = fake.put_manifest("app", "old", MANIFEST, OCI_MANIFEST);
    let both: Reference = format!("{}/app:v1@{digest}", fake.host()).parse().unwrap();
    assert_eq!(client().get_manifest(&both).await.unwrap().bytes, MANIFEST);
    fake.fault(Method::GET, "/manifests/", 1, Act::Corrupt);
    let error = client().get_manifest(&both).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_registry_that_contradicts_itself_is_not_believed() {
    let fake = Fake::start().await;
    fake.put_manifest("app", "v1", MANIFEST, OCI_MANIFEST);
    let other = Digest::of("other").to_string();
    fake.fault(Method::GET, "/manifests/", 1, Act::With("docker-content-digest", other.clone()));
    let error = client().get_manifest(&fake.reference("app:v1")).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
    fake.fault(Method::PUT, "/manifests/", 1, Act::With("docker-content-digest", other));
    let manifest = Bytes::from_static(MANIFEST);
    let error = client().put_manifest(&fake.reference("app:v2"), manifest, OCI_MANIFEST).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_manifest_is_not_put_under_the_digest_of_another() {
    let fake = Fake::start().await;
    let reference = fake.reference("app").with_digest(Digest::of("other"));
    let manifest = Bytes::from_static(MANIFEST);
    let error = client().put_manifest(&reference, manifest, OCI_MANIFEST).await.unwrap_err();
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn sha512_references_are_verified_as_such() {
    let fake = Fake::start().await;
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(MANIFEST);
    let digest = hasher.finish();
    fake.put_manifest("app", &digest.to_string(), MANIFEST, OCI_MANIFEST);
    let reference = fake.reference("app").with_digest(digest.clone());
    // The fake, like many registries, answers with the SHA-256 digest.
    assert_eq!(client().get_manifest(&reference).await.unwrap().digest, digest);
    assert_eq!(client().head_manifest(&reference).await.unwrap().digest, digest);
}

#[tokio::test]
async fn heads_that_say_too_little_are_completed_by_fetching() {
    let fake = Fake::start().await;
    fake.put_manifest("app", "v1", MANIFEST, OCI_MANIFEST);
    for act in [Act::Without("docker-content-digest"), Act::Without("content-type"), status(405)] {
        fake.fault(Method::HEAD, "/manifests/", 1, act);
        let descriptor = client().head_manifest(&fake.reference("app:v1")).await.unwrap();
        assert_eq!((descriptor.digest, descriptor.size), (Digest::of(MANIFEST), MANIFEST.len() as u64));
        assert_eq!(descriptor.media_type, OCI_MANIFEST);
    }
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let fake = Fake::start().await;
    fake.put_manifest("app", "v1", MANIFEST, OCI_MANIFEST);
    let error = client().head_manifest(&fake.reference("app:v2")).await.unwrap_err();
    let RegistryError::ManifestUnknown { reference, .. } = &error else { panic!("{error}") };
    assert_eq!(reference, &format!("{}/app:v2", fake.host()));
    let error = client().get_manifest(&fake.reference("ap:v1")).await.unwrap_err();
    assert!(matches!(&error, RegistryError::RepositoryUnknown { .. }), "{error}");
    let error = client().get_manifest(&fake.reference("app")).await.unwrap_err();
    assert!(matches!(&error, RegistryError::IncompleteReference { .. }), "{error}");
    assert_eq!(fake.lines("/app/").len(), 2, "a 404 is not tried again");
}

#[tokio::test]
async fn too_large_and_senseless_answers_are_refused() {
    let fake = Fake::start().await;
    fake.put_manifest("app", "big", &vec![b' '; (8 << 20) + 1], OCI_MANIFEST);
    let error = client().get_manifest(&fake.reference("app:big")).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
    fake.put_manifest("app", "page", b"<html>", "text/html");
    let error = client().get_manifest(&fake.reference("app:page")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Protocol { .. }), "{error}");
    fake.fault(
        Method::GET,
        "/manifests/",
        99,
        Act::Answer(302, vec![("location", "/v2/app/manifests/x".into())], String::new()),
    );
    let error = client().get_manifest(&fake.reference("app:page")).await.unwrap_err();
    assert!(error.to_string().contains("redirects"), "{error}");
}

#[tokio::test]
async fn failures_that_pass_are_waited_out() {
    let fake = Fake::start().await;
    fake.put_manifest("app", "v1", MANIFEST, OCI_MANIFEST);
    fake.fault(Method::GET, "/manifests/", 1, status(503));
    fake.fault(Method::GET, "/manifests/", 1, Act::Hang);
    fake.fault(Method::GET, "/manifests/", 1, status(500));
    client().get_manifest(&fake.reference("app:v1")).await.unwrap();
    assert_eq!(fake.lines("/manifests/").len(), 4);

    fake.fault(
        Method::GET,
        "/manifests/",
        1,
        Act::Answer(429, vec![("retry-after", "1".into())], String::new()),
    );
    let started = Instant::now();
    client().get_manifest(&fake.reference("app:v1")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "the registry's wait is kept");
}

#[tokio::test]
async fn failures_that_stay_are_told_with_the_registrys_words() {
    let fake = Fake::start().await;
    fake.fault(Method::GET, "/manifests/", 4, Act::Answer(502, vec![], "<h1>Bad\u{7} Gateway</h1>".into()));
    let error = client().get_manifest(&fake.reference("app:v1")).await.unwrap_err();
    assert_eq!(error.status(), Some(502));
    assert!(error.to_string().contains("<h1>Bad Gateway</h1>"), "{error}");
    assert_eq!(fake.lines("/manifests/").len(), 4);

    let limited = Act::Answer(
        429,
        vec![("retry-after", "21600".into())],
        r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#.into(),
    );
    fake.fault(Method::GET, "/manifests/", 4, limited);
    let error = client().get_manifest(&fake.reference("app:v1")).await.unwrap_err();
    assert!(matches!(error, RegistryError::RateLimited { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("TOOMANYREQUESTS") && text.contains("try again in 21600 s"), "{text}");
    assert_eq!(fake.lines("/manifests/").len(), 5, "nobody waits for six hours");
}

#[tokio::test]
async fn mirrors_serve_first_and_the_origin_when_they_cannot() {
    let (origin, mirror) = (Fake::start().await, Fake::start().await);
    origin.put_manifest("app", "v1", MANIFEST, OCI_MANIFEST);
    origin.put_manifest("app", "v2", MANIFEST, OCI_MANIFEST);
    mirror.put_manifest("cache/hub/app", "v1", MANIFEST, OCI_MANIFEST);
    // Nobody listens on the first mirror's port any more.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = options();
    options.hosts.entry(&origin.host()).mirrors = vec![
        Mirror { host: gone.to_string(), path: String::new() },
        Mirror { host: mirror.host(), path: "cache/hub".into() },
    ];
    let client = Client::new(options);
    let served = client.get_manifest(&origin.reference("app:v1")).await.unwrap();
    assert_eq!(served.served_by, mirror.host());
    assert_eq!(client.head_manifest(&origin.reference("app:v1")).await.unwrap(), served.descriptor());
    assert!(origin.seen().is_empty());
    mirror.fault(Method::GET, "/manifests/", 1, status(500));
    let served = client.get_manifest(&origin.reference("app:v1")).await.unwrap();
    assert_eq!(served.served_by, origin.host());
    let served = client.get_manifest(&origin.reference("app:v2")).await.unwrap();
    assert_eq!(served.served_by, origin.host());
    let error = client.get_manifest(&origin.reference("app:v3")).await.unwrap_err();
    let RegistryError::ManifestUnknown { refusal, .. } = &error else { panic!("{error}") };
    assert_eq!(refusal.host, origin.host(), "the origin has the last word");
    // Pushes never go to a mirror.
    client
        .put_manifest(&origin.reference("app:v4"), Bytes::from_static(MANIFEST), OCI_MANIFEST)
        .await
        .unwrap();
    assert!(mirror.lines("PUT").is_empty());
    // The first mirror is left alone for a while, also when it is back.
    let back = std::net::TcpListener::bind(gone).unwrap();
    back.set_nonblocking(true).unwrap();
    client.get_manifest(&origin.reference("app:v1")).await.unwrap();
    assert_eq!(back.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_mirror_that_falls_silent_costs_its_time_once() {
    let (origin, mirror) = (Fake::start().await, Fake::start().await);
    origin.put_manifest("app", "v1", MANIFEST, OCI_MANIFEST);
    mirror.fault(Method::GET, "/manifests/", 99, Act::Silence);
    let mut options = options();
    options.mirror_timeout = Duration::from_millis(200);
    options.hosts.entry(&origin.host()).mirrors = vec![Mirror { host: mirror.host(), path: String::new() }];
    let client = Client::new(options);
    for _ in 0..3 {
        let served = client.get_manifest(&origin.reference("app:v1")).await.unwrap();
        assert_eq!(served.served_by, origin.host());
    }
    assert_eq!(mirror.lines("/manifests/").len(), 1);
}

#[tokio::test]
async fn a_host_that_is_down_is_named() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let reference: Reference = format!("{gone}/app:v1").parse().unwrap();
    let error = client().get_manifest(&reference).await.unwrap_err();
    let RegistryError::Connect { host, reason } = &error else { panic!("{error}") };
    assert_eq!(host, &gone.to_string());
    assert!(reason.contains("refused"), "{reason}");
}
