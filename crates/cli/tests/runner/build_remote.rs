// SPDX-License-Identifier: Apache-2.0
//! ADD of URLs and git repositories, and contexts of both.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use polyarch_oci::Digest;
use polyarch_testkit::{Need, Output, TestEnvironment, requires};

use crate::build_steps::build;
use crate::web_server::WebServer;

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces];
const GIT_NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/usr/bin/git")];

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

fn build_with(environment: &TestEnvironment, text: &str) -> Output {
    let _ = fs::remove_dir_all(environment.work().join("out"));
    environment.write("Dockerfile", text);
    build(environment, &["-o", "type=local,dest=out"])
}

fn out(environment: &TestEnvironment) -> PathBuf {
    environment.work().join("out")
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// Runs git in a directory, with nothing of the user's.
pub(crate) fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "init.defaultBranch=main"])
        .args(["-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git starts");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Makes `repository.git` beneath a directory, as web servers have it: two commits, a tag between.
pub(crate) fn repository(served: &Path) -> PathBuf {
    let work = served.join("work");
    fs::create_dir_all(work.join("sub")).expect("directories can be made");
    git(&work, &["init", "-q"]);
    fs::write(work.join("file"), "one").expect("files can be written");
    fs::write(work.join("sub/inner"), "inner").expect("files can be written");
    fs::write(work.join("Dockerfile"), "FROM scratch\nCOPY . /\n").expect("files can be written");
    git(&work, &["add", "."]);
    git(&work, &["commit", "-qm", "one"]);
    git(&work, &["tag", "-a", "-m", "first", "v1"]);
    fs::write(work.join("file"), "two").expect("files can be written");
    git(&work, &["commit", "-qam", "two"]);
    publish(served);
    work
}

pub(crate) fn publish(served: &Path) {
    let bare = served.join("repository.git");
    let _ = fs::remove_dir_all(&bare);
    git(served, &["clone", "-q", "--bare", "work", "repository.git"]);
    git(&bare, &["update-server-info"]);
}

#[test]
fn a_file_of_a_url_is_private_dated_and_fetched_once_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    environment.write("served/file.txt", "content");
    let server = WebServer::start(&environment.work().join("served"));
    let url = &server.url;
    let add = format!("FROM scratch\nADD {url}/file.txt /to/\nADD {url}/moved/file.txt?x=1 /named\n");
    build_with(&environment, &add).assert_success();
    let metadata = fs::metadata(out(&environment).join("to/file.txt")).unwrap();
    assert_eq!(text(out(&environment).join("to/file.txt")), "content");
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o600, 1_445_412_480));
    assert_eq!(text(out(&environment).join("named")), "content");
    let fetched = server.count(200, "/file.txt");
    assert_eq!(server.count(304, "HEAD /file.txt"), 0, "nothing is known yet");
    let again = build_with(&environment, &add);
    again.assert_success();
    assert_eq!(server.count(200, "/file.txt"), fetched, "an ETag spares the second transfer");
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
    assert!(server.count(304, "HEAD /file.txt") > 0 && server.count(304, "GET /file.txt") == 0);
    environment.write("served/file.txt", "changed");
    build_with(&environment, &add).assert_success();
    assert_eq!(text(out(&environment).join("to/file.txt")), "changed");

    // With a checksum nobody is asked twice, and nothing else is taken.
    let digest = Digest::of("changed");
    let add = format!("FROM scratch\nADD --checksum={digest} --chmod=644 --chown=7:8 {url}/file.txt /to/\n");
    build_with(&environment, &add).assert_success();
    let metadata = fs::metadata(out(&environment).join("to/file.txt")).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o644);
    build(&environment, &["-o", "type=tar,dest=out.tar"]).assert_success();
    let archive = environment.work().join("out.tar");
    let listed = Command::new("tar").arg("--numeric-owner").arg("-tvf").arg(archive).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.lines().any(|line| line.contains(" 7/8 ") && line.ends_with("to/file.txt")), "{listed}");
    environment.write("served/file.txt", "changed again");
    build_with(&environment, &add).assert_success();
    let wrong = add.replace(&digest.to_string(), &Digest::of("other").to_string());
    let refused = build_with(&environment, &wrong);
    assert!(refused.stderr.contains("digest mismatch for"), "{}", refused.stderr);
    for (instruction, expected) in [
        (format!("ADD {url}/missing /"), "invalid response status 404"),
        (format!("ADD --checksum={digest} Dockerfile /"), "checksum requires HTTP(S) or Git sources"),
        (format!("ADD --checksum=md5:1 {url}/file.txt /"), "--checksum=md5:1"),
        (
            format!("ADD --checksum={digest} {url}/a {url}/b /"),
            "checksum can't be specified for multiple sources",
        ),
    ] {
        let refused = build_with(&environment, &format!("FROM scratch\n{instruction}\n"));
        assert_ne!(refused.code, 0, "{instruction}");
        assert!(refused.stderr.contains(expected), "{instruction}: {}", refused.stderr);
    }
}

#[test]
fn a_repository_is_added_at_a_ref_a_tag_or_a_commit_needs_root() {
    if requires(GIT_NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let served = environment.work().join("served");
    fs::create_dir(&served).unwrap();
    let work = repository(&served);
    let (first, second) = (git(&work, &["rev-parse", "HEAD~1"]), git(&work, &["rev-parse", "HEAD"]));
    let server = WebServer::start(&served);
    let url = format!("{}/repository.git", server.url);
    for (source, file) in [
        (url.clone(), "two"),
        (format!("{url}#v1"), "one"),
        (format!("{url}#main"), "two"),
        (format!("{url}#{first}"), "one"),
        (format!("{url}?tag=v1&checksum={}", &first[..8]), "one"),
        (format!("{url}?branch=main&commit={second}"), "two"),
    ] {
        build_with(&environment, &format!("FROM scratch\nADD {source} /to\n")).assert_success();
        let to = out(&environment).join("to");
        assert_eq!(text(to.join("file")), file, "{source}");
        assert_eq!(text(to.join("sub/inner")), "inner", "{source}");
        assert!(!to.join(".git").exists(), "{source}");
        assert_eq!(fs::metadata(to.join("file")).unwrap().mode() & 0o7777, 0o644, "{source}");
    }
    build_with(&environment, &format!("FROM scratch\nADD {url}#v1:sub /to\n")).assert_success();
    assert_eq!(text(out(&environment).join("to/inner")), "inner");
    assert!(!out(&environment).join("to/file").exists());
    build_with(&environment, &format!("FROM scratch\nADD --keep-git-dir {url}#v1 /to\n")).assert_success();
    let to = out(&environment).join("to");
    assert_eq!(git(&to, &["-c", "safe.directory=*", "rev-parse", "HEAD"]), first);
    assert_eq!(git(&to, &["-c", "safe.directory=*", "remote", "get-url", "origin"]), url);

    // What has not moved is not fetched again.
    let objects = || server.count(200, &second[2..]);
    let before = objects();
    let again = build_with(&environment, &format!("FROM scratch\nADD {url}#main /to\n"));
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
    assert_eq!(objects(), before);
    for (source, expected) in [
        (format!("{url}#nothing"), "repository does not contain ref nothing"),
        (format!("{url}?checksum=ffffffff"), "expected checksum to match ffffffff, got"),
        (format!("{url}?what=x"), "unexpected query \"what\""),
        (format!("{url}#main:nothing"), "invalid subdir nothing"),
        (format!("{}/missing.git", server.url), "of http://127.0.0.1"),
    ] {
        let refused = build_with(&environment, &format!("FROM scratch\nADD {source} /to\n"));
        assert_ne!(refused.code, 0, "{source}");
        assert!(refused.stderr.contains(expected), "{source}: {}", refused.stderr);
    }
}

#[test]
fn named_contexts_may_be_repositories_and_urls_needs_root() {
    if requires(GIT_NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let served = environment.work().join("served");
    fs::create_dir(&served).unwrap();
    repository(&served);
    let server = WebServer::start(&served);
    environment.write(
        "Dockerfile",
        "FROM tools AS copied\nFROM scratch\nCOPY --from=copied / /\nCOPY --from=page context /page\n",
    );
    let tools = format!("tools={}/repository.git#v1", server.url);
    let page = format!("page={}/work/file", server.url);
    build(&environment, &["--build-context", &tools, "--build-context", &page, "-o", "type=local,dest=out"])
        .assert_success();
    assert_eq!(text(out(&environment).join("file")), "one");
    assert_eq!(text(out(&environment).join("page")), "two");
}

#[test]
fn the_context_and_the_dockerfile_may_be_elsewhere_needs_root() {
    if requires(GIT_NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let served = environment.work().join("served");
    fs::create_dir(&served).unwrap();
    let work = repository(&served);
    let server = WebServer::start(&served);
    let build_of = |arguments: &[&str]| {
        let _ = fs::remove_dir_all(out(&environment));
        let fixed = ["build", "--progress", "plain", "-o", "type=local,dest=out"];
        environment.run(fixed.iter().chain(arguments)).assert_success();
    };
    build_of(&[&format!("{}/repository.git#v1", server.url)]);
    assert_eq!(text(out(&environment).join("file")), "one");
    fs::write(work.join("sub/other.Dockerfile"), "FROM scratch\nCOPY inner /copied\n").unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "-qm", "three"]);
    publish(&served);
    build_of(&["-f", "other.Dockerfile", &format!("{}/repository.git#main:sub", server.url)]);
    assert_eq!(text(out(&environment).join("copied")), "inner");

    let archive = git(&work, &["archive", "--format=tar.gz", "-o", "../context.tar.gz", "HEAD"]);
    assert_eq!(archive, "");
    build_of(&[&format!("{}/context.tar.gz", server.url)]);
    assert_eq!(text(out(&environment).join("sub/inner")), "inner");
    fs::write(served.join("elsewhere"), "FROM scratch\nCOPY file /by-url\n").unwrap();
    let (context, file) =
        (format!("{}/moved/context.tar.gz", server.url), format!("{}/elsewhere", server.url));
    build_of(&["-f", &file, &context]);
    assert_eq!(text(out(&environment).join("by-url")), "two");

    fs::write(served.join("alone"), "FROM scratch\nCOPY <<a /\nalone\na\n").unwrap();
    build_of(&[&format!("{}/alone", server.url)]);
    assert_eq!(text(out(&environment).join("a")), "alone\n");
    environment.write("local/file", "local");
    fs::write(served.join("dockerfile"), "FROM scratch\nCOPY file /\n").unwrap();
    build_of(&["-f", &format!("{}/dockerfile", server.url), "local"]);
    assert_eq!(text(out(&environment).join("file")), "local");
}

#[test]
fn submodules_come_also_from_servers_that_have_only_files_needs_root() {
    if requires(GIT_NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let served = environment.work().join("served");
    let part = environment.work().join("part/work");
    fs::create_dir_all(&part).unwrap();
    fs::create_dir(&served).unwrap();
    git(&part, &["init", "-q"]);
    fs::write(part.join("inner"), "of the part").unwrap();
    git(&part, &["add", "."]);
    git(&part, &["commit", "-qm", "part"]);
    publish(&environment.work().join("part"));
    let parts = WebServer::start(&environment.work().join("part"));
    let work = repository(&served);
    git(&work, &["submodule", "--quiet", "add", &format!("{}/repository.git", parts.url), "part"]);
    git(&work, &["commit", "-qm", "with a part"]);
    publish(&served);
    let server = WebServer::start(&served);
    let url = format!("{}/repository.git", server.url);
    build_with(&environment, &format!("FROM scratch\nADD {url} /to\n")).assert_success();
    assert_eq!(text(out(&environment).join("to/part/inner")), "of the part");
    build_with(&environment, &format!("FROM scratch\nADD {url}?submodules=false /to\n")).assert_success();
    assert!(!out(&environment).join("to/part/inner").exists());
}
