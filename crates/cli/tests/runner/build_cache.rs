// SPDX-License-Identifier: Apache-2.0
//! What runs again and what does not; the same bytes for the same inputs.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use polyarch_testkit::{Need, Output, TestEnvironment, requires};

use super::build_steps::{build, dockerfile, with_base};

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox")];

/// Returns the names of steps that executed, and of those that were cached.
pub(crate) fn steps(output: &Output) -> (Vec<String>, Vec<String>) {
    let mut lines: Vec<&str> = Vec::new();
    for line in output.stderr.lines() {
        // A step that others' output came between is named again.
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let is_step = |name: &str| ["RUN ", "COPY ", "ADD ", "WORKDIR "].iter().any(|word| name.contains(word));
    let names = |ending: &str| {
        lines
            .iter()
            .filter_map(|line| {
                let (number, rest) = line.split_once(' ')?;
                let name = rest.split_once("] ").map_or(rest, |(_, name)| name).to_owned();
                let has_ending = lines.iter().any(|it| it.starts_with(&format!("{number} {ending}")));
                (rest.starts_with('[') && is_step(rest) && has_ending).then_some(name)
            })
            .collect()
    };
    (names("DONE"), names("CACHED"))
}

fn digest(environment: &TestEnvironment, arguments: &[&str]) -> String {
    let output = environment.run(["build", "-q"].iter().chain(arguments).chain(&["."]));
    output.assert_success();
    output.stdout.trim().to_owned()
}

#[test]
fn only_what_sees_a_change_runs_again_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    environment.write("early", "1");
    environment.write("late", "1");
    dockerfile(
        &environment,
        "COPY early /\nRUN echo before\nARG version=1\nRUN echo with $version\nCOPY late /\nRUN echo after\n",
    );
    let (executed, cached) = steps(build(&environment, &[]).assert_success());
    assert_eq!((executed.len(), cached.len()), (6, 0));
    let (executed, cached) = steps(build(&environment, &[]).assert_success());
    assert_eq!((executed.len(), cached.len()), (0, 6), "nothing changed");

    let late = fs::File::options().write(true).open(environment.work().join("late")).unwrap();
    late.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    assert_eq!(steps(build(&environment, &[]).assert_success()).0.len(), 0, "only a time changed");

    environment.write("late", "2");
    let (executed, _) = steps(build(&environment, &[]).assert_success());
    assert_eq!(executed, ["COPY late /", "RUN echo after"]);

    let (executed, _) = steps(build(&environment, &["--build-arg", "version=2"]).assert_success());
    assert_eq!(executed, ["RUN echo with 2", "COPY late /", "RUN echo after"]);

    let (executed, cached) = steps(build(&environment, &["--no-cache"]).assert_success());
    assert_eq!((executed.len(), cached.len()), (6, 0));
}

#[test]
fn a_source_date_gives_the_same_bytes_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let mut environment = with_base();
    environment.set("SOURCE_DATE_EPOCH", "1700000000");
    environment.write("dir/file", "content");
    dockerfile(
        &environment,
        "COPY dir /dir\nRUN mkdir -p /made && echo x > /made/x && ln /made/x /made/y && rm /etc/group\nWORKDIR /made\n\
         RUN chmod 600 /dir/file\nFROM scratch\nCOPY --from=base / /\n",
    );
    let first = digest(&environment, &[]);
    assert_eq!(digest(&environment, &[]), first, "from the cache");
    assert_eq!(digest(&environment, &["--no-cache"]), first, "without the cache");
    environment.run(["prune", "-a", "-f"]).assert_success();
    for seconds in [1_000_000_000, 1_900_000_000] {
        let file = fs::File::options().write(true).open(environment.work().join("dir/file")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        environment.run(["prune", "-a", "-f"]).assert_success();
        assert_eq!(digest(&environment, &[]), first, "the file's time is {seconds}");
    }
    let other = with_base();
    other.write("dir/file", "content");
    fs::copy(environment.work().join("Dockerfile"), other.work().join("Dockerfile")).unwrap();
    let mut other = other;
    other.set("SOURCE_DATE_EPOCH", "1700000000");
    assert_eq!(digest(&other, &[]), first, "in another directory and store");
    other.set("SOURCE_DATE_EPOCH", "1700000001");
    assert_ne!(digest(&other, &[]), first, "the date is part of the image");
}

#[test]
fn two_builds_at_once_both_succeed_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(&environment, "RUN echo a > /a && sleep 0.2\nRUN echo b > /b\n");
    let builds: Vec<_> = (0..3)
        .map(|number| {
            let tag = format!("local/at-once:{number}");
            let mut command: Command = environment.command(["build", "-q", "-t", &tag, "."]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for build in builds {
        let output = build.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    environment.run(["run", "local/at-once:2", "cat", "/a", "/b"]).assert_success().assert_stdout("a\nb\n");
}

#[test]
fn an_interrupted_build_leaves_nothing_to_clean_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(&environment, "RUN echo one > /one\nRUN echo waiting && sleep 60\n");
    for (signal, code) in [(rustix::process::Signal::INT, Some(130)), (rustix::process::Signal::KILL, None)] {
        let mut child = environment
            .command(["build", "--progress", "plain", "."])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.ends_with(" waiting\n") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut log, &mut line).unwrap() > 0, "the build ended early");
        }
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, signal).unwrap();
        // The step's processes hold the pipe of its output in the builder, not this one; the end of this
        // one tells that launcher and containers, which inherited it, are gone.
        std::io::copy(&mut log, &mut std::io::sink()).unwrap();
        assert_eq!(child.wait().unwrap().code(), code);
    }
    dockerfile(&environment, "RUN echo one > /one\nRUN cat /one\n");
    let (executed, cached) = steps(build(&environment, &[]).assert_success());
    assert_eq!(executed, ["RUN cat /one"], "{cached:?}");
}

#[test]
fn a_context_that_changes_during_the_build_is_not_recorded_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    environment.write("file", "before");
    dockerfile(&environment, "RUN echo waiting && sleep 1\nCOPY file /file\n");
    let mut child =
        environment.command(["build", "--progress", "plain", "."]).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.ends_with(" waiting\n") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut log, &mut line).unwrap() > 0, "the build ended early");
    }
    environment.write("file", "after it");
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut log, &mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{rest}");
    assert!(rest.contains("changed while they were copied"), "{rest}");
    environment.write("file", "before");
    build(&environment, &["-o", "type=local,dest=out"]).assert_success();
    assert_eq!(fs::read_to_string(environment.work().join("out/file")).unwrap(), "before");
}

#[test]
fn a_damaged_blob_is_made_again_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(&environment, "RUN echo x > /x\n");
    build(&environment, &["-t", "local/damaged"]).assert_success();
    let blobs = environment.store().join("blobs/sha256");
    let largest = fs::read_dir(blobs)
        .unwrap()
        .map(|it| it.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len());
    let largest = largest.unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    bytes[5000] ^= 1;
    fs::remove_file(&largest).unwrap();
    fs::write(&largest, bytes).unwrap();
    let archive = ["-t", "local/damaged", "-o", "type=oci,dest=out.tar"];
    build(&environment, &archive).assert_code(6).assert_stderr("digest");
    build(&environment, &["--no-cache", "-t", "local/damaged"]).assert_success();
    build(&environment, &archive).assert_success();
}

#[test]
fn a_store_where_no_overlay_can_be_gives_the_same_image_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let text = "RUN mkdir -p /d/e && echo 1 > /d/e/f && echo 2 > /d/g && ln -s g /d/link\nCOPY file /d/\n\
                RUN rm -r /d/e && mkdir /d/e && echo 3 > /d/e/new && chmod 700 /d\nRUN rm /etc/group\nRUN true\n";
    let build_once = |on_overlay: bool| {
        let mut environment = with_base();
        environment.set("SOURCE_DATE_EPOCH", "1700000000");
        environment.write("file", "content");
        dockerfile(&environment, text);
        let _mount = on_overlay.then(|| OverlayMount::at(&environment.store()));
        let output = build(&environment, &[]);
        output.assert_success();
        let told = output.stderr.matches("made by copying").count();
        let image = output.stderr.lines().find(|line| line.starts_with("image sha256:")).unwrap().to_owned();
        (image, told)
    };
    let (image, told) = build_once(false);
    assert_eq!(told, 0);
    assert_eq!(build_once(true), (image, 1));
}

/// An overlay, on which no other overlay can have its upper directory.
struct OverlayMount(std::path::PathBuf);

impl OverlayMount {
    fn at(path: &std::path::Path) -> OverlayMount {
        let beside = |name: &str| {
            let directory = path.with_file_name(name);
            fs::create_dir_all(&directory).unwrap();
            directory.display().to_string()
        };
        fs::create_dir_all(path).unwrap();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", beside("lower"), beside("upper"), beside("inner"));
        let mut mount = Command::new("mount");
        assert!(mount.args(["-t", "overlay", "none", "-o", &options]).arg(path).status().unwrap().success());
        OverlayMount(path.to_owned())
    }
}

impl Drop for OverlayMount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
