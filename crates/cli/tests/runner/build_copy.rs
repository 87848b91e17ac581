// SPDX-License-Identifier: Apache-2.0
//! COPY and ADD with all their flags.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use polyarch_testkit::{Need, TestEnvironment, requires};

use crate::build_steps::{build, dockerfile, with_base};

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces];

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

fn build_files(environment: &TestEnvironment) -> PathBuf {
    let _ = fs::remove_dir_all(environment.work().join("out"));
    build(environment, &["-o", "type=local,dest=out"]).assert_success();
    environment.work().join("out")
}

/// Lists what is beneath a directory: paths with modes, directories with a slash.
fn listing(directory: &Path) -> Vec<String> {
    fn visit(directory: &Path, above: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).expect("the directory can be listed") {
            let entry = entry.expect("the directory can be listed");
            let metadata = entry.metadata().expect("the entry is there");
            let name = format!("{above}{}", entry.file_name().to_string_lossy());
            let mode = metadata.mode() & 0o7777;
            if metadata.is_dir() {
                found.push(format!("{name}/ {mode:o}"));
                visit(&entry.path(), &format!("{name}/"), found);
            } else {
                found.push(format!("{name} {mode:o}"));
            }
        }
    }
    let mut found = Vec::new();
    visit(directory, "", &mut found);
    found.sort();
    found
}

fn with_files() -> TestEnvironment {
    let environment = environment();
    for (path, mode) in [
        ("a.txt", 0o644),
        ("b.md", 0o600),
        ("dir/c.txt", 0o644),
        ("dir/d.md", 0o664),
        ("dir/sub/e.txt", 0o744),
    ] {
        environment.write(path, path);
        fs::set_permissions(environment.work().join(path), PermissionsExt::from_mode(mode)).unwrap();
    }
    for (path, mode) in [("dir", 0o700), ("dir/sub", 0o711)] {
        fs::set_permissions(environment.work().join(path), PermissionsExt::from_mode(mode)).unwrap();
    }
    environment
}

/// What the unmodified daemon makes of the same files, found by trying.
#[test]
fn what_is_copied_and_with_what_modes_is_as_in_buildkit_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_files();
    let table: &[(&str, &[&str])] = &[
        // Exclusions count from the directory that is copied, and a file that is named is meant.
        ("--exclude=*.txt a.txt b.md /x/", &["x/ 755", "x/a.txt 644", "x/b.md 600"]),
        ("--exclude=*.txt dir /x/", &["x/ 755", "x/d.md 664", "x/sub/ 711", "x/sub/e.txt 744"]),
        (
            "--exclude=dir/*.txt dir /x/",
            &["x/ 755", "x/c.txt 644", "x/d.md 664", "x/sub/ 711", "x/sub/e.txt 744"],
        ),
        ("--exclude=* a.txt dir /x/", &["x/ 755", "x/a.txt 644"]),
        (
            "--parents --exclude=**/*.txt dir /x/",
            &["x/ 755", "x/dir/ 700", "x/dir/d.md 664", "x/dir/sub/ 711"],
        ),
        // Directories above what is copied are kept with their modes, from the pivot on.
        (
            "--parents dir/./sub/e.txt dir/**/e.txt /x/",
            &[
                "x/ 755",
                "x/dir/ 700",
                "x/dir/sub/ 711",
                "x/dir/sub/e.txt 744",
                "x/sub/ 711",
                "x/sub/e.txt 744",
            ],
        ),
        ("--parents d*/./*.md a.txt /x/", &["x/ 755", "x/a.txt 644", "x/d.md 664"]),
        ("--parents no*/./*.md /x/", &[]),
        ("--parents dir/no* /x/", &["x/ 755"]),
        // A mode in numbers is also that of what is made on the way; symbols change what is there.
        (
            "--parents --chmod=751 dir/sub/e.txt /x/",
            &["x/ 751", "x/dir/ 751", "x/dir/sub/ 751", "x/dir/sub/e.txt 751"],
        ),
        (
            "--chmod=u=rwX,go= dir /x/",
            &["x/ 755", "x/c.txt 600", "x/d.md 600", "x/sub/ 700", "x/sub/e.txt 700"],
        ),
        ("--chmod=go-r,g-w dir/d.md /x/", &["x/ 755", "x/d.md 600"]),
        // A pattern may match nothing.
        ("nothing* a.txt /x/", &["x/ 755", "x/a.txt 644"]),
        ("d* /x", &["x/ 755", "x/c.txt 644", "x/d.md 664", "x/sub/ 711", "x/sub/e.txt 744"]),
    ];
    for (arguments, expected) in table {
        environment.write("Dockerfile", format!("FROM scratch\nCOPY {arguments}\nCOPY a.txt /kept\n"));
        let mut expected: Vec<String> = expected.iter().map(|it| (*it).to_owned()).collect();
        expected.push("kept 644".to_owned());
        expected.sort();
        assert_eq!(listing(&build_files(&environment)), expected, "COPY {arguments}");
    }
}

#[test]
fn copies_that_make_no_sense_are_refused_in_buildkits_words_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_files();
    for (instruction, expected) in [
        (
            "COPY --chmod=64a a.txt /",
            "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777",
        ),
        (
            "ADD --chmod=10000 a.txt /",
            "invalid chmod parameter: '10000'. it should be octal string and between 0 and 07777",
        ),
        ("COPY nothing /", "failed to calculate checksum of ref context: \"/nothing\": not found"),
        ("COPY --parents dir/./nothing /", "\"/dir/nothing\": not found"),
        ("COPY https://example.com/a /", "source can't be a URL for COPY"),
        ("COPY https://example.com/a.git /", "source can't be a git ref for COPY"),
        ("COPY --parents dir/[ /", "syntax error in pattern"),
        ("COPY a.txt b.md /x", "not a directory"),
    ] {
        environment.write("Dockerfile", format!("FROM scratch\n{instruction}\n"));
        let refused = build(&environment, &[]);
        assert_ne!(refused.code, 0, "{instruction}");
        assert!(refused.stderr.contains(expected), "{instruction}: {}", refused.stderr);
    }
}

#[test]
fn a_linked_layer_is_the_same_on_another_base_and_hides_nothing_beside_it_needs_root() {
    if requires(&[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox")]).is_some() {
        return;
    }
    let environment = with_base();
    environment.write("file", "linked");
    let text = |more: &str| {
        format!(
            "RUN mkdir -p /srv/www && echo {more} > /srv/www/below\nWORKDIR /srv/www\nCOPY --link file .\nRUN cat file below\n"
        )
    };
    let copied = |stderr: &str| {
        let step =
            stderr.lines().find(|line| line.contains("COPY --link")).map(|line| line.split(' ').next());
        let number = step.flatten().expect("the step is shown").to_owned();
        stderr.lines().any(|line| line == format!("{number} CACHED"))
    };
    dockerfile(&environment, &text("one"));
    let first = build(&environment, &["-o", "type=local,dest=out"]);
    first.assert_success();
    assert!(!copied(&first.stderr), "{}", first.stderr);
    let out = environment.work().join("out/srv/www");
    assert_eq!(fs::read_to_string(out.join("below")).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(out.join("file")).unwrap(), "linked");
    dockerfile(&environment, &text("two"));
    let second = build(&environment, &["-o", "type=cacheonly"]);
    second.assert_success();
    assert!(copied(&second.stderr), "{}", second.stderr);
    // In the image the layer is one like any other.
    build(&environment, &["-t", "example.com/linked", "-o", "type=oci,tar=false,dest=layout"])
        .assert_success();
}
