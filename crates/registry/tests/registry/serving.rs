// SPDX-License-Identifier: Apache-2.0
//! Our own server in this process, on loopback, over a directory that goes away with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use polyarch_oci::{Digest, Reference};
use polyarch_registry::server::{
    Access, CollectOptions, Limits, MirrorOptions, RequestRecord, Server, ServerEvent, ServerOptions,
    ServerTls, Storage, Users,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The user `ann` with the password `secret`, bcrypt.
pub const HTPASSWD: &str = "ann:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// What a server is to be like.
#[derive(Default)]
pub struct Plan {
    pub htpasswd: Option<&'static str>,
    pub anonymous_read: Vec<String>,
    pub limits: Limits,
    pub allows_missing_blobs: bool,
    pub without_page: bool,
    pub tls: Option<ServerTls>,
    pub mirrors: Option<MirrorOptions>,
    pub collect: Option<CollectOptions>,
}

pub struct Serving {
    pub address: SocketAddr,
    pub directory: tempfile::TempDir,
    pub log: Arc<Mutex<Vec<RequestRecord>>>,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

/// Opens the directory, or the place in a bucket that has its name when the tests run over one.
async fn open(directory: &tempfile::TempDir) -> Storage {
    #[cfg(feature = "s3")]
    if let Some(port) = crate::server_bucket::port() {
        return crate::server_bucket::open(port, directory.path()).await;
    }
    Storage::open(directory.path()).unwrap()
}

impl Serving {
    pub async fn start() -> Serving {
        Serving::with(Plan::default()).await
    }

    pub async fn with(plan: Plan) -> Serving {
        Serving::over(tempfile::tempdir().unwrap(), plan).await
    }

    pub async fn over(directory: tempfile::TempDir, plan: Plan) -> Serving {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        let users = plan.htpasswd.map(|text| Users::parse(text).unwrap());
        let server = Server::new(ServerOptions {
            storage: open(&directory).await,
            access: Access::new(users, plan.anonymous_read).unwrap(),
            limits: plan.limits,
            allows_missing_blobs: plan.allows_missing_blobs,
            serves_page: !plan.without_page,
            mirrors: plan.mirrors,
            collect: plan.collect,
            log: Some(Arc::new(move |event: ServerEvent<'_>| {
                if let ServerEvent::Request(record) = event {
                    sink.lock().unwrap().push(record.clone());
                }
            })),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            server.serve(listener, plan.tls, stopped).await;
        });
        Serving { address, directory, log, stop: Some(stop), task: Some(task) }
    }

    /// Ends the server and returns its directory.
    pub async fn end(mut self) -> tempfile::TempDir {
        drop(self.stop.take());
        self.task.take().unwrap().await.unwrap();
        self.directory
    }

    /// Ends the server in the middle of whatever it does.
    #[cfg(feature = "s3")]
    pub async fn kill(mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    pub fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.address).parse().unwrap()
    }

    /// Counts uploads that have not ended, and files that are being written.
    pub fn unfinished(&self) -> usize {
        #[cfg(feature = "s3")]
        if let Some(port) = crate::server_bucket::port() {
            return crate::server_bucket::keys_of(port, self.directory.path(), "uploads/").len();
        }
        let count = |name: &str| std::fs::read_dir(self.directory.path().join(name)).unwrap().count();
        count("uploads") + count("incoming")
    }

    /// Returns the file of a blob in a repository.
    pub fn blob_file(&self, repository: &str, digest: &Digest) -> std::path::PathBuf {
        let directory = self.directory.path().join("repositories").join(repository.replace('/', "+"));
        directory.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Sends one request on a connection of its own.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !headers.iter().any(|(name, _)| *name == "Content-Length") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        Answer::parse(&self.exchange(&bytes).await)
    }

    /// Sends bytes, and returns all that comes back.
    pub async fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A server that refuses early closes before it has read all.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }

    /// Pushes a blob in one request.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.send("POST", &path, &[], bytes).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        digest
    }

    /// Begins an upload; returns its address.
    pub async fn begin(&self, repository: &str) -> String {
        let answer = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"").await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.header("location").to_owned()
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        Answer { status, headers, body: bytes[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Returns the code of the answer's first error.
    pub fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let entry = &body["errors"][0];
        assert!(entry["message"].as_str().is_some_and(|text| text.len() > 10), "no sentence in {self:?}");
        entry["code"].as_str().unwrap_or_default().to_owned()
    }
}
