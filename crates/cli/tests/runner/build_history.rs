// SPDX-License-Identifier: Apache-2.0
//! Builds are remembered: listed, shown, told again, forgotten.

use polyarch_testkit::{Need, TestEnvironment, requires};
use serde_json::Value;

use crate::build_steps::build;

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces];

fn listed(environment: &TestEnvironment, arguments: &[&str]) -> Vec<Value> {
    let output = environment.run(["buildx", "history", "ls", "--format", "json"].iter().chain(arguments));
    output.assert_success();
    let lines = output.stdout.lines();
    lines.map(|line| serde_json::from_str(line).expect("each line is an object")).collect()
}

fn history(environment: &TestEnvironment, arguments: &[&str]) -> polyarch_testkit::Output {
    environment.run(["buildx", "history"].iter().chain(arguments))
}

#[test]
fn builds_are_remembered_until_they_are_forgotten_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    assert!(listed(&environment, &[]).is_empty());
    history(&environment, &["inspect"]).assert_stderr("no build is remembered");
    environment.write("Dockerfile", "FROM scratch AS out\nARG A\nCOPY Dockerfile /f\n");
    build(&environment, &["--target=out", "--build-arg=A=1", "-t", "r.example/a:1"]).assert_success();
    environment.write("Dockerfile", "FROM scratch\nCOPY nothing /f\n");
    let failed = build(&environment, &[]);
    assert_ne!(failed.code, 0);

    let builds = listed(&environment, &[]);
    let statuses: Vec<&Value> = builds.iter().map(|it| &it["status"]).collect();
    assert_eq!(statuses, ["Error", "Completed"], "the newest comes first");
    assert!(builds[1]["name"].as_str().is_some_and(|name| name.ends_with(" (out)")), "{}", builds[1]);
    assert_eq!(builds[1]["total_steps"], builds[1]["completed_steps"]);
    assert_eq!(listed(&environment, &["--filter", "status=error"]).len(), 1);
    let table = history(&environment, &["ls"]);
    assert!(table.stdout.starts_with("BUILD ID"), "{}", table.stdout);

    let good = builds[1]["ref"].as_str().expect("builds have names");
    let shown = history(&environment, &["inspect", "--format", "json", &good[..12]]);
    shown.assert_success();
    let shown: Value = serde_json::from_str(&shown.stdout).expect("it is JSON");
    assert_eq!((&shown["Ref"], &shown["Target"]), (&Value::from(good), &Value::from("out")));
    assert_eq!(shown["BuildArgs"][0]["Value"], "1");
    assert_eq!(shown["Attachments"][0]["Type"], "https://slsa.dev/provenance/v1");
    let shown = history(&environment, &["inspect"]);
    assert!(shown.stdout.contains("nothing"), "the last build's error: {}", shown.stdout);
    let told = history(&environment, &["logs", "^1"]);
    told.assert_success();
    told.assert_stderr("COPY Dockerfile /f");

    history(&environment, &["rm", "^0"]).assert_success();
    let left = listed(&environment, &[]);
    assert_eq!((left.len(), &left[0]["ref"]), (1, &Value::from(good)));
    history(&environment, &["rm"]).assert_code(2);
    history(&environment, &["rm", "--all"]).assert_success();
    assert!(listed(&environment, &[]).is_empty());
    history(&environment, &["logs", good]).assert_stderr("no build is remembered");
}
