// SPDX-License-Identifier: Apache-2.0
//! `polyarch doctor` from outside.

use polyarch_testkit::environment::finish;
use polyarch_testkit::{DockerRegistry, Need, Output, TestEnvironment, requires};
use serde_json::Value;

/// The user `ann` with the password `secret`, bcrypt.
const HTPASSWD: &str = "ann:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

/// Returns the check of a name out of the JSON form.
fn check(output: &Output, name: &str) -> Value {
    let report: Value =
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{output}"));
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["check"] == name);
    found.unwrap_or_else(|| panic!("no check {name:?}\n{output}")).clone()
}

#[test]
fn a_machine_that_works_is_well_and_nothing_is_left_behind() {
    if requires(&[Need::UserNamespaces]).is_some() {
        return;
    }
    let environment = environment();
    let output = environment.run(["doctor", "--offline"]);
    output.assert_success();
    for line in ["ok       user namespace: entered\n", "note     registries: not asked (--offline)\n"] {
        assert!(output.stdout.contains(line), "{line}\n{output}");
    }
    let output = environment.run(["doctor", "--offline", "--format=json"]);
    let native = check(output.assert_success(), "native platforms");
    let host = polyarch_oci::Platform::host().to_string();
    assert!(native["text"].as_str().unwrap().starts_with(&host), "{native}");
    assert!(!environment.store().exists(), "no store was made");
}

#[test]
fn broken_settings_are_a_line_like_others() {
    let environment = environment();
    environment.write_config("[build]\nthreds = 1\n");
    let output = environment.run(["doctor", "--offline", "--format=json"]);
    let settings = check(output.assert_code(1), "settings");
    assert_eq!(settings["status"], "problem");
    assert!(
        settings["text"].as_str().unwrap().contains("config.toml, line 2: unknown field `threds`"),
        "{settings}"
    );
    check(&output, "store");

    environment.write_config("");
    environment.write("../home/.docker/config.json", "{\"auths\": ");
    let output = environment.run(["doctor", "--offline"]);
    output.assert_code(1);
    assert!(output.stdout.contains("config.json: is not JSON"), "{output}");
}

#[test]
fn registries_and_mirrors_tell_how_long_they_take_and_whether_a_login_holds() {
    if requires(&[Need::Command("docker-registry")]).is_some() {
        return;
    }
    let mut environment = environment();
    // Docker Hub is asked by way of a proxy that isn't there, so that nothing leaves this machine.
    environment.set("HTTPS_PROXY", "http://127.0.0.1:1").set("NO_PROXY", "127.0.0.1");
    let htpasswd = environment.write("htpasswd", HTPASSWD);
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}", htpasswd.display());
    let (open, closed) = (DockerRegistry::start(), DockerRegistry::start_with(&auth));
    // Port 1 of loopback: nobody listens there, and it is known at once.
    environment.write_config(&format!(
        "[registry.\"docker.io\"]\nmirrors = [\"127.0.0.1:1\"]\n[registry.\"{}\"]\nhttp = true\n\
         [registry.\"{}\"]\nhttp = true\n",
        open.host(),
        closed.host()
    ));
    let doctor = || environment.run(["doctor", "--format=json", "--timeout=2"]);
    let output = doctor();
    let status = |output: &Output, name: &str| check(output, &format!("registry {name}"))["status"].clone();
    assert_eq!(status(&output, &open.host()), "ok", "{output}");
    assert!(check(&output, &format!("registry {}", open.host()))["text"].as_str().unwrap().contains(" ms"));
    assert_eq!(status(&output, "127.0.0.1:1, mirror of docker.io"), "warning", "{output}");
    let login = check(&output, &format!("registry {}", closed.host()));
    assert_eq!(
        (&login["status"], login["fix"].as_str()),
        (&"warning".into(), Some(&*format!("polyarch login {}", closed.host())))
    );

    let write_login = |encoded: &str| {
        let text = format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{encoded}\"}}}}}}", closed.host());
        environment.write("../home/.docker/config.json", text);
    };
    write_login("YW5uOnNlY3JldA==");
    let output = doctor();
    assert_eq!(status(&output, &closed.host()), "ok", "{output}");
    let file = format!("credentials {}/.docker/config.json", environment.home().display());
    assert_eq!(check(&output, &file)["status"], "warning", "others may read it\n{output}");
    write_login("YW5uOndyb25n");
    let output = doctor();
    assert_eq!(status(output.assert_code(1), &closed.host()), "problem", "{output}");
}

#[test]
fn an_ordinary_user_without_anything_gets_a_line_for_each_check_needs_root_to_become_one() {
    if requires(&[Need::Root, Need::UserNamespaces, Need::Command("setpriv")]).is_some() {
        return;
    }
    let environment = environment();
    environment.write_config("[build]\nthrea");
    let mut command = environment.program("setpriv");
    // Where the program lies may be closed to others; so it is handed over as standard input. So may be where
    // the store should lie, which is a line as well.
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "/proc/self/fd/0", "doctor", "--offline"])
        .args(["--format=json", "--root=/proc/polyarch"])
        .stdin(std::fs::File::open(env!("CARGO_BIN_EXE_polyarch")).unwrap());
    let output = finish(command, Vec::new());
    output.assert_code(1);
    let status = |name: &str| check(&output, name)["status"].clone();
    assert_eq!(status("settings"), "problem", "{output}");
    assert_eq!(status("user namespace"), "ok", "{output}");
    assert_eq!(status("file trees"), "problem", "{output}");
    assert_ne!(status("store"), "ok", "{output}");
    let ids = check(&output, "subordinate ids");
    let is_explained = ids["status"] == "ok" || ids["text"].as_str().unwrap().contains("sudo ");
    assert!(is_explained, "{output}");
    check(&output, "native platforms");
}
