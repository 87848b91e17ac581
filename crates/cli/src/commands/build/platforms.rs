// SPDX-License-Identifier: Apache-2.0
//! The platforms that a command is for.

use polyarch_oci::Platform;

use crate::{CommandError, Environment};

/// Reads the values of `--platform` of a command that is for all platforms unless some are named.
///
/// As with docker, `DOCKER_DEFAULT_PLATFORM` does not count: it would drop the other platforms of an image.
///
/// # Errors
/// The first entry that is no platform.
pub fn named_platforms(values: &[String], environment: &Environment) -> Result<Vec<Platform>, CommandError> {
    if values.is_empty() { Ok(Vec::new()) } else { parse_platforms(values, environment) }
}

/// Reads the values of `--platform`, which may be lists, or else `DOCKER_DEFAULT_PLATFORM`.
///
/// `local` is this machine's platform. Each platform is kept once, in the order given.
///
/// # Errors
/// The first entry that is no platform.
pub fn parse_platforms(values: &[String], environment: &Environment) -> Result<Vec<Platform>, CommandError> {
    let (origin, values): (&str, Vec<&str>) = match environment.text("DOCKER_DEFAULT_PLATFORM") {
        Some(default) if values.is_empty() => ("DOCKER_DEFAULT_PLATFORM", vec![default]),
        _ => ("--platform", values.iter().map(String::as_str).collect()),
    };
    let mut platforms = Vec::new();
    for word in values.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|word| !word.is_empty())
    {
        let platform = if word == "local" {
            Platform::host()
        } else {
            Platform::parse_known(word).map_err(|error| CommandError::usage(format!("{origin}: {error}")))?
        };
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}
