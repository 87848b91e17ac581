// SPDX-License-Identifier: Apache-2.0
//! Called as `buildctl dial-stdio`, which clients start over ssh: a connection to a builder on standard input
//! and output.
//!
//! With `--addr` it is passed on to the server there; without, this process is the builder, for as long as
//! the connection lasts. `buildctl debug workers`, by which a cluster finds out that a pod is ready, is there as well.

use std::ffi::OsString;
use std::path::PathBuf;

use polyarch_build::BuildError;
use polyarch_buildkit::client::{ConnectOptions, Endpoint, Node, platforms_of};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::node::serve::default_socket;
use crate::node_server::{Address, NodeServer};
use crate::printer::Printer;
use crate::session::Session;
use crate::visible_text::visible_text;
use crate::{CommandError, Environment};

/// Runs as buildctl; `arguments` are those after the program's name.
///
/// # Errors
/// When something else than `dial-stdio` is wanted, or the server does not answer.
pub fn run(arguments: &[OsString], environment: Environment) -> Result<(), CommandError> {
    let asked = read(arguments)?;
    let session = Session { environment, printer: Printer, root: None, is_debug: false };
    let settings = session.settings()?;
    match asked {
        Asked::Dial(None) => {
            NodeServer { addresses: vec![Address::Stdio], ..NodeServer::default() }.run(&settings, &session)
        }
        Asked::Dial(Some(path)) => {
            session.open_for_documents(&settings)?.serve(|_, _| pass_on(path)).map_err(Into::into)
        }
        Asked::Workers(socket) => {
            let own = || default_socket(&session.environment, "buildkit/buildkitd.sock");
            show_workers(socket.map_or_else(own, Ok)?, &session)
        }
    }
}

/// What is wanted, and of which server.
#[derive(Debug, PartialEq)]
enum Asked {
    Dial(Option<PathBuf>),
    Workers(Option<PathBuf>),
}

fn read(arguments: &[OsString]) -> Result<Asked, CommandError> {
    let mut socket = None;
    let mut words = Vec::new();
    let mut left = arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
    while let Some(argument) = left.next() {
        if matches!(argument.as_str(), "dial-stdio" | "debug" | "workers") {
            words.push(argument);
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
    match words.join(" ").as_str() {
        "dial-stdio" => Ok(Asked::Dial(socket)),
        "debug workers" => Ok(Asked::Workers(socket)),
        _ => Err(only_dialing()),
    }
}

fn only_dialing() -> CommandError {
    CommandError::usage("under the name of buildctl polyarch has only `dial-stdio`, for clients over ssh, and `debug workers`")
        .with_hint("build with `polyarch build`")
}

/// Prints what a server builds for.
fn show_workers(socket: PathBuf, session: &Session) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::io("can't start", "a runtime", &error))?;
    let endpoint = Endpoint::Unix(socket);
    let connected = runtime.block_on(Node::connect(&endpoint, &ConnectOptions::default()));
    let (_, workers) = connected.map_err(BuildError::from)?;
    let mut text = "ID\tPLATFORMS\n".to_owned();
    for worker in &workers {
        let platforms: Vec<String> = platforms_of(worker).iter().map(ToString::to_string).collect();
        text.push_str(&format!("{}\t{}\n", worker.id, platforms.join(",")));
    }
    session.printer.data(&visible_text(&text))
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

    fn read_all(arguments: &[&str]) -> Result<Asked, CommandError> {
        read(&arguments.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn only_dialing_is_offered() {
        assert_eq!(read_all(&["dial-stdio"]).unwrap(), Asked::Dial(None));
        assert_eq!(read_all(&["debug", "workers"]).unwrap(), Asked::Workers(None));
        let expected = Asked::Dial(Some(PathBuf::from("/run/a.sock")));
        assert_eq!(read_all(&["--addr", "unix:///run/a.sock", "dial-stdio"]).unwrap(), expected);
        assert_eq!(read_all(&["--addr=unix:///run/a.sock", "dial-stdio"]).unwrap(), expected);
        for arguments in [
            ["build"].as_slice(),
            &[],
            &["debug"],
            &["workers", "debug"],
            &["dial-stdio", "debug"],
            &["--addr"],
            &["--addr", "tcp://a:1", "dial-stdio"],
        ] {
            assert!(read_all(arguments).is_err(), "{arguments:?}");
        }
    }
}
