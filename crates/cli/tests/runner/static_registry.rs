// SPDX-License-Identifier: Apache-2.0
//! A registry that has a few pages and nothing else: for documents that no real registry takes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use polyarch_oci::Digest;

/// What it answers with, by path: media type and content.
#[derive(Default)]
pub struct Pages(BTreeMap<String, (String, Vec<u8>)>);

impl Pages {
    /// Adds a manifest or index of the repository `app`, under a tag or a digest.
    pub fn manifest(&mut self, name: impl std::fmt::Display, media_type: &str, bytes: &[u8]) {
        self.0.insert(format!("/v2/app/manifests/{name}"), (media_type.to_owned(), bytes.to_vec()));
    }

    /// Adds a blob of the repository `app`.
    pub fn blob(&mut self, digest: &Digest, bytes: &[u8]) {
        let kind = "application/octet-stream".to_owned();
        self.0.insert(format!("/v2/app/blobs/{digest}"), (kind, bytes.to_vec()));
    }

    /// Starts the registry, which ends with the process.
    pub fn serve(self) -> StaticRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let host = format!("127.0.0.1:{}", listener.local_addr().expect("a listener has an address").port());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (pages, seen) = (Arc::new(self), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (pages, seen) = (pages.clone(), seen.clone());
                std::thread::spawn(move || pages.answer(stream.expect("connections are accepted"), &seen));
            }
        });
        StaticRegistry { host, requests }
    }

    /// Answers one request.
    fn answer(&self, mut stream: TcpStream, seen: &Mutex<Vec<String>>) {
        let mut reader = BufReader::new(stream.try_clone().expect("a stream can be read and written"));
        let mut request = String::new();
        // Who speaks TLS first gets no line, and then no answer.
        if reader.read_line(&mut request).is_err() || !request.contains("HTTP/1.1") {
            return;
        }
        seen.lock().expect("no answer panics").push(request.clone());
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|_| !line.trim_end().is_empty()) {
            line.clear();
        }
        let mut words = request.split(' ');
        let is_head = words.next() == Some("HEAD");
        let page = self.0.get(words.next().unwrap_or_default());
        let nothing = (String::from("text/plain"), Vec::new());
        let (status, (kind, bytes)) = page.map_or(("404 Not Found", &nothing), |page| ("200 OK", page));
        let length = bytes.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        let body = if is_head { &[] } else { &bytes[..] };
        // Who hangs up early does not want the rest.
        let _ = stream.write_all(&[head.as_bytes(), body].concat());
    }
}

/// A running registry.
pub struct StaticRegistry {
    /// Its host and port.
    pub host: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl StaticRegistry {
    /// Returns how many requests had `part` in their first line.
    pub fn count(&self, part: &str) -> usize {
        self.requests.lock().expect("no answer panics").iter().filter(|line| line.contains(part)).count()
    }
}
