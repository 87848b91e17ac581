// SPDX-License-Identifier: Apache-2.0
//! moto's server on a loopback port: an object store with S3's API that nobody here wrote, and that a package registry has.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::needs::find_program;

/// A request that takes longer has hung.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Serves one request at a time: what moto checks before it writes is then still so when it writes, as it is with S3.
const PROGRAM: &str = r#"
import sys, threading, os
from werkzeug.serving import make_server
from moto.server import DomainDispatcherApplication, create_backend_app
server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=False)
# Ends with whoever started it.
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// A running object store; it ends with this value.
///
/// Tests that use it require [`Need::Command`](crate::Need::Command)`("moto_server")`.
#[derive(Debug)]
pub struct S3Server {
    child: Child,
    port: u16,
}

impl S3Server {
    /// Starts a store on a free port, with a bucket, and waits until it listens.
    pub fn start(bucket: &str) -> S3Server {
        let program = find_program("moto_server").expect("the test requires moto_server");
        let mut child = Command::new(program.with_file_name("python3"))
            .args(["-c", PROGRAM])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto's Python can be started");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("the stream is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a pipe can be read");
        let Ok(port) = line.trim().parse() else {
            let _ = child.kill();
            panic!("moto's server did not start: {line:?}");
        };
        let server = S3Server { child, port };
        assert!(server.request("PUT", &format!("/{bucket}")).starts_with("HTTP/1.0 200"), "no bucket");
        server
    }

    /// Returns its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Lists the keys of a bucket that begin with a prefix.
    pub fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        keys(self.port, bucket, prefix)
    }

    fn request(&self, method: &str, path: &str) -> String {
        request(self.port, method, path)
    }
}

/// Lists the keys of a bucket of the store on a port of this machine, of which there are no more than a thousand.
pub fn keys(port: u16, bucket: &str, prefix: &str) -> Vec<String> {
    let answer = request(port, "GET", &format!("/{bucket}?list-type=2&prefix={prefix}"));
    let parts = answer.split("<Key>").skip(1);
    parts.filter_map(|part| Some(part.split_once("</Key>")?.0.to_owned())).collect()
}

/// Sends a request (RFC 9112) on a connection of its own, without credentials, which moto does not look at.
fn request(port: u16, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the store listens");
    stream.set_read_timeout(Some(TIME_LIMIT)).expect("a time limit can be set");
    let head = format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("the store reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the store answers");
    String::from_utf8_lossy(&answer).into_owned()
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing of it is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
