// SPDX-License-Identifier: Apache-2.0
//! Our client against our server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use polyarch_oci::media_type::{Flavour, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use polyarch_oci::{Algorithm, Descriptor, Digest, Document, Hasher, ImageIndex, Manifest};
use polyarch_registry::server::{CollectOptions, Limits, ScrubOptions, ServerTls, Storage};
use polyarch_registry::{
    Client, ClientOptions, Credentials, MountOutcome, Progress, PushOutcome, RegistryError,
};

use crate::fake::{client, noise, options};
use crate::serving::{HTPASSWD, Plan, Serving};

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
}

/// Pushes an image of one layer with our client; returns its manifest.
async fn push_image(
    client: &Client,
    serving: &Serving,
    name: &str,
    layer: &Bytes,
    subject: Option<Descriptor>,
) -> Descriptor {
    let target = serving.reference(name);
    let config = Bytes::from_static(b"{}");
    for (media_type, bytes) in [(OCI_CONFIG, &config), (OCI_LAYER, layer)] {
        let blob = descriptor(media_type, bytes);
        client.push_blob(&target, &blob, bytes, &[], &Progress::none()).await.unwrap();
    }
    let layers = vec![descriptor(OCI_LAYER, layer)];
    let mut manifest = Manifest::new(Flavour::Oci, descriptor(OCI_CONFIG, &config), layers);
    manifest.subject = subject;
    let document = Document::indented(manifest);
    let digest = client.put_manifest(&target, document.bytes.clone().into(), OCI_MANIFEST).await.unwrap();
    Descriptor::new(OCI_MANIFEST, digest, document.size())
}

#[tokio::test]
async fn an_image_goes_in_and_comes_out() {
    let serving = Serving::start().await;
    let client = client();
    // Larger than a piece of a file, and than a piece of an upload.
    let layer = Bytes::from(noise(3_000_001));
    let manifest = push_image(&client, &serving, "team/app:v1", &layer, None).await;
    let index = Document::indented(ImageIndex::new(Flavour::Oci, vec![manifest.clone()]));
    let name = serving.reference("team/app:all");
    client.put_manifest(&name, index.bytes.clone().into(), OCI_INDEX).await.unwrap();

    let fetched = client.get_manifest(&name).await.unwrap();
    assert_eq!((&fetched.bytes[..], &*fetched.media_type), (&index.bytes[..], OCI_INDEX));
    let mut content = Vec::new();
    let blob = descriptor(OCI_LAYER, &layer);
    client.get_blob(&name, &blob, &mut content, &Progress::none()).await.unwrap();
    assert_eq!(content, layer);
    assert_eq!(client.list_tags(&name).await.unwrap(), ["all", "v1"]);
}

#[tokio::test]
async fn pieces_make_a_whole() {
    let serving = Serving::start().await;
    let client = Client::new(ClientOptions { piece_bytes: 100_000, ..options() });
    let content = Bytes::from(noise(450_000));
    let target = serving.reference("app");
    let blob = descriptor(OCI_LAYER, &content);
    let pushed = client.push_blob(&target, &blob, &content, &[], &Progress::none()).await.unwrap();
    assert_eq!(pushed, PushOutcome::Uploaded);
    let answer = serving.send("GET", &format!("/v2/app/blobs/{}", blob.digest), &[], b"").await;
    assert_eq!(answer.body, content);
}

#[tokio::test]
async fn a_mounted_blob_is_the_same_file() {
    use std::os::unix::fs::MetadataExt as _;
    let serving = Serving::start().await;
    let content = Bytes::from(noise(1000));
    let digest = serving.push_blob("one", &content).await;
    let blob = descriptor(OCI_LAYER, &content);
    let (one, two) = (serving.reference("one"), serving.reference("two/deep"));
    let pushed =
        client().push_blob(&two, &blob, &content, std::slice::from_ref(&one), &Progress::none()).await;
    assert_eq!(pushed.unwrap(), PushOutcome::Mounted { from: one.clone() });
    let inode = |repository: &str| std::fs::metadata(serving.blob_file(repository, &digest)).unwrap().ino();
    assert_eq!(inode("one"), inode("two/deep"));
    // Nobody has said where it is: it is found.
    let path = format!("/v2/three/blobs/uploads/?mount={digest}");
    assert_eq!(serving.send("POST", &path, &[], b"").await.status, 201);
    // Deleting it in one repository leaves it in the others.
    let path = format!("/v2/one/blobs/{digest}");
    assert_eq!(serving.send("DELETE", &path, &[], b"").await.status, 202);
    assert_eq!(serving.send("GET", &path, &[], b"").await.status, 404);
    assert_eq!(serving.send("GET", &format!("/v2/three/blobs/{digest}"), &[], b"").await.body, content);
    let absent = descriptor(OCI_LAYER, b"absent");
    let outcome = client().mount_blob(&two, &absent, &one).await.unwrap();
    assert!(matches!(outcome, MountOutcome::Upload(_)));
}

#[tokio::test]
async fn referrers_are_listed_and_filtered() {
    let serving = Serving::start().await;
    let client = client();
    let image = push_image(&client, &serving, "app:v1", &Bytes::from_static(b"image"), None).await;
    let about =
        push_image(&client, &serving, "app:sbom", &Bytes::from_static(b"sbom"), Some(image.clone())).await;
    let subject = serving.reference("app").with_digest(image.digest.clone());
    let found = client.get_referrers(&subject).await.unwrap();
    assert_eq!(found.iter().map(|entry| &entry.digest).collect::<Vec<_>>(), [&about.digest]);
    let path = format!("/v2/app/referrers/{}", image.digest);
    for (filter, expected) in [(OCI_CONFIG, 1), ("text/other", 0)] {
        let answer = serving.send("GET", &format!("{path}?artifactType={filter}"), &[], b"").await;
        assert_eq!(answer.header("oci-filters-applied"), "artifactType");
        let index: ImageIndex = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(index.manifests.len(), expected, "{filter}");
    }
    let deleted = serving.send("DELETE", &format!("/v2/app/manifests/{}", about.digest), &[], b"").await;
    assert_eq!(deleted.status, 202);
    assert!(client.get_referrers(&subject).await.unwrap().is_empty());
    let tag = serving.send("GET", "/v2/app/manifests/sbom", &[], b"").await;
    assert_eq!((tag.status, tag.code()), (404, "MANIFEST_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn a_manifest_needs_its_blobs_and_an_index_does_not_need_its_manifests() {
    let put = async |serving: &Serving, tag: &str, media_type: &str, text: &str| {
        let path = format!("/v2/app/manifests/{tag}");
        serving.send("PUT", &path, &[("Content-Type", media_type)], text.as_bytes()).await
    };
    let absent = Digest::of("absent");
    let entry = format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{absent}","size":1}}"#);
    let image = format!(r#"{{"schemaVersion":2,"config":{entry},"layers":[]}}"#);
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#);
    let serving = Serving::start().await;
    let refused = put(&serving, "image", OCI_MANIFEST, &image).await;
    assert_eq!((refused.status, refused.code()), (400, "MANIFEST_BLOB_UNKNOWN".to_owned()));
    assert_eq!(serving.send("GET", "/v2/app/manifests/image", &[], b"").await.status, 404);
    assert_eq!(serving.send("GET", "/v2/_catalog", &[], b"").await.body, br#"{"repositories":[]}"#);
    assert_eq!(put(&serving, "index", OCI_INDEX, &index).await.status, 201);
    let serving = Serving::with(Plan { allows_missing_blobs: true, ..Plan::default() }).await;
    assert_eq!(put(&serving, "image", OCI_MANIFEST, &image).await.status, 201);
    // What was left out on purpose is no damage.
    let storage = Storage::open(serving.directory.path()).unwrap();
    let scrubbed = storage.scrub(&ScrubOptions::default(), |_| {}).unwrap();
    assert!(scrubbed.damage.is_empty(), "{scrubbed:?}");
}

#[tokio::test]
async fn tags_of_a_push_by_digest_are_told_and_sha512_is_kept() {
    let serving = Serving::start().await;
    let text = format!(r#"{{"schemaVersion": 2, "mediaType": "{OCI_INDEX}", "manifests": [], "own": 1}}"#);
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(text.as_bytes());
    let digest = hasher.finish();
    let path = format!("/v2/app/manifests/{digest}?tag=1.2&tag=latest");
    let answer = serving.send("PUT", &path, &[("Content-Type", OCI_INDEX)], text.as_bytes()).await;
    assert_eq!((answer.status, answer.header("docker-content-digest")), (201, &*digest.to_string()));
    assert_eq!(answer.header("oci-tag"), "latest", "the last of two headers");
    let answer = serving.send("GET", "/v2/app/manifests/1.2", &[], b"").await;
    assert_eq!(
        (&answer.body[..], answer.header("docker-content-digest")),
        (text.as_bytes(), &*digest.to_string())
    );
}

#[tokio::test]
async fn lists_come_in_pages() {
    let serving = Serving::start().await;
    let text = r#"{"schemaVersion":2,"manifests":[]}"#;
    for tag in ["a", "B", "c", "_"] {
        let path = format!("/v2/app/manifests/{tag}");
        serving.send("PUT", &path, &[("Content-Type", OCI_INDEX)], text.as_bytes()).await;
    }
    let tags = async |query: &str| {
        let answer = serving.send("GET", &format!("/v2/app/tags/list{query}"), &[], b"").await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        (body["tags"].to_string(), answer.header("link").to_owned())
    };
    assert_eq!(tags("").await, (r#"["B","_","a","c"]"#.to_owned(), String::new()));
    let next = r#"</v2/app/tags/list?n=2&last=_>; rel="next""#;
    assert_eq!(tags("?n=2").await, (r#"["B","_"]"#.to_owned(), next.to_owned()));
    assert_eq!(tags("?n=2&last=_").await, (r#"["a","c"]"#.to_owned(), String::new()));
    assert_eq!(tags("?n=0").await, ("[]".to_owned(), String::new()));
    assert_eq!(client().list_tags(&serving.reference("app")).await.unwrap().len(), 4);
    serving.push_blob("other/repo", b"x").await;
    let answer = serving.send("GET", "/v2/_catalog?n=1", &[], b"").await;
    assert_eq!(answer.body, br#"{"repositories":["app"]}"#);
    assert_eq!(answer.header("link"), r#"</v2/_catalog?n=1&last=app>; rel="next""#);
}

#[tokio::test]
async fn users_push_and_everybody_reads_what_is_public() {
    let plan =
        Plan { htpasswd: Some(HTPASSWD), anonymous_read: vec!["public".to_owned()], ..Plan::default() };
    let serving = Serving::with(plan).await;
    let credentials = Credentials::of_user(&serving.address.to_string(), "ann", "secret", "the test");
    let ann = Client::new(ClientOptions { credentials, ..options() });
    for name in ["public/app:v1", "secret/app:v1"] {
        push_image(&ann, &serving, name, &Bytes::from_static(b"layer"), None).await;
    }
    let anonymous = client();
    anonymous.get_manifest(&serving.reference("public/app:v1")).await.unwrap();
    let refused = anonymous.get_manifest(&serving.reference("secret/app:v1")).await.unwrap_err();
    assert!(matches!(refused, RegistryError::Unauthorized { .. }), "{refused}");
    let catalog = serving.send("GET", "/v2/_catalog", &[], b"").await;
    assert_eq!(catalog.body, br#"{"repositories":["public/app"]}"#);
    for (method, path) in [
        ("GET", "/v2/"),
        ("GET", "/metrics"),
        ("POST", "/v2/public/app/blobs/uploads/"),
        ("DELETE", "/v2/public/app/manifests/v1"),
    ] {
        let answer = serving.send(method, path, &[], b"").await;
        assert_eq!((answer.status, answer.code()), (401, "UNAUTHORIZED".to_owned()), "{method} {path}");
        assert!(answer.header("www-authenticate").starts_with("Basic realm="));
    }
    // So docker says that it has no name.
    let guest = [("Authorization", "Basic YW5vbnltb3VzOng=")];
    for (method, path, status) in [
        ("GET", "/v2/", 200),
        ("GET", "/v2/public/app/manifests/v1", 200),
        ("GET", "/v2/secret/app/manifests/v1", 401),
        ("DELETE", "/v2/public/app/manifests/v1", 401),
        ("GET", "/metrics", 401),
    ] {
        assert_eq!(serving.send(method, path, &guest, b"").await.status, status, "{method} {path}");
    }
    assert_eq!(serving.send("GET", "/v2/_catalog", &guest, b"").await.body, catalog.body);
    assert_eq!(serving.send("GET", "/healthz", &[], b"").await.body, b"ok\n");
    let log = serving.log.lock().unwrap();
    assert!(log.iter().any(|record| record.user.as_deref() == Some("ann") && record.status == 201));
}

#[tokio::test]
async fn a_certificate_is_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (directory.path().join("cert"), directory.path().join("key"));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        made.cert.pem().into_bytes()
    };
    let first = renew();
    let told = Arc::new(AtomicUsize::new(0));
    let counter = told.clone();
    let count = move |_: &_| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let tls = ServerTls::load(&certificate, &key, count).unwrap();
    let serving = Serving::with(Plan { tls: Some(tls), ..Plan::default() }).await;
    let trusting = |pem: &[u8]| {
        let mut options = options();
        options.hosts.entry(&serving.address.to_string()).ca = vec![pem.to_vec()];
        Client::new(options)
    };
    push_image(&trusting(&first), &serving, "app:v1", &Bytes::from_static(b"layer"), None).await;
    let second = renew();
    trusting(&second).get_manifest(&serving.reference("app:v1")).await.unwrap();
    std::fs::write(&certificate, "torn").unwrap();
    trusting(&second).get_manifest(&serving.reference("app:v1")).await.unwrap();
    assert!(trusting(&first).get_manifest(&serving.reference("app:v1")).await.is_err());
    assert_eq!(told.load(Ordering::Relaxed), 1, "files that can't be used are told once");
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart() {
    let serving = Serving::start().await;
    let location = serving.begin("app").await;
    let answer = serving.send("PATCH", &location, &[("Content-Range", "0-4")], b"begin").await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-4"));
    let serving = Serving::over(serving.end().await, Plan::default()).await;
    let answer = serving.send("GET", &location, &[], b"").await;
    assert_eq!((answer.status, answer.header("range")), (204, "0-4"));
    let digest = Digest::of("begin and end");
    let answer = serving.send("PUT", &format!("{location}?digest={digest}"), &[], b" and end").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(serving.send("GET", &location, &[], b"").await.code(), "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(
        serving.send("GET", &format!("/v2/app/blobs/{digest}"), &[], b"").await.body,
        b"begin and end"
    );
}

#[tokio::test]
async fn several_servers_over_one_directory_see_the_same() {
    let one = Serving::start().await;
    let two = {
        let directory = tempfile::TempDir::new_in(one.directory.path().parent().unwrap()).unwrap();
        std::fs::remove_dir(directory.path()).unwrap();
        std::os::unix::fs::symlink(one.directory.path(), directory.path()).unwrap();
        Serving::over(directory, Plan::default()).await
    };
    let text = r#"{"schemaVersion":2,"manifests":[]}"#;
    let tasks = (0..40).map(|number| {
        let serving = if number % 2 == 0 { &one } else { &two };
        async move {
            let path = format!("/v2/app/manifests/tag-{number}");
            let answer = serving.send("PUT", &path, &[("Content-Type", OCI_INDEX)], text.as_bytes()).await;
            assert_eq!(answer.status, 201);
        }
    });
    futures_util::future::join_all(tasks).await;
    for serving in [&one, &two] {
        assert_eq!(client().list_tags(&serving.reference("app")).await.unwrap().len(), 40);
    }
    std::fs::remove_file(two.directory.path()).unwrap();
}

#[tokio::test]
async fn a_server_collects_while_it_serves() {
    let serving = Serving::start().await;
    let layer = Bytes::from_static(b"layer");
    push_image(&client(), &serving, "app:v1", &layer, None).await;
    let lonely = serving.push_blob("app", b"lonely").await;
    let collect = CollectOptions {
        grace: Duration::ZERO,
        every: Duration::from_millis(1),
        ..CollectOptions::default()
    };
    let plan = Plan { collect: Some(collect), ..Plan::default() };
    let serving = Serving::over(serving.end().await, plan).await;
    let path = format!("/v2/app/blobs/{lonely}");
    // Ends with the test's own patience when nothing is collected.
    while serving.send("GET", &path, &[], b"").await.status == 200 {}
    let name = serving.reference("app:v1");
    client().get_manifest(&name).await.unwrap();
    let mut content = Vec::new();
    client().get_blob(&name, &descriptor(OCI_LAYER, &layer), &mut content, &Progress::none()).await.unwrap();
    assert_eq!(content, layer);
}

#[tokio::test]
async fn requests_are_limited_and_counted() {
    let limits = Limits { requests_per_second: Some(1), ..Limits::default() };
    let serving = Serving::with(Plan { limits, ..Plan::default() }).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(serving.send("GET", "/v2/", &[], b"").await);
    }
    let refused = answers.iter().find(|answer| answer.status == 429).expect("twenty at once are too many");
    assert_eq!((refused.code(), refused.header("retry-after")), ("TOOMANYREQUESTS".to_owned(), "1"));
    let serving = Serving::start().await;
    serving.send("GET", "/v2/", &[], b"").await;
    let metrics = String::from_utf8(serving.send("GET", "/metrics", &[], b"").await.body).unwrap();
    assert!(
        metrics.contains(r#"polyarch_registry_requests_total{method="GET",status="2xx"} 1"#),
        "{metrics}"
    );
}
