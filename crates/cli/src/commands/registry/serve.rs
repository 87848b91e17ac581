// SPDX-License-Identifier: Apache-2.0
//! `polyarch registry serve`: a registry over a directory or a bucket.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_registry::server::{
    Access, CollectOptions, Limits, RepositoryName, Server, ServerOptions, ServerTls, TlsError, Users,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;

use super::mirrors::mirror_options;
use super::request_log::{LogFormat, server_log};
use super::{RootArg, duration};
use crate::commands::flag_values::parse_size;
use crate::session::Session;
use crate::{CommandError, ExitCode};

/// The largest file of users, in bytes.
const MAX_USERS_BYTES: u64 = 4 << 20;

/// Serve a registry: push to it and pull from it with any tool
///
/// The whole distribution API, over one directory that any tool can read, an OCI image layout per repository, or in an S3
/// bucket that several servers may share (docs/registry.md). Ends with SIGTERM or Ctrl-C, after running requests. A browser
/// that opens its address sees repositories, tags and platforms. /healthz says that it is there, /metrics what it does
/// (Prometheus).
/// Images of it are named localhost:5000/NAME, as in `polyarch build --push -t localhost:5000/app .`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: String,
    #[command(flatten)]
    root: RootArg,
    /// The server's certificate, with those between it and its authority (PEM); read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Users and their passwords, as `htpasswd -B` writes them, read again when it changes; without it everybody may do
    /// everything
    #[arg(long, value_name = "FILE")]
    htpasswd: Option<PathBuf>,
    /// Repositories that everybody may read, those below as well; / for all; may be repeated
    #[arg(long, value_name = "PREFIX", requires = "htpasswd")]
    anonymous_read: Vec<String>,
    /// Listen on other addresses than this machine's own without TLS or without users
    #[arg(long)]
    allow_unprotected: bool,
    /// The most connections at a time; more wait
    #[arg(long, value_name = "NUMBER", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..100_000))]
    max_connections: u32,
    /// The most uploads that are not finished
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    max_uploads: u32,
    /// The largest blob
    #[arg(long, value_name = "SIZE", default_value = "64g", value_parser = parse_size)]
    max_blob_size: u64,
    /// The most requests per second of one address; twice as many for a moment [default: no limit]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    max_request_rate: Option<u32>,
    /// How long a client may neither send nor take a byte
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    client_timeout: Duration,
    /// Take images whose blobs are not there: for copies of images that leave out layers on purpose
    #[arg(long)]
    allow_missing_blobs: bool,
    /// Serve the API alone, without the page for browsers
    #[arg(long)]
    no_page: bool,
    /// Copy images of another registry when they are asked for, and serve the copies when it is gone; several for one
    /// registry are asked in order. The copy of docker.io/library/alpine is at docker.io/library/alpine here; mirrors of
    /// docker, containerd and BuildKit may point here as well
    #[arg(long, value_name = "HOST[=URL]")]
    mirror: Vec<String>,
    /// How long an upstream may take to answer before the next one is asked
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    mirror_timeout: Duration,
    /// How often what nothing leads to is removed, as by `polyarch registry gc`; 0s for never
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    gc_interval: Duration,
    /// What is younger is not removed
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    gc_grace: Duration,
    /// How requests are told on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log: LogFormat,
}

/// Runs the command; returns the exit code.
pub fn run(args: &ServeArgs, session: &Session) -> Result<u8, CommandError> {
    let environment = &session.environment;
    let (host, port) = address(&args.listen)?;
    check_protection(args, &host)?;
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            let printer = session.printer;
            let told = move |error: &TlsError| {
                let reason = polyarch_build::error::chain_of(error);
                printer.warning(&format!("the certificate before stays in use: {reason}"));
            };
            let (certificate, key) = (environment.resolve(certificate), environment.resolve(key));
            let loaded = ServerTls::load(&certificate, &key, told);
            Some(loaded.map_err(|error| {
                CommandError::usage(polyarch_build::error::chain_of(&error))
                    .with_hint("`polyarch node certs` makes a certificate")
            })?)
        }
        _ => None,
    };
    let access = access(args, session)?;
    let settings = session.settings()?;
    let mirror_timeout = args.mirror_timeout.max(Duration::from_millis(100));
    let mirrors = mirror_options(&args.mirror, mirror_timeout, &settings)?;
    let storage = args.root.open(session)?;
    let root = storage.to_string();
    let limits = Limits {
        max_connections: args.max_connections as usize,
        max_uploads: args.max_uploads as usize,
        max_blob_bytes: args.max_blob_size,
        stall: args.client_timeout.max(Duration::from_secs(1)),
        requests_per_second: args.max_request_rate,
    };
    let collect =
        CollectOptions { grace: args.gc_grace, every: args.gc_interval, ..CollectOptions::default() };
    let server = Server::new(ServerOptions {
        storage,
        access,
        limits,
        allows_missing_blobs: args.allow_missing_blobs,
        serves_page: !args.no_page,
        mirrors,
        collect: (!args.gc_interval.is_zero()).then_some(collect),
        log: Some(server_log(args.log, session.printer)),
    });
    allow_many_files();
    let engine = session.open_for_documents(&settings)?;
    let printer = session.printer;
    let has_page = !args.no_page;
    let served = engine.serve(|_, stop| async move {
        let listener = TcpListener::bind((host.as_str(), port)).await.map_err(|error| {
            let error = BuildError::new(ErrorKind::Usage, format!("can't listen on {host}:{port}: {error}"));
            error.with_hint("take another address: --listen 127.0.0.1:0 for any port that is free")
        })?;
        let address =
            listener.local_addr().map_or_else(|_| format!("{host}:{port}"), |address| address.to_string());
        let scheme = if tls.is_some() { "https" } else { "http" };
        // Scripts wait for this line.
        printer.message(&format!("serving {root} on {scheme}://{address}\n"));
        if has_page {
            let shown = page_address(address.as_str());
            printer.message(&format!("a browser shows what is there at {scheme}://{shown}/\n"));
        }
        server.serve(listener, tls, stop.cancelled()).await;
        Ok(())
    });
    match served {
        // To be ended is how a server ends.
        Err(error) if error.kind != ErrorKind::Cancelled => Err(error.into()),
        _ => Ok(ExitCode::Done.number()),
    }
}

/// Returns an address that a browser on this machine can open.
fn page_address(listening: &str) -> String {
    match listening.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => format!("localhost:{}", address.port()),
        _ => listening.to_owned(),
    }
}

/// Takes as many descriptors as this user may have: each connection needs one, and often a second for a blob.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    // With fewer, connections wait.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Reads `HOST:PORT`.
fn address(text: &str) -> Result<(String, u16), CommandError> {
    let wrong = || {
        CommandError::usage(format!("can't listen on {text:?}: it is no address and port"))
            .with_hint("write for example --listen 127.0.0.1:5000")
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), address.port()));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let is_host = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    if is_host { Ok((host.to_owned(), port)) } else { Err(wrong()) }
}

/// Refuses to be open to everybody unless that is meant.
fn check_protection(args: &ServeArgs, host: &str) -> Result<(), CommandError> {
    let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let missing = match (&args.tls_cert, &args.htpasswd) {
        (None, None) => "without TLS and without users",
        (None, Some(_)) => "without TLS, so that passwords could be read on the way",
        (Some(_), None) => "without users",
        (Some(_), Some(_)) => return Ok(()),
    };
    if is_local || args.allow_unprotected {
        return Ok(());
    }
    let message =
        format!("whoever can reach {} could push and delete images: it would be open {missing}", args.listen);
    Err(CommandError::usage(message)
        .with_hint("give --tls-cert, --tls-key and --htpasswd; `polyarch node certs` makes a certificate")
        .with_hint("listen on this machine alone: --listen 127.0.0.1:5000")
        .with_hint("if the network is all trusted, or a proxy stands before it: --allow-unprotected"))
}

/// Reads the users, and what needs none.
fn access(args: &ServeArgs, session: &Session) -> Result<Access, CommandError> {
    let users = match &args.htpasswd {
        None => None,
        Some(path) => {
            let path = session.environment.resolve(path);
            let failed = |error: &std::io::Error| CommandError::io("can't read", &path, error);
            let size = std::fs::metadata(&path).map_err(|error| failed(&error))?.len();
            if size > MAX_USERS_BYTES {
                return Err(CommandError::usage(format!("{} is too large", path.display())));
            }
            let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
            let users = Users::parse(&text).map_err(|error| {
                CommandError::usage(format!("{}: {error}", path.display()))
                    .with_hint("add a user: htpasswd -B -c FILE NAME")
            })?;
            Some(users)
        }
    };
    let mut anonymous = Vec::new();
    for prefix in &args.anonymous_read {
        let name = prefix.trim_end_matches('/');
        if !name.is_empty() && RepositoryName::new(name).is_none() {
            return Err(CommandError::usage(format!(
                "--anonymous-read {prefix:?}: this is no name of a repository"
            ))
            .with_hint("write for example --anonymous-read public, or / for all"));
        }
        anonymous.push(name.to_owned());
    }
    let access = Access::new(users, anonymous).map_err(|error| {
        CommandError::from(BuildError::new(ErrorKind::Sandbox, format!("no random bytes: {error}")))
    })?;
    let printer = session.printer;
    let told = move |reason: String| printer.warning(&format!("the users before stay: {reason}"));
    Ok(match &args.htpasswd {
        Some(path) => access.watching(session.environment.resolve(path), told),
        // It listens on this machine alone, see `check_protection`.
        None if !args.allow_unprotected && args.tls_cert.is_none() => access.local(),
        None => access,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_an_address_that_it_can_open() {
        for (listening, shown) in [
            ("0.0.0.0:5000", "localhost:5000"),
            ("[::]:80", "localhost:80"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(page_address(listening), shown);
        }
    }

    #[test]
    fn addresses_are_read() {
        for (text, host, port) in [
            ("127.0.0.1:5000", "127.0.0.1", 5000),
            ("[::1]:0", "::1", 0),
            (":80", "0.0.0.0", 80),
            ("localhost:1", "localhost", 1),
        ] {
            assert_eq!(address(text).unwrap(), (host.to_owned(), port));
        }
        for text in ["", "5000", "localhost", "a b:1", "127.0.0.1:x", "http://a:1", "a:99999"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
