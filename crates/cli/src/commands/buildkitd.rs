// SPDX-License-Identifier: Apache-2.0
//! Called as `buildkitd`: that program's flags and configuration file, as far as they mean something here.
//!
//! Flags that choose how BuildKit works inside (snapshotters, runtimes, networks, garbage) are accepted and
//! mean nothing; unknown ones are refused.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use polyarch_oci::Platform;
use polyarch_registry::{HostConfig, RegistryConfig};
use serde::Deserialize;

use super::node::serve::{default_socket, entitlement};
use crate::node_server::{Address, NodeServer, TlsPaths};
use crate::printer::Printer;
use crate::session::Session;
use crate::{CommandError, Environment};

/// The largest configuration file, in bytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Flags that stand alone or have `=true`, and mean nothing here.
const IGNORED_SWITCHES: [&str; 18] = [
    "oci-worker",
    "oci-worker-gc",
    "oci-worker-rootless",
    "oci-worker-no-process-sandbox",
    "oci-worker-selinux",
    "containerd-worker",
    "containerd-worker-gc",
    "containerd-worker-rootless",
    "containerd-worker-selinux",
    "rootless",
    "trace",
    "proxy-network",
    "cdi-disabled",
    "save-cache-debug",
    "oci-worker-detach-netns",
    "containerd-worker-detach-netns",
    "tracing",
    "experimental",
];

/// Flags with a value that mean nothing here.
const IGNORED_VALUES: [&str; 27] = [
    "oci-worker-snapshotter",
    "oci-worker-proxy-snapshotter-path",
    "oci-worker-net",
    "oci-cni-config-path",
    "oci-cni-binary-dir",
    "oci-cni-pool-size",
    "oci-worker-binary",
    "oci-worker-apparmor-profile",
    "oci-worker-gc-keepstorage",
    "containerd-worker-addr",
    "containerd-worker-labels",
    "containerd-worker-platform",
    "containerd-worker-net",
    "containerd-worker-snapshotter",
    "containerd-worker-gc-keepstorage",
    "containerd-worker-apparmor-profile",
    "containerd-worker-namespace",
    "containerd-worker-runtime",
    "containerd-cni-config-path",
    "containerd-cni-binary-dir",
    "containerd-cni-pool-size",
    "containerd-max-parallelism",
    "log-format",
    "log-level",
    "debugaddr",
    "otel-socket-path",
    "cdi-spec-dir",
];

const HELP: &str = "Usage: buildkitd [OPTIONS]

polyarch in the place of buildkitd: builds for clients of BuildKit's API. It takes the flags of buildkitd; those
that matter here are:

      --addr ADDRESS        where to listen: unix:///PATH or tcp://ADDRESS:PORT; may be repeated
      --root DIR            directory of the store
      --config FILE         buildkitd.toml: root, insecure-entitlements, grpc, registry, worker.oci
      --group GROUP         the group that may use the socket
      --tlscert FILE        the certificate of this node, --tlskey FILE its key
      --tlscacert FILE      the authority that certificates of clients must come from
      --allow-insecure-entitlement NAME
                            what builds may be granted: network.host, security.insecure
      --oci-worker-labels KEY=VALUE, --oci-worker-platform PLATFORM, --oci-max-parallelism NUMBER
      --allow-unprotected   listen on other addresses than this machine's own without certificates of clients
      --debug               say on standard error what happens inside
      --version, --help

Others choose how BuildKit works inside and are ignored. See also `polyarch node serve --help`.
";

/// The arguments, read.
#[derive(Debug, Default, PartialEq)]
struct Flags {
    config: Option<PathBuf>,
    root: Option<PathBuf>,
    addresses: Vec<String>,
    group: Option<String>,
    tls: [Option<PathBuf>; 3],
    entitlements: Vec<String>,
    labels: Vec<String>,
    platforms: Vec<String>,
    max_parallel: Option<usize>,
    is_unprotected_allowed: bool,
    is_debug: bool,
}

/// What the arguments ask for.
enum Asked {
    Serve(Box<Flags>),
    Text(String),
}

/// The parts of `buildkitd.toml` that mean something here; others are left alone.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct FileConfig {
    root: Option<PathBuf>,
    insecure_entitlements: Vec<String>,
    grpc: GrpcSection,
    registry: BTreeMap<String, RegistrySection>,
    worker: WorkerSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct GrpcSection {
    address: Vec<String>,
    gid: Option<u32>,
    tls: TlsSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TlsSection {
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WorkerSection {
    oci: OciSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct OciSection {
    labels: BTreeMap<String, String>,
    platforms: Vec<String>,
    max_parallelism: Option<usize>,
}

/// As our own, but what is unknown is left alone.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RegistrySection {
    mirrors: Vec<String>,
    http: Option<bool>,
    insecure: Option<bool>,
    ca: Vec<PathBuf>,
    keypair: Vec<polyarch_registry::KeyPair>,
}

/// Runs as buildkitd; `arguments` are those after the program's name.
///
/// # Errors
/// When they make no sense, or an address can't be listened on.
pub fn run(arguments: &[OsString], environment: Environment) -> Result<(), CommandError> {
    let flags = match read_flags(arguments)? {
        Asked::Text(text) => return Printer.data(&text),
        Asked::Serve(flags) => flags,
    };
    let (path, config) = read_config(flags.config.as_deref(), &environment)?;
    let root = flags.root.clone().or(config.root);
    let session = Session { environment, printer: Printer, root, is_debug: false };
    let mut settings = session.settings()?;
    let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
    let registry = RegistryConfig {
        registry: config.registry.into_iter().map(|(host, section)| (host, section.into())).collect(),
    };
    let hosts = registry.resolve(|file| read_capped(&directory.join(file))).map_err(|error| {
        CommandError::usage(format!("{}: {}", path.display(), polyarch_build::error::chain_of(&error)))
    })?;
    for (host, section) in hosts.iter() {
        *settings.hosts.entry(host) = section.clone();
    }
    if let Some(count) = flags.max_parallel.or(config.worker.oci.max_parallelism) {
        settings.max_parallel = count;
    }
    let mut server = NodeServer {
        is_unprotected_allowed: flags.is_unprotected_allowed,
        group: flags.group.clone().or(config.grpc.gid.map(|id| id.to_string())),
        labels: config.worker.oci.labels,
        ..NodeServer::default()
    };
    let addresses = if flags.addresses.is_empty() { &config.grpc.address } else { &flags.addresses };
    for text in addresses {
        server.addresses.push(Address::parse(text)?);
    }
    if server.addresses.is_empty() {
        let socket = default_socket(&session.environment, "buildkit/buildkitd.sock")?;
        server.addresses.push(Address::Unix(socket));
    }
    let [certificate, key, ca] = flags.tls.clone();
    let of_file = |path: Option<PathBuf>| path.map(|path| directory.join(path));
    let tls = config.grpc.tls;
    let certificate = certificate.or(of_file(tls.cert));
    let key = key.or(of_file(tls.key));
    server.tls = tls_of(certificate, key, ca.or(of_file(tls.ca)))?;
    for name in config.insecure_entitlements.iter().chain(&flags.entitlements) {
        // Builds may get no devices here, whether granted or not.
        if name != "device" {
            server.entitlements.insert(entitlement(name)?);
        }
    }
    for label in &flags.labels {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        server.labels.insert(key.to_owned(), value.to_owned());
    }
    let platforms = if flags.platforms.is_empty() { &config.worker.oci.platforms } else { &flags.platforms };
    for text in platforms {
        let platform: Platform = text.parse().map_err(|error: polyarch_oci::PlatformError| {
            CommandError::usage(polyarch_build::error::chain_of(&error))
        })?;
        server.platforms.push(platform.normalized());
    }
    server.run(&settings, &session)
}

/// Puts the files of certificates together; some without the others would leave a port open.
fn tls_of(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_ca: Option<PathBuf>,
) -> Result<Option<TlsPaths>, CommandError> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsPaths { certificate, key, client_ca })),
        (None, None) if client_ca.is_none() => Ok(None),
        (None, None) => Err(CommandError::usage(
            "--tlscacert asks clients for certificates, which needs one of this node: --tlscert and --tlskey",
        )
        .with_hint("`polyarch node certs` makes some")),
        _ => Err(CommandError::usage("a certificate and its key go together: --tlscert and --tlskey")),
    }
}

/// Tells whether messages of the inside are wanted.
pub fn is_debug(arguments: &[OsString]) -> bool {
    matches!(read_flags(arguments), Ok(Asked::Serve(flags)) if flags.is_debug)
}

impl From<RegistrySection> for HostConfig {
    fn from(section: RegistrySection) -> HostConfig {
        HostConfig {
            mirrors: section.mirrors,
            http: section.http,
            insecure: section.insecure,
            ca: section.ca,
            keypair: section.keypair,
        }
    }
}

fn read_flags(arguments: &[OsString]) -> Result<Asked, CommandError> {
    let mut flags = Flags::default();
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        let text = argument.to_string_lossy();
        let Some(flag) = text.strip_prefix("--").or_else(|| text.strip_prefix('-')) else {
            return Err(unknown(&text));
        };
        let (name, given) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        let truth = || match given.as_deref() {
            None => Ok(true),
            Some("true" | "True" | "TRUE" | "1" | "t" | "T") => Ok(true),
            Some("false" | "False" | "FALSE" | "0" | "f" | "F" | "auto") => Ok(false),
            Some(value) => Err(CommandError::usage(format!("--{name}={value}: write true or false"))),
        };
        match name {
            "help" | "h" => return Ok(Asked::Text(HELP.to_owned())),
            "version" | "v" => {
                return Ok(Asked::Text(format!("buildkitd polyarch v{}\n", env!("CARGO_PKG_VERSION"))));
            }
            "debug" => flags.is_debug = truth()?,
            "allow-unprotected" => flags.is_unprotected_allowed = truth()?,
            _ if IGNORED_SWITCHES.contains(&name) => drop(truth()?),
            _ => {
                let mut value = || match given.clone() {
                    Some(value) => Ok(value),
                    None => match left.next() {
                        Some(value) => Ok(value.to_string_lossy().into_owned()),
                        None => Err(CommandError::usage(format!("--{name} needs a value"))),
                    },
                };
                match name {
                    "config" => flags.config = Some(value()?.into()),
                    "root" => flags.root = Some(value()?.into()),
                    "addr" => flags.addresses.push(value()?),
                    "group" => flags.group = Some(value()?),
                    "tlscert" => flags.tls[0] = Some(value()?.into()),
                    "tlskey" => flags.tls[1] = Some(value()?.into()),
                    "tlscacert" => flags.tls[2] = Some(value()?.into()),
                    "allow-insecure-entitlement" => {
                        flags.entitlements.extend(value()?.split(',').map(str::to_owned));
                    }
                    "oci-worker-labels" => flags.labels.extend(value()?.split(',').map(str::to_owned)),
                    "oci-worker-platform" => flags.platforms.extend(value()?.split(',').map(str::to_owned)),
                    "oci-max-parallelism" => {
                        let count = value()?;
                        flags.max_parallel = Some(count.parse().map_err(|_| {
                            CommandError::usage(format!("--oci-max-parallelism={count}: write a number"))
                        })?);
                    }
                    _ if IGNORED_VALUES.contains(&name) => drop(value()?),
                    _ => return Err(unknown(&text)),
                }
            }
        }
    }
    Ok(Asked::Serve(Box::new(flags)))
}

fn unknown(argument: &str) -> CommandError {
    CommandError::usage(format!("buildkitd has no argument {argument:?}"))
        .with_hint("buildkitd --help lists those that matter; this is polyarch under that name")
}

/// Reads the configuration file; returns its name even when there is none.
fn read_config(
    named: Option<&Path>,
    environment: &Environment,
) -> Result<(PathBuf, FileConfig), CommandError> {
    let default = match environment.user_id {
        0 => Some(PathBuf::from("/etc/buildkit/buildkitd.toml")),
        _ => environment
            .path("XDG_CONFIG_HOME")
            .or_else(|| Some(environment.path("HOME")?.join(".config")))
            .map(|directory| directory.join("buildkit/buildkitd.toml")),
    };
    let path = match (named, default) {
        (Some(path), _) => environment.resolve(path),
        (None, Some(path)) if path.exists() => path,
        (None, _) => return Ok((PathBuf::from("/"), FileConfig::default())),
    };
    let bytes = read_capped(&path).map_err(|error| CommandError::io("can't read", &path, &error))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| CommandError::usage(format!("{} is not UTF-8 text", path.display())))?;
    let config = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        CommandError::usage(format!("{}, line {line}: {}", path.display(), error.message()))
    })?;
    Ok((path, config))
}

fn read_capped(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 <= MAX_CONFIG_BYTES {
        true => Ok(bytes),
        false => Err(std::io::Error::other(format!("larger than {MAX_CONFIG_BYTES} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Flags, CommandError> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        match read_flags(&arguments)? {
            Asked::Serve(flags) => Ok(*flags),
            Asked::Text(text) => Ok(Flags { group: Some(text), ..Flags::default() }),
        }
    }

    #[test]
    fn what_buildkits_own_suite_passes_is_understood() {
        let flags = read(&[
            "--oci-worker=true",
            "--containerd-worker=false",
            "--oci-worker-gc=false",
            "--oci-worker-labels=a.b=true,c=d",
            "--config=/tmp/x.toml",
            "--root",
            "/tmp/root",
            "--addr",
            "unix:///tmp/a.sock",
            "--addr=tcp://127.0.0.1:0",
            "--oci-worker-snapshotter=native",
            "--debug",
        ])
        .unwrap();
        assert_eq!(flags.config.as_deref(), Some(Path::new("/tmp/x.toml")));
        assert_eq!(flags.root.as_deref(), Some(Path::new("/tmp/root")));
        assert_eq!(flags.addresses, ["unix:///tmp/a.sock", "tcp://127.0.0.1:0"]);
        assert_eq!(flags.labels, ["a.b=true", "c=d"]);
        assert!(flags.is_debug);
        assert!(read(&["--version"]).unwrap().group.unwrap().starts_with("buildkitd polyarch v"));
    }

    #[test]
    fn what_buildkitd_does_not_have_is_refused() {
        for arguments in [
            ["--adr=unix:///a"].as_slice(),
            &["serve"],
            &["--root"],
            &["--debug=maybe"],
            &["--rootless=maybe"],
        ] {
            assert!(read(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn a_port_that_was_to_be_protected_is_never_left_open() {
        let path = |name: &str| Some(PathBuf::from(name));
        assert_eq!(tls_of(None, None, None).unwrap().map(|_| ()), None);
        assert!(tls_of(path("c"), path("k"), None).unwrap().is_some_and(|it| it.client_ca.is_none()));
        assert!(tls_of(path("c"), path("k"), path("ca")).unwrap().is_some_and(|it| it.client_ca.is_some()));
        for (certificate, key) in [(None, None), (path("c"), None), (None, path("k"))] {
            assert!(tls_of(certificate, key, path("ca")).is_err());
        }
    }

    #[test]
    fn the_file_may_say_more_than_matters_here() {
        let text = r#"
            debug = true
            insecure-entitlements = ["network.host"]
            [otel]
              socketPath = "/tmp/otel.sock"
            [cdi]
              specDirs = ["/etc/cdi"]
            [worker.oci]
              gc = false
              labels = { a = "b" }
              max-parallelism = 3
            [registry."docker.io"]
              mirrors = ["127.0.0.1:5000"]
              something = 1
        "#;
        let config: FileConfig = toml::from_str(text).unwrap();
        assert_eq!(config.insecure_entitlements, ["network.host"]);
        assert_eq!(config.registry["docker.io"].mirrors, ["127.0.0.1:5000"]);
        assert_eq!(config.worker.oci.max_parallelism, Some(3));
    }
}
