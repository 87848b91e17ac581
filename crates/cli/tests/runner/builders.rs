// SPDX-License-Identifier: Apache-2.0
//! Builders: `buildx create|use|ls|inspect|stop|rm`, with nodes that nobody runs and with this machine.

use polyarch_testkit::{Output, TestEnvironment};
use serde_json::Value;

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

fn buildx(environment: &TestEnvironment, arguments: &str) -> Output {
    environment.run(["buildx"].into_iter().chain(arguments.split_whitespace()))
}

/// Returns name, driver and nodes (name, endpoint, status) of each builder, and which is current.
fn listed(environment: &TestEnvironment) -> Vec<String> {
    let output = buildx(environment, "ls --format json --timeout 5s");
    let lines = output.assert_success().stdout.lines();
    lines
        .map(|line| {
            let builder: Value = serde_json::from_str(line).unwrap();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let nodes: Vec<String> = builder["Nodes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|node| {
                    format!("{}@{}:{}", text(&node["Name"]), text(&node["Endpoint"]), text(&node["Status"]))
                })
                .collect();
            let mark = if builder["Current"] == true { "*" } else { "" };
            format!("{}{mark} {} {}", text(&builder["Name"]), text(&builder["Driver"]), nodes.join(" "))
        })
        .collect()
}

const LOCAL: &str = "default local default@local:running";

#[test]
fn a_builder_of_docker_container_is_this_machine() {
    let environment = environment();
    let created = buildx(&environment, "create --use --name mybuilder");
    created.assert_success().assert_stdout("mybuilder\n").assert_stderr("needs no container here");
    let mine = "docker-container mybuilder0@unix:///var/run/docker.sock:running";
    assert_eq!(listed(&environment), [&format!("mybuilder* {mine}"), LOCAL]);
    let inspected = buildx(&environment, "inspect mybuilder --bootstrap");
    let text = &inspected.assert_success().stdout;
    assert!(
        text.starts_with("Name:          mybuilder\nDriver:        docker-container\nLast Activity: "),
        "{text}"
    );
    assert!(text.contains("\n\nNodes:\nName:             mybuilder0\n"), "{text}");
    buildx(&environment, "create --name mybuilder")
        .assert_code(2)
        .assert_stderr("there is a builder mybuilder already");
    buildx(&environment, "use default").assert_success().assert_stdout("");
    assert_eq!(listed(&environment), [&format!("mybuilder {mine}"), "default* local default@local:running"]);
    buildx(&environment, "stop mybuilder").assert_success().assert_stdout("");
    buildx(&environment, "rm mybuilder")
        .assert_success()
        .assert_stdout("")
        .assert_stderr("mybuilder removed\n");
    assert_eq!(listed(&environment), ["default* local default@local:running"]);
    buildx(&environment, "rm mybuilder").assert_code(2).assert_stderr("no builder \"mybuilder\" found");
    buildx(&environment, "use mybuilder").assert_code(2).assert_stderr("no builder \"mybuilder\" found");
    buildx(&environment, "rm default").assert_code(2).assert_stderr("can't be removed");
}

#[test]
fn nodes_are_added_and_leave() {
    let environment = environment();
    let create =
        |arguments: &str| buildx(&environment, &format!("create --name far --timeout 5s {arguments}"));
    create("--driver remote --platform linux/amd64 unix:///nonexistent/a.sock")
        .assert_success()
        .assert_stdout("far\n")
        .assert_stderr("the node far0 does not answer now: can't connect to unix:///nonexistent/a.sock");
    create("--append --node arm --platform linux/arm64,linux/amd64 unix:///nonexistent/b.sock")
        .assert_success();
    let nodes = "far remote far0@unix:///nonexistent/a.sock:inactive arm@unix:///nonexistent/b.sock:inactive";
    assert_eq!(listed(&environment), [nodes, "default* local default@local:running"]);
    let table = buildx(&environment, "ls --timeout 5s");
    table.assert_success().assert_stderr("Failed to get status for far (arm): can't connect to");
    // The platform went to the node that was written last.
    let row =
        |name: &str| table.stdout.lines().find(|line| line.contains(name)).unwrap().trim_end().to_owned();
    assert!(row(" far0 ").ends_with("inactive"), "{}", table.stdout);
    assert!(row(" arm ").ends_with("linux/amd64*, linux/arm64*"), "{}", table.stdout);
    create("--append unix:///nonexistent/a.sock").assert_code(2).assert_stderr("invalid duplicate endpoint");
    create("--append --bootstrap unix:///nonexistent/c.sock")
        .assert_code(5)
        .assert_stderr("failed to initialize builder");
    create("--node other unix:///nonexistent/c.sock").assert_code(2).assert_stderr("has no node other");
    create("--append tcp://192.0.2.1:1234").assert_code(2).assert_stderr("use certificates");
    create("--leave --node far0").assert_success().assert_stdout("");
    create("--leave --node arm").assert_code(2).assert_stderr("last node");
    let left = "far remote arm@unix:///nonexistent/b.sock:inactive";
    assert_eq!(listed(&environment), [left, "default* local default@local:running"]);
    buildx(&environment, "rm --all-inactive --force").assert_success().assert_stderr("far removed\n");
    assert_eq!(listed(&environment).len(), 1);
}

#[test]
fn a_file_that_is_no_builder_is_told_and_left_alone() {
    let environment = environment();
    buildx(&environment, "create --name good").assert_success();
    let file = environment.store().join("builders/instances/broken");
    std::fs::write(&file, "{").unwrap();
    let list = buildx(&environment, "ls");
    list.assert_success().assert_stderr("instances/broken is not a builder");
    assert!(list.stdout.contains("good"));
    assert!(file.exists());
    buildx(&environment, "rm broken").assert_success();
    assert!(!file.exists());
}

#[test]
fn builders_of_buildx_are_taken_over() {
    let environment = environment();
    let instance = |name: &str, driver: &str, endpoint: &str| {
        let node = format!(
            r#"{{"Name":"{name}0","Endpoint":"{endpoint}","Platforms":null,"DriverOpts":null,"Flags":null,"Files":null}}"#
        );
        let text = format!(r#"{{"Name":"{name}","Driver":"{driver}","Nodes":[{node}],"Dynamic":false}}"#);
        environment.write(&format!("stored/instances/{name}"), text);
    };
    instance("far", "remote", "unix:///nonexistent/a.sock");
    instance("mine", "docker-container", "unix:///var/run/docker.sock");
    instance("pods", "kubernetes", "kubernetes:///pods");
    environment.write("stored/instances/broken", "{");
    let imported = buildx(&environment, "import stored");
    imported.assert_success().assert_stderr("broken is not a builder");
    if cfg!(feature = "kubernetes") {
        imported.assert_stdout("far\nmine\npods\n");
        buildx(&environment, "rm --keep-daemon pods").assert_success();
        std::fs::remove_file(environment.work().join("stored/instances/pods")).unwrap();
    } else {
        imported.assert_stdout("far\nmine\n").assert_stderr("pods is left out: the driver kubernetes");
    }
    assert_eq!(
        listed(&environment),
        [
            "far remote far0@unix:///nonexistent/a.sock:inactive",
            "mine docker-container mine0@unix:///var/run/docker.sock:running",
            "default* local default@local:running"
        ]
    );
    // What is here stays as it is.
    instance("far", "remote", "unix:///nonexistent/b.sock");
    buildx(&environment, "import stored")
        .assert_success()
        .assert_stdout("")
        .assert_stderr("another builder of this name");
    buildx(&environment, "import nothing").assert_code(2).assert_stderr("has no builders");
}
