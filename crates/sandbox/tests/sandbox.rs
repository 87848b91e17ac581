// SPDX-License-Identifier: Apache-2.0
//! Containers run for real: as root and as ordinary users, driven through `polyarch-sandbox-probe`.
//!
//! All of them need the kernel's namespaces and overlayfs and Debian's busybox-static; where one is missing, a test
//! says so and passes.
#![expect(clippy::print_stderr, reason = "a skipped test says why, a measurement says what it found")]

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use polyarch_sandbox::{
    MemoryFile, Mount, Network, ProcessSpec, Resource, RootFs, RootFsKind, Security, Ulimit,
};
use serde_json::{Value, json};

const BUSYBOX: &str = "/bin/busybox";

/// As whom the builder runs.
#[derive(Clone, Copy, PartialEq)]
enum Builder {
    Current,
    User { uid: u32, gid: u32 },
}

/// A machine directory with an image and places for runs.
struct World {
    directory: tempfile::TempDir,
    builder: Builder,
    /// Numbers the runs.
    runs: std::cell::Cell<u32>,
}

impl World {
    /// `None` after having said why, where this machine can't run the test.
    fn new() -> Option<World> {
        World::with(Builder::Current)
    }

    fn with(builder: Builder) -> Option<World> {
        if !Path::new(BUSYBOX).exists() {
            eprintln!("skipped: {BUSYBOX} is missing (apt-get install busybox-static)");
            return None;
        }
        let directory = tempfile::tempdir().expect("tempdir");
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
        let bin = directory.path().join("image/bin");
        std::fs::create_dir_all(&bin).expect("mkdir");
        install(Path::new(BUSYBOX), &bin.join("busybox"), 0o755);
        let applets = Command::new(BUSYBOX).arg("--list").output().expect("busybox --list").stdout;
        for applet in String::from_utf8(applets).expect("UTF-8").lines().filter(|name| *name != "busybox") {
            symlink("busybox", bin.join(applet)).expect("symlink");
        }
        // The target directory may be closed to other users.
        let probe = directory.path().join("probe");
        install(Path::new(env!("CARGO_BIN_EXE_polyarch-sandbox-probe")), &probe, 0o755);
        let world = World { directory, builder, runs: std::cell::Cell::new(0) };
        world.give(world.directory.path());
        Some(world)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a directory of the builder's.
    fn make(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("mkdir");
        self.give(&path);
        path
    }

    /// Makes the builder the owner of everything below.
    fn give(&self, path: &Path) {
        if let Builder::User { uid, gid } = self.builder {
            let owner = format!("{uid}:{gid}");
            assert!(Command::new("chown").args(["-Rh", &owner]).arg(path).status().expect("chown").success());
        }
    }

    /// A root for one run: the image, a fresh upper directory. Returns the upper directory too.
    fn overlay(&self) -> (RootFs, PathBuf) {
        self.overlay_of(vec![self.path("image")])
    }

    fn overlay_of(&self, lower: Vec<PathBuf>) -> (RootFs, PathBuf) {
        let run = self.runs.get();
        self.runs.set(run + 1);
        let upper = self.make(&format!("run{run}/upper"));
        let work = self.make(&format!("run{run}/work"));
        (RootFs::overlay(lower, upper.clone(), work), upper)
    }

    fn command(&self) -> Command {
        let mut command = match self.builder {
            Builder::Current => Command::new(self.path("probe")),
            Builder::User { uid, gid } => {
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
                command.arg(self.path("probe"));
                command
            }
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn request(&self, runs: Vec<Value>, at_once: bool) -> String {
        json!({ "scratch": self.path("scratch"), "runs": runs, "at_once": at_once }).to_string()
    }

    /// Sends a request to the probe and returns its answer.
    fn ask(&self, runs: Vec<Value>, at_once: bool) -> Value {
        self.ask_through(self.command(), &self.request(runs, at_once))
    }

    /// Has the probe, started by `command`, answer a request.
    fn ask_through(&self, mut command: Command, request: &str) -> Value {
        self.make("scratch");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut probe = command.spawn().expect("spawn");
        probe.stdin.take().expect("piped").write_all(request.as_bytes()).expect("write");
        let output = probe.wait_with_output().expect("wait");
        let errors = String::from_utf8_lossy(&output.stderr);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {:?} {errors}", String::from_utf8_lossy(&output.stdout))
        });
        assert!(answer.get("failure").is_none(), "{answer}");
        answer
    }

    fn run(&self, root: &RootFs, spec: &ProcessSpec) -> Outcome {
        let answer = self.ask(vec![json!({ "root": root, "spec": spec })], false);
        Outcome(answer["results"][0].clone())
    }

    /// Runs a shell script on the image.
    fn sh(&self, script: &str) -> Outcome {
        self.run(&self.overlay().0, &shell(script))
    }
}

/// Copies a file that is to be executed. Not in this process: a test that forks meanwhile would hold it open for
/// writing, and the kernel executes no such file.
fn install(from: &Path, to: &Path, mode: u32) {
    let mode = format!("--mode={mode:o}");
    assert!(Command::new("install").arg(mode).args([from, to]).status().expect("install").success());
}

struct Outcome(Value);

impl Outcome {
    #[track_caller]
    fn output(&self) -> &str {
        assert_eq!(self.0["code"], 0, "{}", self.0);
        self.text()
    }

    fn text(&self) -> &str {
        self.0["output"].as_str().expect("text")
    }

    #[track_caller]
    fn error(&self) -> &str {
        self.0["error"].as_str().unwrap_or_else(|| panic!("no error: {}", self.0))
    }
}

fn shell(script: &str) -> ProcessSpec {
    let mut spec = ProcessSpec::new(["sh", "-c", script].map(str::to_owned).to_vec());
    spec.env = vec!["PATH=/bin".to_owned()];
    spec.resolv_conf = b"nameserver 192.0.2.1\n".to_vec();
    spec.hosts = b"127.0.0.1 localhost\n".to_vec();
    spec
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Every path below, sorted, without the directory itself.
fn tree(directory: &Path) -> Vec<String> {
    fn walk(root: &Path, directory: &Path, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).expect("read").map(|entry| entry.expect("entry")) {
            let path = entry.path();
            names.push(path.strip_prefix(root).expect("below").to_str().expect("UTF-8").to_owned());
            if entry.file_type().expect("type").is_dir() {
                walk(root, &path, names);
            }
        }
    }
    let mut names = Vec::new();
    walk(directory, directory, &mut names);
    names.sort();
    names
}

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
fn kernel_nothing_but_the_steps_own_changes_is_in_the_upper_directory() {
    let Some(world) = World::new() else { return };
    let cache = world.make("cache");
    let (root, upper) = world.overlay();
    let mut spec =
        shell("cat /etc/resolv.conf /etc/hosts; echo kept > /var/cache/tool/x; touch /tmp/t; mkdir /made");
    spec.mounts = vec![
        Mount::Bind { source: cache.clone(), target: "/var/cache/tool".into(), read_only: false },
        Mount::Tmpfs { target: "/tmp".into(), size_bytes: 1 << 20 },
    ];
    let outcome = world.run(&root, &spec);
    assert_eq!(outcome.output(), "nameserver 192.0.2.1\n127.0.0.1 localhost\n");
    assert_eq!(tree(&upper), ["made"]);
    assert_eq!(std::fs::read_to_string(cache.join("x")).expect("kept"), "kept\n");
    // The same skeleton serves the next run.
    let count = || std::fs::read_dir(world.path("scratch")).expect("read").count();
    let before = count();
    spec.args[2] = "true".to_owned();
    assert_eq!(world.run(&world.overlay().0, &spec).0["code"], 0);
    assert_eq!(count(), before);
}

#[test]
fn kernel_mount_points_behind_links_leave_nothing_either() {
    let Some(world) = World::new() else { return };
    let image = world.path("image");
    std::fs::create_dir_all(image.join("etc")).expect("mkdir");
    std::fs::create_dir_all(image.join("var")).expect("mkdir");
    symlink("../run/systemd/resolve/stub-resolv.conf", image.join("etc/resolv.conf")).expect("symlink");
    symlink("/run", image.join("var/run")).expect("symlink");
    // A link that would lead out of a root that is not one.
    symlink("../../../../../../../../../../../../escape", image.join("data")).expect("symlink");
    world.give(&image);
    let (root, upper) = world.overlay();
    let mut spec =
        shell("cat /etc/resolv.conf; ls -d /run/lock/a /escape; [ -L /etc/resolv.conf ] && echo link");
    let tmpfs = |target: &str| Mount::Tmpfs { target: target.into(), size_bytes: 0 };
    spec.mounts = vec![tmpfs("/var/run/lock/a"), tmpfs("/data")];
    let outcome = world.run(&root, &spec);
    assert_eq!(outcome.output(), "nameserver 192.0.2.1\n/escape\n/run/lock/a\nlink\n");
    assert!(tree(&upper).is_empty(), "{:?}", tree(&upper));
    assert!(!Path::new("/escape").exists());
}

#[test]
fn kernel_a_mount_point_hidden_by_an_opaque_directory_is_removed_again() {
    let Some(world) = World::new() else { return };
    let layer = world.make("layer/opaque");
    rustix::fs::setxattr(&layer, "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
        .expect("setxattr");
    let modified = std::fs::metadata(&layer).expect("stat").modified().expect("mtime");
    let (root, upper) = world.overlay_of(vec![world.path("layer"), world.path("image")]);
    let mut spec = shell("ls -d /opaque/below/deep");
    spec.mounts = vec![Mount::Tmpfs { target: "/opaque/below/deep".into(), size_bytes: 0 }];
    assert_eq!(world.run(&root, &spec).output(), "/opaque/below/deep\n");
    // The directory above was copied up, unchanged; the mount points are gone.
    assert_eq!(tree(&upper), ["opaque"]);
    assert_eq!(std::fs::metadata(upper.join("opaque")).expect("stat").modified().expect("mtime"), modified);
}

#[test]
fn kernel_proc_and_sys_are_masked_and_read_only() {
    let Some(world) = World::new() else { return };
    let outcome = world.sh(
        "for file in kcore keys timer_list sched_debug latency_stats interrupts; do
             [ ! -e /proc/$file ] || [ $(wc -c < /proc/$file) = 0 ] || echo $file; done
         for path in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap; do
             [ ! -d $path ] || [ -z \"$(ls $path)\" ] || echo $path; done
         echo x 2>/dev/null > /proc/sys/kernel/domainname || echo sys; mkdir /sys/x 2>/dev/null || echo sysfs
         echo x 2>/dev/null > /proc/sysrq-trigger || echo sysrq; mkdir /sys/fs/cgroup/x 2>/dev/null || echo cgroup
         echo $$; [ -e /proc/1/status ] && [ ! -r /proc/1/exe ] && echo hidden",
    );
    assert_eq!(outcome.output(), "sys\nsysfs\nsysrq\ncgroup\n2\nhidden\n");
}

#[test]
fn kernel_dev_has_the_usual_nodes() {
    let Some(world) = World::new() else { return };
    let mut spec = shell(
        "cd /dev; ls; head -c 3 zero | wc -c; echo x > null; echo x > full || echo full; for link in fd stdin core ptmx; do readlink $link; done
         [ -c pts/ptmx ] && echo ptmx; df -k /dev/shm | awk 'END {print $2}'; touch /dev/shm/x && echo shm",
    );
    spec.shm_size_bytes = 32 << 20;
    let outcome = world.run(&world.overlay().0, &spec);
    let output = outcome.output().replace("sh: write error: No space left on device\n", "");
    let names = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    let names = names.split(' ').filter(|name| *name != "tty" || Path::new("/dev/tty").exists());
    let expected: String = names.map(|name| format!("{name}\n")).collect();
    let rest = "3\nfull\n/proc/self/fd\n/proc/self/fd/0\n/proc/kcore\npts/ptmx\nptmx\n32768\nshm\n";
    assert_eq!(output, expected + rest);
}

#[test]
fn kernel_rights_are_dockers() {
    let Some(world) = World::new() else { return };
    let script =
        "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; umask; [ -e /proc/self/fd/3 ] || echo closed
                  mknod /x c 1 3 2>/dev/null || echo mknod; mount -t tmpfs x /bin 2>/dev/null || echo mount
                  unshare -U true 2>/dev/null || echo unshare; cat /proc/self/stat | cut -d' ' -f6";
    let outcome = world.sh(script);
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
                    CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n0022\n\
                    closed\nmknod\nmount\nunshare\n2\n";
    assert_eq!(outcome.output(), expected);

    let mut spec = shell(script);
    spec.security = Security::Insecure;
    let insecure = world.run(&world.overlay().0, &spec);
    assert!(insecure.output().contains("Seccomp:\t0\n"), "{}", insecure.text());
    assert!(!insecure.text().contains("CapEff:\t00000000a80425fb"), "{}", insecure.text());
    assert!(!insecure.text().contains("\nmount\n"), "{}", insecure.text());
}

#[test]
fn kernel_a_network_of_its_own_has_only_lo() {
    let Some(world) = World::new() else { return };
    let mut spec = shell(
        "ip -o link | wc -l; ip -o link show lo | grep -c 'LOOPBACK,UP'; ping -c1 -W2 127.0.0.1 >&2 && ls /sys/class/net",
    );
    spec.network = Network::None;
    let outcome = world.run(&world.overlay().0, &spec);
    assert!(
        outcome.output().starts_with("1\n1\n") && outcome.text().ends_with("\nlo\n"),
        "{}",
        outcome.text()
    );
    let host = std::fs::read_to_string("/proc/self/net/dev").expect("read").lines().count();
    assert_eq!(world.sh("grep -c . /proc/net/dev").output().trim(), host.to_string());
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

#[test]
fn kernel_a_directory_is_left_as_it_was() {
    let Some(world) = World::new() else { return };
    let image = world.path("image");
    let before = (tree(&image), std::fs::metadata(&image).expect("stat").modified().expect("mtime"));
    let mut spec = shell("ls -d /proc/self /dev/null /etc/hosts /deep/er");
    spec.mounts = vec![Mount::Tmpfs { target: "/deep/er".into(), size_bytes: 0 }];
    let root = RootFs::dir(image.clone());
    assert_eq!(world.run(&root, &spec).output(), "/deep/er\n/dev/null\n/etc/hosts\n/proc/self\n");
    assert_eq!((tree(&image), std::fs::metadata(&image).expect("stat").modified().expect("mtime")), before);
    let answer = world.ask(
        vec![json!({ "root": root, "spec": shell("echo x > /new; echo begun; sleep 1000"), "cancel_on_output": true })],
        false,
    );
    assert_eq!(answer["results"][0]["error"], "cancelled");
    std::fs::remove_file(image.join("new")).expect("the change stayed");
    assert_eq!(tree(&image), before.0);
}

#[test]
fn kernel_a_read_only_root_takes_no_changes() {
    let Some(world) = World::new() else { return };
    let (mut root, upper) = world.overlay();
    root.read_only = true;
    let mut spec = shell("touch /x 2>/dev/null || echo refused; touch /tmp/x /dev/shm/x && echo written");
    spec.mounts = vec![Mount::Tmpfs { target: "/tmp".into(), size_bytes: 0 }];
    assert_eq!(world.run(&root, &spec).output(), "refused\nwritten\n");
    assert!(tree(&upper).is_empty());
}

#[test]
fn kernel_parts_of_trees_are_mounted_and_no_link_leads_out_of_them() {
    let Some(world) = World::new() else { return };
    let lower = world.make("lower");
    std::fs::create_dir_all(lower.join("src/app")).expect("mkdir");
    std::fs::write(lower.join("src/app/main"), "below\n").expect("write");
    symlink("/src/app", lower.join("link")).expect("symlink");
    symlink("/etc", lower.join("out")).expect("symlink");
    std::fs::write(lower.join("file"), "a file\n").expect("write");
    world.give(&lower);
    let (tree, tree_upper) = world.overlay_of(vec![lower.clone()]);
    let (other, _) = world.overlay_of(vec![lower]);
    let mount = |tree: &RootFs, path: &str, target: &str, read_only| Mount::Tree {
        tree: tree.kind.clone(),
        path: path.into(),
        target: target.into(),
        read_only,
    };
    let script =
        "cat /rw/main; echo new > /rw/new; cat /one; touch /ro/src/x 2>/dev/null || echo refused; ls /ro";
    let mut spec = shell(script);
    spec.mounts = vec![
        mount(&other, "/", "/ro", true),
        mount(&tree, "link", "/rw", false),
        mount(&world.overlay().0, "", "/image", true),
        mount(&RootFs::dir(world.path("lower")), "file", "/one", true),
    ];
    let (root, upper) = world.overlay();
    assert_eq!(world.run(&root, &spec).output(), "below\na file\nrefused\nfile\nlink\nout\nsrc\n");
    assert!(tree_upper.join("src/app/new").exists(), "changes are in the tree's own upper directory");
    assert!(self::tree(&upper).is_empty());
    spec.mounts = vec![mount(&RootFs::dir(world.path("lower")), "out", "/x", true)];
    let outcome = world.run(&world.overlay().0, &spec);
    assert!(outcome.error().contains("open the source of a mount, out"), "{}", outcome.error());
}

#[test]
fn kernel_files_in_memory_have_a_mode_and_an_owner_and_leave_nothing() {
    let Some(world) = World::new() else { return };
    let file = MemoryFile { content: b"hush".to_vec(), mode: 0o741, uid: 0, gid: 0 };
    assert_eq!(format!("{file:?}"), "MemoryFile(4 bytes, mode 741, owner 0:0)");
    let quiet = MemoryFile { content: b"more".to_vec(), mode: 0o400, ..file.clone() };
    let script = "stat -c '%u %g %f' /mine; cat /mine /run/secrets/deep/two; echo; \
                  (echo x > /mine) 2>/dev/null || echo refused";
    let mut spec = shell(script);
    spec.mounts = vec![
        Mount::File { file, target: "/mine".into() },
        Mount::File { file: quiet, target: "/run/secrets/deep/two".into() },
    ];
    let (root, upper) = world.overlay();
    assert_eq!(world.run(&root, &spec).output(), "0 0 81e1\nhushmore\nrefused\n");
    assert!(tree(&upper).is_empty());
}

#[test]
fn kernel_binds_are_read_only_when_asked_and_files_are_bound_too() {
    let Some(world) = World::new() else { return };
    let source = world.make("source");
    std::fs::write(source.join("secret"), "hidden\n").expect("write");
    world.give(&source);
    let (root, upper) = world.overlay();
    let mut spec = shell("cat /run/secrets/one; touch /ro/x 2>/dev/null || echo refused; ls /ro");
    spec.mounts = vec![
        Mount::Bind { source: source.join("secret"), target: "/run/secrets/one".into(), read_only: true },
        Mount::Bind { source: source.clone(), target: "/ro".into(), read_only: true },
    ];
    assert_eq!(world.run(&root, &spec).output(), "hidden\nrefused\nsecret\n");
    assert!(tree(&upper).is_empty());
    spec.mounts = vec![Mount::Bind { source: world.path("absent"), target: "/x".into(), read_only: true }];
    let outcome = world.run(&world.overlay().0, &spec);
    assert!(outcome.error().contains("open the source of a mount,") && outcome.error().contains("absent"));
    spec.mounts = vec![Mount::Bind { source, target: "/bin/busybox".into(), read_only: true }];
    let outcome = world.run(&world.overlay().0, &spec);
    assert!(
        outcome.error().contains("cannot mount on /bin/busybox in the image: it is a file"),
        "{}",
        outcome.error()
    );
}

#[test]
fn kernel_three_hundred_layers_with_long_paths_are_mounted() {
    let Some(world) = World::new() else { return };
    let deep = "long".repeat(50);
    let mut lower: Vec<PathBuf> = (0..300)
        .map(|layer| {
            let path = world.path("layers").join(&deep).join(format!("{layer}:,\\"));
            std::fs::create_dir_all(&path).expect("mkdir");
            std::fs::write(path.join(format!("file{layer}")), "").expect("write");
            path
        })
        .collect();
    world.give(&world.path("layers"));
    lower.push(world.path("image"));
    let outcome = world.run(&world.overlay_of(lower).0, &shell("ls /file* | wc -l"));
    assert_eq!(outcome.output().trim(), "300");
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
fn kernel_the_host_is_untouched() {
    let Some(world) = World::new() else { return };
    let host = || {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("read");
        (std::fs::read_to_string("/proc/self/mountinfo").expect("read"), hostname)
    };
    let before = host();
    assert_eq!(world.sh("mkdir /x; hostname").output(), "buildkitsandbox\n");
    assert_eq!(host(), before);
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
