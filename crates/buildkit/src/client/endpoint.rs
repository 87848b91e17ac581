// SPDX-License-Identifier: Apache-2.0
//! Where a node listens: what `tcp://`, `unix://`, `ssh://` and `docker-container://` mean.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::NodeError;

/// Where a node listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket of this machine.
    Unix(PathBuf),
    /// A port of a host.
    Tcp {
        /// Its name or address.
        host: String,
        /// The port.
        port: u16,
    },
    /// A program at the other end of an SSH connection, which needs nothing to listen.
    Ssh {
        /// The user; the one that ssh chooses when absent.
        user: Option<String>,
        /// The host, as ssh knows it.
        host: String,
        /// The port of the SSH server.
        port: Option<u16>,
        /// The socket on that host; the program's own choice when absent.
        socket: Option<String>,
    },
    /// The BuildKit within a docker daemon that listens on a port of a host.
    Docker {
        /// Its name or address.
        host: String,
        /// The port.
        port: u16,
    },
    /// A daemon in a container of this machine's docker.
    DockerContainer {
        /// The container.
        container: String,
    },
    /// What the [`Dialer`](crate::client::Dialer) of the options reaches.
    Dialed {
        /// What it is called.
        name: String,
    },
}

impl Endpoint {
    /// Tells whether bytes stay on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Endpoint::Unix(_) | Endpoint::DockerContainer { .. } => true,
            Endpoint::Tcp { host, .. } | Endpoint::Docker { host, .. } => {
                let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
                is_loopback || host == "localhost" || host.ends_with(".localhost")
            }
            Endpoint::Ssh { .. } | Endpoint::Dialed { .. } => false,
        }
    }

    /// Returns the same port as one of a docker daemon; `None` when it is no port.
    pub fn of_docker(self) -> Option<Endpoint> {
        match self {
            Endpoint::Tcp { host, port } | Endpoint::Docker { host, port } => {
                Some(Endpoint::Docker { host, port })
            }
            Endpoint::Unix(_)
            | Endpoint::Ssh { .. }
            | Endpoint::DockerContainer { .. }
            | Endpoint::Dialed { .. } => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::Tcp { host, port } | Endpoint::Docker { host, port } => {
                write!(f, "tcp://{}:{port}", bracketed(host))
            }
            Endpoint::Ssh { user, host, port, socket } => {
                f.write_str("ssh://")?;
                if let Some(user) = user {
                    write!(f, "{user}@")?;
                }
                f.write_str(&bracketed(host))?;
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                f.write_str(socket.as_deref().unwrap_or_default())
            }
            Endpoint::DockerContainer { container } => write!(f, "docker-container://{container}"),
            Endpoint::Dialed { name } => f.write_str(name),
        }
    }
}

impl FromStr for Endpoint {
    type Err = NodeError;

    /// Reads an endpoint.
    ///
    /// # Errors
    /// When the scheme is not known or a part is missing or makes no sense.
    fn from_str(text: &str) -> Result<Endpoint, NodeError> {
        let wrong =
            |problem: &str| NodeError::Endpoint { endpoint: text.to_owned(), problem: problem.to_owned() };
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong("it has no scheme; write unix://PATH, tcp://HOST:PORT or ssh://[USER@]HOST"));
        };
        if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
            return Err(wrong("it has blanks or control characters"));
        }
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Endpoint::Unix(rest.into())),
            "unix" => Err(wrong("the path must be absolute: unix:///run/buildkit/buildkitd.sock")),
            "tcp" => {
                let (host, port) = host_and_port(rest).map_err(wrong)?;
                let port = port.ok_or_else(|| wrong("the port is missing: tcp://HOST:1234"))?;
                Ok(Endpoint::Tcp { host, port })
            }
            "ssh" => ssh(rest).map_err(wrong),
            "docker-container" if is_name(rest) => {
                Ok(Endpoint::DockerContainer { container: rest.to_owned() })
            }
            "docker-container" => Err(wrong("the name of a container must follow")),
            _ => Err(wrong("its scheme is none of unix, tcp, ssh and docker-container")),
        }
    }
}

fn ssh(text: &str) -> Result<Endpoint, &'static str> {
    let (authority, socket) = match text.find('/') {
        Some(at) => (&text[..at], Some(&text[at..]).filter(|path| *path != "/")),
        None => (text, None),
    };
    if text.contains(['?', '#']) {
        return Err("nothing may follow the host but a socket's path");
    }
    let (user, rest) = match authority.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, authority),
    };
    if user.is_some_and(|user| user.contains(':')) {
        return Err("it has a password; use a key, which ssh finds by itself");
    }
    // What begins with `-` would be an option of ssh.
    if user.is_some_and(|user| user.is_empty() || user.starts_with('-')) {
        return Err("the user is no name");
    }
    let (host, port) = host_and_port(rest)?;
    Ok(Endpoint::Ssh { user: user.map(str::to_owned), host, port, socket: socket.map(str::to_owned) })
}

/// Splits `host:port`, `[address]:port` or `host`.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), &'static str> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("a `]` is missing")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| "what stands in brackets is no IPv6 address")?;
            (
                host,
                if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or("a `:` is missing")?) },
            )
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_host = |host: &str| host.starts_with(char::is_alphanumeric) && !host.contains(['/', '@']);
    if !is_host(host) && !text.starts_with('[') {
        return Err("the host is missing or no name");
    }
    let port =
        port.map(|port| port.parse::<u16>().ok().filter(|port| *port != 0).ok_or("the port is no number"));
    Ok((host.to_owned(), port.transpose()?))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written() {
        for text in [
            "unix:///run/buildkit/buildkitd.sock",
            "tcp://10.0.0.5:1234",
            "tcp://[::1]:1234",
            "ssh://pi",
            "ssh://me@pi.local:2222/run/user/1000/polyarch.sock",
            "docker-container://buildx_buildkit_multi0",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_endpoints_say_what_is_wrong() {
        for (text, problem) in [
            ("10.0.0.5:1234", "no scheme"),
            ("tcp://10.0.0.5", "port is missing"),
            ("tcp://host:0", "port is no number"),
            ("tcp://:1234", "host is missing"),
            ("tcp://-oProxyCommand=x:1", "host is missing"),
            ("unix://relative", "absolute"),
            ("ssh://me:secret@pi", "password"),
            ("ssh://-l@pi", "user is no name"),
            ("ssh://-oProxyCommand=x", "host is missing"),
            ("ssh://pi?x", "nothing may follow"),
            ("http://host:1", "scheme is none"),
            ("docker-container://-x", "name of a container"),
            ("tcp://a b:1", "blanks"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn loopback_is_local() {
        for (text, is_local) in [
            ("tcp://127.0.0.1:1", true),
            ("tcp://[::1]:1", true),
            ("tcp://localhost:1", true),
            ("tcp://10.0.0.5:1", false),
            ("tcp://127.evil.example:1", false),
            ("unix:///x", true),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().is_local(), is_local, "{text}");
        }
    }
}
