// SPDX-License-Identifier: Apache-2.0
//! Called as `docker-buildx`: what docker passes to its plugins becomes our own command line.
//!
//! docker runs `docker-buildx [docker's flags] buildx COMMAND …` (docker/cli, cli-plugins/manager); people run
//! `docker-buildx COMMAND …`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The name of the plugin's program.
pub const PLUGIN: &str = "docker-buildx";

/// docker's own flags that have a value.
const WITH_VALUE: &[&str] = &[
    "--config",
    "-c",
    "--context",
    "-H",
    "--host",
    "-l",
    "--log-level",
    "--tlscacert",
    "--tlscert",
    "--tlskey",
];
/// docker's own flags that have none.
const WITHOUT_VALUE: &[&str] = &["--tls", "--tlsverify"];

/// Returns the arguments as `polyarch` takes them, the program's name first.
pub fn own_arguments(arguments: Vec<OsString>) -> Vec<OsString> {
    let is_plugin = arguments
        .first()
        .and_then(|program| Path::new(program).file_name())
        .is_some_and(|name| name == PLUGIN || name == "buildx");
    if !is_plugin {
        return arguments;
    }
    let mut own = vec![OsString::from("polyarch")];
    let mut rest = arguments.into_iter().skip(1).peekable();
    while let Some(flag) = rest.next_if(|argument| is_dockers(argument)) {
        if WITH_VALUE.iter().any(|known| flag == *known) {
            rest.next();
        }
    }
    let debug: Vec<OsString> =
        std::iter::from_fn(|| rest.next_if(|argument| argument == "-D" || argument == "--debug")).collect();
    let is_named = rest.peek().is_some_and(|word| word == "buildx" || word == "docker-cli-plugin-metadata");
    if !is_named {
        own.push(OsString::from("buildx"));
    }
    own.extend(rest);
    own.extend(debug);
    own
}

fn is_dockers(argument: &OsStr) -> bool {
    let Some(text) = argument.to_str() else { return false };
    let name = text.split('=').next().unwrap_or(text);
    WITH_VALUE.contains(&text)
        || WITHOUT_VALUE.contains(&name)
        || text.contains('=') && name.starts_with("--") && WITH_VALUE.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(arguments: &[&str]) -> Vec<String> {
        let own = own_arguments(arguments.iter().map(OsString::from).collect());
        own.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn dockers_words_become_ours() {
        let plugin = "/home/u/.docker/cli-plugins/docker-buildx";
        assert_eq!(own(&[plugin, "buildx", "ls"]), ["polyarch", "buildx", "ls"]);
        assert_eq!(own(&[plugin, "version"]), ["polyarch", "buildx", "version"]);
        assert_eq!(own(&[plugin, "docker-cli-plugin-metadata"]), ["polyarch", "docker-cli-plugin-metadata"]);
        assert_eq!(
            own(&[
                plugin,
                "--context",
                "x",
                "--tls=false",
                "--host=unix:///x",
                "buildx",
                "build",
                "-t",
                "a",
                "."
            ]),
            ["polyarch", "buildx", "build", "-t", "a", "."]
        );
        assert_eq!(own(&["polyarch", "--context", "x"]), ["polyarch", "--context", "x"]);
    }
}
