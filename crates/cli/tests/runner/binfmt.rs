// SPDX-License-Identifier: Apache-2.0
//! `polyarch binfmt` from outside. Whatever registers does so in a namespace of its own: the machine's
//! binfmt_misc is never written to.

use polyarch_testkit::environment::finish;
use polyarch_testkit::{Need, Output, TestEnvironment, hello_program, requires};
use serde_json::Value;

const NEEDS: &[Need] =
    &[Need::Root, Need::UserNamespaces, Need::PrivateBinfmt, Need::Qemu("aarch64"), Need::Command("unshare")];

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

/// Runs a shell's text in a user and mount namespace with a binfmt_misc of its own, where `$P` is polyarch.
fn in_own_instance(environment: &TestEnvironment, script: &str) -> Output {
    let mut command = environment.program("unshare");
    let text = format!(
        "host=$(readlink /proc/1/ns/user); [ \"$host\" != \"$(readlink /proc/self/ns/user)\" ] || exit 99\n\
         mount -t binfmt_misc none /proc/sys/fs/binfmt_misc || exit 99\n{script}"
    );
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &text])
        .env("P", env!("CARGO_BIN_EXE_polyarch"));
    finish(command, Vec::new())
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}\n{output}"))
}

fn entries() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir("/proc/sys/fs/binfmt_misc")
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    names.sort();
    names
}

#[test]
fn the_status_has_the_form_of_tonistiigi_and_makes_no_store() {
    if requires(&[Need::UserNamespaces]).is_some() {
        return;
    }
    let environment = environment();
    let output = environment.run(["binfmt"]);
    let status = json(output.assert_success());
    let host = polyarch_oci::Platform::host().to_string();
    assert_eq!(status["supported"][0], Value::from(host.as_str()));
    assert!(output.stdout.starts_with("{\n  \"supported\": [\n    \""), "{output}");
    let (_, rest) = output.stdout.split_once("\n  ],\n").unwrap();
    assert!(rest.starts_with("  \"emulators\": ") && rest.ends_with("\n}\n"), "{output}");
    output.assert_stderr("PLATFORM").assert_stderr(&host);

    let full = json(environment.run(["binfmt", "--format=json"]).assert_success());
    let platforms = full["platforms"].as_array().unwrap();
    assert_eq!((&platforms[0]["platform"], &platforms[0]["support"]), (&host.into(), &"native".into()));
    for platform in platforms {
        let is_explained = platform["support"] != "none" || platform["fix"].is_string();
        assert!(is_explained, "{platform}");
    }
    let table = environment.run(["binfmt", "--format=table"]);
    assert!(table.assert_success().stdout.starts_with("PLATFORM") && table.stderr.is_empty(), "{table}");
    assert!(environment.run(["binfmt", "--version"]).assert_success().stdout.starts_with("binfmt/"));
    assert!(!environment.store().exists(), "no store was made");
}

#[test]
fn wrong_use_changes_nothing() {
    let environment = environment();
    let before = entries();
    environment.run(["binfmt", "--install=amd46"]).assert_code(2).assert_stderr("did you mean amd64?");
    environment.run(["binfmt", "--format=yaml"]).assert_code(2).assert_stderr("json, table");
    environment
        .run(["run", "--privileged", "--rm", "tonistiigi/binfmt", "--instal", "all"])
        .assert_code(125)
        .assert_stderr("--instal");
    assert_eq!(entries(), before);
}

#[test]
fn users_without_root_are_told_the_command_needs_root_to_become_one() {
    if requires(&[Need::Root, Need::Command("setpriv")]).is_some() {
        return;
    }
    let environment = environment();
    let mut command = environment.program("setpriv");
    // Where the program lies may be closed to others; so it is handed over as standard input.
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "/proc/self/fd/0", "binfmt"])
        .args(["--uninstall", "qemu-*", "--install", "arm64,linux/riscv64"])
        .stdin(std::fs::File::open(env!("CARGO_BIN_EXE_polyarch")).unwrap());
    let output = finish(command, Vec::new());
    output
        .assert_code(7)
        .assert_stdout("")
        .assert_stderr("nothing was changed")
        .assert_stderr("hint: sudo polyarch binfmt --uninstall 'qemu-*' --install arm64,linux/riscv64\n");
}

#[test]
fn emulators_are_registered_tried_kept_and_removed_needs_root_and_qemu() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let before = entries();
    environment.write("hello", hello_program("arm64", "hello from arm64\n", 0).unwrap());
    let output = in_own_instance(
        &environment,
        "set -e; chmod +x hello; d=\"--persist-to $PWD/binfmt.d\"\n\
         ./hello 2>/dev/null && exit 98\n\
         $P binfmt --install arm64 $d > 1.json; ./hello\n\
         cat /proc/sys/fs/binfmt_misc/qemu-aarch64\n\
         $P binfmt --install aarch64 $d > 2.json\n\
         $P binfmt --uninstall arm64 $d > 3.json; ls binfmt.d /proc/sys/fs/binfmt_misc\n\
         ./hello 2>/dev/null && exit 97\n\
         $P binfmt --uninstall arm64 $d > 4.json || echo code $?\n\
         $P binfmt --install arm64 --no-persist $d > 5.json; ls binfmt.d; ./hello\n",
    );
    output.assert_success();
    let expected = "hello from arm64\nenabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: POCF\n";
    assert!(output.stdout.starts_with(expected), "{output}");
    let removed = "/proc/sys/fs/binfmt_misc:\nregister\nstatus\n\nbinfmt.d:\ncode 4\nhello from arm64\n";
    assert!(output.stdout.ends_with(removed), "{output}");
    output
        .assert_stderr("installing: arm64 OK\n")
        .assert_stderr("every program of this user namespace")
        .assert_stderr("binfmt.d: qemu-aarch64.conf\n")
        .assert_stderr("installing: arm64 qemu-aarch64 already registered\n")
        .assert_stderr("uninstalling: qemu-aarch64 OK\n")
        .assert_stderr("uninstalling: arm64 not found\n")
        .assert_stderr("it lasts until the next boot\n");
    let emulators = |file: &str| -> Value {
        let text = std::fs::read_to_string(environment.work().join(file)).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["emulators"].clone()
    };
    assert_eq!(emulators("1.json"), serde_json::json!(["qemu-aarch64"]));
    assert_eq!(emulators("4.json"), Value::Null);
    assert_eq!(entries(), before, "the machine's own handlers are as they were");
}

#[test]
fn images_of_emulators_are_done_by_ourselves_needs_root_and_qemu() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let before = entries();
    let output = in_own_instance(
        &environment,
        "ls=\"ls /proc/sys/fs/binfmt_misc\"\n\
         mount -t tmpfs none /etc || exit 99\n\
         $P run --privileged --rm tonistiigi/binfmt --install arm64 > /dev/null; $ls\n\
         $P run --rm --privileged multiarch/qemu-user-static --reset -p yes > /dev/null; $ls | grep -c qemu-\n\
         ls /etc/binfmt.d | grep -c conf\n\
         $P binfmt --uninstall all > /dev/null; $ls; ls /etc/binfmt.d\n\
         $P run --rm --privileged docker/binfmt:a7996909642ee92942dcd6cff44b9b95f08dad64 > /dev/null\n\
         $ls | grep qemu-aarch64; ls /etc/binfmt.d | grep aarch64",
    );
    output
        .assert_success()
        .assert_stderr("without pulling it")
        .assert_stderr("uninstalling: qemu-aarch64 OK");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines[..3], ["qemu-aarch64", "register", "status"], "{output}");
    assert_eq!(lines[3], lines[4], "each entry has its file\n{output}");
    let last = ["register", "status", "qemu-aarch64", "qemu-aarch64.conf"];
    assert_eq!(lines[5..], last, "{output}");
    assert!(!environment.store().exists(), "nothing was pulled");
    assert_eq!(entries(), before, "the machine's own handlers are as they were");
}
