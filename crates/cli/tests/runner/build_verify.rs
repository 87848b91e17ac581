// SPDX-License-Identifier: Apache-2.0
//! The check at the end of a build: programs of another platform, and the line that brought them.

use polyarch_testkit::{Need, Output, TestEnvironment, hello_program, requires};

const NEEDS: &[Need] = &[Need::Root, Need::UserNamespaces];

fn environment() -> TestEnvironment {
    let environment = TestEnvironment::new(env!("CARGO_BIN_EXE_polyarch"));
    for architecture in ["amd64", "arm64", "s390x"] {
        environment.write(&format!("bin/{architecture}"), hello_program(architecture, "x\n", 0).unwrap());
    }
    environment
}

fn build(environment: &TestEnvironment, dockerfile: &str, more: &[&str]) -> Output {
    environment.write("Dockerfile", dockerfile);
    let arguments = ["build", "--progress", "plain", "-t", "local/app", "."];
    environment.run(arguments.iter().chain(more))
}

#[test]
fn a_copied_program_of_the_host_is_refused_with_its_line_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let dockerfile = "FROM scratch\nCOPY Dockerfile /note\nCOPY --chmod=755 bin/amd64 /usr/local/bin/app\nENTRYPOINT [\"app\"]\n";
    let both = ["--platform", "linux/arm64,linux/amd64"];
    let output = build(&environment, dockerfile, &both);
    output.assert_code(4).assert_stderr(
        "ERROR: failed to build: /usr/local/bin/app is the program of ENTRYPOINT and of amd64, and the image is for linux/arm64",
    );
    output.assert_stderr(">>> COPY --chmod=755 bin/amd64 /usr/local/bin/app").assert_stderr("--no-verify");
    assert!(!environment.run(["images"]).assert_success().stdout.contains("local/app"));
    // Whoever means it may have it; a verdict that was not good is not remembered.
    build(&environment, dockerfile, &[&both[..], &["--no-verify"]].concat()).assert_success();
    build(&environment, dockerfile, &both).assert_code(4);
}

#[test]
fn what_is_right_is_built_and_not_judged_twice_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY --chmod=755 bin/$TARGETARCH /app\nCMD [\"/app\"]\n";
    let platforms = ["--platform", "linux/arm64,linux/amd64,linux/s390x"];
    build(&environment, dockerfile, &platforms).assert_success();
    let verdicts = || {
        let root = environment.store();
        let names =
            std::process::Command::new("find").arg(&root).args(["-path", "*good-programs/*"]).output();
        String::from_utf8(names.unwrap().stdout).unwrap().lines().count()
    };
    assert_eq!(verdicts(), 3);
    build(&environment, dockerfile, &platforms).assert_success();
    assert_eq!(verdicts(), 3);
}

#[test]
fn only_what_is_exported_and_in_its_last_state_is_judged_needs_root() {
    if requires(NEEDS).is_some() {
        return;
    }
    let environment = environment();
    let dockerfile = "FROM --platform=$BUILDPLATFORM scratch AS tools\nCOPY --chmod=755 bin/amd64 /tool\n\
                      FROM scratch\nARG TARGETARCH\nCOPY --chmod=755 bin/amd64 /app\nCOPY --chmod=755 bin/$TARGETARCH /app\n\
                      COPY --chmod=755 bin/amd64 /opt/tool-linux-amd64\nCOPY --from=tools --chmod=644 /tool /data\n";
    build(&environment, dockerfile, &["--platform", "linux/arm64"]).assert_success();
    let dockerfile = format!("{dockerfile}COPY --from=tools /tool /tool\n");
    let output = build(&environment, &dockerfile, &["--platform", "linux/arm64"]);
    output
        .assert_code(4)
        .assert_stderr("/tool is of amd64")
        .assert_stderr(">>> COPY --from=tools /tool /tool");
}
