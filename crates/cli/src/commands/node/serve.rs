// SPDX-License-Identifier: Apache-2.0
//! `polyarch node serve`: this machine builds for clients of BuildKit's API.

use std::path::PathBuf;

use clap::Args;

use crate::node_server::{Address, NodeServer, TlsPaths};
use crate::session::Session;
use crate::{CommandError, Environment};

/// Build for other machines: docker buildx (driver remote), buildctl, and polyarch itself
///
/// Speaks BuildKit's protocol. Clients bring their contexts, secrets and credentials with each build, and get
/// the results back or have them pushed. Ends with SIGTERM or Ctrl-C. Over ssh none of this is needed: there a
/// client starts what it needs.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen: unix:///PATH or tcp://ADDRESS:PORT; may be repeated [default:
    /// unix:///run/polyarch/node.sock for root, else unix://$XDG_RUNTIME_DIR/polyarch/node.sock]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// The certificate of this node (PEM); `polyarch node certs` makes some
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The authority that certificates of clients must come from
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
    /// Listen on other addresses than this machine's own without certificates of clients
    #[arg(long)]
    allow_unprotected: bool,
    /// The group that may use the socket, by name or number
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// What builds may be granted when they ask: network.host, security.insecure
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    allow: Vec<String>,
    /// A label that clients see, KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
}

/// Runs the command.
pub fn run(args: &ServeArgs, session: &Session) -> Result<(), CommandError> {
    let environment = &session.environment;
    let mut server = NodeServer {
        is_unprotected_allowed: args.allow_unprotected,
        group: args.group.clone(),
        ..NodeServer::default()
    };
    for text in &args.listen {
        server.addresses.push(Address::parse(text)?);
    }
    if server.addresses.is_empty() {
        server.addresses.push(Address::Unix(default_socket(environment, "polyarch/node.sock")?));
    }
    if let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) {
        server.tls = Some(TlsPaths {
            certificate: environment.resolve(certificate),
            key: environment.resolve(key),
            client_ca: args.tls_ca.as_ref().map(|path| environment.resolve(path)),
        });
    }
    for name in &args.allow {
        server.entitlements.insert(entitlement(name)?);
    }
    for label in &args.label {
        let (key, value) = label
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| CommandError::usage(format!("--label {label:?}: write KEY=VALUE")))?;
        server.labels.insert(key.to_owned(), value.to_owned());
    }
    server.run(&session.settings()?, session)
}

/// Checks the name of an entitlement.
pub fn entitlement(name: &str) -> Result<String, CommandError> {
    match name {
        "network.host" | "security.insecure" => Ok(name.to_owned()),
        _ => Err(CommandError::usage(format!("there is no entitlement {name:?}"))
            .with_hint("there are network.host and security.insecure")),
    }
}

/// Returns the socket of a server that no flag names.
pub fn default_socket(environment: &Environment, name: &str) -> Result<PathBuf, CommandError> {
    if environment.user_id == 0 {
        return Ok(PathBuf::from("/run").join(name));
    }
    match environment.path("XDG_RUNTIME_DIR") {
        Some(directory) => Ok(directory.join(name)),
        None => Err(CommandError::usage("can't tell where the socket is: XDG_RUNTIME_DIR is not set")
            .with_hint("name it: --listen unix:///PATH")),
    }
}
