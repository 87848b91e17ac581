// SPDX-License-Identifier: Apache-2.0
//! The values of `--cache-from` and `--cache-to`.

use std::path::Path;

use polyarch_build::{CacheEntry, RemoteCache};

use super::BuildArgs;
use crate::{CommandError, Environment};

/// Reads both flags; an empty value says nothing, as scripts with empty variables write it.
///
/// # Errors
/// The first value that makes no sense, naming its flag.
pub fn remote_cache(args: &BuildArgs, environment: &Environment) -> Result<RemoteCache, CommandError> {
    let entries = |flag: &str, values: &[String]| {
        let given = values.iter().filter(|value| !value.is_empty());
        let entries = given.map(|value| {
            let parsed = CacheEntry::parse(value);
            let mut entry =
                parsed.map_err(|problem| CommandError::usage(format!("{flag} {value}: {problem}")))?;
            entry.check_keys(flag)?;
            for key in ["src", "dest"] {
                if let Some(path) = entry.attributes.get_mut(key).filter(|path| !path.is_empty()) {
                    let resolved = environment.resolve(Path::new(path)).into_os_string().into_string();
                    *path = resolved.map_err(|_| {
                        CommandError::usage(format!("{flag} {value}: the directory's path is not UTF-8"))
                    })?;
                }
            }
            Ok(entry)
        });
        entries.collect::<Result<Vec<_>, CommandError>>()
    };
    let from = entries("--cache-from", &args.cache_from)?;
    let to = entries("--cache-to", &args.cache_to)?;
    Ok(RemoteCache {
        from: from.iter().map(CacheEntry::source).collect::<Result<_, _>>()?,
        to: to.iter().map(CacheEntry::export).collect::<Result<_, _>>()?,
    })
}
