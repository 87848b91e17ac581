// SPDX-License-Identifier: Apache-2.0
//! A web server of one directory, as repositories and files for ADD lie on one.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use polyarch_oci::Digest;

/// When every file changed, but for those below `undated`, of which nothing is told.
pub const LAST_MODIFIED: &str = "Wed, 21 Oct 2015 07:28:00 GMT";

/// A running server.
pub struct WebServer {
    /// Its URL, without a slash at the end.
    pub url: String,
    answers: Arc<Mutex<Vec<String>>>,
}

impl WebServer {
    /// Serves what is beneath a directory; `/moved/X` leads to `/X`. It ends with the process.
    pub fn start(directory: &Path) -> WebServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let answers = Arc::new(Mutex::new(Vec::new()));
        let (directory, seen) = (directory.to_owned(), answers.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (directory, seen) = (directory.clone(), seen.clone());
                std::thread::spawn(move || {
                    answer(stream.expect("connections are accepted"), &directory, &seen)
                });
            }
        });
        WebServer { url: format!("http://127.0.0.1:{port}"), answers }
    }

    /// Returns how many answers had this status and a method and path that end so.
    pub fn count(&self, status: u16, path: &str) -> usize {
        let wanted = format!("{status} ");
        let answers = self.answers.lock().expect("no answer panics");
        answers.iter().filter(|it| it.starts_with(&wanted) && it.ends_with(path)).count()
    }
}

fn answer(mut stream: TcpStream, directory: &Path, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a stream can be read and written"));
    let mut request = String::new();
    if reader.read_line(&mut request).is_err() {
        return;
    }
    let mut known = String::new();
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|_| !line.trim_end().is_empty()) {
        if let Some((name, value)) = line.trim_end().split_once(": ")
            && name.eq_ignore_ascii_case("if-none-match")
        {
            known = value.to_owned();
        }
        line.clear();
    }
    let is_head = request.starts_with("HEAD ");
    let target = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let file: PathBuf = directory.join(path.trim_start_matches('/'));
    let (status, headers, body) = if let Some(elsewhere) = path.strip_prefix("/moved") {
        ("302 Found", format!("Location: {elsewhere}\r\n"), Vec::new())
    } else {
        match std::fs::read(&file) {
            Ok(bytes) => {
                let etag = format!("\"{}\"", Digest::of(&bytes));
                let dated = if path.starts_with("/undated/") { "X-Last-Modified" } else { "Last-Modified" };
                let headers = format!("ETag: {etag}\r\n{dated}: {LAST_MODIFIED}\r\n");
                if known == etag {
                    ("304 Not Modified", headers, Vec::new())
                } else {
                    ("200 OK", headers, bytes)
                }
            }
            Err(_) => ("404 Not Found", String::new(), Vec::new()),
        }
    };
    let method = if is_head { "HEAD" } else { "GET" };
    seen.lock().expect("no answer panics").push(format!("{} {method} {path}", &status[..3]));
    let head =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let body = if is_head { Vec::new() } else { body };
    // Who hangs up early does not want the rest.
    let _ = stream.write_all(&[head.as_bytes(), &body].concat());
}
