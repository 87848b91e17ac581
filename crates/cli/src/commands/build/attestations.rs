// SPDX-License-Identifier: Apache-2.0
//! The values of `--attest`, `--provenance` and `--sbom`.

use polyarch_build::attest::Attestations;
use polyarch_build::csv::split_csv;

use super::super::flag_values::go_bool;
use super::BuildArgs;
use crate::CommandError;

/// Joins the three flags: the latter two are short for the first, and win over it.
///
/// # Errors
/// What makes no sense, naming the flag.
pub fn attestations(args: &BuildArgs) -> Result<Attestations, CommandError> {
    let mut attestations = Attestations::default();
    for value in &args.attest {
        let wrong = |problem: String| CommandError::usage(format!("--attest {value}: {problem}"));
        let fields = split_csv(value).map_err(wrong)?;
        let kind = fields.iter().find_map(|field| field.strip_prefix("type="));
        let kind = kind.ok_or_else(|| {
            wrong("attestation type not specified".to_owned())
                .with_hint("write --attest type=provenance or type=sbom")
        })?;
        set(&mut attestations, "--attest", kind, value)?;
    }
    for (flag, kind, value) in
        [("--provenance", "provenance", &args.provenance), ("--sbom", "sbom", &args.sbom)]
    {
        let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else { continue };
        match go_bool(value) {
            Ok(true) => set(&mut attestations, flag, kind, "")?,
            Ok(false) => set(&mut attestations, flag, kind, "disabled=true")?,
            Err(_) => set(&mut attestations, flag, kind, value)?,
        }
    }
    Ok(attestations)
}

fn set(
    attestations: &mut Attestations,
    flag: &str,
    kind: &str,
    attributes: &str,
) -> Result<(), CommandError> {
    attestations.set(kind, attributes).map_err(|mut error| {
        error.message = format!("{flag}: {}", error.message);
        CommandError::from(error)
    })
}
