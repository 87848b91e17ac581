// SPDX-License-Identifier: Apache-2.0
//! Addresses of a node, and listening on them.

use std::net::IpAddr;
use std::path::PathBuf;

use polyarch_build::{BuildError, ErrorKind};
use polyarch_buildkit::server::Listener;
use tokio::net::TcpListener;

use crate::CommandError;
use crate::node_server::NodeServer;

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A socket of the file system.
    Unix(PathBuf),
    /// A port of an address or host name.
    Tcp {
        /// The address.
        host: String,
        /// The port; 0 takes a free one.
        port: u16,
    },
    /// Standard input and output, for one client.
    Stdio,
}

impl Address {
    /// Reads `unix:///path`, `tcp://host:port` or `stdio`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Address, CommandError> {
        let wrong = |problem: &str| {
            CommandError::usage(format!("can't listen on {text:?}: {problem}"))
                .with_hint("write unix:///path/of/a/socket or tcp://address:port")
        };
        if text == "stdio" {
            return Ok(Address::Stdio);
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Address::Unix(rest.into())),
            "unix" => Err(wrong("the path must begin with /")),
            "tcp" => {
                let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
                let port = port.parse().map_err(|_| wrong("the port is no number up to 65535"))?;
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                let host = if host.is_empty() { "0.0.0.0" } else { host };
                Ok(Address::Tcp { host: host.to_owned(), port })
            }
            "fd" => Err(wrong("sockets of systemd are not taken over")),
            _ => Err(wrong("there is no such scheme")),
        }
    }

    /// Tells whether only this machine can reach it.
    fn is_local(&self) -> bool {
        match self {
            Address::Unix(_) | Address::Stdio => true,
            Address::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Address::Stdio => f.write_str("stdio"),
        }
    }
}

/// Refuses ports that would be open to everybody.
pub(super) fn check(server: &NodeServer) -> Result<(), CommandError> {
    if server.addresses.is_empty() {
        return Err(CommandError::usage("no address to listen on"));
    }
    let is_mutual = server.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let open = server.addresses.iter().find(|address| !address.is_local());
    match open {
        Some(address) if !is_mutual && !server.is_unprotected_allowed => {
            let message = format!(
                "whoever can reach {address} could build here and read what builds of others leave in the cache"
            );
            Err(CommandError::usage(message)
                .with_hint(
                    "make certificates with `polyarch node certs`, and give --tls-cert, --tls-key and --tls-ca \
                     (--tlscert, --tlskey, --tlscacert of buildkitd)",
                )
                .with_hint("listen on a unix socket and connect over ssh, which needs no port")
                .with_hint("if the network is all trusted: --allow-unprotected"))
        }
        _ => Ok(()),
    }
}

/// Finds a group by name or number.
pub(super) fn group_id(name: &str) -> Result<u32, CommandError> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let groups = std::fs::read_to_string("/etc/group")
        .map_err(|error| CommandError::io("can't read", "/etc/group", &error))?;
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(name);
        is_it.then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    found.ok_or_else(|| CommandError::usage(format!("there is no group {name:?} on this machine")))
}

/// Listens on a port.
pub(super) async fn tcp(host: &str, port: u16) -> Result<TcpListener, BuildError> {
    TcpListener::bind((host, port))
        .await
        .map_err(|error| BuildError::new(ErrorKind::Usage, format!("can't listen on {host}:{port}: {error}")))
}

/// Returns an address as clients write it.
pub(super) fn told(address: &Address, listener: &Listener) -> String {
    match (address, listener) {
        (Address::Tcp { host, port: 0 }, Listener::Tcp(listener, _)) => {
            let port = listener.local_addr().map_or(0, |address| address.port());
            Address::Tcp { host: host.clone(), port }.to_string()
        }
        (Address::Unix(path), _) => path.display().to_string(),
        _ => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_server::TlsPaths;

    #[test]
    fn addresses_are_read() {
        for (text, expected) in [
            ("unix:///run/a.sock", "unix:///run/a.sock"),
            ("tcp://127.0.0.1:1234", "tcp://127.0.0.1:1234"),
            ("tcp://[::1]:0", "tcp://[::1]:0"),
            ("tcp://:1234", "tcp://0.0.0.0:1234"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), expected);
        }
        for text in ["", "/run/a.sock", "unix://a", "tcp://a", "tcp://a:b", "fd://", "http://a:1"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_is_open_only_to_those_who_may_build() {
        let server = |address: &str| NodeServer {
            addresses: vec![Address::parse(address).unwrap()],
            ..NodeServer::default()
        };
        let tls = |client_ca: Option<&str>| {
            Some(TlsPaths { certificate: "c".into(), key: "k".into(), client_ca: client_ca.map(Into::into) })
        };
        for address in ["unix:///a", "tcp://127.0.0.1:1", "tcp://[::1]:1", "tcp://localhost:1"] {
            assert!(check(&server(address)).is_ok(), "{address}");
        }
        let open = || server("tcp://10.0.0.1:1");
        assert!(check(&open()).is_err());
        assert!(check(&NodeServer { tls: tls(None), ..open() }).is_err());
        assert!(check(&NodeServer { tls: tls(Some("ca")), ..open() }).is_ok());
        assert!(check(&NodeServer { is_unprotected_allowed: true, ..open() }).is_ok());
        assert!(check(&NodeServer::default()).is_err());
    }
}
