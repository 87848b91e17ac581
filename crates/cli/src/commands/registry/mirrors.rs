// SPDX-License-Identifier: Apache-2.0
//! Flags of the pull-through: `--mirror docker.io=https://mirror.example`.

use std::time::Duration;

use polyarch_oci::Reference;
use polyarch_registry::config::Mirror;
use polyarch_registry::server::{MirrorOptions, MirroredRegistry};
use polyarch_registry::{Client, RetryPolicy};

use crate::CommandError;
use crate::config::Settings;

/// Reads the flags; `None` when there are none.
pub fn mirror_options(
    flags: &[String],
    timeout: Duration,
    settings: &Settings,
) -> Result<Option<MirrorOptions>, CommandError> {
    let mut registries: Vec<MirroredRegistry> = Vec::new();
    let mut client = settings.client_options();
    for flag in flags {
        let (host, upstream) = parse(flag)?;
        if let Some(is_plain) = upstream.is_plain {
            client.hosts.entry(&upstream.mirror.host).http = Some(is_plain);
        }
        match registries.iter_mut().find(|registry| registry.host == host) {
            Some(registry) => registry.upstreams.push(upstream.mirror),
            None => registries.push(MirroredRegistry { host, upstreams: vec![upstream.mirror] }),
        }
    }
    if registries.is_empty() {
        return Ok(None);
    }
    client.connect_timeout = timeout;
    client.answer_timeout = timeout;
    client.mirror_timeout = timeout;
    // The next upstream is asked instead; transfers that broke go on all the same.
    client.retry =
        RetryPolicy { max_attempts: 2, max_total: timeout.saturating_mul(2), ..RetryPolicy::default() };
    Ok(Some(MirrorOptions { registries, client: Client::new(client) }))
}

struct Upstream {
    mirror: Mirror,
    is_plain: Option<bool>,
}

/// Reads `HOST`, or `HOST=URL`.
fn parse(flag: &str) -> Result<(String, Upstream), CommandError> {
    let wrong = |problem: &str| {
        CommandError::usage(format!("--mirror {flag:?}: {problem}"))
            .with_hint("write for example --mirror docker.io=https://mirror.example, or --mirror docker.io")
    };
    let (host, url) = flag.split_once('=').unwrap_or((flag, flag));
    if !is_authority(host) {
        return Err(wrong("what is copied is no host of a registry"));
    }
    let (is_plain, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (Some(false), rest),
        (_, Some(rest)) => (Some(true), rest),
        _ if url.contains("://") => return Err(wrong("there are only http:// and https://")),
        _ => (None, url),
    };
    let (authority, path) =
        rest.trim_end_matches('/').split_once('/').unwrap_or((rest.trim_end_matches('/'), ""));
    let name = format!("{authority}/{}", if path.is_empty() { "x" } else { path });
    let is_path = name.parse::<Reference>().is_ok_and(|name| name.tag().is_none() && name.digest().is_none());
    if !is_authority(authority) || !is_path {
        return Err(wrong("what is asked is no address of a registry"));
    }
    let mirror = Mirror { host: authority.to_owned(), path: path.to_owned() };
    Ok((host.to_owned(), Upstream { mirror, is_plain }))
}

/// Checks `host[:port]` by the grammar of references.
fn is_authority(host: &str) -> bool {
    format!("{host}/a/x").parse::<Reference>().is_ok_and(|reference| reference.host() == host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read() {
        for (flag, host, authority, path, is_plain) in [
            ("docker.io", "docker.io", "docker.io", "", None),
            ("docker.io=https://mirror.example", "docker.io", "mirror.example", "", Some(false)),
            (
                "quay.io=http://127.0.0.1:5001/proxy/quay/",
                "quay.io",
                "127.0.0.1:5001",
                "proxy/quay",
                Some(true),
            ),
            ("a.b:1=c.d:2/e", "a.b:1", "c.d:2", "e", None),
        ] {
            let (found, upstream) = parse(flag).unwrap();
            let mirror = Mirror { host: authority.to_owned(), path: path.to_owned() };
            assert_eq!((&*found, upstream.mirror, upstream.is_plain), (host, mirror, is_plain), "{flag}");
        }
        for flag in [
            "",
            "=https://a.b",
            "docker.io=",
            "docker.io=ftp://a.b",
            "hub=https://a b",
            "docker.io=https://a.b/..",
            "a/b=c.d",
        ] {
            assert!(parse(flag).is_err(), "{flag}");
        }
    }
}
