// SPDX-License-Identifier: Apache-2.0
//! Run and ps from outside: four platforms of one name, signals, mounts, and what is refused.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};

use polyarch_oci::Platform;
use polyarch_testkit::environment::finish;
use polyarch_testkit::{
    DockerRegistry, Image, Need, PlatformImage, TestEnvironment, busybox_rootfs, requires,
};

use crate::everyday::{complete_platforms, hello_image};

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox")];

const FOUR: [&str; 4] = ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/riscv64"];

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

/// An environment whose store has `app`, an image with a shell.
fn environment_with_shell() -> TestEnvironment {
    let environment = environment();
    let host = Platform::host().to_string();
    let image = Image::new(vec![PlatformImage::new(&host, busybox_rootfs(), &["sh"])]);
    image.write_layout(&environment.work().join("layout"), "docker.io/library/app:latest");
    let mut tar = environment.program("tar");
    assert!(tar.args(["-C", "layout", "-cf", "app.tar", "."]).status().unwrap().success());
    environment.run(["load", "-q", "-i", "app.tar"]).assert_success();
    environment
}

/// Starts a program that writes `ready` when it is; returns after that line.
fn start(environment: &TestEnvironment, arguments: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = environment.command(arguments);
    command.process_group(0);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, lines)
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
}

/// Sends a signal as timeout, systemd and the terminal do: to everything of the job.
fn signal_group(child: &Child, name: &str) {
    let group = format!("-{}", child.id());
    assert!(std::process::Command::new("kill").args([name, "--", &group]).status().unwrap().success());
}

/// The whole life of one name: pulled for four platforms, run, saved, loaded elsewhere, pushed again.
#[test]
fn four_platforms_live_under_one_name_needs_qemu_and_podman() {
    let needs = [
        Need::Root,
        Need::UserNamespaces,
        Need::PrivateBinfmt,
        Need::Qemu("aarch64"),
        Need::Qemu("arm"),
        Need::Qemu("riscv64"),
        Need::Command("docker-registry"),
        Need::Command("podman"),
    ];
    if requires(&needs).is_some() {
        return;
    }
    let (environment, registry, other) = (environment(), DockerRegistry::start(), DockerRegistry::start());
    let digest = registry.push("user/aa", "0.2", &hello_image(&FOUR, "hello from"));
    let name = format!("{}:0.2", registry.name("user/aa"));
    for platform in FOUR {
        environment.run(["pull", "-q", "--platform", platform, &name]).assert_success();
    }
    assert_eq!(complete_platforms(&environment, &name), FOUR);
    for platform in FOUR {
        let output = environment.run(["run", "--rm", "--pull=never", "--platform", platform, &name]);
        output.assert_success().assert_stdout(&format!("hello from {platform}\n"));
        assert_eq!(output.stderr, "");
    }

    let podman = |arguments: &[&str]| {
        let mut podman = environment.program("podman");
        let at = |name: &str| environment.work().join(name).display().to_string();
        podman.args(["--root", &at("podman-root"), "--runroot", &at("podman-run"), "--storage-driver=vfs"]);
        podman.args(arguments);
        finish(podman, Vec::new())
    };
    for platform in FOUR {
        environment.run(["save", "--platform", platform, "-o", "one.tar", &name]).assert_success();
        podman(&["load", "-i", "one.tar"]).assert_success();
        let output = podman(&["image", "inspect", "--format={{.Os}}/{{.Architecture}}", &name]);
        let architecture = platform.trim_end_matches("/v7");
        output.assert_success().assert_stdout(&format!("{architecture}\n"));
        podman(&["rmi", "-f", &name]).assert_success();
    }
    environment.run(["save", "-o", "all.tar", &name]).assert_success();
    let loaded = podman(&["load", "-i", "all.tar"]);
    assert!(loaded.assert_success().stdout.contains(&name), "{loaded}");

    let copy = format!("{}:0.2", other.name("copy/aa"));
    environment.run(["tag", &name, &copy]).assert_success();
    environment.run(["push", "-q", &copy]).assert_success();
    let answer = other.manifest("copy/aa", "0.2");
    assert_eq!(answer.header("docker-content-digest").unwrap(), digest.to_string());
}

#[test]
fn what_is_not_here_is_pulled_first_and_told_on_standard_error_needs_root() {
    if requires(&[Need::Root, Need::UserNamespaces, Need::Command("docker-registry")]).is_some() {
        return;
    }
    let (environment, registry) = (environment(), DockerRegistry::start());
    registry.push("user/aa", "1", &hello_image(&FOUR, "hello"));
    let name = format!("{}:1", registry.name("user/aa"));
    let host = Platform::host();
    let output = environment.run(["run", &name]);
    output.assert_success().assert_stdout(&format!("hello {host}\n"));
    output.assert_stderr(&format!("Unable to find image '{name}' locally\n1: Pulling from user/aa\n"));
    output.assert_stderr(": Pull complete\n").assert_stderr("Status: Downloaded newer image for ");
    assert_eq!(complete_platforms(&environment, &name), [host.to_string()]);
    let output = environment.run(["run", &name]);
    assert_eq!(output.assert_success().stderr, "");

    let output = environment.run(["run", "--pull=never", "--platform=linux/arm/v7", &name]);
    output.assert_code(125).assert_stderr(&format!("for linux/arm/v7; it has {host}"));
    let output = environment.run(["run", "--platform=linux/s390x", &name]);
    output.assert_code(125).assert_stderr("no image for linux/s390x; it has linux/amd64, linux/arm64");
}

#[test]
fn signals_reach_the_program_and_its_exit_code_comes_back_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with_shell();
    let script = |traps: &str| format!("{traps} echo ready; while :; do sleep 0.05; done");
    for (traps, name, code) in [
        ("trap 'echo got; exit 9' TERM;", "-TERM", 9),
        ("trap 'echo got; exit 8' INT;", "-INT", 8),
        ("trap 'echo got; exit 7' HUP;", "-HUP", 7),
        ("trap 'echo got; exit 6' USR1;", "-USR1", 6),
        ("", "-TERM", 143),
        ("", "-INT", 130),
        ("", "-HUP", 129),
    ] {
        for send in [signal, signal_group] {
            let (mut child, mut lines) = start(&environment, &["run", "app", "sh", "-c", &script(traps)]);
            send(&child, name);
            let mut rest = String::new();
            std::io::Read::read_to_string(&mut lines, &mut rest).unwrap();
            assert_eq!(rest, if traps.is_empty() { "" } else { "got\n" }, "{name}");
            assert_eq!(child.wait().unwrap().code(), Some(code), "{name}");
        }
    }
}

#[test]
fn input_and_a_terminal_are_given_when_asked_for_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with_shell();
    let output = environment.run_with_stdin(["run", "-i", "app", "cat"], "one\ntwo\n");
    output.assert_success().assert_stdout("one\ntwo\n");
    environment.run_with_stdin(["run", "app", "cat"], "unread").assert_success().assert_stdout("");
    if requires(&[Need::Command("script")]).is_some() {
        return;
    }
    let mut script = environment.program("script");
    let inner = format!(
        "{} run -it app sh -c 'test -t 0 && test -t 1 && echo terminal; exit 3'",
        env!("CARGO_BIN_EXE_polyarch")
    );
    script.args(["-qec", &inner, "/dev/null"]);
    finish(script, Vec::new()).assert_code(3).assert_stdout("terminal\r\n");
}

#[test]
fn running_programs_are_listed_until_they_end_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with_shell();
    assert_eq!(environment.run(["ps"]).assert_success().stdout.lines().count(), 1);
    let words = ["run", "--name", "web", "app", "sh", "-c", "echo ready; while :; do sleep 0.05; done"];
    let (mut child, _lines) = start(&environment, &words);
    let line = environment.run(["ps", "--format=json"]).assert_success().stdout.clone();
    let row: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&row["Names"], &row["Image"]), (&"web".into(), &"app:latest".into()));
    assert_eq!(row["Platform"], Platform::host().to_string());
    let id = environment.run(["ps", "-q"]).assert_success().stdout.clone();
    assert_eq!(id.trim_end(), row["ID"].as_str().unwrap());
    environment
        .run(["run", "--name", "web", "app", "true"])
        .assert_code(125)
        .assert_stderr("running already");
    environment.run(["rm", "web"]).assert_code(2).assert_stderr(&format!("end it: kill {}", child.id()));
    signal(&child, "-KILL");
    child.wait().unwrap();
    environment.run(["ps", "-q"]).assert_success().assert_stdout("");
    environment.run(["rm", "web"]).assert_code(2).assert_stderr("no such program: web");
    environment.run(["rm", "app"]).assert_code(2).assert_stderr("polyarch rmi app");
}

#[test]
fn mounts_and_variables_are_dockers_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with_shell();
    environment.write("data/file", "content\n");
    environment.write("variables", "# comment\n\nA=from file\nB\nC=3\n");
    let script = "cat /data/file; echo new > /data/made; cat /made 2>/dev/null; true";
    environment
        .run(["run", "-v", "./data:/data", "app", "sh", "-c", script])
        .assert_success()
        .assert_stdout("content\n");
    assert_eq!(std::fs::read_to_string(environment.work().join("data/made")).unwrap(), "new\n");
    let source = format!("type=bind,source={}/data,target=/in/side,readonly", environment.work().display());
    let output = environment.run([
        "run",
        "--mount",
        &source,
        "app",
        "sh",
        "-c",
        "cat /in/side/file; echo x > /in/side/no",
    ]);
    output.assert_code(1).assert_stderr("Read-only file system");
    assert_eq!(output.stdout, "content\n");
    let script = "echo x > /tmp/a && cat /tmp/a; echo x > /no";
    let output =
        environment.run(["run", "--read-only", "--tmpfs", "/tmp:size=1m", "app", "sh", "-c", script]);
    output.assert_code(1).assert_stdout("x\n").assert_stderr("Read-only file system");

    let mut with_b = environment.command([
        "run",
        "--env-file",
        "variables",
        "-e",
        "C=4",
        "app",
        "sh",
        "-c",
        "echo $A-$B-$C",
    ]);
    with_b.env("B", "outside");
    finish(with_b, Vec::new()).assert_success().assert_stdout("from file-outside-4\n");
    let words = ["run", "--hostname=box", "--add-host=db:10.0.0.7", "--init", "app", "sh", "-c"];
    let output = environment.run(words.iter().copied().chain(["uname -n; grep 10.0.0 /etc/hosts"]));
    output.assert_success().assert_stdout("box\n10.0.0.7\tdb\n");
    let output = environment.run(["run", "-p", "8080:80", "app", "true"]);
    output.assert_success().assert_stderr("WARNING: --publish 8080:80 changes nothing");

    for (words, text) in [
        (&["run", "-v", "absent/dir:/data", "app"][..], "mkdir -p"),
        (&["run", "-v", "data:/data", "app"], "there are no named volumes"),
        (&["run", "-it", "app"], "the input device is not a TTY"),
        (&["run", "-d", "app"], "there is no daemon"),
        (&["run", "--name=a/b", "app"], "--name \"a/b\""),
        (&["run", "--env-file=absent", "app"], "absent"),
    ] {
        environment.run(words).assert_code(125).assert_stdout("").assert_stderr(text);
    }
}
