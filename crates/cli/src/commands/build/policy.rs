// SPDX-License-Identifier: Apache-2.0
//! The source policy of a build, from the file that a variable names, as buildx has it.

use std::io::Read;

use polyarch_build::source_policy::SourcePolicies;

use crate::environment::Environment;
use crate::error::CommandError;

/// The variable that names the file.
const VARIABLE: &str = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY";

/// The largest policy, in bytes.
const MAX_POLICY_BYTES: u64 = 4 << 20;

/// Reads the source policy of a build, when there is one.
pub(super) fn source_policies(environment: &Environment) -> Result<SourcePolicies, CommandError> {
    let Some(path) = environment.path(VARIABLE) else { return Ok(SourcePolicies::default()) };
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(&path).and_then(|file| file.take(MAX_POLICY_BYTES + 1).read_to_end(&mut bytes));
    let problem = match read {
        Err(error) => Some(error.to_string()),
        Ok(_) if bytes.len() as u64 > MAX_POLICY_BYTES => {
            Some(format!("larger than {} MiB", MAX_POLICY_BYTES >> 20))
        }
        Ok(_) => None,
    };
    if let Some(problem) = problem {
        let message = format!("failed to read policy file {}: {problem}", path.display());
        return Err(CommandError::usage(message).with_hint(format!("{VARIABLE} names it")));
    }
    SourcePolicies::parse(&bytes).map_err(|error| {
        CommandError::from(error).with_hint(format!("{VARIABLE} names the file {}", path.display()))
    })
}
