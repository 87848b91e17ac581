// SPDX-License-Identifier: Apache-2.0
//! Nothing of a container outlives its run, whoever is killed.

use std::io::{Read, Write};

use polyarch_sandbox::Mount;
use serde_json::json;

use crate::support::{World, shell};

#[test]
fn kernel_everything_a_process_started_ends_with_it() {
    let Some(world) = World::new() else { return };
    // The sleeper keeps the output open: the probe sees its end only when the sleeper is gone.
    let outcome = world.sh("sleep 1000 & setsid sleep 1000 & echo begun");
    assert_eq!(outcome.output(), "begun\n");
}

#[test]
fn kernel_a_cancelled_run_ends_at_once_and_a_signal_reaches_the_process() {
    let Some(world) = World::new() else { return };
    let root = world.overlay().0;
    let spec = shell("setsid sleep 1000 & echo begun; sleep 1000");
    let answer = world.ask(vec![json!({ "root": root, "spec": spec, "cancel_on_output": true })], false);
    assert_eq!(answer["results"][0]["error"], "cancelled", "{answer}");
    let spec = shell("trap 'echo caught; exit 3' TERM; echo begun; while :; do sleep 0.01; done");
    let root = world.overlay().0;
    let answer = world.ask(vec![json!({ "root": root, "spec": spec, "signal_on_output": 15 })], false);
    assert_eq!(answer["results"][0]["output"], "begun\ncaught\n", "{answer}");
    assert_eq!(answer["results"][0]["code"], 3, "{answer}");
}

/// Starts a container with two sleepers, lets `meddle` do something to the builder, kills the builder with SIGKILL and
/// waits until nothing of it is left.
fn kill_builder(world: &World, meddle: impl FnOnce(u32)) {
    world.make("scratch");
    let shared = world.make("shared");
    let fifo = shared.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o666)).expect("mkfifo");
    let mut spec = shell("exec 3>/shared/fifo; echo ready >&3; setsid sleep 1000 & sleep 1000");
    spec.mounts = vec![Mount::Bind { source: shared, target: "/shared".into(), read_only: false }];
    let mut probe = world.command().spawn().expect("spawn");
    let request = world.request(vec![json!({ "root": world.overlay().0, "spec": spec })], false);
    probe.stdin.take().expect("piped").write_all(request.as_bytes()).expect("write");
    let mut reader = std::fs::File::open(&fifo).expect("open");
    let mut ready = [0u8; 6];
    reader.read_exact(&mut ready).expect("ready");
    meddle(probe.id());
    probe.kill().expect("kill");
    probe.wait().expect("wait");
    // Both read to their end only when no process holds the other side: neither the container nor the launcher.
    assert_eq!(reader.read_to_end(&mut Vec::new()).expect("end of the container"), 0);
    let mut errors = String::new();
    probe.stderr.take().expect("piped").read_to_string(&mut errors).expect("end of the launcher");
    assert_eq!(errors, "");
}

#[test]
fn kernel_a_killed_builder_leaves_no_process() {
    let Some(world) = World::new() else { return };
    kill_builder(&world, |_| {});
}

#[test]
fn kernel_an_init_that_does_not_answer_is_killed() {
    let Some(world) = World::new() else { return };
    kill_builder(&world, |builder| {
        let child = |process: u32| -> u32 {
            let text = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"))
                .expect("children");
            text.trim().parse().expect("one child")
        };
        let init = rustix::process::Pid::from_raw(child(child(builder)) as i32).expect("not 0");
        rustix::process::kill_process(init, rustix::process::Signal::STOP).expect("stop");
    });
}

#[test]
fn kernel_a_killed_launcher_takes_its_containers_with_it() {
    let Some(world) = World::new() else { return };
    kill_builder(&world, |builder| {
        let text =
            std::fs::read_to_string(format!("/proc/{builder}/task/{builder}/children")).expect("children");
        let launcher =
            rustix::process::Pid::from_raw(text.trim().parse().expect("one child")).expect("not 0");
        rustix::process::kill_process(launcher, rustix::process::Signal::KILL).expect("kill");
    });
}
