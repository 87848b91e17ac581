// SPDX-License-Identifier: Apache-2.0
//! The commands from outside: what goes where, exit codes, signals.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use polyarch_testkit::{Need, TestEnvironment, busybox_rootfs, requires};
use serde_json::Value;

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox")];

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

/// An environment with a Dockerfile that unpacks a small root directory and does more.
fn environment_with(instructions: &str) -> TestEnvironment {
    let environment = environment();
    environment.write("rootfs.tar", busybox_rootfs());
    environment.write("Dockerfile", format!("FROM scratch\nADD rootfs.tar /\n{instructions}\n"));
    environment
}

#[test]
fn help_and_versions_are_data_and_touch_nothing() {
    let environment = environment();
    let version = concat!("polyarch ", env!("CARGO_PKG_VERSION"), "\n");
    environment.run(["--version"]).assert_success().assert_stdout(version);
    let version = concat!("polyarch v", env!("CARGO_PKG_VERSION"), "\n");
    environment.run(["buildx", "version"]).assert_success().assert_stdout(version);
    let help = environment.run(["build", "--help"]);
    assert!(help.assert_success().stdout.contains("--platform") && help.stderr.is_empty(), "{help}");
    let plugin = environment.run(["docker-cli-plugin-metadata"]);
    let metadata: Value = serde_json::from_str(&plugin.assert_success().stdout).unwrap();
    assert_eq!(metadata["SchemaVersion"], "0.1.0");
    assert!(!environment.store().exists(), "no store was made");
}

#[test]
fn wrong_use_is_told_on_standard_error_before_a_store_is_made() {
    let mut environment = environment();
    for (words, code) in [
        (&["build"][..], 2),
        (&["biuld", "."], 2),
        (&["build", "--secret=id=a", "."], 2),
        (&["build", "--progress=fancy", "."], 2),
        (&["run"], 125),
        (&["run", "--network=bridge", "a"], 125),
        (&["pull", "a/UPPER"], 2),
        (&["pull", "--platform=a/b/c/d", "a"], 2),
        (&["push", "a b"], 2),
        (&[], 2),
    ] {
        let output = environment.run(words);
        output.assert_code(code).assert_stdout("").assert_stderr("ERROR: ");
    }
    environment.write_config("[build]\nthreads = 1\nmax-paralel = 2\n");
    let output = environment.run(["images"]);
    output.assert_code(2).assert_stderr("config.toml, line 3: unknown field `max-paralel`");
    environment.set("POLYARCH_CONFIG", "/nonexistent/polyarch.toml");
    environment.run(["images"]).assert_code(2).assert_stderr("/nonexistent/polyarch.toml");
    assert!(!environment.store().exists(), "no store was made");
}

#[test]
fn prune_asks_first_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with("RUN echo built > /built");
    environment.run(["prune"]).assert_success().assert_stderr("There is nothing to remove");
    environment.run(["build", "."]).assert_success();
    environment
        .run(["prune", "-a"])
        .assert_code(2)
        .assert_stderr("[y/N]")
        .assert_stderr("nothing was removed");
    environment.run_with_stdin(["prune", "--all"], "n\n").assert_code(2);
    let output = environment.run_with_stdin(["buildx", "prune", "-a"], "y\n");
    assert!(output.assert_success().stdout.contains("Total:"), "{output}");
    environment.run(["prune", "-af"]).assert_success();
}

#[test]
fn a_build_tells_programs_what_it_made_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with("CMD [\"true\"]");
    let words = ["build", "-q", "-t", "app:v1", "--iidfile=iid", "--metadata-file=meta.json", "."];
    let output = environment.run(words);
    assert_eq!(output.assert_success().stderr, "", "{output}");
    let digest = output.stdout.trim_end().to_owned();
    let read = |name: &str| std::fs::read_to_string(environment.work().join(name)).unwrap();
    let metadata: Value = serde_json::from_str(&read("meta.json")).unwrap();
    assert_eq!(metadata["containerimage.digest"], Value::from(digest.as_str()));
    assert_eq!(metadata["containerimage.config.digest"], Value::from(read("iid")));
    assert_eq!(metadata["image.name"], "docker.io/library/app:v1");

    let output = environment.run(["build", "--progress=plain", "-t", "app:v1", "."]);
    output.assert_success().assert_stdout("").assert_stderr("CACHED").assert_stderr(&digest);

    let output = environment.run(["build", "--progress=rawjson", "--no-cache", "."]);
    for line in output.assert_success().stderr.lines() {
        let status: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert!(status.is_object(), "{line}");
    }

    let images: Value = serde_json::from_str(&environment.run(["images", "--format=json"]).stdout).unwrap();
    assert_eq!(images[0]["name"], "docker.io/library/app:v1");
    assert_eq!(images[0]["digest"], Value::from(digest));
}

#[test]
fn run_ends_as_its_program_does_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with(
        "ENV GREETING=hello\nRUN echo text > /not-a-program\nCMD [\"sh\", \"-c\", \"echo $GREETING\"]",
    );
    environment.run(["build", "-q", "-t", "app", "."]).assert_success();
    environment.run(["run", "--rm", "app"]).assert_success().assert_stdout("hello\n");
    let output = environment.run([
        "run",
        "-e",
        "GREETING=bye",
        "app",
        "sh",
        "-c",
        "echo $GREETING; echo oops >&2; exit 7",
    ]);
    output.assert_code(7).assert_stdout("bye\n");
    assert_eq!(output.stderr, "oops\n");
    environment.run_with_stdin(["run", "-i", "app", "cat"], "input").assert_success().assert_stdout("input");
    environment.run_with_stdin(["run", "app", "cat"], "input").assert_success().assert_stdout("");
    environment.run(["run", "app", "sh", "-c", "kill -9 $$"]).assert_code(137);
    environment.run(["run", "app", "no-such-program"]).assert_code(127).assert_stderr("no-such-program");
    environment.run(["run", "app", "/not-a-program"]).assert_code(126).assert_stderr("/not-a-program");
    environment.run(["run", "--tty", "app"]).assert_code(125).assert_stderr("not a terminal");
    environment.run(["run", "--pull=never", "absent"]).assert_code(125).assert_stderr("absent");
}

#[test]
fn interrupting_a_build_ends_it_and_its_steps_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with("RUN echo begun; sleep 1000");
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut command = environment.command(["build", "--progress=plain", "."]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.ends_with(" begun")), "the step has not begun");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        // The end of the output comes only when nobody holds it open, the step's processes included.
        let rest: Vec<String> = lines.collect();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
        assert!(rest.iter().any(|line| line.ends_with("CANCELED")), "{rest:?}");
        assert_eq!(rest.last().map(String::as_str), Some("ERROR: canceled"));
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let environment = environment();
    let mut command = environment.command(["build", "--help"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]));
}
