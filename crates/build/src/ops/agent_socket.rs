// SPDX-License-Identifier: Apache-2.0
//! A socket of a step's own, behind which the user's SSH agent answers.
//!
//! The user's socket may not be the one that a step gets: it belongs to another user and may lie anywhere.

use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use polyarch_dockerfile::instruction::MountOwner;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::error::{BuildError, ErrorKind};

/// Mode of an agent's socket, as in BuildKit.
const DEFAULT_MODE: u32 = 0o600;

/// A listening socket; nobody answers any more when it is dropped.
#[derive(Debug)]
pub(super) struct AgentSocket {
    directory: tempfile::TempDir,
    accepting: JoinHandle<()>,
}

impl AgentSocket {
    /// Listens in a directory of its own and passes every connection on to `agent`.
    pub(super) fn listen(
        directory: tempfile::TempDir,
        agent: PathBuf,
        owner: MountOwner,
    ) -> Result<AgentSocket, BuildError> {
        let failed = |action: &str, error: &std::io::Error| {
            BuildError::new(ErrorKind::Sandbox, format!("can't {action} a socket for an SSH agent: {error}"))
        };
        let listener = ShortPath::of(directory.path(), NAME.as_ref())
            .and_then(|short| UnixListener::bind(&short.path))
            .map_err(|error| failed("make", &error))?;
        let path = directory.path().join(NAME);
        let MountOwner { mode, uid, gid } = owner;
        if uid.is_some() || gid.is_some() {
            chown(&path, uid, gid).map_err(|error| failed("give away", &error))?;
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode.unwrap_or(DEFAULT_MODE) & 0o777))
            .map_err(|error| failed("set the mode of", &error))?;
        let accepting = tokio::spawn(accept(listener, agent));
        Ok(AgentSocket { directory, accepting })
    }

    /// Returns where the socket is.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join(NAME)
    }
}

const NAME: &str = "agent";

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A socket named by its directory's descriptor: the kernel takes no address of more than 107 bytes.
struct ShortPath {
    path: PathBuf,
    _directory: std::fs::File,
}

impl ShortPath {
    fn of(directory: &Path, name: &OsStr) -> std::io::Result<ShortPath> {
        let held = std::fs::File::open(directory)?;
        let path = Path::new("/proc/self/fd").join(held.as_raw_fd().to_string()).join(name);
        Ok(ShortPath { path, _directory: held })
    }
}

/// Accepts until the task is ended; connections end with it.
async fn accept(listener: UnixListener, agent: PathBuf) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                connections.spawn(pass_on(client, agent.clone()));
            }
            // Those that have ended are forgotten.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass_on(mut client: UnixStream, agent: PathBuf) {
    // The program in the step sees a connection that ends, as when an agent goes away.
    let (Some(directory), Some(name)) = (agent.parent(), agent.file_name()) else { return };
    let Ok(short) = ShortPath::of(directory, name) else { return };
    let Ok(mut agent) = UnixStream::connect(&short.path).await else { return };
    let _ = tokio::io::copy_bidirectional(&mut client, &mut agent).await;
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn connections_are_passed_on_whatever_the_length_of_the_paths() {
        let base = tempfile::tempdir().expect("tempdir");
        let deep = base.path().join("d".repeat(120));
        std::fs::create_dir(&deep).expect("mkdir");
        let short = ShortPath::of(&deep, "real".as_ref()).expect("a short path");
        let listener = UnixListener::bind(&short.path).expect("bind");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut question = [0; 4];
                stream.read_exact(&mut question).await.expect("read");
                stream.write_all(&question).await.expect("write");
            }
        });
        let own = tempfile::tempdir_in(&deep).expect("tempdir");
        let owner = MountOwner { mode: Some(0o741), uid: None, gid: None };
        let socket = AgentSocket::listen(own, deep.join("real"), owner).expect("listen");
        let metadata = std::fs::metadata(socket.path()).expect("stat");
        assert!(metadata.file_type().is_socket() && metadata.mode() & 0o7777 == 0o741);
        let place = ShortPath::of(socket.directory.path(), NAME.as_ref()).expect("a short path");
        for question in [*b"one ", *b"two "] {
            let mut stream = UnixStream::connect(&place.path).await.expect("connect");
            stream.write_all(&question).await.expect("write");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("read");
            assert_eq!(answer, question);
        }
        let path = socket.path();
        drop(socket);
        assert!(!path.exists(), "the socket goes with its step");
    }
}
