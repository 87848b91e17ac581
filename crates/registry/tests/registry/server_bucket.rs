// SPDX-License-Identifier: Apache-2.0
//! Our server over a bucket: the tests of the directory once more, several servers, and stores that can't be used.

use std::path::{Path, PathBuf};
use std::process::Command;

use polyarch_oci::Digest;
use polyarch_oci::media_type::OCI_INDEX;
use polyarch_registry::server::{BucketOptions, CollectOptions, Storage};
use polyarch_testkit::{Need, S3Server, requires};
use tokio::io::AsyncWriteExt as _;

use crate::fake::noise;
use crate::serving::{Plan, Serving};

/// Tells the tests which port of this machine has the store that they are to use in place of directories.
const PORT: &str = "POLYARCH_TEST_S3_PORT";
const BUCKET: &str = "images";
/// Tests of what lies in a directory, and of this file.
const ONLY_DIRECTORIES: [&str; 6] = [
    "server_bucket::",
    "server_full::",
    "a_mounted_blob_is_the_same_file",
    "several_servers_over_one_directory_see_the_same",
    "a_manifest_that_the_disk_has_damaged_is_not_served",
    "a_tag_says_what_is_not_here",
];

/// Returns the port of the store, when there is one.
pub fn port() -> Option<u16> {
    std::env::var(PORT).ok()?.parse().ok()
}

fn options(endpoint: &str, directory: &Path) -> BucketOptions {
    // Their own names begin with a point.
    let prefix = directory.file_name().unwrap().to_str().unwrap().trim_start_matches('.');
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    BucketOptions {
        endpoint: Some(endpoint.to_owned()),
        settings: vec![setting("AWS_ACCESS_KEY_ID", "ann"), setting("AWS_SECRET_ACCESS_KEY", "secret")],
        scratch: directory.join("scratch"),
        ..BucketOptions::parse(&format!("s3://{BUCKET}/{prefix}")).unwrap()
    }
}

/// Opens the place in the bucket that has a directory's name.
pub async fn open(port: u16, directory: &Path) -> Storage {
    let options = options(&format!("http://127.0.0.1:{port}"), directory);
    let opened = tokio::task::spawn_blocking(move || Storage::open_bucket(&options));
    opened.await.unwrap().unwrap()
}

/// Lists what the place in the bucket has that has a directory's name.
pub fn keys_of(port: u16, directory: &Path, beneath: &str) -> Vec<String> {
    let options = options("", directory);
    polyarch_testkit::s3::keys(port, BUCKET, &format!("{}/{beneath}", options.prefix))
}

/// Runs tests of this program in a process of its own, over a bucket.
fn run_over_a_bucket(store: &S3Server, arguments: &[&str]) -> String {
    let port = store.endpoint().rsplit(':').next().unwrap().to_owned();
    let output =
        Command::new(std::env::current_exe().unwrap()).args(arguments).env(PORT, port).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text
}

#[test]
fn a_bucket_passes_the_tests_of_the_directory() {
    if requires(&[Need::Command("moto_server")]).is_some() {
        return;
    }
    let store = S3Server::start(BUCKET);
    // The store serves one request at a time.
    let mut arguments = vec!["server", "page::", "--test-threads", "2"];
    for skipped in ONLY_DIRECTORIES {
        arguments.extend(["--skip", skipped]);
    }
    let text = run_over_a_bucket(&store, &arguments);
    let passed =
        text.rsplit("test result: ok. ").next().and_then(|rest| rest.split(' ').next()?.parse().ok());
    assert!(passed.is_some_and(|passed: u32| passed >= 30), "{text}");
    assert!(!store.keys(BUCKET, "").is_empty(), "they were in the bucket");
}

#[test]
fn several_servers_share_a_bucket() {
    if requires(&[Need::Command("moto_server")]).is_some() {
        return;
    }
    let store = S3Server::start(BUCKET);
    run_over_a_bucket(&store, &["--exact", "server_bucket::two_servers_over_one_bucket", "--nocapture"]);
    assert!(!store.keys(BUCKET, "").is_empty(), "they were in the bucket");
}

/// Runs when the test above has started a store for it, in a process of its own.
#[tokio::test]
async fn two_servers_over_one_bucket() {
    let Some(port) = port() else { return };
    let one = Serving::start().await;
    // The same place: the last part of the path names it.
    let parent = tempfile::tempdir().unwrap();
    let name = one.directory.path().file_name().unwrap().to_str().unwrap();
    let directory = tempfile::Builder::new().prefix(name).rand_bytes(0).tempdir_in(&parent).unwrap();
    let two = Serving::over(directory, Plan::default()).await;
    let text = r#"{"schemaVersion":2,"manifests":[]}"#;
    let tasks = (0..40).map(|number| {
        let serving = if number % 2 == 0 { &one } else { &two };
        async move {
            let path = format!("/v2/app/manifests/tag-{number}");
            let answer = serving.send("PUT", &path, &[("Content-Type", OCI_INDEX)], text.as_bytes()).await;
            assert_eq!(answer.status, 201, "{answer:?}");
        }
    });
    futures_util::future::join_all(tasks).await;
    for serving in [&one, &two] {
        let answer = serving.send("GET", "/v2/app/tags/list", &[], b"").await;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["tags"].as_array().unwrap().len(), 40);
    }

    // Begun at one, gone on with at the other, ended at the first; of several pieces of the bucket.
    let whole = noise(18_000_001);
    let location = one.begin("app").await;
    assert_eq!(one.send("PATCH", &location, &[], &whole[..9_000_000]).await.status, 202);
    let answer = two.send("PATCH", &location, &[], &whole[9_000_000..9_000_100]).await;
    assert_eq!((answer.status, answer.header("range")), (202, "0-9000099"));
    let digest = Digest::of(&whole);
    let answer = one.send("PUT", &format!("{location}?digest={digest}"), &[], &whole[9_000_100..]).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let path = format!("/v2/app/blobs/{digest}");
    assert_eq!(two.send("GET", &path, &[], b"").await.body, whole);
    let part = two.send("GET", &path, &[("Range", "bytes=8388000-8999999")], b"").await;
    assert_eq!((part.status, &part.body[..]), (206, &whole[8_388_000..9_000_000]));

    // A server that goes away in the middle leaves nothing that is seen, and an upload that another one ends.
    let location = one.begin("other").await;
    assert_eq!(one.send("PATCH", &location, &[], b"begin").await.status, 202);
    let mut stream = tokio::net::TcpStream::connect(one.address).await.unwrap();
    let lost = format!(
        "POST /v2/other/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: a\r\nContent-Length: 18000001\r\n\r\n"
    );
    stream.write_all(lost.as_bytes()).await.unwrap();
    stream.write_all(&whole[..17_000_000]).await.unwrap();
    one.kill().await;
    drop(stream);
    assert_eq!(two.send("GET", "/v2/other/tags/list", &[], b"").await.status, 404);
    assert_eq!(two.send("HEAD", &format!("/v2/other/blobs/{digest}"), &[], b"").await.status, 404);
    let wanted = Digest::of("begin, end");
    let answer = two.send("PUT", &format!("{location}?digest={wanted}"), &[], b", end").await;
    assert_eq!(answer.status, 201, "{answer:?}");

    // What no manifest leads to goes, tags stay, and content stays for an hour at least.
    let storage = open(port, two.directory.path()).await;
    let options = CollectOptions {
        grace: std::time::Duration::ZERO,
        uploads: std::time::Duration::ZERO,
        ..CollectOptions::default()
    };
    let collected = tokio::task::spawn_blocking(move || storage.collect(&options).unwrap()).await.unwrap();
    assert_eq!((collected.blobs, collected.bytes), (2, 0), "{collected:?}");
    assert_eq!(two.send("GET", &path, &[], b"").await.status, 404);
    assert_eq!(two.send("GET", "/v2/app/manifests/tag-39", &[], b"").await.status, 200);
    assert_eq!(two.unfinished(), 0);
}

#[test]
fn what_can_not_be_used_is_told_at_once() {
    let nowhere = PathBuf::from("nowhere");
    let error = Storage::open_bucket(&options("http://127.0.0.1:1", &nowhere)).unwrap_err();
    assert_eq!(error.to_string(), "the store of s3://images/nowhere can't be reached");
    let refusing = refusing();
    let error = Storage::open_bucket(&options(&refusing, &nowhere)).unwrap_err();
    assert_eq!(error.to_string(), "the store refuses access to s3://images/nowhere");
    if requires(&[Need::Command("moto_server")]).is_some() {
        return;
    }
    let store = S3Server::start("others");
    let error = Storage::open_bucket(&options(&store.endpoint(), &nowhere)).unwrap_err();
    assert_eq!(error.to_string(), "there is no bucket images");
    let store = S3Server::start(BUCKET);
    let error = Storage::open_existing_bucket(&options(&store.endpoint(), &nowhere)).unwrap_err();
    assert_eq!(error.to_string(), "there is no registry in s3://images/nowhere");
    Storage::open_bucket(&options(&store.endpoint(), &nowhere)).unwrap();
    Storage::open_existing_bucket(&options(&store.endpoint(), &nowhere)).unwrap();
}

/// Starts a store that takes no credentials; returns its address.
fn refusing() -> String {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let body = "<Error><Code>InvalidAccessKeyId</Code></Error>";
            let _ = write!(
                stream,
                "HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    address
}
