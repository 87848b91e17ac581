// SPDX-License-Identifier: Apache-2.0
//! Where instructions begin, compared with a parser that others wrote.

use std::fs;
use std::path::Path;

use parse_dockerfile::Instruction as Other;
use polyarch_dockerfile::Ast;

/// Cases that the other parser refuses or reads differently, with what it does.
const DIFFERENT: &[(&str, &str)] = &[
    ("empty-continuations", "it begins an instruction after the line that only continues"),
    ("escape-backtick", "it continues a line that ends with an escaped escape"),
    ("continuations", "it continues a line that ends with an escaped escape"),
    ("byte-order-mark", "it does not count the bytes of the mark"),
    ("heredocs", "it knows no number before <<"),
    ("json-forms", "it refuses an ENTRYPOINT that is empty"),
];

#[test]
fn instructions_begin_where_another_parser_sees_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testfiles");
    let mut compared = 0;
    for entry in fs::read_dir(root).unwrap() {
        let case = entry.unwrap().path();
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("bad-") {
            continue;
        }
        let source = fs::read_to_string(case.join("Dockerfile")).unwrap();
        let ours: Vec<usize> = Ast::parse(&source)
            .unwrap()
            .nodes
            .iter()
            .map(|node| {
                node.span.start + source[node.span.start..].find(|c: char| !c.is_whitespace()).unwrap()
            })
            .collect();
        let theirs = parse_dockerfile::parse(&source)
            .map(|file| file.instructions.iter().map(keyword_start).collect::<Vec<_>>());
        match DIFFERENT.iter().find(|(different, _)| *different == name) {
            Some(_) => assert!(theirs.map_or(true, |theirs| theirs != ours), "{name} is the same by now"),
            None => assert_eq!(theirs.unwrap_or_else(|error| panic!("{name}: {error}")), ours, "{name}"),
        }
        compared += 1;
    }
    assert!(compared >= 10, "only {compared} cases compared");
}

fn keyword_start(instruction: &Other<'_>) -> usize {
    match instruction {
        Other::Add(add) => add.add.span.start,
        Other::Arg(arg) => arg.arg.span.start,
        Other::Cmd(cmd) => cmd.cmd.span.start,
        Other::Copy(copy) => copy.copy.span.start,
        Other::Entrypoint(entrypoint) => entrypoint.entrypoint.span.start,
        Other::Env(env) => env.env.span.start,
        Other::Expose(expose) => expose.expose.span.start,
        Other::From(from) => from.from.span.start,
        Other::Healthcheck(healthcheck) => healthcheck.healthcheck.span.start,
        Other::Label(label) => label.label.span.start,
        Other::Maintainer(maintainer) => maintainer.maintainer.span.start,
        Other::Onbuild(onbuild) => onbuild.onbuild.span.start,
        Other::Run(run) => run.run.span.start,
        Other::Shell(shell) => shell.shell.span.start,
        Other::Stopsignal(stopsignal) => stopsignal.stopsignal.span.start,
        Other::User(user) => user.user.span.start,
        Other::Volume(volume) => volume.volume.span.start,
        Other::Workdir(workdir) => workdir.workdir.span.start,
        other => panic!("unknown instruction {other:?}"),
    }
}
