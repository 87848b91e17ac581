// SPDX-License-Identifier: Apache-2.0
//! `polyarch node certs`: certificates for nodes that listen on TCP, so that both sides prove who they are.

use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::authority::{Authority, CA, CLIENT, Purpose, certificate_file, day, key_file, valid_until};
use crate::CommandError;
use crate::session::Session;

/// The longest name of a host (RFC 1035, 2.3.4).
const MAX_NAME_BYTES: usize = 253;

/// Make certificates for nodes and their clients
///
/// The first time an authority (ca.pem) and a client's certificate are made as well; later hosts get theirs of the
/// same authority. Nothing that is there is replaced unless --renew asks for it, and the authority never is.
#[derive(Debug, Args)]
pub struct CertsArgs {
    /// A node's name and addresses, the first of which names its files
    #[arg(long, value_name = "NAME[,NAME|ADDRESS]", required = true)]
    host: Vec<String>,
    /// Replace the certificates of these hosts and of the client
    #[arg(long)]
    renew: bool,
    /// How long they are valid
    #[arg(long, value_name = "DAYS", default_value_t = 730, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// The directory, which is made when it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Runs the command.
pub fn run(args: &CertsArgs, session: &Session) -> Result<(), CommandError> {
    let hosts = args.host.iter().map(|text| Host::parse(text)).collect::<Result<Vec<Host>, _>>()?;
    for (at, host) in hosts.iter().enumerate() {
        if hosts[..at].iter().any(|other| other.file_name() == host.file_name()) {
            return Err(CommandError::usage(format!("--host {} is named twice", host.file_name())));
        }
    }
    let directory = session.environment.resolve(&args.directory);
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(&directory).map_err(|error| CommandError::io("can't make", &directory, &error))?;
    // Before anything is written.
    for host in hosts.iter().filter(|_| !args.renew) {
        if let Some(ends) = valid_until(&directory, host.file_name())? {
            let file = certificate_file(&directory, host.file_name());
            return Err(CommandError::usage(format!(
                "{} is there already, valid until {}",
                file.display(),
                day(ends)
            ))
            .with_hint("--renew replaces it with a new one of the same authority"));
        }
    }
    let (authority, is_new) = Authority::open_or_make(&directory)?;
    let mut made = Vec::new();
    if is_new {
        made.push((
            certificate_file(&directory, CA),
            "the authority; its key makes more of what follows".to_owned(),
        ));
    }
    if args.renew || valid_until(&directory, CLIENT)?.is_none() {
        let ends = authority.issue(CLIENT, &[], Purpose::Client, args.days)?;
        made.push((
            certificate_file(&directory, CLIENT),
            format!("who has its key may build, until {}", day(ends)),
        ));
    }
    for host in &hosts {
        let ends = authority.issue(host.file_name(), &host.names, Purpose::Server, args.days)?;
        let names = host.names.join(", ");
        made.push((certificate_file(&directory, host.file_name()), format!("{names}, until {}", day(ends))));
    }
    let mut text = String::new();
    for (file, what) in made {
        text.push_str(&format!("{}: {what}\n", file.display()));
    }
    session.printer.message(&next_commands(&directory, &hosts));
    session.printer.data(&text)
}

/// A node by its names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    names: Vec<String>,
}

impl Host {
    fn parse(text: &str) -> Result<Host, CommandError> {
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_ascii_lowercase()).collect();
        for name in &names {
            let wrong = |problem: &str| {
                CommandError::usage(format!("--host {text}: {name:?} {problem}")).with_hint(
                    "write the name or address that clients will connect to: --host pi.local,192.168.1.7",
                )
            };
            if name.parse::<IpAddr>().is_err() && !is_host_name(name) {
                return Err(wrong("is neither a host's name nor an address"));
            }
            if matches!(name.as_str(), CA | CLIENT) || name.ends_with("-key") {
                return Err(wrong("would take the name of another file"));
            }
        }
        Ok(Host { names })
    }

    /// Returns the name of its files.
    fn file_name(&self) -> &str {
        // There is at least one: splitting gives no empty list.
        self.names.first().map_or("", String::as_str)
    }
}

/// Tells whether a text is a name of letters, digits and `-`, with dots in between.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= MAX_NAME_BYTES && name.split('.').all(is_label)
}

/// Says what to do with the files.
fn next_commands(directory: &Path, hosts: &[Host]) -> String {
    let ca = certificate_file(directory, CA);
    let mut text = String::new();
    for host in hosts {
        let name = host.file_name();
        let address = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
        let (certificate, key) = (certificate_file(directory, name), key_file(directory, name));
        text.push_str(&format!(
            "\nOn {name}, with copies of {}, {} and {}:\n  \
             polyarch node serve --listen tcp://0.0.0.0:1234 --tls-ca ca.pem --tls-cert {name}.pem --tls-key {name}-key.pem\n\
             Here:\n  \
             polyarch buildx create --name fleet --append --driver remote \\\n    \
             --driver-opt cacert={},cert={},key={} tcp://{address}:1234\n",
            ca.display(),
            certificate.display(),
            key.display(),
            ca.display(),
            certificate_file(directory, CLIENT).display(),
            key_file(directory, CLIENT).display(),
        ));
    }
    text.push_str("\n(The first node of a builder is made without --append.) Keep ");
    text.push_str(&format!("{} to yourself: it makes clients.\n", key_file(directory, CA).display()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses() {
        let names = |text: &str| Host::parse(text).map(|host| host.names);
        assert_eq!(names("Pi.local, 192.168.1.7,::1").unwrap(), ["pi.local", "192.168.1.7", "::1"]);
        for wrong in
            ["", "a,", "../x", "a/b", "*.example.com", "-x", "x-", "ca", "client", "pi-key", "a b", "a..b"]
        {
            assert!(names(wrong).is_err(), "{wrong}");
        }
    }
}
