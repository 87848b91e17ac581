// SPDX-License-Identifier: Apache-2.0
//! Debian's docker-registry on a loopback port: a registry that nobody here wrote.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use polyarch_oci::{Digest, media_type};
use tempfile::TempDir;

use crate::image::Image;
use crate::needs::find_program;

/// A request that takes longer has hung.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A running registry; it ends and its storage goes away with this value.
///
/// Tests that use it require [`Need::Command`](crate::Need::Command)`("docker-registry")`.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    port: u16,
    log: Arc<Mutex<Vec<String>>>,
    storage: TempDir,
}

/// An answer of the registry.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The content.
    pub body: Vec<u8>,
}

impl DockerRegistry {
    /// Starts a registry on a free port and waits until it listens.
    pub fn start() -> DockerRegistry {
        DockerRegistry::start_with("")
    }

    /// Starts a registry with more sections (YAML) in its configuration, such as `auth:`.
    pub fn start_with(sections: &str) -> DockerRegistry {
        let program = find_program("docker-registry").expect("the test requires docker-registry");
        let storage =
            tempfile::Builder::new().prefix("polyarch-registry-").tempdir().expect("a directory can be made");
        let config = storage.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    \
             enabled: true\nhttp:\n  addr: 127.0.0.1:0\n{sections}\n",
            storage.path().join("data").display()
        );
        std::fs::write(&config, text).expect("a file can be written");
        let mut child = Command::new(program)
            .arg("serve")
            .arg(&config)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry can be started");
        let stderr = child.stderr.take().expect("the stream is a pipe");
        let mut lines = BufReader::new(stderr).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let port = loop {
            let Some(Ok(line)) = lines.next() else {
                let _ = child.kill();
                panic!("docker-registry did not start: {:?}", log.lock());
            };
            let port = listening_port(&line);
            log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            if let Some(port) = port {
                break port;
            }
        };
        let sink = log.clone();
        // The log must be read on, or the registry would stop at a full pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        DockerRegistry { child, port, log, storage }
    }

    /// Returns the file that a blob is kept in, for tests of registries that have lost or changed something.
    pub fn blob_file(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        let directory = self.storage.path().join("data/docker/registry/v2/blobs/sha256");
        directory.join(&hex[..2]).join(hex).join("data")
    }

    /// Returns `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the name of an image in this registry, `127.0.0.1:PORT/REPOSITORY`.
    pub fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.host())
    }

    /// Returns the lines of the registry's log so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Pushes an image with a tag; returns the digest of its index.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) -> Digest {
        for blob in &image.blobs {
            self.push_blob(repository, blob);
        }
        for manifest in &image.manifests {
            let digest = manifest.digest.to_string();
            self.put_manifest(repository, &digest, media_type::OCI_MANIFEST, &manifest.bytes);
        }
        self.put_manifest(repository, tag, media_type::OCI_INDEX, &image.index.bytes);
        image.index.digest.clone()
    }

    /// Fetches a manifest or an index; panics when there is none.
    pub fn manifest(&self, repository: &str, reference: &str) -> Answer {
        let accept = [
            media_type::OCI_INDEX,
            media_type::OCI_MANIFEST,
            media_type::DOCKER_INDEX,
            media_type::DOCKER_MANIFEST,
        ];
        let path = format!("/v2/{repository}/manifests/{reference}");
        let answer = self.request("GET", &path, &[("Accept", &accept.join(", "))], b"");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer
    }

    /// Sends a request (RFC 9112) on a connection of its own.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the registry listens");
        stream.set_read_timeout(Some(TIME_LIMIT)).expect("a time limit can be set");
        let mut head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n",
            self.host(),
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("the registry reads");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the registry answers");
        parse_answer(&bytes)
    }

    /// Pushes a blob.
    pub fn push_blob(&self, repository: &str, blob: &[u8]) {
        let start = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        let location = start.header("location").unwrap_or_else(|| panic!("no location: {start:?}"));
        let path = location.strip_prefix(&format!("http://{}", self.host())).unwrap_or(location);
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}digest={}", Digest::of(blob));
        let answer = self.request("PUT", &path, &[("Content-Type", "application/octet-stream")], blob);
        assert_eq!(answer.status, 201, "{path}: {answer:?}");
    }

    /// Pushes a manifest or an index whose parts are there, under a tag or its digest.
    pub fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let answer = self.request("PUT", &path, &[("Content-Type", media_type)], bytes);
        assert_eq!(answer.status, 201, "{path}: {answer:?}");
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing of it is left.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Answer {
    /// Returns a header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Finds the port in the registry's word that it listens.
fn listening_port(line: &str) -> Option<u16> {
    let (_, address) = line.split_once("listening on ")?;
    let end = address.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ':')).unwrap_or(address.len());
    address[..end].rsplit_once(':')?.1.parse().ok()
}

fn parse_answer(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("the answer has headers");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Answer {
        status: status.unwrap_or_else(|| panic!("not an answer: {head}")),
        headers,
        body: bytes[end + 4..].to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{PlatformImage, hello_rootfs};
    use crate::needs::{Need, requires};

    fn image() -> Image {
        let platform = |name: &str, architecture: &str| {
            PlatformImage::new(
                name,
                hello_rootfs(architecture, &format!("{architecture}\n")),
                &["/bin/hello"],
            )
        };
        Image::new(vec![platform("linux/amd64", "amd64"), platform("linux/arm64", "arm64")])
    }

    #[test]
    fn docker_registry_takes_images_made_by_code() {
        if requires(&[Need::Command("docker-registry")]).is_some() {
            return;
        }
        let registry = DockerRegistry::start();
        let digest = registry.push("a/b", "latest", &image());
        let answer = registry.manifest("a/b", "latest");
        assert_eq!(Digest::of(&answer.body), digest);
        assert_eq!(answer.header("docker-content-digest"), Some(&*digest.to_string()));
        assert_eq!(registry.request("GET", "/v2/a/b/manifests/none", &[], b"").status, 404);
    }

    #[test]
    fn skopeo_reads_layouts_made_by_code() {
        if requires(&[Need::Command("skopeo")]).is_some() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        image().write_layout(directory.path(), "v1");
        let output = Command::new("skopeo")
            .args(["inspect", "--override-arch=arm64", "--config"])
            .arg(format!("oci:{}:v1", directory.path().display()))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("\"architecture\": \"arm64\""), "{output:?}");
    }
}
