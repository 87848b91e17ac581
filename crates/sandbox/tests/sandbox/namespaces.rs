// SPDX-License-Identifier: Apache-2.0
//! Machines that allow less: nested namespaces, covered /proc, ordinary users.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use polyarch_sandbox::{Mount, ProcessSpec, RootFs, RootFsKind};
use serde_json::json;

use crate::support::{Builder, Outcome, World, is_root, shell, tree};

/// Runs a script with namespaces of its own in which `$0` is the probe; says why where that is impossible.
fn prepared(world: &World, unshare: &[&str], script: &str) -> Option<Command> {
    let mut command = Command::new("unshare");
    command.args(unshare).args(["--", "sh", "-ec", script]).arg(world.path("probe"));
    let mut trial = Command::new("unshare");
    let can = trial.args(unshare).args(["--", "sh", "-ec", script, "true"]).output().expect("unshare");
    if can.status.success() {
        return Some(command);
    }
    eprintln!("skipped: unshare {unshare:?} does not work here: {}", String::from_utf8_lossy(&can.stderr));
    None
}

#[test]
fn kernel_where_proc_is_covered_containers_share_the_process_identifiers() {
    let Some(world) = World::new() else { return };
    // As in an ordinary container: parts of /proc are covered, so the kernel refuses a fresh one.
    let cover = "mount -t tmpfs none /proc/fs; exec \"$0\"";
    let Some(command) = prepared(&world, &["--user", "--map-root-user", "--mount"], cover) else { return };
    let script = "setsid sleep 1000 & (setsid sleep 1000 &) ; [ $$ -gt 2 ] && [ -d /proc/$$ ] && echo shared
                  echo x 2>/dev/null > /proc/sys/kernel/domainname || echo protected";
    let sleep = shell("setsid sleep 1000 & echo begun; sleep 1000");
    let leak = |depth: &str| {
        let mut spec = shell("ls");
        spec.cwd = format!("/proc/self/fd/{depth}/..");
        spec
    };
    let run = |spec: ProcessSpec| json!({ "root": world.overlay().0, "spec": spec });
    let mut cancelled = run(sleep);
    cancelled["cancel_on_output"] = json!(true);
    let mut runs = vec![run(shell(script)), cancelled];
    runs.extend((3..16).map(|fd| run(leak(&fd.to_string()))));
    let answer = world.ask_through(command, &world.request(runs, false));
    let results = answer["results"].as_array().expect("list");
    assert_eq!(Outcome(results[0].clone()).output(), "shared\nprotected\n");
    assert_eq!(results[1]["error"], "cancelled", "{answer}");
    for result in &results[2..] {
        let outcome = Outcome(result.clone());
        assert!(outcome.error().contains("enter the working directory /proc/self/fd"), "{result}");
    }
}

#[test]
fn kernel_where_user_namespaces_are_refused_root_keeps_its_own() {
    let Some(world) = World::new() else { return };
    // The limit holds for the namespace that `unshare` makes, not for the machine.
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$0\"";
    let Some(command) = prepared(&world, &["--user", "--map-root-user", "--mount"], forbid) else { return };
    let run = json!({ "root": world.overlay().0, "spec": shell("id -u; grep CapBnd /proc/self/status") });
    let answer = world.ask_through(command, &world.request(vec![run], false));
    let mapping = answer["mapping"].as_str().expect("text");
    assert!(mapping.starts_with("Host") && mapping.contains("max_user_namespaces is 0"), "{mapping}");
    assert_eq!(Outcome(answer["results"][0].clone()).output(), "0\nCapBnd:\t00000000a80425fb\n");
}

#[test]
fn kernel_root_of_a_nested_namespace_keeps_the_identifiers_it_has() {
    let Some(world) = World::new() else { return };
    let nested = ["--user", "--map-root-user", "--mount"];
    let Some(command) = prepared(&world, &nested, "exec \"$0\"") else { return };
    let run = json!({ "root": world.overlay().0, "spec": shell("cat /proc/self/uid_map") });
    let answer = world.ask_through(command, &world.request(vec![run], false));
    assert_eq!(answer["mapping"], "Identity");
    let outcome = Outcome(answer["results"][0].clone());
    assert_eq!(outcome.output().split_ascii_whitespace().collect::<Vec<_>>(), ["0", "0", "1"]);
}

/// A user of this machine with subordinate identifiers.
fn subordinate_user() -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let has_range = |file: &str, name: &str, uid: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().filter_map(|line| line.split(':').next()).any(|owner| owner == name || owner == uid)
    };
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, ..] = fields.as_slice() else { return None };
        let ids = (uid.parse().ok()?, gid.parse().ok()?);
        (ids.0 != 0 && has_range("/etc/subuid", name, uid) && has_range("/etc/subgid", name, uid))
            .then_some(ids)
    })
}

#[test]
fn root_and_kernel_an_ordinary_user_without_ranges_has_one_identifier() {
    if !is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    // A number that no file mentions.
    let Some(world) = World::with(Builder::User { uid: 54321, gid: 54321 }) else { return };
    let (root, upper) = world.overlay();
    let runs = vec![json!({ "root": root, "spec": shell("id -u; cat /proc/self/uid_map; echo x > /file") })];
    let answer = world.ask(runs, false);
    let mapping = answer["mapping"].as_str().expect("text");
    assert!(mapping.starts_with("Single"), "{mapping}");
    assert!(mapping.contains("usermod --add-subuids") || mapping.contains("uidmap"), "{mapping}");
    let outcome = Outcome(answer["results"][0].clone());
    let words: Vec<&str> = outcome.output().split_ascii_whitespace().collect();
    assert_eq!(words, ["0", "0", "54321", "1"]);
    assert_eq!(std::fs::metadata(upper.join("file")).expect("stat").uid(), 54321);
    let mut spec = shell("true");
    spec.uid = 7;
    let outcome = world.run(&world.overlay().0, &spec);
    assert!(outcome.error().contains("user 7 cannot be had: not mapped"), "{}", outcome.error());
}

#[test]
fn root_and_kernel_an_ordinary_user_with_ranges_has_them_all() {
    if !is_root() || !Path::new("/usr/bin/newuidmap").exists() {
        eprintln!("skipped: needs root and newuidmap (apt-get install uidmap)");
        return;
    }
    let Some((uid, gid)) = subordinate_user() else {
        eprintln!("skipped: no user has ranges in /etc/subuid and /etc/subgid (useradd makes one)");
        return;
    };
    let Some(world) = World::with(Builder::User { uid, gid }) else { return };
    let (root, upper) = world.overlay();
    let mut spec = shell("id -u; touch /mine; chown 1000:1001 /mine; stat -c %u:%g /mine; mkdir /dir");
    spec.mounts = vec![Mount::Tmpfs { target: "/cache".into(), size_bytes: 0 }];
    let answer = world.ask(vec![json!({ "root": root, "spec": spec })], false);
    assert!(answer["mapping"].as_str().expect("text").starts_with("Subordinate"), "{answer}");
    let outcome = Outcome(answer["results"][0].clone());
    assert_eq!(outcome.output(), "0\n1000:1001\n");
    assert_eq!(tree(&upper), ["dir", "mine"]);
    assert_eq!(std::fs::metadata(upper.join("dir")).expect("stat").uid(), uid);
    let mut spec = shell("id -u; id -g; id -G");
    (spec.uid, spec.gid, spec.groups) = (33, 33, vec![100]);
    assert_eq!(world.run(&world.overlay().0, &spec).output(), "33\n33\n33 100\n");
    // A user that is not the builder works in a directory of its own as well.
    let root = RootFs { kind: RootFsKind::Dir(world.path("image")), read_only: false };
    assert_eq!(world.run(&root, &shell("id -u")).output(), "0\n");
}
