// SPDX-License-Identifier: Apache-2.0
//! What the store takes of the disk, and how it is made smaller: held against `du`.

use std::fs::{File, FileTimes};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use polyarch_testkit::environment::finish;
use polyarch_testkit::{Need, TestEnvironment, busybox_rootfs, requires};
use serde_json::Value;

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox"), Need::Command("du")];

/// An environment with a Dockerfile that unpacks a small root directory and does more.
fn environment_with(instructions: &str) -> TestEnvironment {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("rootfs.tar", busybox_rootfs());
    write_dockerfile(&environment, instructions);
    environment
}

fn write_dockerfile(environment: &TestEnvironment, instructions: &str) {
    environment.write("Dockerfile", format!("FROM scratch\nADD rootfs.tar /\n{instructions}\n"));
}

fn du(environment: &TestEnvironment) -> u64 {
    let mut du = environment.program("du");
    du.args(["-s", "--block-size=1"]).arg(environment.store());
    let output = finish(du, Vec::new());
    output.assert_success().stdout.split('\t').next().unwrap().parse().unwrap()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A table of pieces without how long ago they were used, which differs from moment to moment.
fn without_times(table: &str) -> Vec<Vec<&str>> {
    let cells =
        |line| str::split(line, "  ").map(str::trim).filter(|it| !it.is_empty() && !it.ends_with(" ago"));
    table.lines().map(|line| cells(line).collect()).collect()
}

fn sum(rows: &[Value], field: &str) -> u64 {
    rows.iter().map(|row| row[field].as_u64().unwrap()).sum()
}

/// Makes everything in the store look as if it had not been used since long ago.
fn age(directory: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(100 * 3600);
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let times = FileTimes::new().set_modified(long_ago);
        File::open(entry.path()).unwrap().set_times(times).unwrap();
    }
}

#[test]
fn sums_are_those_of_du_before_and_after_a_prune_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with("RUN echo one > /one && ln /one /two\nRUN echo three > /three");
    environment.run(["build", "-t", "kept", "."]).assert_success();
    write_dockerfile(&environment, "RUN head -c 300000 /dev/zero > /large");
    environment.run(["build", "."]).assert_success();

    let df = environment.run(["df", "--format", "json"]);
    let rows = json_lines(&df.assert_success().stdout);
    assert_eq!(sum(&rows, "SizeBytes"), du(&environment), "{df}");
    assert_eq!((&rows[0]["Type"], &rows[0]["TotalCount"]), (&"Images".into(), &"1".into()));
    let verbose = environment.run(["system", "df", "-v", "--format=json"]);
    let all: Value = serde_json::from_str(&verbose.assert_success().stdout).unwrap();
    assert_eq!(all["TotalSizeBytes"].as_u64(), Some(du(&environment)));
    let cache = all["BuildCache"].as_array().unwrap();
    assert!(
        cache.iter().any(|item| item["Description"].as_str().unwrap().contains("RUN head -c 300000")),
        "{verbose}"
    );
    let table = environment.run(["df"]);
    assert!(table.assert_success().stdout.starts_with("TYPE "), "{table}");
    assert!(table.stdout.contains(&format!("({} bytes)", du(&environment))), "{table}");
    environment.run(["df", "-v"]).assert_success();
    let template = environment.run(["df", "--format", "{{.Type}}={{.TotalCount}}"]);
    assert!(template.assert_success().stdout.starts_with("Images=1\n"), "{template}");
    let listed = environment.run(["buildx", "du"]);
    assert!(listed.assert_success().stdout.starts_with("ID   ") && listed.stdout.contains("Reclaimable:\t"));
    environment.run(["buildx", "du", "--verbose"]).assert_success();

    // What is shown before the question is what goes, and as large; what a killed build left as well.
    let left = environment.store().join("scratch/killed/deep");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("file"), [1; 10_000]).unwrap();
    std::os::unix::fs::symlink("/", left.join("link")).unwrap();
    let before = du(&environment);
    let dry = environment.run(["prune", "-a", "--dry-run"]);
    assert_eq!(du(&environment), before);
    let planned = json_lines(&environment.run(["buildx", "du", "--format=json"]).stdout);
    let refused = environment.run_with_stdin(["prune", "-a"], "n\n");
    refused.assert_code(2).assert_stderr("layers of steps").assert_stderr("[y/N]");
    assert_eq!(du(&environment), before);
    let pruned = environment.run_with_stdin(["prune", "-a"], "y\n");
    assert_eq!(without_times(&pruned.assert_success().stdout), without_times(&dry.stdout), "{pruned}");
    assert_eq!(before - du(&environment), sum(&planned, "SizeBytes"), "{pruned}");
    let left = json_lines(&environment.run(["buildx", "du", "--format=json"]).stdout);
    assert!(left.is_empty(), "{left:?}");
    environment.run(["run", "kept", "cat", "/two", "/three"]).assert_success().assert_stdout("one\nthree\n");
}

#[test]
fn what_was_used_least_goes_first_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with("RUN echo old > /old");
    environment.run(["build", "."]).assert_success();
    age(&environment.store().join("snapshots/layers"));
    // The layer below both is used again: it is as young as the new one.
    write_dockerfile(&environment, "RUN echo new > /new");
    environment.run(["build", "."]).assert_success();
    environment.run(["prune", "-f"]).assert_success();
    let old = environment.run(["prune", "--dry-run", "--filter", "until=24h", "--filter", "type=regular"]);
    let shown = &old.assert_success().stdout;
    assert!(shown.contains("RUN echo old") && !shown.contains("RUN echo new"), "{old}");
    assert!(!shown.contains("ADD rootfs"), "{old}");

    let total = sum(&json_lines(&environment.run(["buildx", "du", "--format=json"]).stdout), "SizeBytes");
    let keep = format!("--keep-storage={}", total - 1);
    let pruned = environment.run(["prune", "-f", &keep]);
    assert!(pruned.assert_success().stdout.contains("RUN echo old"), "{pruned}");
    assert!(!pruned.stdout.contains("RUN echo new"), "{pruned}");
    let again = environment.run(["build", "--progress=plain", "."]);
    again.assert_success().assert_stderr("CACHED");
    environment.run(["prune", "-f", "--reserved-space=10g"]).assert_success().assert_stdout("Total:\t0B\n");
    environment.run(["prune", "--filter", "typ=x"]).assert_code(2).assert_stderr("until, unused-for, type");
}

/// The same for what is remembered.
fn age_records(records: &Path) {
    for namespace in std::fs::read_dir(records).into_iter().flatten().flatten() {
        age(&namespace.path());
    }
}

#[test]
fn what_a_build_has_used_since_stays_with_its_records_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with("RUN echo one > /one");
    environment.run(["build", "-t", "app", "."]).assert_success();
    age(&environment.store().join("snapshots/layers"));
    age_records(&environment.store().join("records"));
    for boot in std::fs::read_dir(environment.store().join("staged")).into_iter().flatten().flatten() {
        age_records(&boot.path().join("records"));
    }
    environment.run(["build", "-t", "app", "."]).assert_success();
    let dry = environment.run(["prune", "--dry-run", "--verbose", "--filter", "until=24h"]);
    assert!(!dry.assert_success().stdout.contains("RUN echo one"), "{dry}");
    environment.run(["prune", "-a", "-f", "--filter", "until=24h"]).assert_success();
    let again = environment.run(["build", "--progress=plain", "."]);
    assert_eq!(again.assert_success().stderr.matches("CACHED").count(), 2, "{again}");
}

#[test]
fn a_build_that_runs_meanwhile_loses_nothing_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let environment = environment_with("RUN echo first > /first");
    environment.run(["build", "."]).assert_success();
    // The step ends when the other end hangs up.
    let step = format!("RUN busybox nc 127.0.0.1 {port} > /heard");
    write_dockerfile(&environment, &format!("RUN echo first > /first\n{step}\nRUN cat /first > /last"));
    let mut build = environment.command(["build", "--network=host", "-t", "app", "."]);
    let mut build = build.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    listener.set_nonblocking(true).unwrap();
    let connection = loop {
        if let Ok((connection, _)) = listener.accept() {
            break connection;
        }
        if build.try_wait().unwrap().is_some() {
            let mut log = String::new();
            build.stderr.take().unwrap().read_to_string(&mut log).unwrap();
            panic!("the build ended before its step called: {log}");
        }
        std::thread::yield_now();
    };

    let mut prune = environment.command(["prune", "-a", "-f"]);
    let mut prune = prune.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(prune.stderr.take().unwrap()).lines();
    let waiting = lines.next().unwrap().unwrap();
    assert!(
        waiting.contains(&format!("waiting for those who use the store (pid {}", build.id())),
        "{waiting}"
    );
    drop(connection);
    let mut log = String::new();
    build.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(build.wait().unwrap().success(), "{log}");
    assert!(prune.wait().unwrap().success());
    environment
        .run(["run", "app", "cat", "/first", "/last"])
        .assert_success()
        .assert_stdout("first\nfirst\n");
}
