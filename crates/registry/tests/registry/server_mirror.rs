// SPDX-License-Identifier: Apache-2.0
//! Our server as a copy of other registries: fetched when asked for, served when they are gone.

use http::Method;
use polyarch_oci::media_type::{Flavour, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use polyarch_oci::{Descriptor, Digest, Document, ImageIndex, Manifest};
use polyarch_registry::config::Mirror;
use polyarch_registry::server::{Limits, MirrorOptions, MirroredRegistry};
use polyarch_registry::{Client, ClientOptions, RetryPolicy};

use crate::fake::{Act, Fake, noise, options};
use crate::serving::{Plan, Serving};

/// An image for two platforms in a fake registry.
struct Upstream {
    fake: Fake,
    layers: [Vec<u8>; 2],
    manifests: [Digest; 2],
    index: Vec<u8>,
}

impl Upstream {
    async fn start(repository: &str) -> Upstream {
        Upstream::of(repository, [noise(700_000), noise(10)]).await
    }

    async fn of(repository: &str, layers: [Vec<u8>; 2]) -> Upstream {
        let fake = Fake::start().await;
        let manifests = [0, 1].map(|number| {
            let config = format!("{{\"number\":{number}}}").into_bytes();
            let describe = |media_type: &str, bytes: &[u8]| {
                Descriptor::new(media_type, fake.put_blob(repository, bytes), bytes.len() as u64)
            };
            let config = describe(OCI_CONFIG, &config);
            let layer = describe(OCI_LAYER, &layers[number]);
            let manifest = Document::indented(Manifest::new(Flavour::Oci, config, vec![layer]));
            fake.put_manifest(repository, &format!("platform-{number}"), &manifest.bytes, OCI_MANIFEST);
            manifest
        });
        let entries = manifests
            .iter()
            .map(|manifest| Descriptor::new(OCI_MANIFEST, manifest.digest.clone(), manifest.size()))
            .collect();
        let index = Document::indented(ImageIndex::new(Flavour::Oci, entries));
        fake.put_manifest(repository, "v1", &index.bytes, OCI_INDEX);
        Upstream { fake, layers, manifests: manifests.map(|manifest| manifest.digest), index: index.bytes }
    }
}

async fn mirroring(host: &str, upstreams: &[&str], directory: Option<tempfile::TempDir>) -> Serving {
    mirroring_with(Limits::default(), host, upstreams, directory).await
}

async fn mirroring_with(
    limits: Limits,
    host: &str,
    upstreams: &[&str],
    directory: Option<tempfile::TempDir>,
) -> Serving {
    let upstreams = upstreams.iter().map(|host| Mirror { host: (*host).to_owned(), path: String::new() });
    let registries = vec![MirroredRegistry { host: host.to_owned(), upstreams: upstreams.collect() }];
    let retry = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    let client = Client::new(ClientOptions { retry, ..options() });
    let mirrors = Some(MirrorOptions { registries, client });
    let directory = directory.unwrap_or_else(|| tempfile::tempdir().unwrap());
    Serving::over(directory, Plan { mirrors, limits, ..Plan::default() }).await
}

#[tokio::test]
async fn an_image_is_fetched_when_asked_for_and_kept() {
    let upstream = Upstream::start("library/app").await;
    let serving = mirroring("docker.io", &[&upstream.fake.host()], None).await;
    let index = serving.send("GET", "/v2/docker.io/library/app/manifests/v1", &[], b"").await;
    assert_eq!((index.status, &index.body), (200, &upstream.index), "byte for byte");
    assert_eq!(index.header("polyarch-served-by"), upstream.fake.host());
    // By the other names of the same thing.
    for path in [
        "/v2/docker.io/app/manifests/v1",
        "/v2/library/app/manifests/v1?ns=docker.io",
        "/v2/app/manifests/v1",
    ] {
        let answer = serving.send("GET", path, &[], b"").await;
        assert_eq!((answer.status, &answer.body), (200, &upstream.index), "{path}");
        assert_eq!(answer.header("polyarch-served-by"), "this registry", "{path}");
    }
    let manifest = format!("/v2/docker.io/library/app/manifests/{}", upstream.manifests[0]);
    assert_eq!(serving.send("GET", &manifest, &[], b"").await.status, 200);
    let layer = Digest::of(&upstream.layers[0]);
    let path = format!("/v2/docker.io/library/app/blobs/{layer}");
    let part = serving.send("GET", &path, &[("Range", "bytes=699990-")], b"").await;
    assert_eq!((part.status, &part.body[..]), (206, &upstream.layers[0][699_990..]));
    let whole = serving.send("GET", &path, &[], b"").await;
    assert_eq!((whole.status, &whole.body), (200, &upstream.layers[0]));
    // The other platform was not asked for, so nobody fetched it.
    let other = upstream.manifests[1].to_string();
    assert!(upstream.fake.seen().iter().all(|seen| !seen.path.contains(&other)));
    let fetched = upstream.fake.lines(&format!("blobs/{layer}"));
    assert_eq!(fetched.len(), 1, "{fetched:?}");

    // Upstream is gone: what is here is served, and says so.
    let serving = mirroring("docker.io", &["127.0.0.1:1"], Some(serving.end().await)).await;
    let index = serving.send("GET", "/v2/docker.io/library/app/manifests/v1", &[], b"").await;
    assert_eq!((index.status, &index.body), (200, &upstream.index));
    assert!(index.header("warning").starts_with("299 - "), "{index:?}");
    assert_eq!(serving.send("GET", &path, &[], b"").await.body, upstream.layers[0]);
    let tags = serving.send("GET", "/v2/docker.io/library/app/tags/list", &[], b"").await;
    assert_eq!(tags.body, br#"{"name":"docker.io/library/app","tags":["v1"]}"#);
    assert!(tags.header("warning").starts_with("299 - "), "{tags:?}");
    assert_eq!(tags.header("polyarch-served-by"), "this registry");
    let absent = serving.send("GET", "/v2/docker.io/library/app/manifests/v2", &[], b"").await;
    assert_eq!((absent.status, absent.code()), (502, "MANIFEST_UNKNOWN".to_owned()));
    // The page shows the copy, of what it is one, and that upstream does not answer.
    let page = serving.send("GET", "/docker.io/library/app:v1", &[], b"").await;
    let text = String::from_utf8(page.body).unwrap();
    assert!(
        text.contains("Copy of docker.io/library/app") && text.contains("127.0.0.1:1 (not answering)"),
        "{text}"
    );
    assert!(
        text.contains(&Digest::of(&upstream.index).to_string()) && text.contains("verdict calm"),
        "{text}"
    );
    let log = serving.log.lock().unwrap();
    let copy = log.iter().find(|record| record.served_by.as_deref() == Some("this registry")).unwrap();
    assert!(copy.cause.as_ref().is_some_and(|cause| cause.contains("127.0.0.1:1")), "{copy:?}");
}

#[tokio::test]
async fn the_next_upstream_is_asked_and_a_moved_tag_is_followed() {
    let upstream = Upstream::start("team/app").await;
    let serving = mirroring("reg.example", &["127.0.0.1:1", &upstream.fake.host()], None).await;
    let path = "/v2/reg.example/team/app/manifests/v1";
    assert_eq!(serving.send("GET", path, &[], b"").await.body, upstream.index);
    let moved =
        upstream.fake.put_manifest("team/app", "v1", b"{\"schemaVersion\":2,\"manifests\":[]}", OCI_INDEX);
    let head = serving.send("HEAD", path, &[], b"").await;
    assert_eq!(head.header("docker-content-digest"), moved.to_string());
    assert_eq!(head.header("polyarch-served-by"), upstream.fake.host());
    let absent = serving.send("GET", "/v2/reg.example/team/app/manifests/absent", &[], b"").await;
    // One upstream has no such thing, the other does not answer: nobody knows.
    assert!(matches!(absent.status, 404 | 502), "{absent:?}");
    let metrics = String::from_utf8(serving.send("GET", "/metrics", &[], b"").await.body).unwrap();
    let up = |host: &str| format!("upstream_up{{registry=\"reg.example\",upstream=\"{host}\"}} ");
    assert!(metrics.contains(&(up("127.0.0.1:1") + "0\n")), "{metrics}");
    assert!(metrics.contains(&(up(&upstream.fake.host()) + "1\n")), "{metrics}");
    let push = serving.send("PUT", path, &[("Content-Type", OCI_INDEX)], &upstream.index).await;
    assert_eq!((push.status, push.code()), (405, "UNSUPPORTED".to_owned()));
}

#[tokio::test]
async fn a_damaged_blob_never_looks_whole_and_is_not_kept() {
    let upstream = Upstream::start("team/app").await;
    let serving = mirroring("reg.example", &[&upstream.fake.host()], None).await;
    let manifest = format!("/v2/reg.example/team/app/manifests/{}", upstream.manifests[0]);
    assert_eq!(serving.send("GET", &manifest, &[], b"").await.status, 200);
    let layer = Digest::of(&upstream.layers[0]);
    upstream.fake.fault(Method::GET, &layer.to_string(), 10, Act::Corrupt);
    let path = format!("/v2/reg.example/team/app/blobs/{layer}");
    let answer = serving.send("GET", &path, &[], b"").await;
    assert!(answer.body.len() < upstream.layers[0].len(), "the last byte is held back");
    assert!(!serving.blob_file("reg.example/team/app", &layer).exists());
    // A blob that no manifest here leads to is not fetched.
    let unknown =
        serving.send("GET", &format!("/v2/reg.example/team/app/blobs/{}", Digest::of("x")), &[], b"").await;
    assert_eq!((unknown.status, unknown.code()), (404, "BLOB_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn a_blob_that_upstream_has_lost_is_not_here_either() {
    let upstream = Upstream::start("team/app").await;
    let serving = mirroring("reg.example", &[&upstream.fake.host()], None).await;
    let manifest = format!("/v2/reg.example/team/app/manifests/{}", upstream.manifests[0]);
    assert_eq!(serving.send("GET", &manifest, &[], b"").await.status, 200);
    let layer = Digest::of(&upstream.layers[0]).to_string();
    upstream.fake.fault(Method::GET, &layer, 100, Act::Answer(404, Vec::new(), String::new()));
    let path = format!("/v2/reg.example/team/app/blobs/{layer}");
    let answer = serving.send("GET", &path, &[], b"").await;
    assert_eq!((answer.status, answer.code()), (502, "BLOB_UNKNOWN".to_owned()));
    // A HEAD tells what the manifest says.
    assert_eq!(serving.send("HEAD", &path, &[], b"").await.header("content-length"), "700000");
}

#[tokio::test]
async fn an_upstream_that_fails_is_asked_last_also_for_blobs() {
    for act in [Act::Hang, Act::Corrupt] {
        let first = Upstream::start("team/app").await;
        let second = Upstream::of("team/app", first.layers.clone()).await;
        let serving = mirroring("reg.example", &[&first.fake.host(), &second.fake.host()], None).await;
        for manifest in &first.manifests {
            let path = format!("/v2/reg.example/team/app/manifests/{manifest}");
            assert_eq!(
                serving.send("GET", &path, &[], b"").await.header("polyarch-served-by"),
                first.fake.host()
            );
        }
        let is_damage = matches!(act, Act::Corrupt);
        first.fake.fault(Method::GET, "/blobs/", 100, act);
        let get = async |layer: &[u8]| {
            let path = format!("/v2/reg.example/team/app/blobs/{}", Digest::of(layer));
            serving.send("GET", &path, &[], b"").await
        };
        let answer = get(&first.layers[0]).await;
        if is_damage {
            assert!(answer.body.len() < first.layers[0].len(), "never whole");
            assert!(get(&first.layers[0]).await.body == first.layers[0]);
        } else {
            assert!(answer.body == first.layers[0]);
        }
        assert_eq!(get(&first.layers[1]).await.body, first.layers[1]);
        assert_eq!(first.fake.lines("/blobs/").len(), 1, "it was not asked again");
    }
}

#[tokio::test]
async fn who_does_not_answer_is_waited_for_once() {
    let (silent, upstream) = (Fake::start().await, Upstream::start("team/app").await);
    silent.fault(Method::GET, "/v2/", 100, Act::Hang);
    silent.fault(Method::HEAD, "/v2/", 100, Act::Hang);
    let serving = mirroring("reg.example", &[&silent.host(), &upstream.fake.host()], None).await;
    let path = "/v2/reg.example/team/app/manifests";
    let get = async |name: &str| serving.send("GET", &format!("{path}/{name}"), &[], b"").await;
    assert_eq!(get("v1").await.header("polyarch-served-by"), upstream.fake.host());
    let asked = silent.seen().len();
    // The other one has no such thing, and nobody knows whether the silent one has.
    assert_eq!(get("absent").await.status, 502);
    for method in [Method::GET, Method::HEAD] {
        upstream.fake.fault(method, "/v2/", 100, Act::Hang);
    }
    for _ in 0..2 {
        let copy = get("v1").await;
        assert!(copy.body == upstream.index && copy.header("warning").starts_with("299 - "), "{copy:?}");
    }
    assert_eq!(silent.seen().len(), asked, "it was not asked again");
}

#[tokio::test]
async fn nobody_else_says_what_this_server_asks_for() {
    let (upstream, inside) = (Fake::start().await, Fake::start().await);
    let digest = inside.put_blob("inside", b"not for everybody");
    let config = Descriptor::new(OCI_CONFIG, upstream.put_blob("team/app", b"{}"), 2);
    let mut layer = Descriptor::new(OCI_LAYER, digest.clone(), 17);
    layer.urls = vec![format!("http://{}/v2/inside/blobs/{digest}", inside.host())];
    let manifest = Document::indented(Manifest::new(Flavour::Oci, config, vec![layer]));
    upstream.put_manifest("team/app", "v1", &manifest.bytes, OCI_MANIFEST);
    let serving = mirroring("reg.example", &[&upstream.host()], None).await;
    let path = "/v2/reg.example/team/app";
    assert_eq!(serving.send("GET", &format!("{path}/manifests/v1"), &[], b"").await.status, 200);
    let answer = serving.send("GET", &format!("{path}/blobs/{digest}"), &[], b"").await;
    assert_eq!((answer.status, answer.code()), (502, "BLOB_UNKNOWN".to_owned()));
    assert!(inside.seen().is_empty(), "{:?}", inside.seen());
}

#[tokio::test]
async fn a_copy_may_be_no_larger_than_a_push() {
    let upstream = Upstream::start("team/app").await;
    let limits = Limits { max_blob_bytes: 1000, ..Limits::default() };
    let serving = mirroring_with(limits, "reg.example", &[&upstream.fake.host()], None).await;
    let path = "/v2/reg.example/team/app";
    for (number, status) in [(0, 502), (1, 200)] {
        let manifest = format!("{path}/manifests/{}", upstream.manifests[number]);
        assert_eq!(serving.send("GET", &manifest, &[], b"").await.status, 200);
        let layer = format!("{path}/blobs/{}", Digest::of(&upstream.layers[number]));
        let answer = serving.send("GET", &layer, &[], b"").await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}
