// SPDX-License-Identifier: Apache-2.0
//! What a Dockerfile frontend is told (`platform`, `build-arg:NAME`, `target`…) as our request.
//!
//! Attributes that nobody knows are ignored, as BuildKit has it: clients send what other versions understand.

use std::collections::BTreeMap;

use polyarch_build::attest::Attestations;
use polyarch_build::request::{
    BuildRequest, Context, DockerfileSource, Entitlement, ImageOptions, NetworkMode, PullPolicy, Resource,
    StepOptions, Ulimit,
};
use polyarch_build::source_policy::SourcePolicies;
use polyarch_build::{BuildError, ErrorKind, RemoteCache};
use polyarch_oci::Platform;

use crate::server::builds::Build;

/// The most attributes of a build.
const MAX_ATTRIBUTES: usize = 4096;

/// Reads the attributes; context, Dockerfile and secrets are filled in by others.
pub(super) fn request_of(
    attributes: &BTreeMap<String, String>,
    entitlements: Vec<Entitlement>,
) -> Result<BuildRequest, BuildError> {
    if attributes.len() > MAX_ATTRIBUTES {
        return Err(wrong(format!("a build has at most {MAX_ATTRIBUTES} attributes")));
    }
    let get = |key: &str| attributes.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let with_prefix = |prefix: &str| -> Vec<(String, String)> {
        let named = attributes.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, value)));
        named.map(|(name, value)| (name.to_owned(), value.clone())).collect()
    };
    let build_args = with_prefix("build-arg:");
    let platforms = match get("platform") {
        Some(list) => platforms(list)?,
        None => Vec::new(),
    };
    let no_cache = attributes.get("no-cache");
    let shm_size_bytes = get("shm-size")
        .map(|text| text.parse().map_err(|_| wrong(format!("failed to parse shm size: {text:?}"))))
        .transpose()?
        .filter(|size| *size > 0);
    Ok(BuildRequest {
        context: Context::Empty,
        dockerfile: DockerfileSource::Default,
        platforms,
        names: Vec::new(),
        keeps_names: false,
        contexts: Vec::new(),
        attestations: Attestations {
            frontend_attributes: Some(
                attributes.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            ),
            ..Attestations::from_attributes(
                attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())),
            )?
        },
        target: get("target").map(str::to_owned),
        // A number, a name, or a default of the Dockerfile's: the build finds out.
        source_date_epoch: None,
        build_args,
        labels: with_prefix("label:"),
        outputs: Vec::new(),
        no_cache: no_cache.is_some_and(String::is_empty),
        policies: SourcePolicies::default(),
        cache: RemoteCache::default(),
        pull: match get("image-resolve-mode") {
            None | Some("default" | "local") => PullPolicy::Default,
            Some("pull") => PullPolicy::Always,
            Some(mode) => return Err(wrong(format!("invalid image-resolve-mode: {mode}"))),
        },
        network: match get("force-network-mode") {
            None | Some("sandbox") => NetworkMode::Default,
            Some("none") => NetworkMode::None,
            Some("host") => NetworkMode::Host,
            Some(mode) => return Err(wrong(format!("invalid netmode {mode}"))),
        },
        extra_hosts: extra_hosts(get("add-hosts").unwrap_or_default())?,
        shm_size_bytes,
        steps: StepOptions {
            entitlements,
            ulimits: ulimits(get("ulimit").unwrap_or_default())?,
            hostname: get("hostname").map(str::to_owned),
            no_cache_stages: no_cache
                .filter(|list| !list.is_empty())
                .map(|list| list.split(',').map(|stage| stage.trim().to_owned()).collect())
                .unwrap_or_default(),
            cgroup_parent: get("cgroup-parent").map(str::to_owned),
            ..StepOptions::default()
        },
        image: ImageOptions {
            always_index: get("multi-platform").is_some_and(|text| go_bool(text) == Some(true)),
            ..ImageOptions::default()
        },
        // What clients of BuildKit ask for is what they get, programs of other platforms among it.
        verify: false,
        max_parallel: 0,
        threads: 0,
    })
}

/// Returns what a build's client wants attested.
pub(super) fn attestations(build: &Build) -> Result<Attestations, BuildError> {
    let attributes = build.request.frontend_attrs.iter();
    Attestations::from_attributes(attributes.map(|(key, value)| (key.as_str(), value.as_str())))
}

/// Reads a truth value as Go does; `None` when it is none.
pub(super) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Chooses what a build may do beyond the sandbox: what it asks for, if the server grants it.
pub(super) fn granted<'a>(
    asked: &[String],
    allowed: impl IntoIterator<Item = &'a String> + Clone,
) -> Result<Vec<Entitlement>, BuildError> {
    let mut granted = Vec::new();
    for name in asked {
        // `device=NAME` asks for one device; there are none here.
        let kind = name.split('=').next().unwrap_or(name);
        if !allowed.clone().into_iter().any(|allowed| allowed == name) {
            let message = format!("granting entitlement {kind} is not allowed by build daemon configuration");
            return Err(BuildError::new(ErrorKind::Usage, message));
        }
        if let Some(entitlement) = Entitlement::from_name(name)
            && !granted.contains(&entitlement)
        {
            granted.push(entitlement);
        }
    }
    Ok(granted)
}

fn platforms(list: &str) -> Result<Vec<Platform>, BuildError> {
    let mut platforms: Vec<Platform> = Vec::new();
    for text in list.split(',') {
        let platform: Platform = text.trim().parse().map_err(|error| {
            BuildError::from_source(
                ErrorKind::Usage,
                format!("failed to parse target platform {text}"),
                &error as &polyarch_oci::PlatformError,
            )
        })?;
        let platform = platform.normalized();
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

fn extra_hosts(list: &str) -> Result<Vec<(String, String)>, BuildError> {
    let pairs = list.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, address) = pair.split_once('=').ok_or_else(|| {
            wrong(format!("failed to parse additional hosts: invalid key-value pair {pair}"))
        })?;
        if address.parse::<std::net::IpAddr>().is_err() {
            return Err(wrong(format!("failed to parse additional hosts: failed to parse IP {address}")));
        }
        Ok((name.to_ascii_lowercase(), address.to_owned()))
    });
    pairs.collect()
}

fn ulimits(list: &str) -> Result<Vec<Ulimit>, BuildError> {
    let limits = list.split(',').filter(|limit| !limit.is_empty()).map(|text| {
        let failed = |problem: &str| wrong(format!("failed to parse ulimit: {text}: {problem}"));
        let (name, values) = text.split_once('=').ok_or_else(|| failed("not NAME=SOFT[:HARD]"))?;
        let resource = Resource::from_name(name).ok_or_else(|| failed("there is no such limit"))?;
        let value = |text: &str| match text {
            "-1" => Ok(None),
            text => text.parse().map(Some).map_err(|_| failed("not a number")),
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        Ok(Ulimit { resource, soft: value(soft)?, hard: value(hard)? })
    });
    limits.collect()
}

/// Makes the error of an attribute.
pub(super) fn wrong(message: impl Into<String>) -> BuildError {
    BuildError::new(ErrorKind::Usage, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<BuildRequest, BuildError> {
        let attributes = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        request_of(&attributes, Vec::new())
    }

    #[test]
    fn attributes_become_a_request() {
        let request = read(&[
            ("platform", "linux/amd64,linux/arm64/v8"),
            ("multi-platform", "true"),
            ("target", "out"),
            ("build-arg:A", "1"),
            ("build-arg:SOURCE_DATE_EPOCH", "7"),
            ("label:l", "v"),
            ("no-cache", "one,two"),
            ("image-resolve-mode", "pull"),
            ("force-network-mode", "none"),
            ("add-hosts", "Db=10.0.0.1,db=::1"),
            ("shm-size", "1024"),
            ("ulimit", "nofile=10:20,core=-1"),
            ("hostname", "box"),
            ("something", "else"),
        ])
        .unwrap();
        let names: Vec<String> = request.platforms.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["linux/amd64", "linux/arm64"]);
        assert!(request.image.always_index && !request.no_cache && !request.verify);
        assert_eq!(request.target.as_deref(), Some("out"));
        assert_eq!(request.source_date_epoch, None);
        assert_eq!(request.labels, [("l".to_owned(), "v".to_owned())]);
        assert_eq!(request.steps.no_cache_stages, ["one", "two"]);
        assert_eq!((request.pull, request.network), (PullPolicy::Always, NetworkMode::None));
        assert_eq!(request.extra_hosts.len(), 2);
        assert_eq!(request.shm_size_bytes, Some(1024));
        assert_eq!((request.steps.ulimits[0].soft, request.steps.ulimits[1].hard), (Some(10), None));
        assert!(read(&[("no-cache", "")]).unwrap().no_cache);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (key, value) in [
            ("platform", "linux/"),
            ("image-resolve-mode", "never"),
            ("force-network-mode", "bridge"),
            ("add-hosts", "db"),
            ("add-hosts", "db=there"),
            ("shm-size", "many"),
            ("ulimit", "nofile"),
            ("ulimit", "files=1"),
        ] {
            assert!(read(&[(key, value)]).is_err(), "{key}={value}");
        }
    }

    #[test]
    fn nothing_is_granted_that_the_server_does_not_allow() {
        let allowed = ["network.host".to_owned()];
        let granted = |name: &str| granted(&[name.to_owned()], &allowed);
        assert_eq!(granted("network.host").unwrap(), [Entitlement::NetworkHost]);
        for name in ["security.insecure", "device=gpu", "anything"] {
            assert!(granted(name).is_err(), "{name}");
        }
    }
}
