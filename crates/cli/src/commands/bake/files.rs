// SPDX-License-Identifier: Apache-2.0
//! The bake files of a command, and what they are evaluated with.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use polyarch_bake::{DEFAULT_FILES, File, Inputs, World};
use polyarch_oci::Platform;

use super::super::flag_values::go_bool;
use crate::{CommandError, Environment};

/// How large a file may be.
const MAX_BYTES: u64 = 2 << 20;

/// Reads the files that are named, or those with the usual names.
///
/// # Errors
/// A file that can't be read, or none at all.
pub fn read(
    named: &[String],
    environment: &Environment,
    stdin: &mut dyn Read,
) -> Result<Vec<File>, CommandError> {
    let mut names: Vec<String> = named.to_vec();
    if names.is_empty()
        && let Some(list) = environment.text("BUILDX_BAKE_FILE")
    {
        let separator = environment.text("BUILDX_BAKE_PATH_SEPARATOR").unwrap_or(":");
        let listed = list.split(separator).map(str::trim).filter(|name| !name.is_empty());
        names.extend(listed.map(str::to_owned));
    }
    let is_default = names.is_empty();
    if is_default {
        names = DEFAULT_FILES.iter().map(|name| (*name).to_owned()).collect();
    }
    let mut files = Vec::new();
    for name in names {
        let name = name.strip_prefix("cwd://").unwrap_or(&name).to_owned();
        if name == "-" {
            files.push(File { text: text_of(&name, stdin)?, name });
            continue;
        }
        let path = environment.resolve(Path::new(&name));
        match std::fs::File::open(&path) {
            Ok(mut file) => files.push(File { text: text_of(&name, &mut file)?, name }),
            Err(error) if is_default && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(CommandError::usage(format!("open {name}: no such file or directory"))
                    .with_hint("--file names a bake file; without it docker-bake.hcl is read"));
            }
            Err(error) => return Err(CommandError::io("can't open the bake file", path, &error)),
        }
    }
    if files.is_empty() {
        return Err(CommandError::usage("couldn't find a bake definition").with_hint(
            "write docker-bake.hcl in this directory, or name a file: polyarch bake --file FILE",
        ));
    }
    Ok(files)
}

fn text_of(name: &str, source: &mut dyn Read) -> Result<String, CommandError> {
    let mut bytes = Vec::new();
    source
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| CommandError::io("can't read the bake file", name, &error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(CommandError::usage(format!("the bake file {name:?} is larger than 2 MB")));
    }
    String::from_utf8(bytes)
        .map_err(|_| CommandError::usage(format!("the bake file {name:?} is not text in UTF-8")))
}

/// Gathers what files are evaluated with.
///
/// # Errors
/// A variable without a value, or a switch of the environment that is no truth value.
pub fn inputs(variables: &[String], environment: &Environment) -> Result<Inputs, CommandError> {
    let mut given = BTreeMap::new();
    for text in variables.iter().filter(|text| !text.is_empty()) {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| CommandError::usage(format!("invalid variable {text:?}, expected key=value")))?;
        if name.is_empty() {
            return Err(CommandError::usage(format!("invalid variable {text:?}, key is empty")));
        }
        given.insert(name.to_owned(), value.to_owned());
    }
    let is_closed = environment
        .text("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP")
        .is_some_and(|value| go_bool(value) == Ok(true));
    let text = |(name, value): (&String, &std::ffi::OsString)| {
        value.to_str().map(|value| (name.clone(), value.to_owned()))
    };
    let variables =
        if is_closed { BTreeMap::new() } else { environment.variables.iter().filter_map(text).collect() };
    let paths_from_file = match environment.text("BUILDX_BAKE_FILE_RELATIVE_PATHS").map(str::trim) {
        None => false,
        Some(value) => go_bool(value).map_err(|_| {
            CommandError::usage(format!(
                "BUILDX_BAKE_FILE_RELATIVE_PATHS={value:?} is neither true nor false"
            ))
        })?,
    };
    Ok(Inputs {
        built_in: BTreeMap::from([
            ("BAKE_CMD_CONTEXT".to_owned(), "cwd://".to_owned()),
            ("BAKE_LOCAL_PLATFORM".to_owned(), Platform::host().to_string()),
        ]),
        variables: given,
        environment: variables,
        dot_env: std::fs::read_to_string(environment.resolve(Path::new(".env"))).ok(),
        world: World {
            home: environment.text("HOME").unwrap_or_default().to_owned(),
            now: jiff::Timestamp::now().as_second(),
        },
        paths_from_file,
    })
}
