// SPDX-License-Identifier: Apache-2.0
//! Settings per registry host: the `[registry."HOST"]` sections of the configuration file.
//!
//! The format is described in `docs/configuration.md`; it has the fields of BuildKit's registry
//! sections. [`RegistryConfig`] is the text as written, with file names; [`HostTable`] is what the
//! client uses, with the files' contents.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Says what is wrong with registry settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not TOML of this form.
    #[error("registry configuration is not valid")]
    Toml {
        /// What the parser said, with line and column.
        #[source]
        source: toml::de::Error,
    },
    /// A section's name is not a host.
    #[error(
        "[registry.{host:?}]: not a registry host (write `host` or `host:port`, without scheme and path)"
    )]
    Host {
        /// The rejected name.
        host: String,
    },
    /// A mirror is not a host with an optional path.
    #[error("[registry.{host:?}]: mirror {mirror:?} is not `host[:port][/path]`")]
    Mirror {
        /// The section.
        host: String,
        /// The rejected mirror.
        mirror: String,
    },
    /// A named file cannot be read.
    #[error("[registry.{host:?}]: cannot read {path}")]
    File {
        /// The section.
        host: String,
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
}

/// The registry part of the configuration file, as written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RegistryConfig {
    /// The sections, by host (with port, when one is used).
    #[serde(default)]
    pub registry: BTreeMap<String, HostConfig>,
}

/// One `[registry."HOST"]` section, as written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Hosts to try first for pulls, in order: `host[:port][/path]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// Use plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<bool>,
    /// Accept any certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure: Option<bool>,
    /// Files (PEM) of certificate authorities to trust besides the system's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ca: Vec<PathBuf>,
    /// Client certificates; the first is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keypair: Vec<KeyPair>,
}

/// Files (PEM) of a client certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    /// The private key.
    pub key: PathBuf,
    /// The certificate chain.
    pub cert: PathBuf,
}

/// What the client knows about hosts; hosts without an entry have the default settings.
#[derive(Debug, Clone, Default)]
pub struct HostTable {
    hosts: BTreeMap<String, HostSettings>,
}

/// The settings of one host, with file contents.
#[derive(Debug, Clone, Default)]
pub struct HostSettings {
    /// Hosts to try first for pulls, in order.
    pub mirrors: Vec<Mirror>,
    /// Plain HTTP: yes, no, or by what the host is.
    pub http: Option<bool>,
    /// Accept any certificate.
    pub insecure: bool,
    /// Certificate authorities (PEM) to trust besides the system's.
    pub ca: Vec<Vec<u8>>,
    /// The client certificate.
    pub keypair: Option<KeyPairBytes>,
}

/// Contents (PEM) of a client certificate's files.
#[derive(Clone)]
pub struct KeyPairBytes {
    /// The private key.
    pub key: Vec<u8>,
    /// The certificate chain.
    pub cert: Vec<u8>,
}

impl std::fmt::Debug for KeyPairBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPairBytes")
    }
}

/// A place that holds copies of another registry's repositories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Host, with port when one is used.
    pub host: String,
    /// What goes before the repository's name; may be empty.
    pub path: String,
}

impl RegistryConfig {
    /// Reads the registry sections of a configuration file; other sections are left to others.
    ///
    /// # Errors
    /// When the text is not TOML, or a registry section has an unknown field.
    pub fn parse(text: &str) -> Result<RegistryConfig, ConfigError> {
        toml::from_str(text).map_err(|source| ConfigError::Toml { source })
    }

    /// Checks names and reads the named files through `read`, which resolves relative names.
    ///
    /// # Errors
    /// When a host or a mirror is malformed, or a file cannot be read.
    pub fn resolve(&self, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<HostTable, ConfigError> {
        let mut hosts = BTreeMap::new();
        for (host, section) in &self.registry {
            if !is_authority(host) {
                return Err(ConfigError::Host { host: host.clone() });
            }
            let file = |path: &PathBuf| {
                read(path).map_err(|source| ConfigError::File {
                    host: host.clone(),
                    path: path.clone(),
                    source,
                })
            };
            let mirror = |text: &String| {
                parse_mirror(text)
                    .ok_or_else(|| ConfigError::Mirror { host: host.clone(), mirror: text.clone() })
            };
            let keypair = match section.keypair.first() {
                Some(pair) => Some(KeyPairBytes { key: file(&pair.key)?, cert: file(&pair.cert)? }),
                None => None,
            };
            let settings = HostSettings {
                mirrors: section.mirrors.iter().map(mirror).collect::<Result<_, _>>()?,
                http: section.http,
                insecure: section.insecure.unwrap_or(false),
                ca: section.ca.iter().map(file).collect::<Result<_, _>>()?,
                keypair,
            };
            hosts.insert(canonical_host(host).to_owned(), settings);
        }
        Ok(HostTable { hosts })
    }
}

impl HostTable {
    /// Returns the settings of a host (with port), when it has any.
    pub fn get(&self, host: &str) -> Option<&HostSettings> {
        self.hosts.get(canonical_host(host))
    }

    /// Returns every host that has settings, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HostSettings)> {
        self.hosts.iter().map(|(host, settings)| (host.as_str(), settings))
    }

    /// Returns the settings of a host to change them, for example for a flag that makes it insecure.
    pub fn entry(&mut self, host: &str) -> &mut HostSettings {
        self.hosts.entry(canonical_host(host).to_owned()).or_default()
    }
}

/// Returns the one name under which a host's settings are kept: Docker Hub has several.
pub(crate) fn canonical_host(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io",
        other => other,
    }
}

fn parse_mirror(text: &str) -> Option<Mirror> {
    // BuildKit's examples have bare hosts; a scheme would promise something that `http` decides.
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    let path = path.trim_matches('/');
    let is_component = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    let path_holds = path.is_empty() || path.split('/').all(is_component);
    (is_authority(host) && path_holds)
        .then(|| Mirror { host: canonical_host(host).to_owned(), path: path.to_owned() })
}

/// Checks `host[:port]` by the one grammar there is: a reference's.
fn is_authority(host: &str) -> bool {
    let probe = format!("{host}/x").parse::<polyarch_oci::Reference>();
    // A single word such as `mirror` is a host here, while in a reference it would be a repository.
    let is_word =
        !host.is_empty() && host.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    is_word || probe.is_ok_and(|reference| canonical_host(host) == canonical_host(reference.host()))
}

/// Tells whether a host (with port) is this machine's loopback.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_files(_: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    #[test]
    fn sections_are_read_and_other_sections_left_alone() {
        let text = r#"
            [emulation]
            directory = "/opt/qemu"

            [registry."docker.io"]
            mirrors = ["mirror.example:5000/proxy/docker.io", "hub.example"]

            [registry."mirror.example:5000"]
            http = true

            [registry."corp.example"]
            ca = ["corp.pem"]
            keypair = [{ key = "k.pem", cert = "c.pem" }]
        "#;
        let table = RegistryConfig::parse(text)
            .unwrap()
            .resolve(|path| Ok(path.to_str().unwrap().as_bytes().to_vec()))
            .unwrap();
        let hub = table.get("registry-1.docker.io").unwrap();
        assert_eq!(
            hub.mirrors[0],
            Mirror { host: "mirror.example:5000".into(), path: "proxy/docker.io".into() }
        );
        assert_eq!(table.get("mirror.example:5000").unwrap().http, Some(true));
        let corp = table.get("corp.example").unwrap();
        assert_eq!(corp.ca, [b"corp.pem"]);
        assert_eq!(corp.keypair.as_ref().unwrap().cert, b"c.pem");
        assert!(table.get("other.example").is_none());
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = RegistryConfig::parse("[registry.\"a.b\"]\ninsecur = true\n").unwrap_err();
        let ConfigError::Toml { source } = unknown else { panic!("{unknown}") };
        assert!(source.to_string().contains("insecur"), "{source}");
        let resolve = |text: &str| RegistryConfig::parse(text).unwrap().resolve(no_files).unwrap_err();
        assert!(matches!(resolve("[registry.\"https://a.b\"]"), ConfigError::Host { .. }));
        assert!(matches!(resolve("[registry.\"a.b\"]\nmirrors=[\"m.x/../y\"]"), ConfigError::Mirror { .. }));
        assert!(matches!(resolve("[registry.\"a.b\"]\nca=[\"x\"]"), ConfigError::File { .. }));
    }

    #[test]
    fn loopback_is_recognised_with_and_without_port() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "128.0.0.1", "10.0.0.1:5000", "[::2]:1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
