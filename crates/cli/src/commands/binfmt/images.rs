// SPDX-License-Identifier: Apache-2.0
//! The images that people run with `--privileged` to have emulators, and what each is asked to do.
//!
//! Their names stand in countless instructions. Nothing of them is pulled: what they do, this program does.

use clap::{Args, Command, FromArgMatches};
use polyarch_oci::Reference;

use super::BinfmtArgs;
use crate::CommandError;

/// How such an image reads its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    /// Flags of tonistiigi/binfmt, which are those of `polyarch binfmt`.
    Flags,
    /// None; it registers everything.
    Registers,
    /// Those of QEMU's `qemu-binfmt-conf.sh`, and `--reset`.
    Script,
}

/// Returns what `run --privileged IMAGE COMMAND…` asks for, when it is an image that registers emulators.
///
/// # Errors
/// When the image's program wouldn't understand its arguments either.
pub fn as_image_of_emulators(image: &str, command: &[String]) -> Result<Option<BinfmtArgs>, CommandError> {
    let Some(program) = program_of(image) else { return Ok(None) };
    let request = match program {
        Program::Flags => parse_flags(image, command)?,
        Program::Registers => match command {
            [] => BinfmtArgs { install: vec!["all".to_owned()], ..BinfmtArgs::default() },
            [word, ..] => return Err(not_understood(image, word)),
        },
        Program::Script => parse_script(image, command)?,
    };
    Ok(Some(request))
}

/// Recognises the image by its repository on Docker Hub; any tag or digest will do.
fn program_of(image: &str) -> Option<Program> {
    let reference: Reference = image.parse().ok()?;
    if reference.host() != "docker.io" {
        return None;
    }
    match reference.repository() {
        "tonistiigi/binfmt" => Some(Program::Flags),
        "docker/binfmt" | "linuxkit/binfmt" => Some(Program::Registers),
        "multiarch/qemu-user-static" => Some(Program::Script),
        _ => None,
    }
}

/// Reads flags as Go's `flag` package does, for which one dash is as good as two.
fn parse_flags(image: &str, command: &[String]) -> Result<BinfmtArgs, CommandError> {
    let words = command.iter().map(|word| match word.strip_prefix('-') {
        Some(rest) if !rest.starts_with('-') && !rest.is_empty() => format!("--{rest}"),
        _ => word.clone(),
    });
    let definition = BinfmtArgs::augment_args(Command::new("binfmt").no_binary_name(true));
    definition.try_get_matches_from(words).and_then(|matches| BinfmtArgs::from_arg_matches(&matches)).map_err(
        |error| {
            let text = error.render().to_string();
            let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            CommandError::usage(format!("{image}: {message}"))
                .with_hint("polyarch binfmt --help lists the flags")
        },
    )
}

/// Reads the arguments of multiarch/qemu-user-static.
fn parse_script(image: &str, command: &[String]) -> Result<BinfmtArgs, CommandError> {
    let mut request = BinfmtArgs { install: vec!["all".to_owned()], ..BinfmtArgs::default() };
    let mut words = command.iter();
    while let Some(word) = words.next() {
        match word.split_once('=').map_or(word.as_str(), |(name, _)| name) {
            "--reset" => request.uninstall = vec!["qemu-*".to_owned()],
            // What they switch on is always on: the interpreter is opened at once, and credentials count.
            "-p" | "--persistent" | "-c" | "--credential" | "-g" | "--preserve-argv0" => {
                if !word.contains('=') {
                    words.next();
                }
            }
            _ => return Err(not_understood(image, word)),
        }
    }
    Ok(request)
}

fn not_understood(image: &str, word: &str) -> CommandError {
    CommandError::usage(format!("{image}: the argument {word:?} is not understood"))
        .with_hint("polyarch binfmt --help lists what can be done about emulators")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> Option<(String, String)> {
        let command: Vec<String> = words[1..].iter().map(|word| (*word).to_owned()).collect();
        let request =
            as_image_of_emulators(words[0], &command).unwrap_or_else(|error| panic!("{}", error.render()))?;
        Some((request.install.join(","), request.uninstall.join(",")))
    }

    #[test]
    fn each_image_does_what_its_users_expect() {
        let digest = format!("docker.io/tonistiigi/binfmt@sha256:{}", "a".repeat(64));
        let table: &[(&[&str], (&str, &str))] = &[
            (&["tonistiigi/binfmt"], ("", "")),
            (&["tonistiigi/binfmt:qemu-v8.1.5", "--install", "all"], ("all", "")),
            (&[&digest, "-install=arm64,riscv64"], ("arm64,riscv64", "")),
            (&["tonistiigi/binfmt", "--uninstall", "qemu-*"], ("", "qemu-*")),
            (&["docker/binfmt:a7996909642ee92942dcd6cff44b9b95f08dad64"], ("all", "")),
            (&["linuxkit/binfmt:v0.8"], ("all", "")),
            (&["multiarch/qemu-user-static", "--reset", "-p", "yes"], ("all", "qemu-*")),
            (&["multiarch/qemu-user-static:register", "--reset", "--credential=yes"], ("all", "qemu-*")),
            (&["multiarch/qemu-user-static"], ("all", "")),
        ];
        for (words, (install, uninstall)) in table {
            assert_eq!(request(words), Some(((*install).to_owned(), (*uninstall).to_owned())), "{words:?}");
        }
    }

    #[test]
    fn other_images_are_run() {
        for image in ["alpine", "ghcr.io/tonistiigi/binfmt", "binfmt", "tonistiigi/binfmt2", "UPPER/CASE"] {
            assert_eq!(request(&[image]), None, "{image}");
        }
    }

    #[test]
    fn arguments_that_the_image_would_not_take_are_refused() {
        for words in [
            ["tonistiigi/binfmt", "--instal"],
            ["tonistiigi/binfmt", "all"],
            ["docker/binfmt", "arm64"],
            ["multiarch/qemu-user-static", "--resett"],
        ] {
            let error = as_image_of_emulators(words[0], &[words[1].to_owned()]).unwrap_err();
            assert!(error.error.message.contains(words[1]), "{}", error.render());
        }
    }
}
