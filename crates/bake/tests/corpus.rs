// SPDX-License-Identifier: Apache-2.0
//! Bake files of our own over every feature, and what buildx prints for them.
//!
//! Each folder has files, an optional `command` (the arguments, then the environment), and either
//! `printed`, which must come out byte for byte, or `refused`, buildx's message: then ours names the same
//! line and the same reason. With `POLYARCH_TEST_BUILDX` set to the program, what it prints today is
//! compared with what was recorded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use polyarch_bake::{BakeError, File, Inputs, World, parse};

struct Case {
    directory: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut directories: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("the corpus is there")
        .map(|entry| entry.expect("the corpus can be read").path())
        .collect();
    directories.sort();
    directories.into_iter().map(case).collect()
}

fn case(directory: PathBuf) -> Case {
    let command = std::fs::read_to_string(directory.join("command")).unwrap_or_default();
    let mut lines = command.lines();
    let arguments = lines.next().unwrap_or("").split_whitespace().map(str::to_owned).collect();
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Case { directory, arguments, environment: lines.filter_map(pair).collect() }
}

/// The flags of `bake` that a corpus needs, as the command reads them.
fn print(case: &Case) -> Result<String, BakeError> {
    let mut inputs = Inputs {
        built_in: BTreeMap::from([
            ("BAKE_CMD_CONTEXT".to_owned(), "cwd://".to_owned()),
            ("BAKE_LOCAL_PLATFORM".to_owned(), "linux/amd64".to_owned()),
        ]),
        environment: case.environment.clone(),
        dot_env: std::fs::read_to_string(case.directory.join(".env")).ok(),
        world: World { home: "/home/user".to_owned(), now: 0 },
        ..Inputs::default()
    };
    let (mut files, mut targets, mut set) = (Vec::new(), Vec::new(), Vec::new());
    let mut arguments = case.arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("the flag has a value").clone();
        match argument.as_str() {
            "-f" => files.push(value()),
            "--set" => set.push(value()),
            "--var" => {
                let text = value();
                let (name, value) = text.split_once('=').expect("NAME=VALUE");
                inputs.variables.insert(name.to_owned(), value.to_owned());
            }
            "--push" => set.push("*.push=true".to_owned()),
            "--load" => set.push("*.load=true".to_owned()),
            "--no-cache" => set.push("*.no-cache=true".to_owned()),
            "--pull" => set.push("*.pull=true".to_owned()),
            "--sbom=true" => set.push("*.attest=type=sbom,disabled=false".to_owned()),
            "--provenance=mode=max" => set.push("*.attest=type=provenance,mode=max".to_owned()),
            target => targets.push(target.to_owned()),
        }
    }
    if files.is_empty() {
        files = polyarch_bake::DEFAULT_FILES.iter().map(|name| (*name).to_owned()).collect();
        files.retain(|name| case.directory.join(name).exists());
    }
    if targets.is_empty() {
        targets.push("default".to_owned());
    }
    let read = |name: &String| File {
        name: name.clone(),
        text: std::fs::read_to_string(case.directory.join(name)).expect("the file is there"),
    };
    let files: Vec<File> = files.iter().map(read).collect();
    let config = parse(&files, &inputs)?;
    let mut resolved = config.resolve(&targets, &set, &|name| case.environment.get(name).cloned())?;
    resolved.finish(case.environment.get("SOURCE_DATE_EPOCH").map(String::as_str))?;
    Ok(resolved.print())
}

/// The lines in which two texts differ.
fn difference(ours: &str, theirs: &str) -> String {
    let lines = ours.lines().zip(theirs.lines()).filter(|(ours, theirs)| ours != theirs);
    let lines: Vec<String> =
        lines.take(12).map(|(ours, theirs)| format!("  ours:   {ours}\n  theirs: {theirs}")).collect();
    format!("{}\n  {} and {} lines", lines.join("\n"), ours.lines().count(), theirs.lines().count())
}

#[test]
fn files_print_what_buildx_prints() {
    let mut problems = Vec::new();
    let mut count = 0;
    for case in cases() {
        let name = case.directory.file_name().expect("a folder").to_string_lossy().into_owned();
        let printed = std::fs::read_to_string(case.directory.join("printed")).ok();
        let refused = std::fs::read_to_string(case.directory.join("refused")).ok();
        count += 1;
        match (print(&case), printed, refused) {
            (Ok(ours), Some(theirs), _) if ours == theirs => {}
            (Ok(ours), Some(theirs), _) => problems.push(format!("{name}:\n{}", difference(&ours, &theirs))),
            (Err(error), Some(_), _) => problems.push(format!("{name}: refused: {error}")),
            (Ok(_), None, _) => problems.push(format!("{name}: should have been refused")),
            (Err(error), None, refused) => {
                let theirs = refused.unwrap_or_default();
                let line = |text: &str| {
                    let rest = text.split_once("docker-bake.hcl:").map(|(_, rest)| rest.to_owned());
                    rest.and_then(|rest| rest.split(',').next().map(str::to_owned))
                };
                let ours = error.to_string();
                if line(&ours) != line(&theirs) {
                    problems.push(format!("{name}:\n  ours:   {ours}\n  theirs: {theirs}"));
                }
            }
        }
    }
    assert!(count >= 40, "the corpus has only {count} cases");
    assert!(problems.is_empty(), "{} of {count} differ\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn targets_that_inherit_twice_at_every_level_are_no_more_than_one() {
    let mut text = "target \"t0\" { policy = [{ filename = \"a\" }] }\n".to_owned();
    for level in 1..60 {
        let below = level - 1;
        text += &format!("target \"t{level}\" {{ inherits = [\"t{below}\", \"t{below}\"] }}\n");
    }
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("bake.hcl"), text).expect("the file is written");
    let case = Case {
        directory: directory.path().to_owned(),
        arguments: ["-f", "bake.hcl", "t59"].map(str::to_owned).to_vec(),
        environment: BTreeMap::new(),
    };
    let printed = print(&case).expect("it resolves");
    assert_eq!(printed.matches("\"a\"").count(), 1, "{printed}");
}

#[test]
fn what_was_recorded_is_what_buildx_prints_today() {
    let Some(buildx) = std::env::var_os("POLYARCH_TEST_BUILDX") else {
        println!("not run: POLYARCH_TEST_BUILDX names no program");
        return;
    };
    let home = tempfile::tempdir().expect("a directory can be made");
    for case in cases() {
        let Ok(recorded) = std::fs::read_to_string(case.directory.join("printed")) else { continue };
        let directory = tempfile::tempdir().expect("a directory can be made");
        for entry in std::fs::read_dir(&case.directory).expect("the case can be read") {
            let path = entry.expect("the case can be read").path();
            let name = path.file_name().expect("a file").to_owned();
            std::fs::copy(&path, directory.path().join(name)).expect("the file can be copied");
        }
        // buildx looks for the SSH agents that a file names, even when it only prints.
        let _agent = std::os::unix::net::UnixListener::bind(directory.path().join("agent"));
        let output = Command::new(&buildx)
            .args(["bake", "--print"])
            .args(&case.arguments)
            .env_clear()
            .env("HOME", home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(&case.environment)
            .current_dir(directory.path())
            .output()
            .expect("buildx runs");
        let printed = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        assert!(printed == recorded, "{}: {}", case.directory.display(), difference(&printed, &recorded));
    }
}
