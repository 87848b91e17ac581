// SPDX-License-Identifier: Apache-2.0
//! Our server against those who mean no good, or break off: refused with a code and a sentence, and nothing is left.

use std::time::Duration;

use polyarch_oci::Digest;
use polyarch_oci::media_type::{OCI_INDEX, OCI_MANIFEST};
use polyarch_registry::server::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::serving::{Plan, Serving};

#[tokio::test]
async fn malformed_names_get_their_codes() {
    let serving = Serving::start().await;
    let digest = Digest::of("x");
    let long = "a".repeat(3000);
    for (method, path, status, code) in [
        ("GET", "/v2/A/tags/list".to_owned(), 400, "NAME_INVALID"),
        ("GET", "/v2/a/../../b/tags/list".to_owned(), 400, "NAME_INVALID"),
        ("GET", "/v2/a%2f..%2f..%2fb/tags/list".to_owned(), 400, "NAME_INVALID"),
        ("POST", "/v2/..%2f..%2fetc/blobs/uploads/".to_owned(), 400, "NAME_INVALID"),
        ("GET", format!("/v2/{long}/tags/list"), 414, "NAME_INVALID"),
        ("GET", "/v2/a/blobs/sha256:../../../etc/passwd".to_owned(), 404, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/sha256:..%2f..%2fetc%2fpasswd".to_owned(), 404, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/sha256:00".to_owned(), 400, "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(), 400, "DIGEST_INVALID"),
        ("GET", "/v2/a/manifests/sha256:bad".to_owned(), 400, "DIGEST_INVALID"),
        ("PUT", "/v2/a/manifests/.hidden".to_owned(), 400, "MANIFEST_INVALID"),
        ("GET", format!("/v2/a/blobs/{digest}"), 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/a/manifests/v1".to_owned(), 404, "NAME_UNKNOWN"),
        ("GET", "/v2/a/tags/list".to_owned(), 404, "NAME_UNKNOWN"),
        ("GET", format!("/v2/a/blobs/uploads/{}", "0".repeat(32)), 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", "/v2/a/blobs/uploads/..%2f..%2fx".to_owned(), 404, "UNSUPPORTED"),
        ("POST", "/v2/a/blobs/uploads/?digest=sha256:zz".to_owned(), 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5".to_owned(), 400, "DIGEST_INVALID"),
        ("POST", format!("/v2/a/blobs/uploads/?mount={digest}&from=../b"), 400, "NAME_INVALID"),
        ("POST", "/v2/a/tags/list".to_owned(), 405, "UNSUPPORTED"),
        ("PUT", "/etc/passwd".to_owned(), 404, "UNSUPPORTED"),
    ] {
        let answer = serving.send(method, &path, &[], b"").await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{method} {path}");
    }
    assert_eq!(serving.send("GET", "/v2/_catalog", &[], b"").await.body, br#"{"repositories":[]}"#);
    assert_eq!(serving.unfinished(), 0);
}

#[tokio::test]
async fn what_is_not_what_it_says_is_not_kept() {
    let serving = Serving::start().await;
    let digest = Digest::of("right");
    let path = format!("/v2/app/blobs/uploads/?digest={digest}");
    let answer = serving.send("POST", &path, &[], b"wrong").await;
    assert_eq!((answer.status, answer.code()), (400, "DIGEST_INVALID".to_owned()));
    let location = serving.begin("app").await;
    let answer = serving.send("PUT", &format!("{location}?digest={digest}"), &[], b"wrong").await;
    assert_eq!((answer.status, answer.code()), (400, "DIGEST_INVALID".to_owned()));
    let location = serving.begin("app").await;
    let answer = serving.send("PUT", &location, &[], b"right").await;
    assert_eq!((answer.status, answer.code()), (400, "DIGEST_INVALID".to_owned()));
    assert_eq!(serving.send("DELETE", &location, &[], b"").await.status, 204);
    for (name, media_type, text) in [
        (digest.to_string(), OCI_INDEX, r#"{"schemaVersion":2,"manifests":[]}"#),
        ("v1".to_owned(), OCI_INDEX, "{"),
        ("v1".to_owned(), OCI_MANIFEST, r#"{"schemaVersion":2,"manifests":[]}"#),
        ("v1".to_owned(), "text/html", r#"{"schemaVersion":2,"manifests":[]}"#),
    ] {
        let path = format!("/v2/app/manifests/{name}");
        let answer = serving.send("PUT", &path, &[("Content-Type", media_type)], text.as_bytes()).await;
        assert_eq!(answer.status, 400, "{name} {media_type} {text}");
    }
    assert_eq!(serving.unfinished(), 0);
    assert_eq!(serving.send("GET", "/v2/app/tags/list", &[], b"").await.status, 404);
}

#[tokio::test]
async fn pieces_out_of_order_are_refused_and_harmless() {
    let serving = Serving::start().await;
    let location = serving.begin("app").await;
    let answer = serving.send("PATCH", &location, &[("Content-Range", "5-9")], b"later").await;
    assert_eq!((answer.status, answer.header("range")), (416, "0-0"));
    assert_eq!(serving.send("PATCH", &location, &[("Content-Range", "0-4")], b"first").await.status, 202);
    for range in ["0-4", "4-8", "6-10"] {
        let answer = serving.send("PATCH", &location, &[("Content-Range", range)], b"again").await;
        assert_eq!((answer.status, answer.header("range")), (416, "0-4"), "{range}");
        assert_eq!(answer.header("location"), location);
    }
    for range in ["5-8", "9-5", "x", "5"] {
        let answer = serving.send("PATCH", &location, &[("Content-Range", range)], b"wrong").await;
        assert_eq!((answer.status, answer.code()), (400, "SIZE_INVALID".to_owned()), "{range}");
    }
    let digest = Digest::of("firstlast!");
    let path = format!("{location}?digest={digest}");
    assert_eq!(serving.send("PUT", &path, &[("Content-Range", "5-9")], b"last!").await.status, 201);
    assert_eq!(serving.unfinished(), 0);
}

#[tokio::test]
async fn absurd_sizes_are_refused_before_they_come() {
    let limits = Limits { max_blob_bytes: 1000, max_uploads: 2, ..Limits::default() };
    let serving = Serving::with(Plan { limits, ..Plan::default() }).await;
    let digest = Digest::of("x");
    let path = format!("/v2/app/blobs/uploads/?digest={digest}");
    let huge = [("Content-Length", "1000000000000000")];
    let answer = serving.send("POST", &path, &huge, b"x").await;
    assert_eq!((answer.status, answer.code()), (413, "SIZE_INVALID".to_owned()));
    let answer = serving.send("PUT", "/v2/app/manifests/v1", &huge, b"x").await;
    assert_eq!((answer.status, answer.code()), (413, "SIZE_INVALID".to_owned()));
    // Without a length, in pieces of HTTP, and in pieces of the API.
    let chunks = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
        "x".repeat(1001)
    );
    let answer = serving.exchange(chunks.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    let location = serving.begin("app").await;
    assert_eq!(serving.send("PATCH", &location, &[], &[0; 600]).await.status, 202);
    assert_eq!(serving.send("PATCH", &location, &[], &[0; 600]).await.status, 413);
    assert_eq!(serving.send("GET", &location, &[], b"").await.header("range"), "0-599");
    let _second = serving.begin("app").await;
    let third = serving.send("POST", "/v2/app/blobs/uploads/", &[], b"").await;
    assert_eq!((third.status, third.code()), (429, "TOOMANYREQUESTS".to_owned()));
    // A head that never ends.
    let mut head = b"GET /v2/ HTTP/1.1\r\n".to_vec();
    head.extend(format!("X: {}\r\n", "x".repeat(1000)).repeat(2000).as_bytes());
    let answer = serving.exchange(&head).await;
    assert!(answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn what_broke_off_can_be_continued_or_is_gone() {
    let serving = Serving::start().await;
    let location = serving.begin("app").await;
    // A body that is shorter than it says.
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbegin");
    let mut stream = TcpStream::connect(serving.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    // The end of the connection says that the server has seen the end of the body.
    let _ = stream.read_to_end(&mut Vec::new()).await;
    let whole = format!("/v2/app/blobs/uploads/?digest={}", Digest::of("whole"));
    let head = format!("POST {whole} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nwho");
    let mut stream = TcpStream::connect(serving.address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
    let digest = Digest::of("begin and end");
    let path = format!("{location}?digest={digest}");
    let answer = serving.send("PUT", &path, &[("Content-Range", "5-12")], b" and end").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(serving.unfinished(), 0);
}

#[tokio::test]
async fn who_sends_nothing_is_not_waited_for() {
    let limits = Limits { stall: Duration::from_millis(100), ..Limits::default() };
    let serving = Serving::with(Plan { limits, ..Plan::default() }).await;
    let path = format!("/v2/app/blobs/uploads/?digest={}", Digest::of("whole"));
    for sent in
        ["GET /v2/ HT".to_owned(), format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nwho")]
    {
        let mut stream = TcpStream::connect(serving.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        // It is the server that ends the connection.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains(" 201 "));
    }
    assert_eq!(serving.unfinished(), 0);
}

#[tokio::test]
async fn a_manifest_that_the_disk_has_damaged_is_not_served() {
    let serving = Serving::start().await;
    let text = r#"{"schemaVersion":2,"manifests":[]}"#;
    serving.send("PUT", "/v2/app/manifests/v1", &[("Content-Type", OCI_INDEX)], text.as_bytes()).await;
    let file = serving.blob_file("app", &Digest::of(text));
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, text.replace('2', "3")).unwrap();
    let directory = serving.end().await;
    // What was in memory is gone with the server.
    let serving = Serving::over(directory, Plan::default()).await;
    let answer = serving.send("GET", "/v2/app/manifests/v1", &[], b"").await;
    assert_eq!((answer.status, answer.code()), (404, "MANIFEST_UNKNOWN".to_owned()));
    let cause = serving.log.lock().unwrap()[0].cause.clone().unwrap();
    assert!(cause.contains("is damaged"), "{cause}");
}

#[tokio::test]
async fn a_web_page_changes_nothing() {
    let serving = Serving::start().await;
    let page = [("Origin", "http://evil.example")];
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let answer = serving.send(method, "/v2/app/blobs/uploads/", &page, b"").await;
        assert_eq!((answer.status, answer.code()), (403, "DENIED".to_owned()), "{method}");
    }
    assert_eq!(serving.send("GET", "/v2/", &page, b"").await.status, 200);
    assert_eq!(serving.unfinished(), 0);
}

#[tokio::test]
async fn a_body_in_tiny_pieces_arrives() {
    let serving = Serving::start().await;
    let content: String = (0..20_000).map(|number| char::from(b'a' + (number % 23) as u8)).collect();
    let path = format!("/v2/app/blobs/uploads/?digest={}", Digest::of(&content));
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in content.chars() {
        request.push_str(&format!("1\r\n{piece}\r\n"));
    }
    request.push_str("0\r\n\r\n");
    let answer = serving.exchange(request.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
}
