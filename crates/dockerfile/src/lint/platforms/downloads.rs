// SPDX-License-Identifier: Apache-2.0
//! Downloads whose URL names one architecture, whatever platform is built.

use super::{Surroundings, undeclared};
use crate::instruction::{Program, Source};
use crate::lint::{Linter, rule};
use crate::{Instruction, InstructionKind, Stage};

/// What architectures are called, the longer names of each first, and whether it is Docker's own name.
const NAMES: &[(&str, &str)] = &[
    ("x86_64", "amd64"),
    ("x86-64", "amd64"),
    ("amd64", "amd64"),
    ("x64", "amd64"),
    ("aarch64", "arm64"),
    ("arm64", "arm64"),
    ("armv7l", "arm"),
    ("armv7", "arm"),
    ("armhf", "arm"),
    ("ppc64le", "ppc64le"),
    ("s390x", "s390x"),
    ("riscv64", "riscv64"),
    ("i386", "386"),
    ("i686", "386"),
];

/// What shows that an instruction asks which architecture it is on.
const QUESTIONS: &[&str] =
    &["TARGETARCH", "TARGETPLATFORM", "uname", "dpkg --print-architecture", "apk --print-arch"];

/// Looks at the instructions of a stage that runs on the platform that is built.
pub(super) fn check(stage: &Stage, surroundings: &Surroundings<'_>, linter: &mut Linter) {
    for instruction in &stage.instructions {
        let text = match &instruction.kind {
            InstructionKind::Run(run) => match run.program() {
                Program::Shell(text) | Program::Script { content: text, .. } => text,
                Program::Exec(arguments) => arguments.join(" "),
            },
            InstructionKind::Add(add) => {
                let paths = add.sources.iter().filter_map(|source| match source {
                    Source::Path(path) => Some(path.as_str()),
                    Source::Heredoc(_) => None,
                });
                paths.collect::<Vec<_>>().join(" ")
            }
            _ => continue,
        };
        if QUESTIONS.iter().any(|question| text.contains(question)) {
            continue;
        }
        let found = urls(&text).find_map(|url| Some((url, architecture_in(url)?)));
        let Some((url, (word, architecture))) = found else { continue };
        let others: Vec<String> = surroundings
            .platforms
            .iter()
            .filter(|platform| platform.architecture != architecture)
            .map(ToString::to_string)
            .collect();
        if others.is_empty() {
            continue;
        }
        let detail = format!(
            "the URL {url} names {word}, and is fetched for {} as well: let TARGETARCH name the architecture",
            others.join(", ")
        );
        let mended = mended(stage, instruction, surroundings.source, url, word, architecture);
        linter.report_mended(
            &rule::ONE_PLATFORM_URL,
            &instruction.comments,
            instruction.span,
            detail,
            mended,
        );
    }
}

fn urls(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| {
        character.is_whitespace() || matches!(character, '"' | '\'' | ';' | '|' | ')')
    })
    .filter(|word| word.starts_with("http://") || word.starts_with("https://"))
}

/// Finds the architecture that stands in a URL as a word of its own: the word, and Docker's name for it.
fn architecture_in(url: &str) -> Option<(&'static str, &'static str)> {
    let (_, path) = url.split_once("://")?;
    NAMES.iter().copied().find(|(word, _)| {
        path.match_indices(word).any(|(at, _)| {
            let before = path[..at].chars().next_back();
            let after = path[at + word.len()..].chars().next();
            [before, after].iter().all(|it| it.is_none_or(|character| !character.is_ascii_alphanumeric()))
        })
    })
}

/// Returns the instruction with the variable in the place of the name; none where the name is not Docker's,
/// because then the names of the other architectures are not known.
fn mended(
    stage: &Stage,
    instruction: &Instruction,
    source: &str,
    url: &str,
    word: &str,
    architecture: &str,
) -> Option<String> {
    let text = instruction.span.text(source);
    let is_run = matches!(instruction.kind, InstructionKind::Run(_));
    let (by, names): (_, &[&str]) = match word {
        _ if word == architecture => ("${TARGETARCH}", &["TARGETARCH"]),
        "x86_64" | "aarch64" if is_run && !text.contains("[\"") => ("$(uname -m)", &[]),
        _ => return None,
    };
    let changed = text.replace(url, &url.replace(word, by));
    if changed == text {
        return None;
    }
    let names = undeclared(stage, instruction, names);
    let declaration = if names.is_empty() { String::new() } else { format!("ARG {}\n", names.join(" ")) };
    Some(format!("{declaration}{changed}"))
}
