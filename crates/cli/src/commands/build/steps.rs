// SPDX-License-Identifier: Apache-2.0
//! The flags about what RUN steps get and may do.

use std::sync::Arc;

use polyarch_build::request::{Entitlement, NetworkMode, Resource, StepOptions, Ulimit};

use super::super::flag_values::unknown;
use super::BuildArgs;
use super::secrets::CommandSecrets;
use crate::{CommandError, Environment};

/// Joins the flags; `network` is what all steps get, which is a permission as well.
///
/// # Errors
/// The first flag that makes no sense.
pub fn step_options(
    args: &BuildArgs,
    network: NetworkMode,
    environment: &Environment,
) -> Result<StepOptions, CommandError> {
    let secrets = CommandSecrets::new(&args.secret, &args.ssh, environment).map_err(CommandError::usage)?;
    let mut entitlements = entitlements(&args.allow)?;
    if network == NetworkMode::Host && !entitlements.contains(&Entitlement::NetworkHost) {
        entitlements.push(Entitlement::NetworkHost);
    }
    let ulimits = args.ulimit.iter().filter(|text| !text.is_empty()).map(|text| {
        parse_ulimit(text).map_err(|problem| CommandError::usage(format!("--ulimit {text}: {problem}")))
    });
    let stages = args.no_cache_filter.iter().flat_map(|text| text.split(','));
    Ok(StepOptions {
        secrets: Arc::new(secrets),
        entitlements,
        ulimits: ulimits.collect::<Result<_, _>>()?,
        hostname: None,
        no_cache_stages: stages.map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect(),
        cgroup_parent: args.cgroup_parent.clone().filter(|parent| !parent.is_empty()),
    })
}

fn entitlements(values: &[String]) -> Result<Vec<Entitlement>, CommandError> {
    let names = Entitlement::ALL.map(Entitlement::as_str);
    let mut entitlements = Vec::new();
    for name in values.iter().flat_map(|value| value.split(',')).filter(|name| !name.is_empty()) {
        let entitlement = Entitlement::from_name(name)
            .ok_or_else(|| CommandError::usage(unknown("--allow", name, &names)))?;
        if !entitlements.contains(&entitlement) {
            entitlements.push(entitlement);
        }
    }
    Ok(entitlements)
}

/// Reads `nofile=1024[:2048]`; -1 is unlimited, and one number is both limits.
fn parse_ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, limits) =
        text.split_once('=').ok_or("write NAME=SOFT[:HARD], for example nofile=1024:2048")?;
    let resource = Resource::from_name(name).ok_or_else(|| format!("invalid ulimit type: {name}"))?;
    let number = |text: &str| match text {
        "-1" => Ok(None),
        _ => text.parse::<u64>().map(Some).map_err(|_| format!("{text:?} is not a number (-1 is unlimited)")),
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        return Err("ulimit soft limit must be less than or equal to hard limit".to_owned());
    }
    Ok(Ulimit { resource, soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_wrong_ones_refused() {
        let limit = |soft, hard| Ok(Ulimit { resource: Resource::Nofile, soft, hard });
        assert_eq!(parse_ulimit("nofile=1062:2048"), limit(Some(1062), Some(2048)));
        assert_eq!(parse_ulimit("nofile=9"), limit(Some(9), Some(9)));
        assert_eq!(parse_ulimit("nofile=9:-1"), limit(Some(9), None));
        for wrong in
            ["nofile", "nofiles=1", "nofile=", "nofile=2:1", "nofile=-1:5", "nofile=1:2:3", "nofile=-2"]
        {
            assert!(parse_ulimit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn entitlements_are_named_exactly() {
        let given = ["network.host,security.insecure".to_owned(), "network.host".to_owned()];
        let both = vec![Entitlement::NetworkHost, Entitlement::SecurityInsecure];
        assert_eq!(entitlements(&given).expect("known"), both);
        let error = entitlements(&["network.hots".to_owned()]).expect_err("unknown");
        assert!(error.error.message.contains("did you mean network.host"), "{error:?}");
    }
}
