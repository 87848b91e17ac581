// SPDX-License-Identifier: Apache-2.0
//! Web pages: browsers reach what the author of a page can't, so what a page sends on somebody's behalf is refused.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Method, StatusCode};

use super::api_error::{ApiError, Code};
use crate::api::one_line;

/// Ends of names that nobody can have in the public DNS (RFC 6761, 6762, 8375 and the list of special-use names).
const PRIVATE_DOMAINS: [&str; 5] = [".localhost", ".local", ".internal", ".test", ".home.arpa"];

/// Refuses changes by pages, and, where only this machine is meant, what is asked of it under a public name: the page's
/// own name may have been turned to this address.
pub(super) fn check(method: &Method, headers: &HeaderMap, is_local: bool) -> Result<(), ApiError> {
    let denied = |message: String| ApiError::new(StatusCode::FORBIDDEN, Code::Denied, message);
    if !matches!(*method, Method::GET | Method::HEAD) && headers.contains_key(ORIGIN) {
        return Err(denied(
            "a web page sent this: a registry is changed by its clients, and not by browsers".to_owned(),
        ));
    }
    let host = headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
    match host {
        Some(host) if is_local && !is_private(&host) => Err(denied(format!(
            "this registry is for its own machine, and the request is for {:?}: call it localhost, or start it with \
             --allow-unprotected when a proxy stands before it",
            one_line(&host, 100)
        ))),
        _ => Ok(()),
    }
}

/// Tells whether the host of a request is an address, or a name that is none of the public DNS.
fn is_private(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => {
            return rest.split_once(']').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
        }
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.parse::<Ipv4Addr>().is_ok()
        || !name.contains('.')
        || PRIVATE_DOMAINS.iter().any(|domain| name.ends_with(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_name_is_not_this_machine() {
        for host in [
            "localhost:5000",
            "127.0.0.1",
            "[::1]:5000",
            "registry",
            "host.docker.internal:1",
            "a.localhost.",
            "",
        ] {
            assert!(is_private(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example.:5000", "127.0.0.1.evil.example:80", "[evil.example]", "a.b"]
        {
            assert!(!is_private(host), "{host}");
        }
    }
}
