// SPDX-License-Identifier: Apache-2.0
//! Which frontend a Dockerfile asks for (`# syntax=`): BuildKit's own is built in, and there is no other.

use polyarch_dockerfile::detect_syntax;

use crate::context::DockerfileText;
use crate::error::{BuildError, ErrorKind, SourceLocation};
use crate::request::BuildRequest;

/// The argument that stands before what the file says.
const ARGUMENT: &str = "BUILDKIT_SYNTAX";

/// The repositories of BuildKit's Dockerfile frontend, wherever they are mirrored.
const BUILT_IN: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// What is built in, by the name that daemons know it by.
const BUILT_IN_NAME: &str = "dockerfile.v0";

/// Makes sure that a text is for the frontend that is built in.
///
/// # Errors
/// When it is for another, at the line that says so.
pub(crate) fn check(request: &BuildRequest, text: &DockerfileText) -> Result<(), BuildError> {
    let Some((asked, line)) = asked(request, text) else { return Ok(()) };
    // Arguments of the frontend may stand behind it.
    let name = asked.split_whitespace().next().unwrap_or_default();
    if is_built_in(name) {
        return Ok(());
    }
    let message = format!("the frontend {name:?} can't be run: images as frontends are not supported");
    let error = BuildError::new(ErrorKind::Dockerfile, message).with_hint(
        "docker/dockerfile is built in: write # syntax=docker/dockerfile:1, or leave the line out",
    );
    Err(match line {
        None => error,
        Some(line) => {
            let text_of_file = String::from_utf8_lossy(&text.bytes).into();
            error.at(SourceLocation { file: text.name.clone(), text: text_of_file, lines: line..=line })
        }
    })
}

/// Returns the image that is asked for as frontend, which other daemons fetch.
pub(crate) fn asked_image(request: &BuildRequest, text: &DockerfileText) -> Option<String> {
    let (asked, _) = asked(request, text)?;
    asked.split_whitespace().next().filter(|name| *name != BUILT_IN_NAME).map(str::to_owned)
}

/// Returns what is asked for, and the line that says so unless it is an argument.
fn asked(request: &BuildRequest, text: &DockerfileText) -> Option<(String, Option<u32>)> {
    let given = request.build_args.iter().rev().find(|(name, value)| name == ARGUMENT && !value.is_empty());
    match given {
        Some((_, value)) => Some((value.clone(), None)),
        None => {
            let found = detect_syntax(&String::from_utf8_lossy(&text.bytes))?;
            Some((found.value, Some(found.line)))
        }
    }
}

fn is_built_in(name: &str) -> bool {
    let name = name.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    let is_at_end = |repository: &str| {
        name == repository || name.strip_suffix(repository).is_some_and(|registry| registry.ends_with('/'))
    };
    name == BUILT_IN_NAME || BUILT_IN.iter().any(|repository| is_at_end(repository))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frontend_that_is_built_in_is_known_by_its_name() {
        for (name, expected) in [
            ("docker/dockerfile", true),
            ("docker/dockerfile:1.7-labs", true),
            ("docker.io/docker/dockerfile:1@sha256:aa", true),
            ("localhost:5000/mirror/docker/dockerfile-upstream:master", true),
            ("dockerfile.v0", true),
            ("foobar", false),
            ("notdocker/dockerfile", false),
            ("docker/dockerfile/other", false),
            ("", false),
        ] {
            assert_eq!(is_built_in(name), expected, "{name}");
        }
    }
}
