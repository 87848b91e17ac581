// SPDX-License-Identifier: Apache-2.0
//! Stages that compile: on the building machine's platform they run natively, and compile for another.

use super::{Surroundings, runs, undeclared};
use crate::instruction::{Program, Run};
use crate::lint::{Linter, rule};
use crate::{Instruction, InstructionKind, Stage};

/// What compiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Toolchain {
    Go,
    Rust,
    C,
    Node,
    Java,
}

impl Toolchain {
    fn name(self) -> &'static str {
        match self {
            Toolchain::Go => "Go",
            Toolchain::Rust => "Rust",
            Toolchain::C => "C",
            Toolchain::Node => "Node",
            Toolchain::Java => "Java",
        }
    }

    /// Tells what a command compiles with, when it does.
    fn of(program: &str, arguments: &[&str]) -> Option<Toolchain> {
        let program = program.rsplit('/').next().unwrap_or(program);
        let verb = arguments.iter().find(|word| !word.starts_with(['-', '+'])).copied().unwrap_or_default();
        match program {
            "go" if matches!(verb, "build" | "install") => Some(Toolchain::Go),
            "cargo" if matches!(verb, "build" | "b" | "install") => Some(Toolchain::Rust),
            "npm" | "yarn" | "pnpm" if arguments.iter().any(|word| word.starts_with("build")) => {
                Some(Toolchain::Node)
            }
            "mvn" | "mvnw" | "gradle" | "gradlew" | "javac" => Some(Toolchain::Java),
            "gcc" | "g++" | "cc" | "c++" | "clang" | "clang++" | "make" | "cmake" | "configure" | "ninja"
            | "meson" => Some(Toolchain::C),
            _ => None,
        }
    }
}

/// Looks at a stage that runs on the platform that is built.
pub(super) fn check(stage: &Stage, surroundings: &Surroundings<'_>, linter: &mut Linter) {
    let emulated: Vec<String> = surroundings
        .platforms
        .iter()
        .filter(|platform| !runs(surroundings.build_platform, platform))
        .map(ToString::to_string)
        .collect();
    if emulated.is_empty() {
        return;
    }
    let found = stage.instructions.iter().find_map(|instruction| match &instruction.kind {
        InstructionKind::Run(run) => Some((instruction, toolchain_of(run)?)),
        _ => None,
    });
    let Some((instruction, toolchain)) = found else { return };
    let is_of_its_own = surroundings.is_copied_from && !surroundings.is_base;
    let advice = match is_of_its_own {
        true => {
            "FROM --platform=$BUILDPLATFORM runs it natively, and ARG TARGETARCH says what to compile for"
        }
        false => {
            "compile in a stage of its own, FROM --platform=$BUILDPLATFORM and by ARG TARGETARCH, and COPY --from it"
        }
    };
    let detail = format!(
        "this stage compiles {} (line {}) and runs emulated for {}: {advice}",
        toolchain.name(),
        instruction.span.first_line,
        emulated.join(", ")
    );
    let mended = if is_of_its_own { mended(stage, instruction, toolchain, surroundings) } else { None };
    linter.report_mended(&rule::EMULATED_COMPILER, &stage.comments, stage.span, detail, mended);
}

fn toolchain_of(run: &Run) -> Option<Toolchain> {
    let text = match run.program() {
        Program::Shell(text) | Program::Script { content: text, .. } => text,
        Program::Exec(arguments) => {
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let (program, arguments) = words.split_first()?;
            return Toolchain::of(program, arguments);
        }
    };
    // A simple command ends at these; what stands before a program sets its variables.
    text.split([';', '&', '|', '\n', '(', ')', '{', '}']).find_map(|command| {
        let words: Vec<&str> = command
            .split_whitespace()
            .skip_while(|word| {
                word.contains('=') || matches!(*word, "exec" | "time" | "env" | "sudo" | "then")
            })
            .collect();
        let (program, arguments) = words.split_first()?;
        Toolchain::of(program, arguments)
    })
}

/// Returns the lines of the stage that change, as they should be; none where that depends on more than they
/// show.
fn mended(
    stage: &Stage,
    instruction: &Instruction,
    toolchain: Toolchain,
    surroundings: &Surroundings<'_>,
) -> Option<String> {
    let InstructionKind::Run(run) = &instruction.kind else { return None };
    let name = match (&stage.as_keyword, &stage.written_name) {
        (Some(keyword), Some(name)) => format!(" {keyword} {name}"),
        _ => String::new(),
    };
    let mut lines = vec![format!("{} --platform=$BUILDPLATFORM {}{name}", stage.keyword, stage.from.image)];
    if matches!(toolchain, Toolchain::Node | Toolchain::Java) {
        return Some(lines.remove(0));
    }
    if matches!(run.program(), Program::Exec(_)) {
        return None;
    }
    let says =
        |word: &str| stage.instructions.iter().any(|it| it.span.text(surroundings.source).contains(word));
    let text = instruction.span.text(surroundings.source);
    let (names, text): (&[&str], String) = match toolchain {
        Toolchain::Go => {
            let has_arm = surroundings.platforms.iter().any(|platform| platform.architecture == "arm");
            let (names, arm): (&[&str], _) = match has_arm {
                true => (&["TARGETOS", "TARGETARCH", "TARGETVARIANT"], " GOARM=${TARGETVARIANT#v}"),
                false => (&["TARGETOS", "TARGETARCH"], ""),
            };
            if says("GOARCH") {
                (names, text.to_owned())
            } else {
                let cgo = if says("CGO_ENABLED") { "" } else { "CGO_ENABLED=0 " };
                let replaced = format!("{cgo}GOOS=$TARGETOS GOARCH=$TARGETARCH{arm} go build");
                (names, replace_word(text, "go build", &replaced)?)
            }
        }
        Toolchain::Rust => {
            let replaced = "RUSTFLAGS=-Clinker=rust-lld cargo build --target \"$(cat /rust-target)\"";
            let text = replace_word(text, "cargo build", replaced)?;
            lines.push("ARG TARGETARCH".to_owned());
            lines.push(
                "RUN case $TARGETARCH in amd64) echo x86_64-unknown-linux-musl ;; arm64) echo \
                 aarch64-unknown-linux-musl ;; esac > /rust-target && rustup target add $(cat /rust-target)"
                    .to_owned(),
            );
            (&[], format!("{} && cp -r target/$(cat /rust-target)/. target/", text.trim_end()))
        }
        _ => {
            let is_debian = ["debian", "ubuntu", "gcc", "buildpack-deps"]
                .iter()
                .any(|image| stage.from.image.contains(image));
            let cross = "$(dpkg-architecture -a$TARGETARCH -qDEB_HOST_GNU_TYPE)";
            let replaced = [
                ("./configure", format!("./configure --host={cross}")),
                ("gcc", format!("{cross}-gcc")),
                ("g++", format!("{cross}-g++")),
                ("cc", format!("{cross}-gcc")),
                ("make", format!("make CC={cross}-gcc")),
            ];
            let text = replaced.iter().find_map(|(word, by)| replace_word(text, word, by))?;
            if !is_debian {
                return None;
            }
            lines.push("ARG TARGETARCH".to_owned());
            lines.push(
                "RUN apt-get update && apt-get install -y dpkg-dev crossbuild-essential-$TARGETARCH"
                    .to_owned(),
            );
            (&[], text)
        }
    };
    let names = undeclared(stage, instruction, names);
    if !names.is_empty() {
        lines.push(format!("ARG {}", names.join(" ")));
    }
    lines.push(text);
    Some(lines.join("\n"))
}

/// Replaces the words where they begin a command; none when they nowhere do.
fn replace_word(text: &str, words: &str, by: &str) -> Option<String> {
    let mut result = String::with_capacity(text.len() + by.len());
    let mut rest = text;
    let mut is_found = false;
    while let Some(at) = rest.find(words) {
        let (before, after) = (&rest[..at], &rest[at + words.len()..]);
        let begins = before.chars().next_back().is_none_or(char::is_whitespace);
        let ends = after.chars().next().is_none_or(char::is_whitespace);
        // Packages of these names stand behind a verb that installs them.
        let command = before.rsplit([';', '&', '|', '\n']).next().unwrap_or_default();
        let is_argument =
            ["install", "add"].iter().any(|verb| command.split_whitespace().any(|it| it == *verb));
        result.push_str(before);
        if begins && ends && !is_argument {
            is_found = true;
            result.push_str(by);
        } else {
            result.push_str(words);
        }
        rest = after;
    }
    result.push_str(rest);
    is_found.then_some(result)
}
