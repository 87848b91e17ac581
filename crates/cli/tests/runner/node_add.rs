// SPDX-License-Identifier: Apache-2.0
//! `node add`: a machine behind an `ssh` that stays on this machine, with a home of its own.

use std::process::Command;

use polyarch_testkit::TestEnvironment;
use serde_json::Value;

/// An environment whose `ssh` notes its arguments and gives the command line to a shell, as the other end would.
fn environment() -> TestEnvironment {
    let mut environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    let (bin, far) = (environment.work().join("bin"), environment.work().join("far"));
    std::fs::create_dir_all(&far).expect("the directory is our own");
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$*\" >> {0}/arguments\nwhile [ \"$1\" != -- ]; do shift; done; shift 2\n\
         HOME={0} PATH=/usr/bin:/bin; export HOME PATH\necho Welcome to this machine\nexec sh -c \"$*\"\n",
        far.display()
    );
    environment.write("script", script);
    install(&environment, "script");
    environment.set("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    environment
}

/// Makes a script the environment's `ssh`. Another process writes it: what is open for writing can't be executed.
fn install(environment: &TestEnvironment, script: &str) {
    let mut command = Command::new("install");
    command
        .args(["-D", "-m755"])
        .arg(environment.work().join(script))
        .arg(environment.work().join("bin/ssh"));
    assert!(command.status().expect("coreutils are there").success());
}

#[test]
fn a_machine_is_looked_at_and_nothing_changes() {
    let environment = environment();
    let looked = environment.run(["node", "add", "me@pi:2222", "--dry-run", "--format", "json"]);
    let machine: Value = serde_json::from_str(&looked.assert_success().stdout).unwrap();
    let host = polyarch_oci::Platform::host();
    assert_eq!(machine["Platform"], format!("linux/{}", host.architecture));
    assert!(
        machine["Cpus"].as_u64().unwrap() > 0 && machine["DiskFreeBytes"].as_u64().unwrap() > 0,
        "{machine}"
    );
    assert!(machine["LatencyMilliseconds"].as_f64().unwrap() > 0.0, "{machine}");
    assert_eq!((&machine["Polyarch"], &machine["Buildctl"]), (&Value::from(""), &Value::from("")));
    let arguments = std::fs::read_to_string(environment.work().join("far/arguments")).unwrap();
    assert_eq!(arguments, "-o ConnectTimeout=20 -l me -p 2222 -- pi sh -s\n");
    // Without a program there it can't be a node.
    let refused = environment.run(["node", "add", "me@pi"]);
    refused.assert_code(2).assert_stderr("has neither polyarch nor buildctl").assert_stderr("--copy-binary");
    let builders = environment.run(["buildx", "ls", "--format", "json"]);
    assert_eq!(builders.assert_success().stdout.lines().count(), 1);
}

#[test]
fn a_program_of_another_architecture_is_not_sent() {
    let environment = environment();
    let mut foreign = b"\x7fELF\x02\x01\x01".to_vec();
    foreign.resize(18, 0);
    foreign.extend(2u16.to_le_bytes());
    environment.write("sparc", foreign);
    let refused = environment.run(["node", "add", "pi", "--copy-binary", "--binary", "sparc"]);
    refused.assert_code(2).assert_stderr("is no program for pi");
    environment.write("text", "this is no program at all");
    let refused = environment.run(["node", "add", "pi", "--copy-binary", "--binary", "text"]);
    refused.assert_code(2).assert_stderr("no program of Linux");
    assert!(!environment.work().join("far/.local").exists());
}

#[test]
fn what_can_not_be_reached_or_is_no_machine_is_told() {
    let environment = environment();
    environment.run(["node", "add", "-oProxyCommand=x"]).assert_code(2);
    environment.run(["node", "add", "tcp://pi:1"]).assert_code(2);
    environment.write("broken", "#!/bin/sh\necho 'Host key verification failed.' >&2\nexit 255\n");
    install(&environment, "broken");
    let failed = environment.run(["node", "add", "pi"]);
    failed.assert_code(5).assert_stderr("Host key verification failed.");
    failed
        .assert_stderr("can't work on pi through ssh, which ended with 255")
        .assert_stderr("try `ssh pi true`");
}
