// SPDX-License-Identifier: Apache-2.0
//! `RUN --mount=type=bind|cache|tmpfs`: what steps see, what stays, and what of it decides about the cache.

use std::fs;

use polyarch_testkit::{Need, TestEnvironment, requires};
use serde_json::Value;

use super::build_steps::{build, dockerfile, with_base};

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox")];

/// Builds into a directory and returns the text of a file in it.
fn built(environment: &TestEnvironment, file: &str) -> String {
    build(environment, &["-o", "type=local,dest=out"]).assert_success();
    fs::read_to_string(environment.work().join("out").join(file)).expect("a file of the result")
}

#[test]
fn binds_show_context_stage_and_nothing_else_and_leave_nothing_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    for name in ["src/a", "src/deep/b", "one", "ignored"] {
        environment.write(name, name);
    }
    environment.write(".dockerignore", "ignored\n");
    dockerfile(
        &environment,
        "FROM base AS made\nRUN mkdir -p /out/sub && echo stage > /out/sub/file && ln -s /out/sub /link\n\
         FROM base AS used\nWORKDIR /work\nARG where=src\n\
         RUN --mount=target=/context --mount=source=$where,target=rel --mount=src=one,dst=/etc/one \\\n\
             --mount=from=made,source=link,target=/mnt/stage,rw --mount=from=scratch,target=/empty \\\n\
             ls /context > /list; cat /work/rel/deep/b /etc/one /mnt/stage/file >> /list; \\\n\
             touch /context/x 2>/dev/null || echo refused >> /list; echo more > /mnt/stage/more; ls /empty >> /list\n\
         RUN ls -d /mnt /context /etc/one /work/rel /empty > /left 2>/dev/null; true\n\
         RUN --mount=from=made,target=/again ls /again/out/sub > /unchanged\n\
         FROM scratch\nCOPY --from=used /list /left /unchanged /\n",
    );
    assert_eq!(
        built(&environment, "list"),
        "Dockerfile\none\nrootfs.tar\nsrc\nsrc/deep/bone".to_owned() + "stage\nrefused\n"
    );
    assert_eq!(built(&environment, "left"), "");
    assert_eq!(built(&environment, "unchanged"), "file\n", "what one step changed is thrown away");
}

#[test]
fn a_step_is_executed_again_only_for_what_it_mounts_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    environment.write("bust", "0");
    environment.write("read/me", "1");
    dockerfile(
        &environment,
        "FROM base AS made\nCOPY bust /\nRUN mkdir out && echo foo > out/foo\n\
         FROM base\nRUN --mount=from=made,src=out,target=/out,rw --mount=source=read,target=/read \\\n\
             cat /proc/sys/kernel/random/uuid /read/me > /unique\n",
    );
    let first = built(&environment, "unique");
    environment.write("bust", "1");
    environment.write("unrelated", "new");
    assert_eq!(built(&environment, "unique"), first, "the content of what is mounted is the same");
    environment.write("read/me", "2");
    let second = built(&environment, "unique");
    assert!(second != first && second.ends_with('2'), "{second}");
    build(&environment, &["--no-cache-filter", "1", "-o", "type=local,dest=out"]).assert_success();
    assert_eq!(built(&environment, "unique"), second, "stage 1 is another one");
    build(&environment, &["--no-cache-filter", "made,2", "-o", "type=local,dest=out"]).assert_success();
    let third = fs::read_to_string(environment.work().join("out/unique")).expect("a file");
    assert_ne!(third, second);
}

#[test]
fn caches_stay_apart_by_name_owner_and_seed_and_are_seen_and_pruned_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    let text = "FROM base AS seed\nRUN mkdir /seed && echo grown > /seed/file\nFROM base\n\
        RUN --mount=type=cache,target=/c touch /c/foo\n\
        RUN --mount=type=cache,target=/other [ ! -f /other/foo ]\n\
        RUN --mount=type=cache,target=/c [ -f /c/foo ] && [ ! -e /other ]\n\
        RUN --mount=type=cache,id=/c,target=/d [ ! -f /d/foo ]\n\
        RUN --mount=type=cache,target=/c,uid=100,gid=7,mode=0751 [ \"$(stat -c '%u %g %f' /c)\" = '100 7 41e9' ]\n\
        RUN --mount=type=cache,target=/c,ro sh -c '! touch /c/x'\n\
        RUN --mount=type=cache,target=/s,from=seed,source=/seed cat /s/file && echo again >> /s/file\n\
        RUN --mount=type=cache,target=/s,from=seed,source=seed [ \"$(wc -l < /s/file)\" = 2 ]\n\
        RUN --mount=type=cache,target=/p --mount=type=cache,target=/p/q touch /p/q/in && [ -e /p/q/in ]\n\
        RUN --mount=type=cache,target=/c --mount=type=cache,target=/c2,id=/x,sharing=locked ls /c\n";
    dockerfile(&environment, text);
    build(&environment, &[]).assert_success();
    let df = environment.run(["buildx", "du", "--format", "json", "--filter", "type=exec.cachemount"]);
    df.assert_success();
    let lines: Vec<Value> = df.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.len() >= 7, "{}", df.stdout);
    assert!(df.stdout.contains("cache mount /c for linux/"), "{}", df.stdout);
    // They are of use to the next build, so only --all takes them.
    environment.run(["prune", "--force"]).assert_success();
    dockerfile(&environment, "FROM base\nRUN --mount=type=cache,target=/c ls /c > /list\n");
    assert_eq!(built(&environment, "list"), "foo\n");
    environment.run(["prune", "--all", "--force"]).assert_success();
    assert_eq!(built(&environment, "list"), "");
    build(&environment, &["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=apart"]).assert_success();
}

#[test]
fn no_link_of_a_cache_leads_out_of_it_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(
        &environment,
        "FROM base\nRUN --mount=type=cache,id=e,target=/cache mkdir -p /cache/sel && echo benign > /cache/sel/b\n\
         RUN --mount=type=cache,id=e,source=sel,target=/victim cat /victim/b\n\
         RUN --mount=type=cache,id=e,target=/cache rm -rf /cache/sel && ln -s /etc /cache/sel\n\
         RUN --mount=type=cache,id=e,source=sel,target=/victim cat /victim/hostname\n",
    );
    let output = build(&environment, &[]);
    output.assert_code(3).assert_stderr("the cache mount for /victim has no directory \"/sel\"");
}

#[test]
fn memory_is_mounted_and_mounts_that_make_no_sense_are_refused_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(
        &environment,
        "FROM base\nRUN --mount=type=tmpfs,target=/dev/shm,size=128m mount | grep /dev/shm > /size\n\
         RUN --mount=type=tmpfs,target=/t touch /t/foo && cp /size /t && [ -s /t/size ]\nRUN [ ! -e /t ]\n",
    );
    assert!(built(&environment, "size").contains("size=131072k"));
    for (flag, message) in [
        ("target=/", "invalid mount target \"/\""),
        ("type=cache", "invalid mount target \"/\""),
        ("source=missing,target=/x", "\"/missing\": not found"),
        ("from=base,source=/missing,target=/x", "\"/missing\": not found"),
        ("from=$x,target=/x", "'from' doesn't support variable expansion, define alias stage instead"),
        ("type=secret,from=base,target=/x", "from is not allowed for mounts of type secret"),
        ("type=bind,target=/x,mode=755", "mode is not allowed for mounts of type bind"),
        (
            "from=late,target=/x",
            "cannot copy from stage \"late\", it needs to be defined before current stage",
        ),
    ] {
        dockerfile(
            &environment,
            &format!("FROM base\nENV x=base\nRUN --mount={flag} true\nFROM base AS late\n"),
        );
        let output = build(&environment, &["--target", "1"]);
        output.assert_code(3).assert_stderr(message);
    }
}
