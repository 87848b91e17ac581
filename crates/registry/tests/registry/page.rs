// SPDX-License-Identifier: Apache-2.0
//! The page for browsers, over the real server, of images that our client pushed.

use bytes::Bytes;
use polyarch_oci::media_type::{Flavour, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST};
use polyarch_oci::{Descriptor, Digest, Document, ImageIndex, Manifest, Platform};
use polyarch_registry::Progress;

use crate::fake::client;
use crate::serving::{Answer, HTPASSWD, Plan, Serving};

/// Pushes a blob with our client.
async fn push(serving: &Serving, name: &str, media_type: &str, bytes: &[u8]) -> Descriptor {
    let blob = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
    let content = Bytes::copy_from_slice(bytes);
    client()
        .push_blob(&serving.reference(name), &blob, &content, &[], &Progress::none())
        .await
        .expect("a blob");
    blob
}

async fn put(serving: &Serving, name: &str, media_type: &str, bytes: Vec<u8>) -> Descriptor {
    let size = bytes.len() as u64;
    let digest = client().put_manifest(&serving.reference(name), bytes.into(), media_type).await;
    Descriptor::new(media_type, digest.expect("a manifest"), size)
}

/// Pushes an image of two layers, of which one is everybody's; returns the index's entry.
async fn push_image(serving: &Serving, repository: &str, platform: &str, instruction: &str) -> Descriptor {
    let platform: Platform = platform.parse().expect("a platform");
    let config = serde_json::json!({
        "os": platform.os, "architecture": platform.architecture, "variant": platform.variant,
        "created": "2026-11-22T10:11:12Z",
        "config": {"Cmd": ["sh"], "Env": [format!("ARCH={}", platform.architecture)]},
        "history": [
            {"created_by": "COPY base / # buildkit"},
            {"created_by": format!("RUN /bin/sh -c {instruction} # buildkit")},
            {"created_by": "CMD [\"sh\"]", "empty_layer": true},
        ],
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    let name = format!("{repository}:unused");
    let config = push(serving, &name, OCI_CONFIG, config.to_string().as_bytes()).await;
    let base = push(serving, &name, OCI_LAYER, b"shared base").await;
    let own = push(serving, &name, OCI_LAYER, format!("{platform} {instruction}").as_bytes()).await;
    let manifest = Document::indented(Manifest::new(Flavour::Oci, config, vec![base, own]));
    let digest = manifest.digest.clone();
    put(serving, &format!("{repository}@{digest}"), OCI_MANIFEST, manifest.bytes)
        .await
        .with_platform(platform)
}

/// Pushes an index of two platforms with an attestation of the first; returns its digest and its entries.
async fn push_index(serving: &Serving, repository: &str, tag: &str) -> (Digest, Vec<Descriptor>) {
    let first = push_image(serving, repository, "linux/amd64", "make").await;
    let second = push_image(serving, repository, "linux/arm64", "make").await;
    let name = format!("{repository}:unused");
    let config = push(serving, &name, OCI_CONFIG, b"{}").await;
    let mut statement = push(serving, &name, "application/vnd.in-toto+json", b"{\"a\":1}").await;
    statement
        .annotations
        .insert("in-toto.io/predicate-type".to_owned(), "https://slsa.dev/provenance/v1".to_owned());
    let manifest = Document::indented(Manifest::new(Flavour::Oci, config, vec![statement]));
    let name = format!("{repository}@{}", manifest.digest);
    let mut attestation = put(serving, &name, OCI_MANIFEST, manifest.bytes).await;
    attestation.platform = Some(Platform::new("unknown", "unknown", ""));
    for (key, value) in [
        ("vnd.docker.reference.type", "attestation-manifest".to_owned()),
        ("vnd.docker.reference.digest", first.digest.to_string()),
    ] {
        attestation.annotations.insert(key.to_owned(), value);
    }
    let entries = vec![first, second, attestation];
    let mut index = ImageIndex::new(Flavour::Oci, entries.clone());
    index.annotations.insert("org.example.note".to_owned(), "<script>alert(1)</script>".to_owned());
    index.annotations.insert("org.example.source".to_owned(), "https://source.example/app".to_owned());
    index.annotations.insert("org.example.trap".to_owned(), "javascript:alert(1)".to_owned());
    let index = Document::indented(index);
    put(serving, &format!("{repository}:{tag}"), OCI_INDEX, index.bytes).await;
    (index.digest, entries)
}

async fn get(serving: &Serving, path: &str) -> (Answer, String) {
    get_with(serving, path, &[]).await
}

async fn get_with(serving: &Serving, path: &str, headers: &[(&str, &str)]) -> (Answer, String) {
    let answer = serving.send("GET", path, headers, b"").await;
    let text = String::from_utf8(answer.body.clone()).expect("text");
    (answer, text)
}

#[tokio::test]
async fn a_tag_shows_the_index_and_every_platform() {
    let serving = Serving::start().await;
    let (index, entries) = push_index(&serving, "team/app", "v1").await;
    let (answer, page) = get(&serving, "/team/app:v1").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    for digest in [&index, &entries[0].digest, &entries[1].digest] {
        assert!(page.contains(&digest.to_string()), "{digest} in {page}");
    }
    assert!(page.contains("linux/amd64") && page.contains("linux/arm64"));
    assert!(!page.contains("unknown/unknown") && page.contains("Provenance"), "folded in: {page}");
    assert!(page.contains("<b>RUN</b>") && page.contains("make") && !page.contains("buildkit"));
    assert!(page.contains("verdict good"), "{page}");
    let command = format!("polyarch pull --platform linux/amd64 {}/team/app:v1", serving.address);
    assert!(page.contains(&command), "{page}");
    let (_, other) = get(&serving, "/team/app:v1?platform=linux/arm64").await;
    assert!(other.contains(&command.replace("amd64", "arm64")) && other.contains("ENV ARCH"));
    // Everything of one tag in a few kilobytes.
    assert!(page.len() < 24 << 10, "{}", page.len());
}

#[tokio::test]
async fn what_was_pushed_is_text_and_never_markup() {
    let serving = Serving::start().await;
    push_image(&serving, "app", "linux/amd64", "echo '<img src=x onerror=alert(1)>'").await;
    let (_, entries) = push_index(&serving, "app", "v1").await;
    let (_, page) = get(&serving, "/app:v1").await;
    assert!(!page.contains("<script>alert") && page.contains("alert(1)"));
    assert!(
        page.contains("href=\"https://source.example/app\" rel=\"noopener noreferrer nofollow"),
        "{page}"
    );
    assert!(!page.contains("href=\"javascript:") && page.contains("javascript:alert(1)"));
    // What the browser calls this server goes into commands, when it is a name.
    let head = "GET /app:v1 HTTP/1.1\r\nHost: a\"b;id\r\nConnection: close\r\n\r\n";
    let answer = String::from_utf8_lossy(&serving.exchange(head.as_bytes()).await).into_owned();
    assert!(!answer.contains("b;id"), "{answer}");
    // A search is written back into its field.
    let (_, page) = get(&serving, "/?q=%22%3E%3Cscript%3Ealert(2)%3C/script%3E").await;
    assert!(!page.contains("<script>alert") && page.contains("alert(2)"));
    let trap = entries[0].digest.to_string();
    let (_, page) = get(&serving, &format!("/app?a=v1/%3Cscript%3E&b={trap}")).await;
    assert!(!page.contains("<script>"), "{page}");
}

#[tokio::test]
async fn the_browser_may_load_nothing_but_the_pages_own_files() {
    let serving = Serving::start().await;
    for path in ["/", "/nothing", "/nothing:here", "/etc/passwd", "/../etc/passwd", "/%2e%2e/x"] {
        let (answer, page) = get(&serving, path).await;
        let policy = answer.header("content-security-policy");
        for part in ["default-src 'none'", "style-src 'self'", "script-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"));
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert!(
            !page.contains(" style=") && !page.contains("onclick") && !page.contains("http://"),
            "{page}"
        );
    }
}

#[tokio::test]
async fn the_language_is_the_browsers_or_the_chosen_one() {
    let serving = Serving::start().await;
    push_index(&serving, "app", "v1").await;
    let (_, page) = get_with(&serving, "/app:v1", &[("Accept-Language", "zh-CN,zh;q=0.9,en;q=0.8")]).await;
    assert!(
        page.contains("<html lang=\"zh\"") && page.contains("索引摘要") && page.contains("完整"),
        "{page}"
    );
    let (_, page) = get_with(&serving, "/app:v1?lang=en", &[("Accept-Language", "zh-CN")]).await;
    assert!(page.contains("<html lang=\"en\"") && page.contains("Index digest"));
    // The choice goes along.
    assert!(page.contains("href=\"/app?lang=en\""), "{page}");
    let (answer, page) = get_with(&serving, "/no:such", &[("Accept-Language", "zh")]).await;
    assert!(answer.status == 404 && page.contains("未找到"), "{page}");
}

#[tokio::test]
async fn only_what_the_reader_may_read_is_shown() {
    let plan =
        Plan { htpasswd: Some(HTPASSWD), anonymous_read: vec!["public".to_owned()], ..Plan::default() };
    let directory = {
        let open = Serving::start().await;
        push_index(&open, "public/app", "v1").await;
        push_index(&open, "secret/app", "v1").await;
        open.end().await
    };
    let serving = Serving::over(directory, plan).await;
    // ann:secret
    let ann = [("Authorization", "Basic YW5uOnNlY3JldA==")];
    let (answer, page) = get(&serving, "/").await;
    assert!(answer.status == 200 && page.contains("/public/app") && !page.contains("secret"), "{page}");
    let (_, page) = get(&serving, "/?q=v1").await;
    assert!(page.contains("/public/app:v1") && !page.contains("secret"), "{page}");
    for path in ["/secret/app", "/secret/app:v1", "/secret/none", "/?sign-in=1"] {
        let (answer, page) = get(&serving, path).await;
        assert!(answer.status == 401 && page.contains("<html"), "{path}: {page}");
        assert!(answer.header("www-authenticate").starts_with("Basic "), "{path}");
    }
    let (answer, page) = get_with(&serving, "/", &ann).await;
    assert!(answer.status == 200 && page.contains("/secret/app") && page.contains(">ann<"), "{page}");
    assert_eq!(get(&serving, "/public/app:v1").await.0.status, 200);
}

#[tokio::test]
async fn a_tag_says_what_is_not_here() {
    let serving = Serving::start().await;
    let (_, entries) = push_index(&serving, "app", "v1").await;
    // A config that says another platform than the index.
    let mut wrong = entries[1].clone();
    wrong.platform = Some("linux/s390x".parse().expect("a platform"));
    let index = Document::indented(ImageIndex::new(Flavour::Oci, vec![entries[0].clone(), wrong]));
    put(&serving, "app:wrong", OCI_INDEX, index.bytes).await;
    let (_, page) = get(&serving, "/app:wrong").await;
    assert!(page.contains("verdict bad") && page.contains("Wrong platform"), "{page}");
    // A layer that is gone from the disk.
    std::fs::remove_file(serving.blob_file("app", &Digest::of("linux/arm64 make"))).expect("the layer");
    let (_, page) = get(&serving, "/app:v1?platform=linux/arm64").await;
    assert!(page.contains("Incomplete") && page.contains("Not here"), "{page}");
    // A sparse index: one platform isn't here.
    let mut absent = entries[0].clone();
    absent.digest = Digest::of("elsewhere");
    absent.platform = Some("linux/riscv64".parse().expect("a platform"));
    let index = Document::indented(ImageIndex::new(Flavour::Oci, vec![entries[0].clone(), absent]));
    put(&serving, "app:sparse", OCI_INDEX, index.bytes).await;
    let (_, page) = get(&serving, "/app:sparse").await;
    assert!(page.contains("verdict warn") && page.contains("1 of 2 platforms"), "{page}");
    // A manifest that is damaged on the disk.
    let file = serving.blob_file("app", &entries[0].digest);
    std::fs::remove_file(&file).expect("the manifest");
    std::fs::write(&file, b"{}").expect("another one");
    let serving = Serving::over(serving.end().await, Plan::default()).await;
    let (answer, page) = get(&serving, "/app:sparse").await;
    assert!(answer.status == 200 && page.contains("Damaged"), "{page}");
}

#[tokio::test]
async fn two_platforms_and_two_tags_are_compared() {
    let serving = Serving::start().await;
    let (_, entries) = push_index(&serving, "app", "v1").await;
    let (_, page) = get(&serving, "/app?a=v1/linux/amd64&b=v1/linux/arm64").await;
    assert!(page.contains("ENV ARCH") && page.contains("architecture"), "{page}");
    assert!(
        page.contains("1 shared (11 B); 1 only in the first (16 B), 1 only in the second (16 B)"),
        "{page}"
    );
    let changed = push_image(&serving, "app", "linux/arm64", "make more").await;
    let index = Document::indented(ImageIndex::new(Flavour::Oci, vec![entries[0].clone(), changed.clone()]));
    put(&serving, "app:v2", OCI_INDEX, index.bytes).await;
    let (_, page) = get(&serving, "/app?a=v1&b=v2").await;
    assert!(page.contains("Identical") && page.contains("Different"), "{page}");
    // The platform in which they differ is the one that is shown.
    assert!(page.contains(&changed.digest.to_string()) && page.contains("make more"), "{page}");
    assert_eq!(get(&serving, "/app?a=v1&b=none").await.0.status, 404);
}

#[tokio::test]
async fn tags_are_a_matrix_and_are_found_by_search() {
    let serving = Serving::start().await;
    let (index, entries) = push_index(&serving, "library/app", "v1").await;
    let (_, page) = get(&serving, "/library/app").await;
    for digest in [&index, &entries[0].digest, &entries[1].digest] {
        assert!(page.contains(&digest.to_string()), "{page}");
    }
    assert!(page.contains("</span>amd64</th>") && page.contains("</span>arm64</th>"), "{page}");
    for (search, found) in
        [("app", "/library/app\""), ("app:v1", "/library/app:v1\""), ("v1", "/library/app:v1\"")]
    {
        let (_, page) = get(&serving, &format!("/?q={search}")).await;
        assert!(page.contains(&format!("href=\"{found}")), "{search}: {page}");
    }
    let (_, page) = get(&serving, "/?q=nothing").await;
    assert!(page.contains("No repository and no tag"), "{page}");
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let serving = Serving::start().await;
    let (_, entries) = push_index(&serving, "app", "v1").await;
    let index = Document::indented(ImageIndex::new(Flavour::Oci, entries));
    let path = format!(
        "/v2/app/manifests/{}?{}",
        index.digest,
        (0..60).map(|n| format!("tag=t{n}&")).collect::<String>()
    );
    let answer = serving.send("PUT", &path, &[("Content-Type", OCI_INDEX)], &index.bytes).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let (_, page) = get(&serving, "/app").await;
    assert!(page.contains("1–50 of 61") && page.contains("href=\"/app?page=2\""), "{page}");
    assert!(page.contains(">t59<") && !page.contains(">t3<"), "the newest first: {page}");
    let (_, page) = get(&serving, "/app?page=2").await;
    assert!(page.contains("51–61 of 61") && page.contains(">t3<"), "{page}");
    let (answer, page) = get(&serving, "/app?page=18446744073709551615&q=t5").await;
    assert!(answer.status == 200 && page.contains("of 11"), "{page}");
}

#[tokio::test]
async fn an_unchanged_page_is_not_sent_again() {
    let serving = Serving::start().await;
    push_index(&serving, "app", "v1").await;
    let (page, _) = get(&serving, "/app:v1").await;
    let known = page.header("etag").to_owned();
    assert!(page.header("cache-control").contains("no-cache"));
    let weak = format!("\"other\", W/{known}");
    for known in [known.as_str(), weak.as_str()] {
        let (again, text) = get_with(&serving, "/app:v1", &[("If-None-Match", known)]).await;
        assert!(again.status == 304 && text.is_empty(), "{again:?}");
    }
    let head = serving.send("HEAD", "/app:v1", &[], b"").await;
    assert!(head.status == 200 && head.body.is_empty());
    assert_eq!(head.header("content-length"), page.header("content-length"));
    let style = page.body.split(|byte| *byte == b'"').find(|part| part.ends_with(b".css")).expect("a style");
    let style = String::from_utf8(style.to_vec()).expect("text");
    let (answer, text) = get(&serving, &style).await;
    assert!(answer.status == 200 && text.contains(":root"), "{style}");
    assert!(answer.header("cache-control").contains("immutable"));
    assert_eq!(get(&serving, "/-/assets/page.000000000000.css").await.0.status, 404);
}

#[tokio::test]
async fn the_api_is_as_it_was() {
    let serving = Serving::start().await;
    push_index(&serving, "app", "v1").await;
    for (path, media_type) in [("/v2/", "application/json"), ("/v2/_catalog", "application/json")] {
        assert_eq!(get(&serving, path).await.0.header("content-type"), media_type);
    }
    assert_eq!(get(&serving, "/healthz").await.1, "ok\n");
    assert_eq!(serving.send("POST", "/", &[], b"").await.status, 404);
    // Repositories whose names mean something else have an address as well.
    push_index(&serving, "v2/app", "v1").await;
    push_index(&serving, "metrics", "v1").await;
    let (_, page) = get(&serving, "/").await;
    assert!(
        page.contains("href=\"/-/repository/v2/app\"") && page.contains("href=\"/-/repository/metrics\""),
        "{page}"
    );
    assert_eq!(get(&serving, "/-/repository/v2/app:v1").await.0.status, 200);
    let without = Serving::with(Plan { without_page: true, ..Plan::default() }).await;
    let answer = without.send("GET", "/", &[], b"").await;
    assert_eq!((answer.status, answer.header("content-type")), (404, "application/json"));
}
