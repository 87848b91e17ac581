// SPDX-License-Identifier: Apache-2.0
//! `polyarch node serve`: this program as a node of itself, and under BuildKit's names. Foreign clients are in
//! `tests-e2e/foreign_clients.sh`.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};

use polyarch_testkit::{Need, TestEnvironment, busybox_rootfs, requires};

/// A node with a store of its own; it ends with the value.
struct Node {
    environment: TestEnvironment,
    child: Child,
}

impl Node {
    fn start() -> Node {
        let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
        let socket = environment.work().join("node.sock");
        let address = format!("unix://{}", socket.display());
        let mut command = environment.command(["node", "serve", "--listen", &address]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is there");
        let mut node = Node { environment, child };
        let mut log = BufReader::new(node.child.stderr.take().expect("it is piped"));
        let mut said = String::new();
        while !said.contains("running server on") {
            assert!(
                log.read_line(&mut said).expect("the pipe is ours") > 0,
                "the node did not start:\n{said}"
            );
        }
        // A full pipe would stop it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        node
    }

    fn socket(&self) -> PathBuf {
        self.environment.work().join("node.sock")
    }

    fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn terminate(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the process is ours");
        self.child.wait().expect("the process is ours")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate();
        }
    }
}

const DOCKERFILE: &str = "FROM scratch AS base\nADD rootfs.tar /\nFROM base AS make\nCOPY word /word\n\
    RUN cat /word > /made && test ! -e /left-out\nFROM scratch\nCOPY --from=make /made /\nENV made=there\n";

/// A client with a context.
fn client() -> TestEnvironment {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("rootfs.tar", busybox_rootfs());
    environment.write("word", "over the wire\n");
    environment.write("left-out", "x");
    environment.write(".dockerignore", "left-out\n");
    environment.write("Dockerfile", DOCKERFILE);
    environment
}

#[test]
fn our_client_builds_on_our_node() {
    if requires(&[Need::UserNamespaces]).is_some() {
        return;
    }
    let mut node = Node::start();
    let client = client();
    let create = ["buildx", "create", "--name", "far", "--driver", "remote", "--bootstrap", &node.address()];
    client.run(create).assert_success();
    let build = ["build", "--builder", "far", "--progress", "plain", "-t", "example.com/app:1"];
    let built = client.run(build.iter().chain(&["-o", "type=image", "-o", "type=local,dest=out", "."]));
    built.assert_success().assert_stderr("RUN cat /word");
    let made = std::fs::read_to_string(client.work().join("out/made")).unwrap();
    assert_eq!(made, "over the wire\n");
    assert!(client.run(["images"]).stdout.contains("example.com/app"));
    assert!(
        !node.environment.run(["images"]).stdout.contains("example.com/app"),
        "names stay with the client"
    );

    client.write("Dockerfile", DOCKERFILE.replace("cat /word", "exit 3; cat /word"));
    let failed = client.run(build.iter().chain(&["."]));
    failed.assert_code(1).assert_stderr("exit code: 3").assert_stderr("Dockerfile:5");

    // By this a cluster finds out that a pod is ready.
    let buildctl = client.work().join("buildctl");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_polyarch"), &buildctl).unwrap();
    let ask = ["--addr", &node.address(), "debug", "workers"];
    let workers = client.program(&buildctl).args(ask).output().unwrap();
    assert!(workers.status.success() && String::from_utf8_lossy(&workers.stdout).contains("linux/"));
    assert!(node.terminate().success(), "it was asked to end");
    assert!(!node.socket().exists(), "nobody listens there any more");
}

#[test]
fn an_open_port_is_refused() {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    let refused = environment.run(["node", "serve", "--listen", "tcp://0.0.0.0:0"]);
    refused.assert_code(2).assert_stderr("whoever can reach").assert_stderr("polyarch node certs");
}

#[test]
fn under_buildkits_names_it_is_what_they_are() {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    let link = |name: &str| {
        let link = environment.work().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_polyarch"), &link).unwrap();
        link
    };
    let daemon = environment.program(link("buildkitd")).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&daemon.stdout).starts_with("buildkitd polyarch v"), "{daemon:?}");
    let client = environment.program(link("buildctl")).arg("build").output().unwrap();
    assert_eq!(client.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&client.stderr).contains("dial-stdio"), "{client:?}");
}
