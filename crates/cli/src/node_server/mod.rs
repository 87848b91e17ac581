// SPDX-License-Identifier: Apache-2.0
//! This machine as a node: our builder behind BuildKit's API, on sockets, ports, or standard input and output.

mod listen;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use polyarch_build::{BuildError, ErrorKind};
use polyarch_buildkit::server::{Listener, Server, ServerOptions};
use polyarch_oci::Platform;

use crate::CommandError;
use crate::config::Settings;
use crate::session::Session;

pub use listen::Address;

/// What a node is told beside the settings.
#[derive(Debug, Default)]
pub struct NodeServer {
    /// Where clients connect; at least one.
    pub addresses: Vec<Address>,
    /// The certificates of ports.
    pub tls: Option<TlsPaths>,
    /// Ports that whoever reaches them may build on are meant.
    pub is_unprotected_allowed: bool,
    /// The group that may use the sockets, by name or number.
    pub group: Option<String>,
    /// What builds may be granted.
    pub entitlements: BTreeSet<String>,
    /// Labels that are told.
    pub labels: BTreeMap<String, String>,
    /// Platforms that are told; those that run here when there are none.
    pub platforms: Vec<Platform>,
}

/// Files of certificates.
#[derive(Debug, Clone)]
pub struct TlsPaths {
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The CA of clients' certificates.
    pub client_ca: Option<PathBuf>,
}

impl NodeServer {
    /// Serves until interrupted.
    ///
    /// # Errors
    /// When an address can't be listened on, or would be open to everybody.
    pub fn run(self, settings: &Settings, session: &Session) -> Result<(), CommandError> {
        let (tls, printer) = (self.load_tls()?, session.printer);
        listen::check(&self)?;
        let group = self.group.as_deref().map(listen::group_id).transpose()?;
        let engine = session.open(settings)?;
        crate::panics::keep_serving();
        let done = engine.serve(|services, stop| async move {
            let server = Server::new(ServerOptions {
                services,
                version: format!("v{}", env!("CARGO_PKG_VERSION")),
                labels: self.labels,
                platforms: self.platforms,
                entitlements: self.entitlements,
                max_parallel: settings.max_parallel,
                threads: settings.threads,
            })
            .map_err(|error| BuildError::new(ErrorKind::Sandbox, format!("no random bytes: {error}")))?;
            let mut listeners = Vec::new();
            // They go with the server, also when a later address can't be listened on.
            let mut sockets = Vec::new();
            for address in &self.addresses {
                listeners.push(match address {
                    Address::Unix(path) => {
                        let (listener, file) = socket::listen(path, group)?;
                        sockets.push(file);
                        Listener::Unix(listener)
                    }
                    Address::Tcp { host, port } => {
                        Listener::Tcp(listen::tcp(host, *port).await?, tls.clone())
                    }
                    Address::Stdio => {
                        Listener::One(Box::new(tokio::io::join(tokio::io::stdin(), tokio::io::stdout())))
                    }
                });
            }
            for (address, listener) in self.addresses.iter().zip(&listeners) {
                if !matches!(address, Address::Stdio) {
                    // Scripts wait for this line; a port that was asked for as 0 is told as what it is.
                    printer.message(&format!("running server on {}\n", listen::told(address, listener)));
                }
            }
            server.serve(listeners, stop).await;
            drop(sockets);
            Ok(())
        });
        done.map_err(CommandError::from)
    }

    fn load_tls(&self) -> Result<Option<polyarch_buildkit::server::ServerTls>, CommandError> {
        let Some(paths) = &self.tls else { return Ok(None) };
        let loaded = polyarch_buildkit::server::ServerTls::load(
            &paths.certificate,
            &paths.key,
            paths.client_ca.as_ref(),
        );
        loaded.map(Some).map_err(|error| CommandError::from(BuildError::from(error)))
    }
}
