// SPDX-License-Identifier: Apache-2.0
//! An unmodified buildkitd with a state of its own.
//!
//! No distribution has that program, so tests that need it run only where `POLYARCH_TEST_BUILDKITD` names it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Returns a program that a variable names, or says that the test does not run.
#[must_use]
#[expect(clippy::print_stderr, reason = "the line is what tells that the test did not run")]
pub fn program_of(variable: &str) -> Option<PathBuf> {
    let program = std::env::var_os(variable).map(PathBuf::from);
    if program.is_none() {
        eprintln!("not run: {variable} names no program");
    }
    program
}

/// A running daemon; it ends with the value.
#[derive(Debug)]
pub struct Buildkitd {
    child: Child,
    directory: tempfile::TempDir,
    address: String,
}

impl Buildkitd {
    /// Starts a daemon on a socket of its own, and waits until it listens; `None`, after saying so, where
    /// `POLYARCH_TEST_BUILDKITD` names no program.
    pub fn start() -> Option<Buildkitd> {
        Buildkitd::start_with(|directory| {
            vec!["--addr".to_owned(), format!("unix://{}", directory.join("buildkitd.sock").display())]
        })
    }

    /// Starts a daemon with more arguments, made for its directory.
    pub fn start_with(arguments: impl FnOnce(&Path) -> Vec<String>) -> Option<Buildkitd> {
        let program = program_of("POLYARCH_TEST_BUILDKITD")?;
        Some(Buildkitd::run(&program, arguments))
    }

    /// Starts this program in the place of a daemon, under whose name it is called.
    pub fn of(program: &Path) -> Buildkitd {
        let place = tempfile::tempdir().expect("the temporary directory can be written");
        let link = place.path().join("buildkitd");
        std::os::unix::fs::symlink(program, &link).expect("the directory is our own");
        Buildkitd::run(&link, |directory| {
            vec!["--addr".to_owned(), format!("unix://{}", directory.join("buildkitd.sock").display())]
        })
    }

    fn run(program: &Path, arguments: impl FnOnce(&Path) -> Vec<String>) -> Buildkitd {
        let directory = tempfile::tempdir().expect("the temporary directory can be written");
        let config = directory.path().join("buildkitd.toml");
        std::fs::write(&config, "").expect("the directory is our own");
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
            .expect("the program can be started");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut said = String::new();
        let address = loop {
            if let Some(address) = listening_address(&said) {
                break address;
            }
            let is_alive = log.read_line(&mut said).is_ok_and(|count| count > 0);
            assert!(is_alive, "buildkitd did not start:\n{said}");
        };
        // A full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Buildkitd { child, directory, address }
    }

    /// Returns its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("buildkitd.sock")
    }

    /// Returns where it listens, in its own words: for a TCP port that it chose, `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends it at once, as a power loss would.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process is our own");
        self.child.wait().expect("the process is our own");
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

/// Finds where a daemon listens in what it has said so far, once the whole line is there.
fn listening_address(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("running server on ")?;
    let (line, _) = rest.split_once('\n')?;
    let end = line.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(line.len());
    Some(line[..end].to_owned())
}
