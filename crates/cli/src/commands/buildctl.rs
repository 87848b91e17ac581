// SPDX-License-Identifier: Apache-2.0
//! Called as `buildctl dial-stdio`, which clients start over ssh: a connection to a builder on standard input
//! and output.
//!
//! With `--addr` it is passed on to the server there; without, this process is the builder, for as long as
//! the connection lasts.

use std::ffi::OsString;
use std::path::PathBuf;

use polyarch_build::BuildError;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use crate::node_server::{Address, NodeServer};
use crate::printer::Printer;
use crate::session::Session;
use crate::{CommandError, Environment};

/// Runs as buildctl; `arguments` are those after the program's name.
///
/// # Errors
/// When something else than `dial-stdio` is wanted, or the server does not answer.
pub fn run(arguments: &[OsString], environment: Environment) -> Result<(), CommandError> {
    let socket = read(arguments)?;
    let session = Session { environment, printer: Printer, root: None, is_debug: false };
    let settings = session.settings()?;
    match socket {
        None => {
            NodeServer { addresses: vec![Address::Stdio], ..NodeServer::default() }.run(&settings, &session)
        }
        Some(path) => session.open_for_documents(&settings)?.serve(|_, _| pass_on(path)).map_err(Into::into),
    }
}

fn read(arguments: &[OsString]) -> Result<Option<PathBuf>, CommandError> {
    let mut socket = None;
    let mut is_dialing = false;
    let mut left = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
    while let Some(argument) = left.next() {
        if argument == "dial-stdio" {
            is_dialing = true;
            continue;
        }
        let missing = || CommandError::usage("--addr needs a value");
        let address = match argument.strip_prefix("--addr") {
            Some("") => left.next().ok_or_else(missing)?,
            Some(rest) if rest.starts_with('=') => rest[1..].to_owned(),
            _ => return Err(only_dialing()),
        };
        match Address::parse(&address)? {
            Address::Unix(path) => socket = Some(path),
            _ => return Err(CommandError::usage(format!("{address} is not the address of a unix socket"))),
        }
    }
    if is_dialing { Ok(socket) } else { Err(only_dialing()) }
}

fn only_dialing() -> CommandError {
    CommandError::usage("under the name of buildctl polyarch has only `dial-stdio`, for clients over ssh")
        .with_hint("build with `polyarch build`")
}

/// Passes bytes on between a server and our standard streams, until the server ends.
async fn pass_on(path: PathBuf) -> Result<(), BuildError> {
    let failed = |error: std::io::Error| BuildError::io("can't reach the builder at", &path, &error);
    let stream = UnixStream::connect(&path).await.map_err(failed)?;
    let (mut from, mut to) = stream.into_split();
    let sending = tokio::spawn(async move {
        // The end of either half is told by the other: there is nothing to say about it.
        let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut to).await;
        let _ = to.shutdown().await;
    });
    let mut stdout = tokio::io::stdout();
    let received = tokio::io::copy(&mut from, &mut stdout).await;
    sending.abort();
    received.map_err(failed)?;
    stdout.flush().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(arguments: &[&str]) -> Result<Option<PathBuf>, CommandError> {
        read(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn only_dialing_is_offered() {
        assert_eq!(read_all(&["dial-stdio"]).unwrap(), None);
        let expected = Some(PathBuf::from("/run/a.sock"));
        assert_eq!(read_all(&["--addr", "unix:///run/a.sock", "dial-stdio"]).unwrap(), expected);
        assert_eq!(read_all(&["--addr=unix:///run/a.sock", "dial-stdio"]).unwrap(), expected);
        for arguments in [["build"].as_slice(), &[], &["--addr"], &["--addr", "tcp://a:1", "dial-stdio"]] {
            assert!(read_all(arguments).is_err(), "{arguments:?}");
        }
    }
}
