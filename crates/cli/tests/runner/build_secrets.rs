// SPDX-License-Identifier: Apache-2.0
//! Secrets, SSH agents and what steps may do beyond the sandbox: given, refused, and never left behind.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use polyarch_testkit::{Need, requires};

use super::build_steps::{build, dockerfile, with_base};

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces, Need::File("/bin/busybox")];

/// What no file and no output may have.
const SECRET: &str = "correct-horse-battery-staple";

/// Fails if a file below a directory has the secret.
fn assert_nowhere(directory: &Path) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            assert_nowhere(&entry.path());
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).expect("a file");
            let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            assert!(!found, "{} has the secret", entry.path().display());
        }
    }
}

#[test]
fn secrets_are_files_and_variables_of_one_step_only_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let mut environment = with_base();
    environment.set("TOKEN", SECRET);
    let file = environment.home().join("secret file");
    fs::write(&file, SECRET).expect("write");
    dockerfile(
        &environment,
        "FROM base\nENV SECRET_ENV=foo\n\
         RUN --mount=type=secret,id=one [ \"$(stat -c '%u %g %f' /run/secrets/one)\" = '0 0 8100' ]\n\
         RUN --mount=type=secret,id=one,mode=741,uid=100,gid=102,target=/mine \\\n\
             [ \"$(stat -c '%u %g %f' /mine)\" = '100 102 81e1' ] && [ $(wc -c < /mine) = 28 ]\n\
         RUN --mount=type=secret,id=two,env=SECRET_ENV [ ${#SECRET_ENV} = 28 ] && [ ! -e /run/secrets/two ]\n\
         RUN --mount=type=secret,id=two,env=IT,target=both [ $(wc -c < /both) = 28 ] && [ ${#IT} = 28 ] && echo \"$IT\" | wc -c\n\
         RUN --mount=type=secret,id=absent ls /run/secrets 2>/dev/null; [ ! -e /run/secrets/absent ]\n\
         RUN [ ! -e /mine ] && [ ! -e /run ] && [ \"$SECRET_ENV\" = foo ] && [ -z \"$IT\" ]\n",
    );
    let source = format!("id=one,src={}", file.display());
    let given = ["--secret", source.as_str(), "--secret", "id=two,env=TOKEN"];
    let output = build(&environment, &given);
    output.assert_success().assert_stderr("[ ${#SECRET_ENV} = 28 ]").assert_no_stderr(SECRET);
    // Another value is no reason to execute anything again.
    fs::write(&file, SECRET.replace("horse", "mouse")).expect("write");
    let again = build(&environment, &given);
    again.assert_success().assert_stderr("CACHED");
    assert_nowhere(&environment.store());
}

#[test]
fn a_variable_with_a_secret_is_masked_where_people_read_it_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(
        &environment,
        "FROM base\nENV SECRET_ENV=foo\nRUN --mount=type=secret,id=two,env=SECRET_ENV [ \"$SECRET_ENV\" == \"pw\" ]\n",
    );
    environment.write("two", "pw");
    let output = build(&environment, &["--secret", "id=two"]);
    output.assert_success().assert_stderr("[ \"****\" == \"pw\" ]");
}

#[test]
fn what_is_required_and_absent_is_named_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(&environment, "FROM base\nRUN --mount=type=secret,required,id=mysecret foo\n");
    let output = build(&environment, &[]);
    output
        .assert_code(2)
        .assert_stderr("secret mysecret: not found")
        .assert_stderr("--secret id=mysecret,src=FILE");
    dockerfile(&environment, "FROM base\nRUN --mount=type=ssh,required true\n");
    let output = build(&environment, &[]);
    output.assert_code(2).assert_stderr("no SSH key \"default\" forwarded from the client");
    for (flags, message) in [
        (["--secret", "src=x"], "it has no id"),
        (["--secret", "id=a,src=missing"], "can't read"),
        (["--secret", "id=a,src=b,env=c"], "both src and env"),
        (["--secret", "id=a,sorce=b"], "did you mean"),
        (["--ssh", "default"], "SSH_AUTH_SOCK is not set"),
        (["--ssh", "x=missing"], "can't read"),
        (["--allow", "network.hots"], "did you mean network.host"),
        (["--ulimit", "nofile=2:1"], "ulimit soft limit must be less than or equal to hard limit"),
    ] {
        build(&environment, &flags).assert_code(2).assert_stderr(message);
    }
}

#[test]
fn an_agent_is_a_socket_of_one_step_only_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let mut environment = with_base();
    let directory = tempfile::tempdir().expect("tempdir");
    let socket = directory.path().join("agent");
    let _listener = UnixListener::bind(&socket).expect("bind");
    environment.set("SSH_AUTH_SOCK", socket.display().to_string());
    dockerfile(
        &environment,
        "FROM base\n\
         RUN --mount=type=ssh,mode=741,uid=100,gid=102 [ \"$(stat -c '%u %g %f' $SSH_AUTH_SOCK)\" = '100 102 c1e1' ]\n\
         RUN --mount=type=ssh,id=other ! [ -e /run/buildkit/ssh_agent.0 ]\n\
         RUN --mount=type=ssh,target=/sock,required [ \"$SSH_AUTH_SOCK\" = /sock ] && [ -S /sock ]\n\
         RUN [ ! -e /sock ] && [ ! -e /run ] && [ -z \"$SSH_AUTH_SOCK\" ]\n",
    );
    build(&environment, &["--ssh", "default"]).assert_success();
}

#[test]
fn what_is_not_allowed_is_refused_and_what_is_allowed_is_done_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(&environment, "FROM base\nRUN --network=host true\n");
    build(&environment, &[]).assert_code(3).assert_stderr("network.host is not allowed");
    build(&environment, &["--allow", "network.host"]).assert_success();
    build(&environment, &["--network", "host"]).assert_success();
    let insecure = "FROM base\nRUN --security=insecure grep CapBnd /proc/self/status > /insecure; ls /dev >> /insecure\n\
                    RUN grep CapBnd /proc/self/status > /sandbox\n";
    dockerfile(&environment, insecure);
    build(&environment, &[]).assert_code(3).assert_stderr("security.insecure is not allowed");
    build(&environment, &["--allow", "security.insecure", "-o", "type=local,dest=out"]).assert_success();
    let read = |name: &str| fs::read_to_string(environment.work().join("out").join(name)).expect("a file");
    assert_eq!(read("sandbox"), "CapBnd:\t00000000a80425fb\n");
    let last =
        fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("the kernel tells its capabilities");
    let all = (1_u64 << (last.trim().parse::<u32>().expect("a number") + 1)) - 1;
    assert!(read("insecure").starts_with(&format!("CapBnd:\t{all:016x}\n")), "{}", read("insecure"));
}

#[test]
fn limits_and_names_reach_the_steps_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = with_base();
    dockerfile(
        &environment,
        "FROM base\nRUN ulimit -n > /out; ulimit -Hn >> /out; hostname >> /out; grep -c there.test /etc/hosts >> /out; \\\n\
         df -k /dev/shm | tail -1 | awk '{print $2}' >> /out; grep localhost /etc/hosts | head -1 >> /out\n",
    );
    let flags = [
        ["--ulimit", "nofile=1062:2048"],
        ["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=builder.test"],
        ["--add-host", "there.test:10.1.2.3"],
        ["--shm-size", "32m"],
        ["--cgroup-parent", "parent"],
        ["-o", "type=local,dest=out"],
    ];
    build(&environment, &flags.concat()).assert_success();
    let out = fs::read_to_string(environment.work().join("out/out")).expect("a file");
    assert_eq!(out, "1062\n2048\nbuilder.test\n1\n32768\n127.0.0.1\tlocalhost builder.test\n");
}
