// SPDX-License-Identifier: Apache-2.0
//! What the user reads when something fails.

use insta::assert_snapshot;
use polyarch_build::error::{SourceLocation, StepLog};
use polyarch_build::{BuildError, ErrorKind};
use polyarch_cli::{CommandError, ExitCode, commands};

#[test]
fn a_failed_step_shows_its_output_its_lines_and_its_exit_code() {
    let mut error = BuildError::new(
        ErrorKind::Step,
        "process \"/bin/sh -c make\" did not complete successfully: exit code: 2",
    )
    .with_hint("QEMU 7.2 is known to crash here; try another version");
    error.log = Some(Box::new(StepLog {
        step: "[linux/arm64 build 2/3] RUN make".to_owned(),
        last_lines: vec!["0.512 cc -o x x.c".to_owned(), "0.700 \u{1b}[31mx.c:1: error\u{1b}[0m".to_owned()],
    }));
    let error = error.at(SourceLocation {
        file: "Dockerfile".to_owned(),
        text: "FROM alpine AS build\nCOPY . .\nRUN make\nFROM scratch\nCOPY --from=build /x /x\n".into(),
        lines: 3..=3,
    });
    let error = CommandError::from(error).of_build();
    assert_eq!(error.exit_code, ExitCode::Step);
    assert_snapshot!(error.render(), @r#"
    ------
     > [linux/arm64 build 2/3] RUN make:
    0.512 cc -o x x.c
    0.700 x.c:1: error
    ------
    Dockerfile:3
    --------------------
       1 |     FROM alpine AS build
       2 |     COPY . .
       3 | >>> RUN make
       4 |     FROM scratch
       5 |     COPY --from=build /x /x
    --------------------
    ERROR: failed to build: failed to solve: process "/bin/sh -c make" did not complete successfully: exit code: 2
    hint: QEMU 7.2 is known to crash here; try another version
    "#);
}

#[test]
fn other_failures_of_a_build_are_short() {
    let error = BuildError::new(ErrorKind::Registry, "registry.example refused the push: 403 denied")
        .with_hint("log in: polyarch login registry.example");
    assert_snapshot!(CommandError::from(error).of_build().render(), @r#"
    ERROR: failed to build: registry.example refused the push: 403 denied
    hint: log in: polyarch login registry.example
    "#);
    assert_snapshot!(CommandError::from(BuildError::cancelled()).of_build().render(), @r#"ERROR: canceled"#);
}

#[test]
fn escape_sequences_of_others_do_not_reach_the_terminal() {
    let error =
        BuildError::new(ErrorKind::Registry, "the registry says: \u{1b}]0;owned\u{7}no\r\u{1b}[2Jreally")
            .with_hint("\u{202e}hint");
    assert_snapshot!(CommandError::from(error).render(), @r#"
    ERROR: the registry says: noreally
    hint: hint
    "#);
}

#[test]
fn wrong_arguments_are_met_with_suggestions() {
    let text = |words: &[&str]| {
        let words = words.iter().map(std::ffi::OsString::from);
        let error = commands::parse(words).unwrap_err();
        format!("exit code {}\n{}", error.exit_code.number(), error.render())
    };
    assert_snapshot!(text(&["polyarch", "biuld", "."]), @r#"
    exit code 2
    ERROR: unrecognized subcommand 'biuld'

      tip: some similar subcommands exist: 'b', 'buildx', 'build'

    Usage: polyarch [OPTIONS] <COMMAND>

    For more information, try '--help'.
    "#);
    assert_snapshot!(text(&["polyarch", "build", "--platfrom=linux/arm64", "."]), @r#"
    exit code 2
    ERROR: unexpected argument '--platfrom' found

      tip: a similar argument exists: '--platform'

    Usage: polyarch build [OPTIONS] PATH | URL | -

    For more information, try '--help'.
    "#);
    assert_snapshot!(text(&["polyarch", "run", "--cap-add", "alpine"]), @r#"
    exit code 125
    ERROR: unexpected argument '--cap-add' found

      tip: to pass '--cap-add' as a value, use '-- --cap-add'

    Usage: polyarch run [OPTIONS] <IMAGE> [COMMAND]...

    For more information, try '--help'.
    "#);
    assert_snapshot!(text(&["polyarch", "build", "--push=maybe", "."]), @r#"
    exit code 2
    ERROR: invalid value 'maybe' for '--push[=<BOOL>]': write true or false

    For more information, try '--help'.
    "#);
}
