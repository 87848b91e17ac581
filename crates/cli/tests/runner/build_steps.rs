// SPDX-License-Identifier: Apache-2.0
//! What instructions do: real steps in the sandbox, files and configs of the result.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use polyarch_testkit::{Need, Output, TestEnvironment, busybox_rootfs, requires};
use serde_json::Value;

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox")];

/// An environment whose working directory has a base to build on, `rootfs.tar`.
pub(crate) fn with_base() -> TestEnvironment {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    environment.write("rootfs.tar", busybox_rootfs());
    environment
}

/// Writes a Dockerfile on that base.
pub(crate) fn dockerfile(environment: &TestEnvironment, text: &str) {
    environment.write("Dockerfile", format!("FROM scratch AS base\nADD rootfs.tar /\n{text}"));
}

/// Builds the working directory with plain progress and more arguments.
pub(crate) fn build(environment: &TestEnvironment, arguments: &[&str]) -> Output {
    environment.run(["build", "--progress", "plain"].iter().chain(arguments).chain(&["."]))
}

/// Builds into a directory and returns it.
fn build_files(environment: &TestEnvironment) -> std::path::PathBuf {
    build(environment, &["-o", "type=local,dest=out"]).assert_success();
    environment.work().join("out")
}

/// Builds into an OCI layout and returns the config.
pub(crate) fn build_config(environment: &TestEnvironment, arguments: &[&str]) -> Value {
    let output = ["-o", "type=oci,tar=false,dest=layout"];
    build(environment, &[&output, arguments].concat()).assert_success();
    let layout = environment.work().join("layout");
    let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let blob = |value: &Value| layout.join("blobs").join(value["digest"].as_str().unwrap().replace(':', "/"));
    let index = read(&layout.join("index.json"));
    let manifest = read(&blob(&index["manifests"][0]));
    read(&blob(&manifest["config"]))
}

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

#[test]
fn run_sees_environment_arguments_directory_and_user_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(
        &environment,
        "ARG unset\nARG given=default\nENV shown=\"a b\" given_too=$given\nWORKDIR /app\nWORKDIR sub\n\
         RUN echo \"$given|$shown|$given_too|${unset:-none}|$PWD|$(id -u)\" > /app/root && chown user /app/sub\n\
         USER user\nRUN echo \"$(id -u):$(id -g)|$HOME\" > mine\n",
    );
    let build = build(&environment, &["--build-arg", "given=cli", "-o", "type=local,dest=out"]);
    build.assert_success();
    let out = environment.work().join("out");
    assert_eq!(text(out.join("app/root")), "cli|a b|cli|none|/app/sub|0\n");
    assert_eq!(text(out.join("app/sub/mine")), "1000:1000|/home/user\n");
}

#[test]
fn copy_follows_dockers_rules_of_destinations_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    for name in ["a.txt", "b.txt", "dir/inner/c", "dir/d", "dir/.hidden", "ignored/x", "ignored/kept"] {
        environment.write(name, name);
    }
    environment.write(".dockerignore", "ignored\n!ignored/kept\n");
    std::os::unix::fs::symlink("a.txt", environment.work().join("link")).unwrap();
    fs::set_permissions(environment.work().join("a.txt"), fs::Permissions::from_mode(0o640)).unwrap();
    dockerfile(
        &environment,
        "COPY a.txt /file\nCOPY a.txt /slash/\nCOPY *.txt /wild/\nCOPY dir /content\nCOPY dir/ dir2/\n\
         RUN mkdir /real && ln -s real /to-real\nCOPY b.txt /to-real/\nCOPY link /from-link\nCOPY ignored /ign\n\
         COPY --chown=1000:7 --chmod=600 a.txt /owned\nCOPY [\"a.txt\", \"b.txt\", \"/json/\"]\n\
         WORKDIR /wd\nCOPY a.txt relative\n",
    );
    let out = build_files(&environment);
    assert_eq!(text(out.join("file")), "a.txt");
    assert_eq!(out.join("file").metadata().unwrap().mode() & 0o7777, 0o640);
    assert_eq!(text(out.join("slash/a.txt")), "a.txt");
    assert_eq!(text(out.join("wild/b.txt")), "b.txt");
    assert_eq!(text(out.join("content/inner/c")), "dir/inner/c");
    assert_eq!(text(out.join("content/.hidden")), "dir/.hidden");
    assert_eq!(text(out.join("dir2/d")), "dir/d");
    assert_eq!(text(out.join("real/b.txt")), "b.txt");
    assert!(out.join("to-real").symlink_metadata().unwrap().is_symlink());
    assert_eq!(text(out.join("from-link")), "a.txt");
    assert_eq!(text(out.join("ign/kept")), "ignored/kept");
    assert!(!out.join("ign/x").exists());
    assert_eq!(out.join("owned").metadata().unwrap().mode() & 0o7777, 0o600);
    assert_eq!(text(out.join("json/b.txt")), "b.txt");
    assert_eq!(text(out.join("wd/relative")), "a.txt");
}

#[test]
fn what_is_removed_is_gone_and_what_replaces_it_hides_it_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(
        &environment,
        "RUN mkdir -p /d/e && echo 1 > /d/e/f && echo 2 > /d/g && echo 3 > /h\nRUN rm /h && rm -r /d/e\n\
         RUN mkdir /d/e && echo new > /d/e/new && mkdir /h\nRUN rm -r /d && echo file > /d\n\
         RUN rm /d && mkdir -p /d/e && echo last > /d/e/last\n",
    );
    let out = build_files(&environment);
    assert_eq!(text(out.join("d/e/last")), "last\n");
    let mut names: Vec<_> =
        fs::read_dir(out.join("d/e")).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["last"]);
    assert!(!out.join("d/g").exists() && out.join("h").is_dir());
}

#[test]
fn stages_and_heredocs_give_files_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(
        &environment,
        "RUN <<EOF\nset -e\necho from-shell > /shell\nEOF\nRUN <<EOF\n#!/bin/cat\nscript\nEOF\n\
         FROM base AS middle\nENV name=value\nCOPY <<one <<\"two\" /docs/\n$name\none\n$name\ntwo\n\
         FROM scratch\nCOPY --from=base /shell /\nCOPY --from=1 /docs /docs\n",
    );
    let out = build_files(&environment);
    assert_eq!(text(out.join("shell")), "from-shell\n");
    assert_eq!(text(out.join("docs/one")), "value\n");
    assert_eq!(text(out.join("docs/two")), "$name\n");
    assert!(!out.join("bin").exists());
}

#[test]
fn the_config_says_what_the_instructions_say_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(
        &environment,
        "ENV A=1 B=\"two words\"\nENV A=3\nLABEL l=1 m=\"x y\"\nEXPOSE 80 90-91/udp\nVOLUME /data [\"/x\"]\nUSER 7:8\n\
         WORKDIR /w\nSTOPSIGNAL SIGUSR1\nSHELL [\"/bin/sh\", \"-ec\"]\nCMD first\nENTRYPOINT [\"/bin/e\", \"arg\"]\n\
         HEALTHCHECK --interval=5s --retries=2 CMD true\nMAINTAINER someone\nONBUILD RUN echo later\n\
         FROM base AS second\nENTRYPOINT exec me\n",
    );
    let config = build_config(&environment, &["--target", "base", "--label", "l=2"]);
    let run = &config["config"];
    assert_eq!(run["Env"][1], "A=3");
    assert_eq!(run["Env"][2], "B=two words");
    assert_eq!((&run["Labels"]["l"], &run["Labels"]["m"]), (&"2".into(), &"x y".into()));
    let ports: Vec<&String> = run["ExposedPorts"].as_object().unwrap().keys().collect();
    assert_eq!(ports, ["80/tcp", "90/udp", "91/udp"]);
    assert_eq!(run["User"], "7:8");
    assert_eq!(run["WorkingDir"], "/w");
    assert_eq!(run["StopSignal"], "SIGUSR1");
    // CMD stands in the same stage, so ENTRYPOINT keeps it.
    assert_eq!(run["Cmd"], serde_json::json!(["/bin/sh", "-ec", "first"]));
    assert_eq!(run["Entrypoint"], serde_json::json!(["/bin/e", "arg"]));
    assert_eq!(run["Healthcheck"]["Interval"], 5_000_000_000_i64);
    assert_eq!(run["OnBuild"], serde_json::json!(["RUN echo later"]));
    assert_eq!(config["author"], "someone");
    let layers = config["rootfs"]["diff_ids"].as_array().unwrap().len();
    let history = config["history"].as_array().unwrap();
    assert_eq!(history.iter().filter(|entry| entry["empty_layer"] != true).count(), layers);
}

#[test]
fn an_inherited_cmd_goes_with_a_new_entrypoint_and_triggers_run_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(&environment, "CMD inherited\nONBUILD RUN echo triggered > /trigger\nONBUILD ENV T=1\n");
    build(&environment, &["-t", "local/parent"]).assert_success();
    environment.write("Dockerfile", "FROM local/parent\nENTRYPOINT [\"/bin/cat\", \"/trigger\"]\n");
    let config = build_config(&environment, &[]);
    assert!(config["config"]["Cmd"].is_null() && config["config"]["OnBuild"].is_null(), "{config}");
    assert_eq!(config["config"]["Env"][1], "T=1");
    build(&environment, &["-t", "local/child"]).assert_success();
    environment.run(["run", "--rm", "local/child"]).assert_success().assert_stdout("triggered\n");
}

#[test]
fn a_step_ends_with_its_children_and_leaves_no_mount_points_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(
        &environment,
        "RUN sleep 1000 & echo started\nRUN cat /etc/resolv.conf /etc/hosts > /dev/null\nRUN true\n",
    );
    let config = build_config(&environment, &[]);
    // The base is the only layer: neither /proc, /dev nor /etc/resolv.conf came to be in one.
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 1, "{config}");
}

#[test]
fn run_passes_standard_streams_and_exit_codes_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(&environment, "CMD echo default\n");
    build(&environment, &["-t", "local/app"]).assert_success();
    environment.run(["run", "local/app"]).assert_success().assert_stdout("default\n");
    environment
        .run(["run", "-e", "X=1", "local/app", "sh", "-c", "echo $X; exit 7"])
        .assert_code(7)
        .assert_stdout("1\n");
    environment.run(["run", "local/app", "no-such-program"]).assert_code(127);
    environment.run(["run", "local/app", "/etc/passwd"]).assert_code(126);
    let output = environment.run_with_stdin(["run", "-i", "local/app", "cat"], b"through\n");
    output.assert_success().assert_stdout("through\n");
    environment.run(["run", "local/nothing"]).assert_code(125);
}

#[test]
fn the_later_of_arg_and_env_wins_and_children_inherit_both_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(
        &environment,
        "ENV version=env\nRUN echo $version > /1\nARG version=arg\nRUN echo $version > /2\nENV version=again\n\
         RUN echo $version > /3\nARG inherited=yes\nFROM base\nRUN echo $inherited > /4\nARG inherited\n\
         RUN echo $inherited > /5\n",
    );
    let out = build_files(&environment);
    let seen: Vec<String> = (1..=5).map(|number| text(out.join(number.to_string()))).collect();
    assert_eq!(seen, ["env\n", "arg\n", "again\n", "yes\n", "yes\n"]);
}

#[test]
fn a_working_directory_belongs_to_the_user_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(&environment, "USER user\nWORKDIR /srv/app\nRUN touch mine && stat -c %u:%g . > mine\n");
    assert_eq!(text(build_files(&environment).join("srv/app/mine")), "1000:1000\n");
}

#[test]
fn heredocs_are_expanded_once_and_links_at_the_destination_followed_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    for name in ["one/x", "two/x"] {
        environment.write(name, name);
    }
    environment.write("README", "no directory");
    dockerfile(
        &environment,
        "ENV a=1\nCOPY <<EOF /script\n$a \\$1 \\$HOME\nEOF\nRUN echo old > /target && ln -s target /link\n\
         COPY README /link\nCOPY */x /all/\n",
    );
    let out = build_files(&environment);
    assert_eq!(text(out.join("script")), "1 $1 $HOME\n");
    assert_eq!(text(out.join("target")), "no directory");
    assert!(out.join("link").symlink_metadata().unwrap().is_symlink());
    assert_eq!(text(out.join("all/x")), "two/x");
}

#[test]
fn triggers_of_a_stage_run_in_the_stages_built_on_it_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(&environment, "ONBUILD RUN echo triggered > /trigger\nFROM base\nRUN cat /trigger\n");
    assert_eq!(text(build_files(&environment).join("trigger")), "triggered\n");
}

#[test]
fn an_output_never_replaces_what_is_no_file_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(&environment, "");
    for (kind, name) in [("tar", "one"), ("oci", "two")] {
        let pipe = environment.work().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || fs::read(pipe).unwrap().len())
        };
        build(&environment, &["-o", &format!("type={kind},dest={name}")]).assert_success();
        assert!(reader.join().unwrap() > 1024);
        let kind = pipe.symlink_metadata().unwrap().file_type();
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind));
    }
}

#[test]
fn an_argument_that_is_declared_again_keeps_its_place_in_the_history_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(&environment, "ARG foo=bar\nARG bar=123\nARG foo=bar2\nRUN true\n");
    let config = build_config(&environment, &[]);
    let history = config["history"].as_array().expect("there is a history");
    let last = history.last().expect("there is a last step")["created_by"].as_str();
    assert_eq!(last, Some("RUN |2 foo=bar2 bar=123 /bin/sh -c true"));
}
