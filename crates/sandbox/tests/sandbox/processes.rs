// SPDX-License-Identifier: Apache-2.0
//! How programs start, who they are, and how they end.

use std::path::Path;
use std::process::{Command, Stdio};

use polyarch_sandbox::{Network, ProcessSpec, Resource, Ulimit};
use serde_json::{Value, json};

use crate::support::{World, install, is_root, shell};

#[test]
fn kernel_a_process_ends_with_its_own_status() {
    let Some(world) = World::new() else { return };
    let (root, _) = world.overlay();
    assert_eq!(world.run(&root, &shell("exit 42")).0["code"], 42);
    assert_eq!(world.sh("kill -SEGV $$").0["signal"], 11);
    assert_eq!(world.sh("exit 0").0["code"], 0);
}

#[test]
fn kernel_ways_to_fail_at_execve_are_told_apart() {
    let Some(world) = World::new() else { return };
    let file = |name: &str, content: &[u8], mode: u32| {
        std::fs::write(world.path("content"), content).expect("write");
        install(&world.path("content"), &world.path("image").join(name), mode);
    };
    let mut elf = vec![0u8; 64];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    elf[16..20].copy_from_slice(&[2, 0, 0xfe, 0xfe]);
    file("foreign", &elf, 0o755);
    file("plain", b"hello", 0o755);
    file("closed", b"#!/bin/sh\n", 0o644);
    file("orphan", b"#!/opt/none/sh -e\n", 0o755);
    let error = |program: &str| {
        let mut spec = ProcessSpec::new(vec![program.to_owned()]);
        spec.env = vec!["PATH=/none:/bin".to_owned()];
        world.run(&world.overlay().0, &spec).error().to_owned()
    };
    assert_eq!(error("nothing"), "exec: \"nothing\": executable file not found in $PATH");
    assert_eq!(error("/nothing"), "exec: \"/nothing\": no such file or directory");
    assert!(error("/foreign").contains("machine number 65278"), "{}", error("/foreign"));
    assert!(error("/plain").contains("exec format error (neither"), "{}", error("/plain"));
    assert_eq!(error("/closed"), "exec: \"/closed\": permission denied");
    assert!(
        error("/orphan").contains("interpreter it asks for does not (/opt/none/sh)"),
        "{}",
        error("/orphan")
    );
    let mut spec = shell("true");
    spec.cwd = "/missing".to_owned();
    let outcome = world.run(&world.overlay().0, &spec);
    assert!(outcome.error().contains("enter the working directory /missing"), "{}", outcome.error());
}

#[test]
fn kernel_the_process_is_who_and_where_it_should_be() {
    let Some(world) = World::new() else { return };
    let image = world.path("image");
    std::fs::create_dir_all(image.join("etc")).expect("mkdir");
    std::fs::create_dir_all(image.join("box/dir")).expect("mkdir");
    std::fs::write(image.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("write");
    world.give(&image);
    let mut spec = shell("hostname; pwd; echo $HOME $A; ulimit -n; ulimit -Hn");
    spec.hostname = "box.example".to_owned();
    spec.cwd = "/box/dir".to_owned();
    spec.env.push("A=1".to_owned());
    spec.ulimits = vec![Ulimit { resource: Resource::Nofile, soft: Some(100), hard: Some(200) }];
    let outcome = world.run(&world.overlay().0, &spec);
    assert_eq!(outcome.output(), "box.example\n/box/dir\n/root 1\n100\n200\n");
    if is_root() {
        let mut spec = shell(
            "id -u; id -g; id -G; grep CapEff /proc/self/status; touch /x 2>/dev/null || echo no; echo $HOME",
        );
        (spec.uid, spec.gid, spec.groups) = (1000, 1001, vec![27, 33]);
        let outcome = world.run(&world.overlay().0, &spec);
        assert_eq!(outcome.output(), "1000\n1001\n1001 27 33\nCapEff:\t0000000000000000\nno\n/\n");
    }
}

#[test]
fn kernel_a_terminal_passes_through() {
    let Some(world) = World::new() else { return };
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: script is missing (apt-get install bsdutils)");
        return;
    }
    world.make("scratch");
    let mut spec = shell("[ -t 0 ] && [ -t 2 ] && echo terminal; tty; ls /dev/console; exit 7");
    spec.is_tty = true;
    let run = json!({ "root": world.overlay().0, "spec": spec, "on_terminal": true });
    std::fs::write(world.path("request"), world.request(vec![run], false)).expect("write");
    let (probe, request, answer) = (world.path("probe"), world.path("request"), world.path("answer"));
    let line = format!("{} < {} > {}", probe.display(), request.display(), answer.display());
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).stdin(Stdio::null());
    let output = script.output().expect("script");
    let answer = std::fs::read_to_string(&answer).expect("an answer");
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let value: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(value["results"][0]["code"], 7, "{answer} {text}");
    assert!(text.contains("terminal\n/dev/console\n/dev/console\n"), "{text:?}");
}

#[test]
fn kernel_many_containers_run_at_once() {
    let Some(world) = World::new() else { return };
    let runs =
        (0..16).map(|index| json!({ "root": world.overlay().0, "spec": shell(&format!("exit {index}")) }));
    let answer = world.ask(runs.collect(), true);
    for (index, result) in answer["results"].as_array().expect("list").iter().enumerate() {
        assert_eq!(result["code"], index, "{answer}");
    }
}

#[test]
fn kernel_the_cost_of_a_hundred_runs() {
    let Some(world) = World::new() else { return };
    for (name, network) in [("host network", Network::Host), ("no network", Network::None)] {
        let mut spec = shell("");
        spec.args = vec!["/bin/true".to_owned()];
        spec.network = network;
        let runs: Vec<Value> = (0..100).map(|_| json!({ "root": world.overlay().0, "spec": spec })).collect();
        let answer = world.ask(runs, false);
        let mut times: Vec<u64> = answer["results"]
            .as_array()
            .expect("list")
            .iter()
            .map(|result| {
                assert_eq!(result["code"], 0, "{result}");
                result["microseconds"].as_u64().expect("number")
            })
            .collect();
        times.sort_unstable();
        eprintln!("100 runs, {name}: min {} µs, median {} µs, max {} µs", times[0], times[50], times[99]);
    }
}

#[test]
fn kernel_and_qemu_a_foreign_program_runs_in_a_container() {
    let Some(world) = World::new() else { return };
    let platform: polyarch_oci::Platform = "linux/arm64".parse().expect("a platform");
    if !Path::new("/usr/bin/qemu-aarch64-static").exists() {
        eprintln!("skipped: qemu-aarch64-static is missing (apt-get install qemu-user-static)");
        return;
    }
    let program = polyarch_sandbox::emulation::probe_executable(&platform).expect("there is one");
    std::fs::write(world.path("content"), program).expect("write");
    install(&world.path("content"), &world.path("image/foreign"), 0o755);
    let emulation = polyarch_sandbox::emulation::EmulationConfig {
        directories: Vec::new(),
        path_dirs: vec!["/usr/bin".into()],
        host_binfmt: "/proc/sys/fs/binfmt_misc".into(),
        state: world.make("emulation"),
        is_private_allowed: true,
    };
    // Through a shell of the host's architecture, and under the filter.
    let run = json!({ "root": world.overlay().0, "spec": shell("/foreign; echo $?; exec /foreign") });
    let request = json!({
        "scratch": world.path("scratch"),
        "runs": [run],
        "platforms": [platform],
        "emulation": emulation,
    });
    let answer = world.ask_through(world.command(), &request.to_string());
    if answer["support"][0].get("private").is_none() {
        eprintln!("skipped: no private binfmt_misc here: {}", answer["support"][0]);
        return;
    }
    let status = polyarch_sandbox::emulation::PROBE_STATUS;
    assert_eq!(answer["results"][0]["output"], format!("{status}\n"), "{answer}");
    assert_eq!(answer["results"][0]["code"], status, "{answer}");
}
