// SPDX-License-Identifier: Apache-2.0
//! Sockets of the file system: there for those who may use them and for nobody before, and gone with their server.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use polyarch_build::{BuildError, ErrorKind};
use tokio::net::UnixListener;

/// The longest path of a socket, in bytes (unix(7), `sun_path`, without its end).
const MAX_PATH_BYTES: usize = 107;

/// A socket's file; it goes with this value, unless another server's has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nobody listens there any more; who finds it would wait for nothing.
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Listens on a socket that this user may use, and a group; one that was left there is replaced.
///
/// It is made where only this user can reach it, and comes to its place when it has its group and mode.
/// Directories that are missing are made for the same users.
pub(super) fn listen(path: &Path, group: Option<u32>) -> Result<(UnixListener, SocketFile), BuildError> {
    let failed = |error: io::Error| BuildError::io("can't listen on", path, &error);
    let refused = |problem: &str| {
        BuildError::new(ErrorKind::Usage, format!("can't listen on {}: {problem}", path.display()))
    };
    if path.as_os_str().as_bytes().len() > MAX_PATH_BYTES {
        return Err(refused(&format!("the path of a socket has at most {MAX_PATH_BYTES} bytes")));
    }
    let parent = path.parent().ok_or_else(|| refused("it is no file"))?;
    make_directories(parent, group).map_err(failed)?;
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(refused("there is a file of that name"));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(refused("a server answers there already"));
        }
    }
    let hidden = tempfile::Builder::new()
        .prefix(".polyarch-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(failed)?;
    let made = hidden.path().join("socket");
    // Through its descriptor, because the longer path of the hidden directory may be too long for a socket.
    let directory = std::fs::File::open(hidden.path()).map_err(failed)?;
    let listener =
        UnixListener::bind(format!("/proc/self/fd/{}/socket", directory.as_raw_fd())).map_err(failed)?;
    if group.is_some() {
        chown(&made, None, group).map_err(|error| {
            BuildError::io("can't give the group", path, &error)
                .with_hint("only root, or who is in the group, can")
        })?;
    }
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::fs::set_permissions(&made, Permissions::from_mode(mode)).map_err(failed)?;
    let identity = identity(&made).map_err(failed)?;
    std::fs::rename(&made, path).map_err(failed)?;
    Ok((listener, SocketFile { path: path.to_owned(), identity }))
}

/// Makes the directories that are missing: for this user alone, or for the group to enter.
fn make_directories(path: &Path, group: Option<u32>) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    let mode = if group.is_some() { 0o750 } else { 0o700 };
    for directory in missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
        match DirBuilder::new().mode(mode).create(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        if group.is_some() {
            chown(directory, None, group)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o7777
    }

    #[tokio::test]
    async fn a_socket_and_its_new_directories_are_for_this_user_or_the_group() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/socket");
        let (_listener, file) = listen(&path, None).unwrap();
        assert_eq!(
            (mode(&path), mode(&root.path().join("a/b")), mode(&root.path().join("a"))),
            (0o600, 0o700, 0o700)
        );
        assert_eq!(std::fs::read_dir(root.path().join("a/b")).unwrap().count(), 1, "nothing else is left");
        UnixStream::connect(&path).unwrap();
        drop(file);
        assert!(!path.exists());
        let own = root.path().metadata().unwrap().gid();
        let path = root.path().join("c/socket");
        let _shared = listen(&path, Some(own)).unwrap();
        assert_eq!((mode(&path), mode(&root.path().join("c"))), (0o660, 0o750));
    }

    #[tokio::test]
    async fn a_server_that_ends_leaves_the_socket_of_its_successor() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("socket");
        let (listener, file) = listen(&path, None).unwrap();
        assert!(listen(&path, None).unwrap_err().message.contains("a server answers there already"));
        drop(listener);
        let (_listener, successor) = listen(&path, None).unwrap();
        drop(file);
        UnixStream::connect(&path).unwrap();
        drop(successor);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn nothing_but_a_socket_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        std::fs::write(&path, "kept").unwrap();
        assert!(listen(&path, None).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
        assert!(listen(&root.path().join("x".repeat(200)), None).unwrap_err().message.contains("107 bytes"));
    }
}
