// SPDX-License-Identifier: Apache-2.0
//! `bake`: files become targets, targets are built together; and the same through docker's plugin.

use polyarch_testkit::{Need, Output, TestEnvironment, requires};
use serde_json::Value;

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

fn bake(environment: &TestEnvironment, arguments: &str) -> Output {
    environment.run(["bake"].into_iter().chain(arguments.split_whitespace()))
}

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces];

/// Runs another program than ours in the environment, and returns what it wrote when it succeeded.
fn written_by(environment: &TestEnvironment, program: &std::ffi::OsStr, arguments: &[&str]) -> String {
    let output = environment.program(program).args(arguments).output().expect("the program runs");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("the output is text")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("the output is JSON")
}

const LINKED: &str = r#"
variable "GREETING" { default = "hello" }
group "default" { targets = ["app", "other"] }
target "base" {
  dockerfile-inline = "FROM scratch\nCOPY file /base-file\nLABEL from=base\n"
}
target "app" {
  description = "takes a file of another target"
  contexts = { parent = "target:base" }
  args = { GREETING = GREETING }
  dockerfile-inline = <<EOT
FROM parent
ARG GREETING
COPY --from=parent /base-file /copied
LABEL greeting=$${GREETING}
EOT
  tags = ["example.com/app:1"]
}
target "other" {
  dockerfile-inline = "FROM scratch\nCOPY file /other\n"
  output = ["type=local,dest=out"]
}
"#;

#[test]
fn targets_are_printed_and_listed() {
    let environment = environment();
    environment.write("docker-bake.hcl", LINKED);
    let printed = bake(&environment, "--print --set app.args.MORE=1 app");
    let printed = json(&printed.assert_success().stdout);
    assert_eq!(printed["group"]["default"]["targets"], serde_json::json!(["app"]));
    assert_eq!(printed["target"]["app"]["args"], serde_json::json!({"GREETING": "hello", "MORE": "1"}));
    assert_eq!(printed["target"]["base"]["output"], serde_json::json!([{"type": "cacheonly"}]));
    bake(&environment, "--list targets").assert_success().assert_stdout(
        "TARGET\tDESCRIPTION\napp\ttakes a file of another target\nbase\t\ndefault\tapp, other\nother\t\n",
    );
    let variables = bake(&environment, "--list type=variables,format=json --var GREETING=hi");
    let variables = json(&variables.assert_success().stdout);
    assert_eq!(variables, serde_json::json!([{"name": "GREETING", "value": "hi"}]));
    let buildx = environment.run(["buildx", "bake", "--print", "other"]);
    assert_eq!(json(&buildx.assert_success().stdout)["target"]["other"]["context"], ".");
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let environment = environment();
    bake(&environment, "").assert_code(2).assert_stderr("couldn't find a bake definition");
    environment.write("docker-bake.hcl", "target \"default\" {\n  tags = [\"x:${NOPE}\"]\n}\n");
    let refused = bake(&environment, "--print");
    refused
        .assert_code(2)
        .assert_stderr("docker-bake.hcl:2")
        .assert_stderr("There is no variable named \"NOPE\"")
        .assert_stderr("tags = [\"x:${NOPE}\"]");
    bake(&environment, "-f absent.hcl").assert_code(2).assert_stderr("absent.hcl");
    environment.write("docker-bake.hcl", "target \"default\" { context = \"..\" }\n");
    bake(&environment, "").assert_code(2).assert_stderr("--allow=fs.read=..");
}

#[test]
fn linked_targets_are_built_first_and_all_are_told_in_one_file_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    environment.write("docker-bake.hcl", LINKED);
    environment.write("file", "content");
    let built = bake(&environment, "--metadata-file meta.json --progress plain --var GREETING=hi");
    built.assert_success();
    let metadata =
        json(&std::fs::read_to_string(environment.work().join("meta.json")).expect("the file was written"));
    let names: Vec<&String> = metadata.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["app", "base", "other"]);
    assert!(
        metadata["app"]["containerimage.digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:"))
    );
    built.assert_stderr("[app");
    let config = environment.run(["inspect", "example.com/app:1", "--format", "{{json .Config.Labels}}"]);
    let labels = json(&config.assert_success().stdout);
    assert_eq!(labels, serde_json::json!({"from": "base", "greeting": "hi"}));
    let other = std::fs::read_to_string(environment.work().join("out/other")).expect("the tree was exported");
    assert_eq!(other, "content");
    assert!(!environment.work().join("out/base-file").exists());
}

#[test]
fn a_target_that_fails_is_named_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    environment.write(
        "docker-bake.hcl",
        "target \"good\" { dockerfile-inline = \"FROM scratch\\n\" }\n\
         target \"bad\" { dockerfile-inline = \"FROM scratch\\nCOPY absent /\\n\" }\n",
    );
    let failed = bake(&environment, "--progress plain good bad");
    assert_ne!(failed.code, 0);
    failed.assert_stderr("target bad").assert_stderr("absent");
}

#[test]
fn docker_runs_us_as_its_plugin() {
    let mut environment = environment();
    environment.unset("DOCKER_CONFIG");
    let link = environment.home().join(".docker/cli-plugins/docker-buildx");
    environment.run(["install-plugin"]).assert_success().assert_stderr("linked");
    environment.run(["install-plugin"]).assert_success().assert_stderr("there already");
    let direct = |arguments: &[&str]| written_by(&environment, link.as_os_str(), arguments);
    assert!(direct(&["version"]).starts_with("polyarch v"));
    assert!(direct(&["buildx", "version"]).starts_with("polyarch v"));
    assert_eq!(json(&direct(&["docker-cli-plugin-metadata"]))["SchemaVersion"], "0.1.0");
    let has_docker = environment.program("docker").arg("--version").output().is_ok();
    if has_docker {
        let through = |arguments: &[&str]| written_by(&environment, "docker".as_ref(), arguments);
        assert!(through(&["buildx", "version"]).starts_with("polyarch v"));
        environment.write("docker-bake.hcl", "target \"default\" { tags = [\"a\"] }\n");
        assert_eq!(json(&through(&["buildx", "bake", "--print"]))["target"]["default"]["tags"][0], "a");
        through(&["--context", "default", "buildx", "ls", "--format", "json"]);
    } else {
        println!("skipped for the docker client: there is none (apt-get install docker.io)");
    }
    environment.run(["install-plugin", "--uninstall"]).assert_success();
    assert!(!link.exists());
    std::fs::write(&link, "another program").expect("the directory is there");
    environment.run(["install-plugin"]).assert_code(2).assert_stderr("--force");
    environment.run(["install-plugin", "--force"]).assert_success();
}
