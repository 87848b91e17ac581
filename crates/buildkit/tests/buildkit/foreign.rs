// SPDX-License-Identifier: Apache-2.0
//! An unmodified buildkitd with a state of its own, and what its tests share.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polyarch_buildkit::client::{ConnectOptions, Endpoint, Node};
use polyarch_solver::progress::{Event, Progress};

/// Returns a program that a variable names, or says that the test does not run.
pub(crate) fn program_of(variable: &str) -> Option<PathBuf> {
    let program = std::env::var_os(variable).map(PathBuf::from);
    if program.is_none() {
        eprintln!("not run: {variable} names no program");
    }
    program
}

/// A running daemon; it ends with the value.
pub(crate) struct Buildkitd {
    child: Child,
    directory: tempfile::TempDir,
}

impl Buildkitd {
    /// Starts a daemon on a socket of its own, and waits until it listens.
    pub(crate) fn start() -> Option<Buildkitd> {
        Buildkitd::start_with(|directory| {
            vec!["--addr".to_owned(), format!("unix://{}", directory.join("buildkitd.sock").display())]
        })
    }

    /// Starts a daemon with more arguments, made for its directory.
    pub(crate) fn start_with(arguments: impl FnOnce(&Path) -> Vec<String>) -> Option<Buildkitd> {
        let program = program_of("POLYARCH_TEST_BUILDKITD")?;
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("buildkitd.toml");
        std::fs::write(&config, "").unwrap();
        let mut child = Command::new(program)
            .args(["--oci-worker=true", "--containerd-worker=false", "--oci-worker-gc=false"])
            .args(["--oci-worker-net=host", "--config"])
            .arg(&config)
            .arg("--root")
            .arg(directory.path().join("root"))
            .args(arguments(directory.path()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("running server on") {
            let is_alive = log.read_line(&mut said).unwrap() > 0;
            assert!(is_alive, "buildkitd did not start:\n{said}");
        }
        // A full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Some(Buildkitd { child, directory })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("buildkitd.sock")
    }

    pub(crate) async fn connect(&self) -> Node {
        Node::connect(&Endpoint::Unix(self.socket()), &options()).await.unwrap().0
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Buildkitd {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        // One that was killed already has no process any more.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

pub(crate) fn options() -> ConnectOptions {
    ConnectOptions { timeout: Duration::from_secs(10), ..ConnectOptions::default() }
}

/// Keeps all events.
pub(crate) fn recorder() -> (Progress, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = events.clone();
    (Progress::new(move |event| sink.lock().unwrap().push(event)), events)
}
