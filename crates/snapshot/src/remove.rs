// SPDX-License-Identifier: Apache-2.0
//! Removing trees that something hostile may have made: any depth, any mode, no recursion.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use crate::meta::{names, open_directory};

/// How deep to go before a subtree is moved up; bounds the number of open descriptors.
const MAX_OPEN_LEVELS: usize = 48;

/// Makes names of moved subtrees distinct within this process.
static MOVED_UP: AtomicU64 = AtomicU64::new(0);

struct Level {
    directory: OwnedFd,
    name: OsString,
    remaining: Vec<OsString>,
}

/// Removes `name` in `parent` with everything in it; one that is not there is fine.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let mut moved_up = Vec::new();
    let mut pending = vec![name.to_owned()];
    while let Some(name) = pending.pop() {
        remove_bounded(parent, &name, &mut moved_up)?;
        pending.append(&mut moved_up);
    }
    Ok(())
}

fn remove_bounded(parent: BorrowedFd<'_>, name: &OsStr, moved_up: &mut Vec<OsString>) -> io::Result<()> {
    let Some(first) = unlink_or_enter(parent, name)? else { return Ok(()) };
    let mut levels = vec![first];
    while let Some(level) = levels.last_mut() {
        if let Some(child) = level.remaining.pop() {
            let directory = &level.directory;
            let Some(entered) = unlink_or_enter(directory.as_fd(), &child)? else { continue };
            if levels.len() < MAX_OPEN_LEVELS {
                levels.push(entered);
                continue;
            }
            let number = MOVED_UP.fetch_add(1, Ordering::Relaxed);
            let target = OsString::from(format!(".removed-{}-{number}", std::process::id()));
            rustix::fs::renameat(&levels[levels.len() - 1].directory, &child, parent, &target)?;
            moved_up.push(target);
            continue;
        }
        // The loop condition has just shown that there is a last level.
        let Some(done) = levels.pop() else { break };
        let above = levels.last().map_or(parent, |level| level.directory.as_fd());
        match rustix::fs::unlinkat(above, &done.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Unlinks anything but a directory; opens and lists a directory.
fn unlink_or_enter(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Level>> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(None),
        Err(Errno::ISDIR | Errno::PERM | Errno::ACCESS) => {}
        Err(error) => return Err(error.into()),
    }
    let directory = match open_directory(parent, name) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // Mode 000 and no capability that overrides it: the owner may still open it up.
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            open_directory(parent, name)?
        }
        Err(error) => return Err(error),
    };
    let writable = rustix::fs::fstat(&directory)?.st_mode & 0o300 == 0o300;
    if !writable {
        // Without capabilities entries of a read-only directory cannot be removed.
        let _ = rustix::fs::fchmod(&directory, Mode::RWXU);
    }
    let remaining = names(&directory)?;
    Ok(Some(Level { directory, name: name.to_owned(), remaining }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::open_host_directory;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn closed_directories_and_symlinks_out_are_no_hindrance() {
        let base = tempfile::tempdir().unwrap();
        let outside = base.path().join("outside");
        std::fs::write(&outside, "stays").unwrap();
        let tree = base.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink(base.path(), tree.join("a/out")).unwrap();
        std::fs::set_permissions(tree.join("a/b"), std::fs::Permissions::from_mode(0o000)).unwrap();
        let fd = open_host_directory(base.path()).unwrap();
        remove_tree(fd.as_fd(), OsStr::new("tree")).unwrap();
        assert!(!tree.exists());
        assert!(outside.exists());
        remove_tree(fd.as_fd(), OsStr::new("tree")).unwrap();
    }

    #[test]
    fn trees_deeper_than_any_path_go_away() {
        let base = tempfile::tempdir().unwrap();
        let fd = open_host_directory(base.path()).unwrap();
        rustix::fs::mkdirat(&fd, "deep", Mode::RWXU).unwrap();
        let mut current = open_directory(&fd, "deep").unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&current, "d", Mode::RWXU).unwrap();
            rustix::fs::mkdirat(&current, "e", Mode::RWXU).unwrap();
            current = open_directory(&current, "d").unwrap();
        }
        remove_tree(fd.as_fd(), OsStr::new("deep")).unwrap();
        assert!(names(&fd).unwrap().is_empty());
    }
}
