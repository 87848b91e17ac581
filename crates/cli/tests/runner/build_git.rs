// SPDX-License-Identifier: Apache-2.0
//! Git repositories of servers that lie, hang or point elsewhere, and what becomes of credentials.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use polyarch_testkit::{Need, TestEnvironment, requires};
use rustix::process::{Pid, Signal, kill_process};

use crate::build_remote::{git, publish, repository};
use crate::build_steps::build;
use crate::web_server::WebServer;

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/usr/bin/git")];

/// How long the end of a process may take to be seen.
const PATIENCE: Duration = Duration::from_secs(60);

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

/// Listens on a free port; returns also the host and port.
fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("a listener has an address").to_string();
    (listener, address)
}

/// Reads a request without a body.
fn request(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("a request") == 1 {
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("a request is text")
}

#[test]
fn what_a_server_says_of_a_tag_is_not_believed_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let served = environment.work().join("served");
    fs::create_dir(&served).unwrap();
    let work = repository(&served);
    let (first, second) = (git(&work, &["rev-parse", "HEAD~1"]), git(&work, &["rev-parse", "HEAD"]));
    let refs = served.join("repository.git/info/refs");
    let honest = fs::read_to_string(&refs).unwrap();
    let lie = honest.replace(&format!("{first}\trefs/tags/v1^{{}}"), &format!("{second}\trefs/tags/v1^{{}}"));
    assert_ne!(lie, honest);
    fs::write(&refs, lie).unwrap();
    let server = WebServer::start(&served);
    let url = format!("{}/repository.git", server.url);
    for (flag, reference) in [(format!("--checksum={second} "), "v1"), (String::new(), "v1")] {
        environment.write("Dockerfile", format!("FROM scratch\nADD {flag}{url}#{reference} /to\n"));
        let refused = build(&environment, &["-o", "type=local,dest=out"]);
        refused.assert_stderr(&format!("it announced commit {second} for refs/tags/v1, which is {first}"));
        assert_ne!(refused.code, 0);
    }
    // Nothing was kept under the name of the lie.
    environment.write("Dockerfile", format!("FROM scratch\nADD --checksum={second} {url}#main /to\n"));
    build(&environment, &["-o", "type=local,dest=out"]).assert_success();
    assert_eq!(fs::read_to_string(environment.work().join("out/to/file")).unwrap(), "two");
}

#[test]
fn a_commit_of_no_time_is_an_error_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let served = environment.work().join("served");
    fs::create_dir(&served).unwrap();
    let work = repository(&served);
    let made = git(
        &work,
        &[
            "-c",
            "alias.late=!git cat-file commit HEAD | sed 's/> [0-9]* /> 18446744073709551614 /' | \
             git hash-object -t commit -w --stdin --literally",
            "late",
        ],
    );
    git(&work, &["update-ref", "refs/heads/main", &made]);
    publish(&served);
    let server = WebServer::start(&served);
    let url = format!("{}/repository.git", server.url);
    environment.write("Dockerfile", format!("FROM scratch\nADD {url}?mtime=commit /to\n"));
    build(&environment, &["-o", "type=local,dest=out"]).assert_stderr("has no time that files can have");
    environment.write("Dockerfile", format!("FROM scratch\nADD {url} /to\n"));
    build(&environment, &["-o", "type=local,dest=out"]).assert_success();
}

#[test]
fn git_ends_with_the_build_and_gets_the_credentials_of_the_url_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    for (is_context, signal) in [(false, Signal::INT), (true, Signal::INT), (false, Signal::KILL)] {
        let environment = environment();
        let (listener, address) = listen();
        let url = format!("http://u:PW@{address}/x.git");
        environment.write("Dockerfile", format!("FROM scratch\nADD {url} /\n"));
        let context = if is_context { url.as_str() } else { "." };
        let mut child = environment
            .command(["build", "--progress", "plain", context])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let (mut stream, _) = listener.accept().expect("git connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        assert!(request(&mut stream).contains("Authorization: basic dTpQVw=="));
        kill_process(Pid::from_child(&child), signal).expect("the process is ours");
        // The last process that has the other end is gone.
        let end = stream.read(&mut [0]);
        assert!(matches!(&end, Ok(0)) || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
        let mut said = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
        let status = child.wait().expect("a child can be waited for");
        assert!(!said.contains("PW"), "{said}");
        if signal == Signal::INT {
            assert_eq!(status.code(), Some(130), "{said}");
            let scratch = environment.store().join("scratch");
            let left = fs::read_dir(scratch).map_or(0, Iterator::count);
            assert_eq!(left, 0, "scratch files stay");
        }
    }
}

#[test]
fn credentials_follow_no_redirect_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let ((listener, address), (elsewhere, target)) = (listen(), listen());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("connections are accepted");
            let asked = request(&mut stream);
            let path = asked.split(' ').nth(1).expect("a path");
            let answer = format!(
                "HTTP/1.1 302 Found\r\nLocation: http://{target}{path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    environment.write("token", "TOKEN");
    for (url, flag) in [
        (format!("http://u:PW@{address}/x.git"), None),
        (format!("http://{address}/x.git"), Some("--secret=id=GIT_AUTH_TOKEN,src=token")),
    ] {
        environment.write("Dockerfile", format!("FROM scratch\nADD {url} /\n"));
        let refused = build(&environment, &flag.into_iter().collect::<Vec<_>>());
        assert_ne!(refused.code, 0);
        refused.assert_stderr("credentials follow no redirects");
    }
    elsewhere.set_nonblocking(true).expect("a listener can be asked");
    assert_eq!(elsewhere.accept().expect_err("nobody came").kind(), ErrorKind::WouldBlock);
}

#[test]
fn credentials_of_a_url_are_nowhere_in_the_result_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let served = environment.work().join("served");
    fs::create_dir(&served).unwrap();
    let work = repository(&served);
    git(&served, &["clone", "-q", "--bare", "work", "inner.git"]);
    git(&served.join("inner.git"), &["update-server-info"]);
    git(&work, &["submodule", "--quiet", "add", "../inner.git", "module"]);
    git(&work, &["commit", "-qm", "module"]);
    publish(&served);
    let server = WebServer::start(&served);
    let (_, address) = server.url.split_once("://").expect("a URL");
    for credentials in ["u:SECRET", "SECRET"] {
        let url = format!("http://{credentials}@{address}/repository.git");
        environment
            .write("Dockerfile", format!("FROM scratch\nARG URL={url}\nADD --keep-git-dir $URL /to\n"));
        let _ = fs::remove_dir_all(environment.work().join("out"));
        let done = build(&environment, &["-o", "type=local,dest=out"]);
        done.assert_success();
        let to = environment.work().join("out/to");
        assert_eq!(fs::read_to_string(to.join("module/file")).unwrap(), "two");
        let found = has_text(&to, "SECRET");
        assert!(!found, "the files have the credentials");
        let configured = git(&to, &["-c", "safe.directory=*", "remote", "get-url", "origin"]);
        assert_eq!(configured, format!("http://{address}/repository.git"));
        for arguments in [
            vec!["build".to_owned(), format!("{url}?nonsense=1")],
            vec![
                "build".to_owned(),
                "--build-context".to_owned(),
                format!("x={url}?nonsense=1"),
                ".".to_owned(),
            ],
            vec!["build".to_owned(), format!("http://{credentials}@{address}/missing.git")],
        ] {
            let refused = environment.run(&arguments);
            assert_ne!(refused.code, 0);
            assert!(!refused.stderr.contains("SECRET"), "{arguments:?}: {}", refused.stderr);
        }
    }
}

/// Tells whether a file beneath a directory has a text.
fn has_text(directory: &Path, text: &str) -> bool {
    let found = Command::new("grep").args(["-rqa", "--", text]).arg(directory).status().expect("grep starts");
    found.code() == Some(0)
}
