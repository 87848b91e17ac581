// SPDX-License-Identifier: Apache-2.0
//! Images whose documents and blobs go by SHA-512 digests (image-spec, descriptor.md, "Digests"): what was
//! asked for by such a digest is found again by it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use polyarch_oci::media_type::{Compression, Flavour, OCI_INDEX};
use polyarch_oci::{
    Algorithm, Descriptor, DiffId, Digest, Document, Hasher, ImageConfig, ImageIndex, Manifest, RootFs,
};
use polyarch_testkit::{TarBuilder, TestEnvironment};

/// What a registry answers with, by path.
type Pages = BTreeMap<String, (String, Vec<u8>)>;

fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish()
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, sha512(bytes), bytes.len() as u64)
}

/// Makes an index of one image whose every part has a SHA-512 digest; returns the index's digest.
fn pages() -> (Pages, Digest) {
    let layer = TarBuilder::new().file("hello", 0o644, "hello").finish();
    let mut config = ImageConfig::default();
    config.set_platform(&"linux/amd64".parse().unwrap());
    config.rootfs = RootFs { diff_ids: vec![DiffId(Digest::of(&layer))], ..RootFs::default() };
    let config = Document::compact(config).bytes;
    let layer_type = Compression::Uncompressed.layer_media_type(Flavour::Oci);
    let manifest = Document::indented(Manifest::new(
        Flavour::Oci,
        descriptor(Flavour::Oci.config(), &config),
        vec![descriptor(layer_type, &layer)],
    ))
    .bytes;
    let entry = descriptor(Flavour::Oci.manifest(), &manifest).with_platform("linux/amd64".parse().unwrap());
    let index = Document::indented(ImageIndex::new(Flavour::Oci, vec![entry])).bytes;
    let root = sha512(&index);
    let mut pages = Pages::new();
    let mut add = |path: String, kind: &str, bytes: &[u8]| {
        pages.insert(format!("/v2/app/{path}"), (kind.to_owned(), bytes.to_vec()));
    };
    add("manifests/v1".to_owned(), OCI_INDEX, &index);
    add(format!("manifests/{root}"), OCI_INDEX, &index);
    add(format!("manifests/{}", sha512(&manifest)), Flavour::Oci.manifest(), &manifest);
    for blob in [&config, &layer] {
        add(format!("blobs/{}", sha512(blob)), "application/octet-stream", blob);
    }
    (pages, root)
}

/// Starts a registry that has these pages and nothing else; returns its host. It ends with the process.
fn serve(pages: Pages) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
    let pages = Arc::new(pages);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let pages = pages.clone();
            std::thread::spawn(move || answer(&pages, stream.unwrap()));
        }
    });
    host
}

/// Answers one request.
fn answer(pages: &Pages, mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut request = String::new();
    // Who speaks TLS first gets no line, and then no answer.
    if reader.read_line(&mut request).is_err() || !request.contains("HTTP/1.1") {
        return;
    }
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|_| !line.trim_end().is_empty()) {
        line.clear();
    }
    let mut words = request.split(' ');
    let is_head = words.next() == Some("HEAD");
    let page = pages.get(words.next().unwrap_or_default());
    let nothing = (String::from("text/plain"), Vec::new());
    let (status, (kind, bytes)) = page.map_or(("404 Not Found", &nothing), |page| ("200 OK", page));
    let length = bytes.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    if !is_head {
        stream.write_all(bytes).unwrap();
    }
}

#[test]
fn images_by_sha512_digests_are_pulled_and_found_again() {
    let (pages, root) = pages();
    let host = serve(pages);
    for name in [format!("{host}/app@{root}"), format!("{host}/app:v1")] {
        let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
        for _ in 0..2 {
            environment.run(["pull", "--platform=linux/amd64", &name]).assert_success();
        }
        let inspected = environment.run(["imagetools", "inspect", &name]);
        assert!(inspected.assert_success().stdout.contains("linux/amd64"), "{inspected}");
        environment.run(["inspect", "--platform=linux/amd64", &name]).assert_success();
        let listed = environment.run(["images", "--format=json"]);
        assert!(listed.assert_success().stdout.contains("amd64"), "{listed}");
        environment.run(["save", "--format=oci", "-o", "saved.tar", &name]).assert_success();
        let other = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
        let saved = environment.work().join("saved.tar");
        other.run(["load", "-i", &saved.display().to_string()]).assert_success();
        let target = "oci-layout://copy:v1";
        environment.run(["imagetools", "create", "--tag", target, &name]).assert_success();
        environment.run(["imagetools", "inspect", target]).assert_success();
        environment.run(["prune", "--all", "--force"]).assert_success();
    }
}
