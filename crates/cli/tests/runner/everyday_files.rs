// SPDX-License-Identifier: Apache-2.0
//! Import and cp from outside: archives become images, and files come out of them.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use polyarch_oci::Platform;
use polyarch_testkit::environment::finish;
use polyarch_testkit::{
    Image, Need, PlatformImage, TarBuilder, TestEnvironment, hello_program, hello_rootfs, requires,
};

use crate::everyday::complete_platforms;

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces];

fn environment() -> TestEnvironment {
    TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"))
}

/// Returns a field of an image's config.
fn inspect(environment: &TestEnvironment, name: &str, format: &str) -> String {
    let output = environment.run(["image", "inspect", "--format", format, name]);
    output.assert_success().stdout.trim_end().to_owned()
}

#[test]
fn a_root_file_system_becomes_an_image() {
    let mut environment = environment();
    environment.set("SOURCE_DATE_EPOCH", "1700000000");
    let rootfs = hello_rootfs("arm64", "imported\n");
    environment.write("rootfs.tar", &rootfs);
    let words = ["import", "--platform=linux/arm64", "-c", "CMD [\"/bin/hello\"]", "-c", "ENV A=1"];
    let output = environment.run(words.iter().copied().chain(["-m", "first", "rootfs.tar", "user/app:1"]));
    let digest = output.assert_success().stdout.trim_end().to_owned();
    assert_eq!(output.stderr, "Imported user/app:1 for linux/arm64; its manifest:\n");
    assert_eq!(complete_platforms(&environment, "docker.io/user/app:1"), ["linux/arm64"]);
    let fields = "{{.Os}}/{{.Architecture}} {{json .Config.Cmd}} {{index .Config.Env 0}} {{.Created}}";
    assert_eq!(
        inspect(&environment, "user/app:1", fields),
        "linux/arm64 [\"/bin/hello\"] A=1 2023-11-14T22:13:20Z"
    );
    let history = environment.run(["history", "--format={{.Comment}}", "user/app:1"]);
    history.assert_success().assert_stdout("first\n");

    // The same tree is the same image, whatever it was compressed with and however it came.
    let same = |output: &polyarch_testkit::Output| {
        assert_eq!(output.assert_success().stdout.trim_end(), digest, "{output}");
    };
    for (program, file) in [("gzip", "rootfs.tar.gz"), ("xz", "rootfs.tar.xz"), ("bzip2", "rootfs.tar.bz2")] {
        let mut compress = environment.program("sh");
        compress.args(["-c", &format!("command -v {program} >/dev/null && {program} -k rootfs.tar")]);
        if !compress.status().unwrap().success() {
            continue;
        }
        same(&environment.run(words.iter().copied().chain(["-m", "first", file, "user/app:2"])));
    }
    let output =
        environment.run_with_stdin(words.iter().copied().chain(["-m", "first", "-"]), rootfs.clone());
    same(&output);
    output.assert_stderr(&format!("It has no name: polyarch tag {digest} NAME"));
}

#[test]
fn programs_of_another_platform_are_told_when_imported() {
    let environment = environment();
    environment.write("rootfs.tar", hello_rootfs("s390x", "imported\n"));
    let output = environment.run(["import", "--platform=linux/arm64", "rootfs.tar", "app"]);
    output.assert_success().assert_stderr("WARNING: /bin/hello").assert_stderr("--platform");
    let output = environment.run(["import", "--platform=linux/s390x", "rootfs.tar", "app"]);
    output.assert_success().assert_stderr("app:latest now means");
    assert!(!output.stderr.contains("/bin/hello"), "{output}");
}

#[test]
fn what_is_no_root_file_system_is_refused_and_names_nothing() {
    let environment = environment();
    let rootfs = hello_rootfs("amd64", "x");
    environment.write("half.tar", &rootfs[..700]);
    environment.write("text", "this is no archive at all, but a long enough text".repeat(40));
    environment.write("empty", "");
    environment.write("zeros", [0; 1024]);
    environment.write("rootfs.tar", &rootfs);
    // What is no archive is told without reading all of it.
    environment.write("huge", "this is no archive at all, but a long enough text".repeat(40));
    let huge = std::fs::File::options().write(true).open(environment.work().join("huge")).unwrap();
    huge.set_len(128 << 30).unwrap();
    environment.write("lying.tar.gz", [&[0x1f, 0x8b, 8, 0][..], &[7; 600]].concat());
    std::fs::create_dir(environment.work().join("directory")).unwrap();
    for (words, text) in [
        (&["half.tar", "x"][..], "can't import half.tar"),
        (&["text", "x"], "can't import text: it is no tar archive"),
        (&["huge", "x"], "can't import huge: it is no tar archive"),
        (&["empty", "x"], "can't import empty: it is empty"),
        (&["zeros", "x"], "can't import zeros: it is empty"),
        (&["lying.tar.gz", "x"], "can't import lying.tar.gz"),
        (&["absent", "x"], "absent"),
        (&["directory", "x"], "tar -C directory -c . | polyarch import - x"),
        (&["https://example.com/a.tar", "x"], "curl -fL https://example.com/a.tar | polyarch import - x"),
        (&["--platform=linux/amd64,linux/arm64", "rootfs.tar", "x"], "one platform"),
        (&["--change=RUN make", "rootfs.tar", "x"], "RUN needs a build"),
        (&["-c", "CMDD x", "rootfs.tar", "x"], "\"CMDD x\" is no change of an image"),
        (&["rootfs.tar", "Not-A-Name"], "lowercase"),
    ] {
        let output = environment.run([&["import"], words].concat());
        output.assert_code(2).assert_stdout("").assert_stderr(text);
    }
    environment.run(["images", "--format=json"]).assert_stdout("[]\n");
}

/// An environment whose store has `app`: different files on two platforms, and links that lead outside.
fn environment_with_files() -> TestEnvironment {
    let environment = environment();
    let layer = |platform: &str| {
        TarBuilder::new()
            .directory("etc", 0o755)
            .file("etc/name", 0o640, format!("{platform}\n"))
            .directory("etc/sub", 0o700)
            .file("etc/sub/deep", 0o600, "deep\n")
            .symlink("etc/link", "name")
            .symlink("etc/outside", "/../../../../etc/name")
            .symlink("dir-link", "etc/sub")
            .symlink("escape", "/")
            .file("tool", 0o755, hello_program("amd64", "x", 0).unwrap())
            .finish()
    };
    let host = Platform::host().to_string();
    let images = [host.as_str(), "linux/s390x"].map(|platform| {
        let mut image = PlatformImage::new(platform, layer(platform), &["/tool"]);
        image.layers.push(TarBuilder::new().file("etc/sub/.wh.gone", 0o644, "").finish());
        image
    });
    Image::new(images.into()).write_layout(&environment.work().join("layout"), "docker.io/library/app:1");
    let mut tar = environment.program("tar");
    assert!(tar.args(["-C", "layout", "-cf", "app.tar", "."]).status().unwrap().success());
    environment.run(["load", "-q", "-i", "app.tar"]).assert_success();
    environment
}

#[test]
fn files_go_where_docker_puts_them_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with_files();
    let host = Platform::host().to_string();
    let read = |path: &str| std::fs::read_to_string(environment.work().join(path)).unwrap();
    let copy = |words: &[&str]| {
        environment.run([&["cp"], words].concat()).assert_success().assert_stdout("");
    };
    let output = environment.run(["cp", "app:1:/etc/name", "name"]);
    output.assert_success();
    assert_eq!(output.stderr, format!("Copied /etc/name of app:1 ({host}) to name\n"));
    assert_eq!(read("name"), format!("{host}\n"));
    assert_eq!(environment.work().join("name").metadata().unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(environment.work().join("name").metadata().unwrap().mtime(), 0);
    copy(&["-q", "--platform", "linux/s390x", "app:1:/etc/name", "name"]);
    assert_eq!(read("name"), "linux/s390x\n");
    std::fs::create_dir(environment.work().join("to")).unwrap();
    copy(&["app:1:/etc/name", "to"]);
    copy(&["app:1:etc/../etc/name".replace("app:1:", "app:1:/").as_str(), "to/renamed"]);
    assert_eq!((read("to/name"), read("to/renamed")), (format!("{host}\n"), format!("{host}\n")));
    // A directory becomes what isn't there yet, goes into what is, and DIRECTORY/. is what is in it.
    copy(&["app:1:/etc", "new"]);
    assert_eq!(read("new/sub/deep"), "deep\n");
    copy(&["app:1:/etc", "new"]);
    assert_eq!(read("new/etc/sub/deep"), "deep\n");
    let sub = environment.work().join("new/etc/sub").metadata().unwrap();
    assert_eq!((sub.permissions().mode() & 0o7777, sub.mtime()), (0o700, 0));
    copy(&["app:1:/etc/sub/.", "to"]);
    assert_eq!(read("to/deep"), "deep\n");
    copy(&["app:1:/", "everything"]);
    assert!(environment.work().join("everything/tool").exists());
    // A link is copied as it is, or followed beneath the root of the image.
    copy(&["app:1:/etc/link", "to/link"]);
    assert_eq!(std::fs::read_link(environment.work().join("to/link")).unwrap(), Path::new("name"));
    copy(&["-L", "app:1:/etc/outside", "followed"]);
    assert_eq!(read("followed"), format!("{host}\n"));
    copy(&["app:1:/dir-link/", "through"]);
    assert_eq!(read("through/deep"), "deep\n");
    copy(&["app:1:/etc/name", "/dev/null"]);
    assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
}

#[test]
fn an_archive_has_what_was_asked_for_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with_files();
    let list = |path: &str| {
        let mut command = environment.program("sh");
        let script = format!("{} cp {path} - | tar -t", env!("CARGO_BIN_EXE_polyarch"));
        command.args(["-c", &script]);
        let output = finish(command, Vec::new());
        assert_eq!(output.assert_success().stderr, "");
        output.stdout.clone()
    };
    assert_eq!(list("app:1:/etc/sub"), "sub/\nsub/deep\n");
    assert_eq!(list("app:1:/etc/sub/."), "deep\n");
    assert_eq!(list("app:1:/etc/link"), "link\n");
    assert_eq!(list("app:1:/tool"), "tool\n");
}

#[test]
fn nothing_is_written_outside_the_destination_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment_with_files();
    let work = environment.work();
    environment.write("victim", "mine\n");
    std::fs::create_dir(work.join("to")).unwrap();
    // What an earlier copy may have left: a link in the place of the file that comes.
    std::os::unix::fs::symlink(work.join("victim"), work.join("to/name")).unwrap();
    std::os::unix::fs::symlink(&work, work.join("to/etc")).unwrap();
    environment.run(["cp", "app:1:/etc/name", "to"]).assert_success();
    assert_eq!(std::fs::read_to_string(work.join("victim")).unwrap(), "mine\n");
    // Links that lead to directories are followed beneath the destination, as if it were the root.
    let _ = environment.run(["cp", "app:1:/etc", "to"]);
    assert!(!work.join("sub").exists() && !work.join("link").is_symlink());

    for (words, code, text) in [
        (&["app:1:/etc/nam", "x"][..], 2, "there is no /etc/nam in app:1"),
        (&["app:1:/etc/nam", "x"], 2, "did you mean name?"),
        (&["app:1:/etc/name/", "x"], 2, "/etc/name in app:1"),
        (&["app:1:/etc", "victim"], 2, "can't copy the directory /etc to the file"),
        (&["app:1:/etc/name", "absent/"], 2, "mkdir -p"),
        (&["app:1:/etc", "absent/deeper"], 2, "mkdir -p"),
        (&["app:1:/etc/name", "absent/deeper"], 2, "absent"),
        (&["app:1:/tool", "/dev/absent/x"], 2, "/dev/absent"),
        (&["app:1", "x"], 2, "is no IMAGE:PATH"),
        (&["victim", "app:1:/etc/"], 2, "COPY in a Dockerfile"),
        (&["apq:1:/etc", "x"], 2, "did you mean app:1?"),
        (&["--platform=linux/riscv64", "app:1:/etc", "x"], 4, "no image for linux/riscv64"),
    ] {
        let output = environment.run([&["cp"], words].concat());
        output.assert_code(code).assert_stdout("").assert_stderr(text);
        assert!(!work.join("x").exists(), "{output}");
    }
}
