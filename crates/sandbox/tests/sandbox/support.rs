// SPDX-License-Identifier: Apache-2.0
//! A directory with an image, and runs in it through the probe.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use polyarch_sandbox::{ProcessSpec, RootFs};
use serde_json::{Value, json};

const BUSYBOX: &str = "/bin/busybox";

/// As whom the builder runs.
#[derive(Clone, Copy, PartialEq)]
pub enum Builder {
    Current,
    User { uid: u32, gid: u32 },
}

/// A machine directory with an image and places for runs.
pub struct World {
    directory: tempfile::TempDir,
    builder: Builder,
    /// Numbers the runs.
    runs: std::cell::Cell<u32>,
}

impl World {
    /// `None` after having said why, where this machine can't run the test.
    pub fn new() -> Option<World> {
        World::with(Builder::Current)
    }

    pub fn with(builder: Builder) -> Option<World> {
        if !Path::new(BUSYBOX).exists() {
            eprintln!("skipped: {BUSYBOX} is missing (apt-get install busybox-static)");
            return None;
        }
        let directory = tempfile::tempdir().expect("tempdir");
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
        let bin = directory.path().join("image/bin");
        std::fs::create_dir_all(&bin).expect("mkdir");
        install(Path::new(BUSYBOX), &bin.join("busybox"), 0o755);
        let applets = Command::new(BUSYBOX).arg("--list").output().expect("busybox --list").stdout;
        for applet in String::from_utf8(applets).expect("UTF-8").lines().filter(|name| *name != "busybox") {
            symlink("busybox", bin.join(applet)).expect("symlink");
        }
        // The target directory may be closed to other users.
        let probe = directory.path().join("probe");
        install(Path::new(env!("CARGO_BIN_EXE_polyarch-sandbox-probe")), &probe, 0o755);
        let world = World { directory, builder, runs: std::cell::Cell::new(0) };
        world.give(world.directory.path());
        Some(world)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a directory of the builder's.
    pub fn make(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("mkdir");
        self.give(&path);
        path
    }

    /// Makes the builder the owner of everything below.
    pub fn give(&self, path: &Path) {
        if let Builder::User { uid, gid } = self.builder {
            let owner = format!("{uid}:{gid}");
            assert!(Command::new("chown").args(["-Rh", &owner]).arg(path).status().expect("chown").success());
        }
    }

    /// A root for one run: the image, a fresh upper directory. Returns the upper directory too.
    pub fn overlay(&self) -> (RootFs, PathBuf) {
        self.overlay_of(vec![self.path("image")])
    }

    pub fn overlay_of(&self, lower: Vec<PathBuf>) -> (RootFs, PathBuf) {
        let run = self.runs.get();
        self.runs.set(run + 1);
        let upper = self.make(&format!("run{run}/upper"));
        let work = self.make(&format!("run{run}/work"));
        (RootFs::overlay(lower, upper.clone(), work), upper)
    }

    pub fn command(&self) -> Command {
        let mut command = match self.builder {
            Builder::Current => Command::new(self.path("probe")),
            Builder::User { uid, gid } => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
                command.arg(self.path("probe"));
                command
            }
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn request(&self, runs: Vec<Value>, at_once: bool) -> String {
        json!({ "scratch": self.path("scratch"), "runs": runs, "at_once": at_once }).to_string()
    }

    /// Sends a request to the probe and returns its answer.
    pub fn ask(&self, runs: Vec<Value>, at_once: bool) -> Value {
        self.ask_through(self.command(), &self.request(runs, at_once))
    }

    /// Has the probe, started by `command`, answer a request.
    pub fn ask_through(&self, mut command: Command, request: &str) -> Value {
        self.make("scratch");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut probe = command.spawn().expect("spawn");
        probe.stdin.take().expect("piped").write_all(request.as_bytes()).expect("write");
        let output = probe.wait_with_output().expect("wait");
        let errors = String::from_utf8_lossy(&output.stderr);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {:?} {errors}", String::from_utf8_lossy(&output.stdout))
        });
        assert!(answer.get("failure").is_none(), "{answer}");
        answer
    }

    pub fn run(&self, root: &RootFs, spec: &ProcessSpec) -> Outcome {
        let answer = self.ask(vec![json!({ "root": root, "spec": spec })], false);
        Outcome(answer["results"][0].clone())
    }

    /// Runs a shell script on the image.
    pub fn sh(&self, script: &str) -> Outcome {
        self.run(&self.overlay().0, &shell(script))
    }
}

/// Copies a file that is to be executed. Not in this process: a test that forks meanwhile would hold it open for
/// writing, and the kernel executes no such file.
pub fn install(from: &Path, to: &Path, mode: u32) {
    let mode = format!("--mode={mode:o}");
    assert!(Command::new("install").arg(mode).args([from, to]).status().expect("install").success());
}

pub struct Outcome(pub Value);

impl Outcome {
    #[track_caller]
    pub fn output(&self) -> &str {
        assert_eq!(self.0["code"], 0, "{}", self.0);
        self.text()
    }

    pub fn text(&self) -> &str {
        self.0["output"].as_str().expect("text")
    }

    #[track_caller]
    pub fn error(&self) -> &str {
        self.0["error"].as_str().unwrap_or_else(|| panic!("no error: {}", self.0))
    }
}

pub fn shell(script: &str) -> ProcessSpec {
    let mut spec = ProcessSpec::new(["sh", "-c", script].map(str::to_owned).to_vec());
    spec.env = vec!["PATH=/bin".to_owned()];
    spec.resolv_conf = b"nameserver 192.0.2.1\n".to_vec();
    spec.hosts = b"127.0.0.1 localhost\n".to_vec();
    spec
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Every path below, sorted, without the directory itself.
pub fn tree(directory: &Path) -> Vec<String> {
    fn walk(root: &Path, directory: &Path, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).expect("read").map(|entry| entry.expect("entry")) {
            let path = entry.path();
            names.push(path.strip_prefix(root).expect("below").to_str().expect("UTF-8").to_owned());
            if entry.file_type().expect("type").is_dir() {
                walk(root, &path, names);
            }
        }
    }
    let mut names = Vec::new();
    walk(directory, directory, &mut names);
    names.sort();
    names
}
