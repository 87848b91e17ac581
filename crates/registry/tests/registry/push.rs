// SPDX-License-Identifier: Apache-2.0
//! Blobs that go out: found, mounted, uploaded, resumed, sent once.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use polyarch_oci::{Descriptor, Digest};
use polyarch_registry::config::Mirror;
use polyarch_registry::{
    BlobReader, BlobSource, Client, ClientOptions, MountOutcome, Progress, PushOutcome, RegistryError,
};

use crate::fake::{Act, Fake, client, noise, options};

const SIZE: usize = 300_000;

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new("application/octet-stream", Digest::of(bytes), bytes.len() as u64)
}

async fn push(client: &Client, fake: &Fake, bytes: &Bytes) -> Result<PushOutcome, RegistryError> {
    let target = fake.reference("app:v1");
    client.push_blob(&target, &descriptor(bytes), bytes, &[], &Progress::none()).await
}

fn in_pieces(piece_bytes: u64) -> Client {
    Client::new(ClientOptions { piece_bytes, ..options() })
}

#[tokio::test]
async fn a_blob_is_sent_in_one_request_and_then_known() {
    let fake = Fake::start().await;
    let content = Bytes::from(noise(SIZE));
    let client = client();
    assert!(!client.blob_exists(&fake.reference("app"), &descriptor(&content)).await.unwrap());
    assert_eq!(push(&client, &fake, &content).await.unwrap(), PushOutcome::Uploaded);
    assert_eq!(fake.blob("app", &Digest::of(&content)).unwrap(), content);
    let put = fake.seen().into_iter().find(|seen| seen.method == Method::PUT).unwrap();
    assert_eq!(put.header("content-length"), SIZE.to_string());
    assert!(
        put.query.starts_with("state=0&digest=sha256"),
        "the registry's own query is kept: {}",
        put.query
    );
    assert!(client.blob_exists(&fake.reference("app"), &descriptor(&content)).await.unwrap());
    assert_eq!(push(&client, &fake, &content).await.unwrap(), PushOutcome::Existed);
    assert_eq!(fake.lines("PUT").len(), 1);
}

#[tokio::test]
async fn an_empty_blob_can_be_pushed() {
    let fake = Fake::start().await;
    assert_eq!(push(&client(), &fake, &Bytes::new()).await.unwrap(), PushOutcome::Uploaded);
    assert!(fake.blob("app", &Digest::of("")).is_some());
}

#[tokio::test]
async fn a_file_is_a_source() {
    let fake = Fake::start().await;
    let content = noise(SIZE);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &content).unwrap();
    fake.fault(Method::PUT, "/uploads/", 1, Act::BreakUpload(100_000));
    let target = fake.reference("app");
    client().push_blob(&target, &descriptor(&content), file.path(), &[], &Progress::none()).await.unwrap();
    assert_eq!(fake.blob("app", &Digest::of(&content)).unwrap(), content);
}

#[tokio::test]
async fn a_blob_of_another_repository_is_mounted() {
    let fake = Fake::start().await;
    let content = Bytes::from(noise(SIZE));
    fake.put_blob("base", &content);
    let from = [fake.reference("none"), "other.example/base".parse().unwrap(), fake.reference("base:v1")];
    let target = fake.reference("app");
    let outcome =
        client().push_blob(&target, &descriptor(&content), &content, &from, &Progress::none()).await.unwrap();
    assert_eq!(outcome, PushOutcome::Mounted { from: from[2].clone() });
    assert!(fake.blob("app", &Digest::of(&content)).is_some());
    assert_eq!(fake.lines("POST").len(), 2, "hosts of their own have nothing to mount from");
    assert_eq!(fake.lines("DELETE").len(), 1, "the upload that the first answer opened is given back");
}

#[tokio::test]
async fn an_upload_that_a_refused_mount_opens_is_used() {
    let fake = Fake::start().await;
    let content = Bytes::from(noise(SIZE));
    let from = [fake.reference("none")];
    let target = fake.reference("app");
    let blob = descriptor(&content);
    let outcome = client().push_blob(&target, &blob, &content, &from, &Progress::none()).await.unwrap();
    assert_eq!(outcome, PushOutcome::Uploaded);
    assert_eq!(fake.lines("POST").len(), 1);

    let other = fake.reference("other");
    let MountOutcome::Upload(session) = client().mount_blob(&other, &blob, &from[0]).await.unwrap() else {
        panic!("there is nothing to mount")
    };
    client().upload_blob(&other, &blob, session, &content, &Progress::none()).await.unwrap();
    assert!(fake.blob("other", &blob.digest).is_some());
    let mounted = client().mount_blob(&fake.reference("third"), &blob, &target).await.unwrap();
    assert!(matches!(mounted, MountOutcome::Mounted));
}

#[tokio::test]
async fn a_mount_that_is_forbidden_becomes_an_upload() {
    let fake = Fake::start().await;
    let content = Bytes::from(noise(SIZE));
    for status in [401, 403, 404, 405] {
        fake.fault(Method::POST, "/uploads/", 1, Act::Answer(status, vec![], String::new()));
        let target = fake.reference(&format!("app{status}"));
        let from = [fake.reference("base")];
        let outcome = client()
            .push_blob(&target, &descriptor(&content), &content, &from, &Progress::none())
            .await
            .unwrap();
        assert_eq!(outcome, PushOutcome::Uploaded);
    }
}

#[tokio::test]
async fn a_broken_upload_goes_on_where_the_registry_says() {
    let fake = Fake::start().await;
    let content = Bytes::from(noise(SIZE));
    fake.fault(Method::PUT, "/uploads/", 1, Act::BreakUpload(100_000));
    fake.fault(Method::PATCH, "/uploads/", 1, Act::BreakUpload(30_000));
    let client = in_pieces(64_000);
    assert_eq!(push(&client, &fake, &content).await.unwrap(), PushOutcome::Uploaded);
    assert_eq!(fake.blob("app", &Digest::of(&content)).unwrap(), content);
    let ranges: Vec<String> = fake
        .seen()
        .iter()
        .filter(|seen| seen.method == Method::PATCH)
        .map(|seen| seen.header("content-range").to_owned())
        .collect();
    assert_eq!(ranges, ["100000-163999", "130000-193999", "194000-257999", "258000-299999"]);
    assert_eq!(fake.lines("POST").len(), 1, "one session served all");
}

#[tokio::test]
async fn an_upload_that_the_registry_forgets_begins_anew() {
    let fake = Fake::start().await;
    let content = Bytes::from(noise(SIZE));
    fake.fault(Method::PUT, "/uploads/", 1, Act::BreakUpload(100_000));
    fake.fault(Method::GET, "/uploads/", 1, Act::Answer(404, vec![], String::new()));
    assert_eq!(push(&in_pieces(200_000), &fake, &content).await.unwrap(), PushOutcome::Uploaded);
    assert_eq!(fake.blob("app", &Digest::of(&content)).unwrap(), content);
    assert_eq!(fake.lines("POST").len(), 2);

    // Lost between two requests, without a broken connection.
    let fake = Fake::start().await;
    let lost = r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#.to_owned();
    fake.fault(Method::PUT, "/uploads/", 1, Act::Answer(404, vec![], lost));
    assert_eq!(push(&client(), &fake, &content).await.unwrap(), PushOutcome::Uploaded);
    assert_eq!(fake.lines("POST").len(), 2);
}

#[tokio::test]
async fn an_answer_that_got_lost_is_not_an_upload_that_failed() {
    let fake = Fake::start().await;
    let content = Bytes::from(noise(SIZE));
    fake.fault(Method::PUT, "/uploads/", 1, Act::LoseAnswer);
    assert_eq!(push(&client(), &fake, &content).await.unwrap(), PushOutcome::Uploaded);
    assert_eq!(fake.lines("PUT").len(), 1);
}

#[tokio::test]
async fn a_body_that_is_too_large_for_a_proxy_goes_in_pieces() {
    let fake = Fake::start().await;
    let content = Bytes::from(noise(SIZE));
    fake.fault(Method::PUT, "/uploads/", 1, Act::Answer(413, vec![], "too large".into()));
    assert_eq!(push(&in_pieces(100_000), &fake, &content).await.unwrap(), PushOutcome::Uploaded);
    assert_eq!(fake.lines("PATCH").len(), 3);
    assert_eq!(fake.blob("app", &Digest::of(&content)).unwrap(), content);
    fake.fault(Method::PUT, "/uploads/", 9, Act::Answer(413, vec![], "too large".into()));
    let error = push(&client(), &fake, &Bytes::from_static(b"small")).await.unwrap_err();
    assert_eq!(error.status(), Some(413));
}

#[tokio::test]
async fn an_upload_that_keeps_breaking_ends() {
    let fake = Fake::start().await;
    let content = Bytes::from(noise(SIZE));
    fake.fault(Method::PUT, "/uploads/", 99, Act::Hang);
    fake.fault(Method::PATCH, "/uploads/", 99, Act::Hang);
    let error = push(&client(), &fake, &content).await.unwrap_err();
    assert!(matches!(error, RegistryError::Broken { .. }), "{error}");
    assert!(fake.lines("/uploads/upload").iter().filter(|line| !line.starts_with("GET")).count() <= 4);
}

#[tokio::test]
async fn a_registry_that_falls_silent_is_not_waited_for_without_end() {
    let fake = Fake::start().await;
    fake.fault(Method::PUT, "/uploads/", 99, Act::Silence);
    let client = Client::new(ClientOptions { stall_timeout: Duration::from_millis(20), ..options() });
    let error = push(&client, &fake, &Bytes::from_static(b"layer")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Timeout { .. }), "{error}");
    assert!(error.to_string().contains("push blob"), "{error}");
}

#[tokio::test]
async fn pushes_never_go_to_a_mirror() {
    let (origin, mirror) = (Fake::start().await, Fake::start().await);
    let content = Bytes::from(noise(SIZE));
    mirror.put_blob("app", &content);
    let mut options = options();
    options.hosts.entry(&origin.host()).mirrors = vec![Mirror { host: mirror.host(), path: String::new() }];
    let outcome = push(&Client::new(options), &origin, &content).await.unwrap();
    assert_eq!(outcome, PushOutcome::Uploaded);
    assert!(mirror.seen().is_empty());
}

#[tokio::test]
async fn a_wrong_digest_is_the_registrys_last_word() {
    let fake = Fake::start().await;
    let blob = Descriptor::new("x", Digest::of("one"), 3);
    let error = client()
        .push_blob(&fake.reference("app"), &blob, &Bytes::from_static(b"two"), &[], &Progress::none())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");
    assert_eq!(fake.lines("PUT").len(), 1);
}

/// A source that fails, or is shorter than promised.
struct Bad(Option<io::ErrorKind>);

impl BlobSource for Bad {
    async fn open(&self, _: u64) -> io::Result<BlobReader> {
        match self.0 {
            Some(kind) => Err(kind.into()),
            None => Ok(Box::pin(io::Cursor::new(vec![1; 10]))),
        }
    }
}

#[tokio::test]
async fn a_source_that_fails_is_not_blamed_on_the_registry() {
    let fake = Fake::start().await;
    for (bad, kind) in [
        (Bad(Some(io::ErrorKind::NotFound)), io::ErrorKind::NotFound),
        (Bad(None), io::ErrorKind::UnexpectedEof),
    ] {
        let blob = descriptor(&noise(SIZE));
        let pushed = client().push_blob(&fake.reference("app"), &blob, &bad, &[], &Progress::none()).await;
        let error = pushed.unwrap_err();
        let RegistryError::Source { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.kind(), kind);
    }
}

/// Counts how often it is opened.
struct Counted(Bytes, AtomicUsize);

impl BlobSource for Counted {
    async fn open(&self, offset: u64) -> io::Result<BlobReader> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.open(offset).await
    }
}

#[tokio::test]
async fn the_same_blob_pushed_at_once_is_uploaded_once() {
    let fake = Fake::start().await;
    let source = Counted(Bytes::from(noise(SIZE)), AtomicUsize::new(0));
    let (client, target, blob) = (client(), fake.reference("app:v1"), descriptor(&source.0));
    let progress = Progress::none();
    let pushes = (0..5).map(|_| client.push_blob(&target, &blob, &source, &[], &progress));
    let outcomes = futures_util::future::join_all(pushes).await;
    let uploads = outcomes.iter().filter(|outcome| matches!(outcome, Ok(PushOutcome::Uploaded))).count();
    let existed = outcomes.iter().filter(|outcome| matches!(outcome, Ok(PushOutcome::Existed))).count();
    assert_eq!((uploads, existed), (1, 4), "{outcomes:?}");
    assert_eq!(source.1.load(Ordering::SeqCst), 1);
    assert_eq!(fake.lines("HEAD").len(), 1);
}

#[tokio::test]
async fn a_push_can_run_on_any_thread() {
    let fake = Fake::start().await;
    let content = Bytes::from(noise(SIZE));
    let (client, target) = (client(), fake.reference("app"));
    let task = tokio::spawn(async move {
        let blob = descriptor(&content);
        client.push_blob(&target, &blob, &content, std::slice::from_ref(&target), &Progress::none()).await
    });
    assert_eq!(task.await.unwrap().unwrap(), PushOutcome::Uploaded);
}
