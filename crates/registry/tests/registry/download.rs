// SPDX-License-Identifier: Apache-2.0
//! Blobs that come in: broken, wrong, too long, from elsewhere.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use polyarch_oci::{Descriptor, Digest};
use polyarch_registry::config::Mirror;
use polyarch_registry::{Client, ClientOptions, FnSink, Progress, RegistryError};

use crate::fake::{Act, Fake, Lock, client, noise, options};

const SIZE: usize = 300_000;

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new("application/octet-stream", Digest::of(bytes), bytes.len() as u64)
}

fn mirrored(origin: &Fake, mirrors: &[&Fake]) -> Client {
    let mut options: ClientOptions = options();
    options.hosts.entry(&origin.host()).mirrors =
        mirrors.iter().map(|mirror| Mirror { host: mirror.host(), path: String::new() }).collect();
    Client::new(options)
}

async fn get(client: &Client, fake: &Fake, blob: &Descriptor) -> Result<(Vec<u8>, String), RegistryError> {
    let mut bytes = Vec::new();
    let host = client.get_blob(&fake.reference("app:v1"), blob, &mut bytes, &Progress::none()).await?;
    Ok((bytes, host))
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_broke() {
    let fake = Fake::start().await;
    let content = noise(SIZE);
    fake.put_blob("app", &content);
    // More failures than attempts are allowed in a row: progress counts.
    for bytes in [100_000, 50_000, 50_000, 1, 1, 1, 1] {
        fake.fault(Method::GET, "/blobs/", 1, Act::BreakBody(bytes));
    }
    let reports = Arc::new(Mutex::new(Vec::new()));
    let kept = reports.clone();
    let progress = Progress::new(move |bytes| kept.lock().unwrap().push(bytes));
    let mut bytes = Vec::new();
    let blob = descriptor(&content);
    client().get_blob(&fake.reference("app:v1"), &blob, &mut bytes, &progress).await.unwrap();
    assert!(bytes == content);
    let ranges: Vec<String> = fake
        .seen()
        .iter()
        .filter(|seen| seen.path.contains("/blobs/"))
        .map(|seen| seen.header("range").to_owned())
        .collect();
    assert!(ranges.len() >= 4 && ranges[0].is_empty(), "{ranges:?}");
    assert!(ranges[1..].iter().all(|range| range.starts_with("bytes=")), "{ranges:?}");
    let reports = reports.lock().unwrap();
    assert!(reports.is_sorted() && reports.last() == Some(&(SIZE as u64)), "{reports:?}");
}

#[tokio::test]
async fn a_host_without_ranges_is_read_again_from_the_start() {
    let fake = Fake::without_ranges().await;
    let content = noise(SIZE);
    fake.put_blob("app", &content);
    fake.fault(Method::GET, "/blobs/", 1, Act::BreakBody(123_457));
    let (bytes, _) = get(&client(), &fake, &descriptor(&content)).await.unwrap();
    assert!(bytes == content);
}

#[tokio::test]
async fn no_progress_ends_after_the_attempts_allowed() {
    let fake = Fake::start().await;
    let content = noise(SIZE);
    fake.put_blob("app", &content);
    fake.fault(Method::GET, "/blobs/", 99, Act::Hang);
    let error = get(&client(), &fake, &descriptor(&content)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Broken { .. }), "{error}");
    assert_eq!(fake.lines("/blobs/").len(), 4);
}

#[tokio::test]
async fn a_transfer_that_stands_still_is_begun_again() {
    let fake = Fake::start().await;
    let content = noise(SIZE);
    fake.put_blob("app", &content);
    fake.fault(Method::GET, "/blobs/", 1, Act::StallBody(100_000));
    let client = Client::new(ClientOptions { stall_timeout: Duration::from_secs(1), ..options() });
    let (bytes, _) = get(&client, &fake, &descriptor(&content)).await.unwrap();
    assert!(bytes == content);
    assert_eq!(fake.seen().pop().unwrap().header("range"), "bytes=100000-");
}

#[tokio::test]
async fn wrong_bytes_are_refused() {
    let fake = Fake::start().await;
    let content = noise(SIZE);
    fake.put_blob("app", &content);
    fake.fault(Method::GET, "/blobs/", 1, Act::Corrupt);
    let error = get(&client(), &fake, &descriptor(&content)).await.unwrap_err();
    let RegistryError::DigestMismatch { expected, actual, .. } = &error else { panic!("{error}") };
    assert!(**expected == Digest::of(&content) && expected != actual);
    assert_eq!(fake.lines("/blobs/").len(), 1, "not tried again: the host has nothing else");
}

#[tokio::test]
async fn blobs_of_another_size_than_promised_are_refused() {
    let fake = Fake::start().await;
    let content = noise(SIZE);
    let digest = fake.put_blob("app", &content);
    for size in [SIZE as u64 - 1, SIZE as u64 + 1] {
        let blob = Descriptor::new("x", digest.clone(), size);
        let error = get(&client(), &fake, &blob).await.unwrap_err();
        assert!(matches!(error, RegistryError::SizeMismatch { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_missing_blob_names_the_repository() {
    let fake = Fake::start().await;
    let error = get(&client(), &fake, &descriptor(b"none")).await.unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains(&format!("{}/app", fake.host())), "{error}");
    assert_eq!(fake.lines("/blobs/").len(), 1);
}

#[tokio::test]
async fn mirrors_are_asked_in_order_and_their_wrong_bytes_forgotten() {
    let (origin, first, second) = (Fake::start().await, Fake::start().await, Fake::start().await);
    let content = noise(SIZE);
    origin.put_blob("app", &content);
    second.put_blob("app", &content);
    let client = mirrored(&origin, &[&first, &second]);
    let (bytes, host) = get(&client, &origin, &descriptor(&content)).await.unwrap();
    assert!(bytes == content);
    assert_eq!(host, second.host());
    assert!(origin.seen().is_empty());
    assert_eq!(first.lines("/blobs/").len(), 1);
    let asked = first.seen().into_iter().find(|seen| seen.path.contains("/blobs/")).unwrap();
    assert_eq!(asked.query, format!("ns={}", origin.host().replace(':', "%3A")));

    second.fault(Method::GET, "/blobs/", 1, Act::Corrupt);
    let (bytes, host) = get(&client, &origin, &descriptor(&content)).await.unwrap();
    assert!(bytes == content);
    assert_eq!(host, origin.host());
}

#[tokio::test]
async fn a_wrong_beginning_from_a_mirror_does_not_spoil_the_origin() {
    let (origin, mirror) = (Fake::start().await, Fake::start().await);
    let content = noise(SIZE);
    let digest = origin.put_blob("app", &content);
    let wrong = vec![7; SIZE];
    // The mirror has other bytes under this name, and breaks off; later it is gone.
    let target = mirror.put_blob("other", &wrong);
    let path = format!("/v2/other/blobs/{target}");
    mirror.fault(
        Method::GET,
        &format!("app/blobs/{digest}"),
        1,
        Act::Answer(307, vec![("location", path)], String::new()),
    );
    mirror.fault(Method::GET, "other/blobs", 1, Act::BreakBody(100_000));
    let (bytes, host) = get(&mirrored(&origin, &[&mirror]), &origin, &descriptor(&content)).await.unwrap();
    assert!(bytes == content);
    assert_eq!(host, origin.host());
    let ranges: Vec<String> = origin
        .seen()
        .iter()
        .filter(|seen| seen.path.contains("/blobs/"))
        .map(|seen| seen.header("range").to_owned())
        .collect();
    assert_eq!(ranges.len(), 2, "continued first, then from the start: {ranges:?}");
}

#[tokio::test]
async fn foreign_urls_are_used_last_and_without_credentials() {
    let origin = Fake::start().await;
    let elsewhere = Fake::with(Lock::Open).await;
    let content = noise(SIZE);
    let digest = elsewhere.put_blob("layers", &content);
    let mut blob = descriptor(&content);
    blob.urls =
        vec!["file:///etc/passwd".into(), format!("http://{}/v2/layers/blobs/{digest}", elsewhere.host())];
    let (bytes, host) = get(&client(), &origin, &blob).await.unwrap();
    assert!(bytes == content);
    assert_eq!(host, elsewhere.host());
    assert_eq!(origin.lines("/blobs/").len(), 1);
    assert!(elsewhere.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}

#[tokio::test]
async fn data_in_the_descriptor_needs_no_request_when_it_is_right() {
    let fake = Fake::start().await;
    fake.put_blob("app", b"{}");
    let mut blob = descriptor(b"{}");
    blob.data = Some("e30=".into());
    assert_eq!(get(&client(), &fake, &blob).await.unwrap().0, b"{}");
    assert!(fake.seen().is_empty());
    blob.data = Some("e31=".into());
    assert_eq!(get(&client(), &fake, &blob).await.unwrap().0, b"{}");
    assert_eq!(fake.lines("/blobs/").len(), 1);
}

#[tokio::test]
async fn a_full_disk_ends_the_transfer_at_once() {
    let (origin, mirror) = (Fake::start().await, Fake::start().await);
    let content = noise(SIZE);
    origin.put_blob("app", &content);
    mirror.put_blob("app", &content);
    let client = mirrored(&origin, &[&mirror]);
    let mut sink = FnSink(|_: &[u8]| Err(io::Error::from(io::ErrorKind::StorageFull)));
    let error = client
        .get_blob(&origin.reference("app:v1"), &descriptor(&content), &mut sink, &Progress::none())
        .await
        .unwrap_err();
    let RegistryError::Sink { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn parallel_downloads_are_limited_per_host() {
    let fake = Fake::start().await;
    let contents: Vec<Vec<u8>> = (0..12).map(|n| noise(50_000 + n)).collect();
    for content in &contents {
        fake.put_blob("app", content);
    }
    let client = Client::new(ClientOptions { max_downloads: 2, ..options() });
    let all = contents.iter().map(|content| {
        let (client, blob, reference) = (client.clone(), descriptor(content), fake.reference("app:v1"));
        tokio::spawn(async move {
            let mut bytes = Vec::new();
            client.get_blob(&reference, &blob, &mut bytes, &Progress::none()).await.map(|_| bytes)
        })
    });
    for (task, content) in futures_util::future::join_all(all).await.into_iter().zip(&contents) {
        assert!(task.unwrap().unwrap() == *content);
    }
    assert_eq!(fake.peak(), 2);
}
