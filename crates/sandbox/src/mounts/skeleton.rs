// SPDX-License-Identifier: Apache-2.0
//! Directories of empty mount points that lie at the bottom of an overlay.
//!
//! A mount point that no layer of the image has would have to be created, and creating it would leave a trace in the
//! upper directory, which becomes a layer. So the launcher puts a directory of its own below the lowest layer. It
//! depends on nothing but the set of mount points, is named by that set, and is never changed once it has its name:
//! any number of runs share it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use polyarch_oci::Digest;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, Timespec, Timestamps, openat};
use rustix::io::Errno;

use super::resolve::{Kind, make};
use crate::failure::{Failure, Step};

/// Mount points, below the root and without links.
pub(crate) type MountPoints = BTreeSet<(PathBuf, Kind)>;

/// Returns the path of a target as it is when no link leads elsewhere; `None` for the root itself.
pub(crate) fn lexical(target: &Path) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in target.components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    (!path.as_os_str().is_empty()).then_some(path)
}

/// Returns the directory with these mount points in `scratch`, made if it is not there.
pub(crate) fn ensure(scratch: &Path, points: &MountPoints) -> Result<PathBuf, Failure> {
    let directory = scratch.join(format!("skeleton-{}", name(points)));
    if directory.is_dir() {
        return Ok(directory);
    }
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|_| Errno::IO).step("get random bytes")?;
    let young = scratch.join(format!("young-{:016x}", u64::from_ne_bytes(random)));
    let filled = fill(&young, points).and_then(|()| {
        match rustix::fs::renameat_with(CWD, &young, CWD, &directory, RenameFlags::NOREPLACE) {
            // Somebody else has made the same one meanwhile.
            Err(Errno::EXIST) => {
                let _ = std::fs::remove_dir_all(&young);
                Ok(())
            }
            result => result.at("put in place the mount points", &directory),
        }
    });
    if filled.is_err() {
        let _ = std::fs::remove_dir_all(&young);
    }
    filled.map(|()| directory)
}

fn name(points: &MountPoints) -> String {
    let mut text = Vec::new();
    for (path, kind) in points {
        text.push(if *kind == Kind::Directory { b'd' } else { b'f' });
        text.extend_from_slice(path.as_os_str().as_bytes());
        text.push(0);
    }
    let digest = Digest::of(&text);
    digest.hex().chars().take(32).collect()
}

fn fill(directory: &Path, points: &MountPoints) -> Result<(), Failure> {
    let step = "create the mount points in";
    rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755)).at(step, directory)?;
    let open = |above: BorrowedFd<'_>, name: &OsStr| {
        openat(
            above,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
    };
    let root = open(CWD, directory.as_os_str()).at(step, directory)?;
    let mut made: Vec<OwnedFd> = Vec::new();
    for (path, kind) in points {
        let names: Vec<&OsStr> = path.iter().collect();
        let mut above = rustix::io::dup(&root).at(step, directory)?;
        for (index, name) in names.iter().enumerate() {
            let kind = if index + 1 == names.len() { *kind } else { Kind::Directory };
            match make(above.as_fd(), name, kind) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).at(step, path),
            }
            if kind == Kind::File {
                set_time(above.as_fd(), name).at(step, path)?;
                break;
            }
            match open(above.as_fd(), name) {
                Ok(fd) => made.push(std::mem::replace(&mut above, fd)),
                // Two targets contradict each other; the mounts will tell.
                Err(Errno::NOTDIR) => break,
                Err(errno) => return Err(errno).at(step, path),
            }
        }
        made.push(above);
    }
    // A directory that the process changes is copied up with its times: they must be the same each time.
    for fd in made.iter().chain([&root]) {
        set_time(fd.as_fd(), OsStr::new(".")).at(step, directory)?;
    }
    Ok(())
}

fn set_time(above: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let epoch = Timespec { tv_sec: 0, tv_nsec: 0 };
    let times = Timestamps { last_access: epoch, last_modification: epoch };
    rustix::fs::utimensat(above, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skeleton_has_its_points_and_the_same_times_each_time() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let points = MountPoints::from([
            (PathBuf::from("proc"), Kind::Directory),
            (PathBuf::from("etc/hosts"), Kind::File),
            (PathBuf::from("etc/deep/er"), Kind::Directory),
        ]);
        let directory = ensure(scratch.path(), &points).expect("made");
        assert!(directory.join("proc").is_dir() && directory.join("etc/deep/er").is_dir());
        assert!(directory.join("etc/hosts").is_file());
        for path in ["", "proc", "etc", "etc/hosts", "etc/deep", "etc/deep/er"] {
            let modified = std::fs::metadata(directory.join(path)).expect("stat").modified().expect("mtime");
            assert_eq!(modified, std::time::UNIX_EPOCH, "{path}");
        }
        assert_eq!(ensure(scratch.path(), &points).expect("there"), directory);
        assert_eq!(std::fs::read_dir(scratch.path()).expect("read").count(), 1);
    }

    #[test]
    fn other_points_have_another_directory() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let one = |kind| MountPoints::from([(PathBuf::from("a"), kind)]);
        let directory = ensure(scratch.path(), &one(Kind::Directory)).expect("made");
        assert_ne!(directory, ensure(scratch.path(), &one(Kind::File)).expect("made"));
    }

    #[test]
    fn targets_that_contradict_each_other_do_not_fail_here() {
        let scratch = tempfile::tempdir().expect("tempdir");
        let points =
            MountPoints::from([(PathBuf::from("a"), Kind::File), (PathBuf::from("a/b"), Kind::Directory)]);
        assert!(ensure(scratch.path(), &points).is_ok());
    }

    #[test]
    fn lexical_paths_stay_below_the_root() {
        assert_eq!(lexical(Path::new("/a/./b/../c")), Some(PathBuf::from("a/c")));
        assert_eq!(lexical(Path::new("/../../a")), Some(PathBuf::from("a")));
        assert_eq!(lexical(Path::new("/")), None);
    }
}
