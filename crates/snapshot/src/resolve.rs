// SPDX-License-Identifier: Apache-2.0
//! Paths beneath a root: cleaned by their text, then resolved by the kernel or step by step.
//!
//! Symlinks are followed as if the root were `/`, so neither `..` nor an absolute target leaves it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::meta::{Kind, Meta, read_link};

/// Linux's own cap on symlinks in one resolution.
const MAX_SYMLINKS: u32 = 40;
/// How often a resolution is tried that something moved under.
const MAX_TRIES: u32 = 128;

/// Cleans a path by its text alone: relative, without `.` and empty parts; `..` stops at the root.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir => {
                cleaned.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    cleaned
}

/// Opens a cleaned path beneath `root`, following symlinks within it.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open_resolved(root, path, flags, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Opens a cleaned path beneath `root` of which no part may be a symlink.
pub(crate) fn open_without_symlinks(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open_resolved(root, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn open_resolved(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // The kernel asks to try again when a rename elsewhere may have raced with the lookup.
            Err(Errno::AGAIN) if tries < MAX_TRIES => tries += 1,
            Err(error) => return Err(error.into()),
            Ok(file) => return Ok(file),
        }
    }
}

/// A directory beneath a root and its real path, free of symlinks.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) directory: OwnedFd,
    pub(crate) path: PathBuf,
}

/// Makes the directory that is missing from a place under a name, where a whiteout may stand.
pub(crate) type MakeDirectory<'a, E> = dyn FnMut(&Place, &OsStr, Option<&Meta>) -> Result<(), E> + 'a;

/// Walks to the directory at a cleaned `path` beneath `root`, following symlinks within it.
///
/// Where a part is missing, or is a whiteout, `make` is called with the place it is missing from, its
/// name, and the whiteout if there is one; when it returns having made a directory, the walk goes on.
pub(crate) fn walk_to<E: From<io::Error>>(
    root: BorrowedFd<'_>,
    path: &Path,
    make: &mut MakeDirectory<'_, E>,
) -> Result<Place, E> {
    let directory_flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open_root = || -> io::Result<Place> {
        Ok(Place { directory: rustix::io::fcntl_dupfd_cloexec(root, 0)?, path: PathBuf::new() })
    };
    let mut place = open_root()?;
    let mut pending: VecDeque<OsString> = parts(path);
    let mut symlinks = 0;
    while let Some(name) = pending.pop_front() {
        if name == ".." {
            place.path.pop();
            place.directory = open_without_symlinks(root, &place.path, OFlags::PATH | OFlags::DIRECTORY)?;
            continue;
        }
        let error = match rustix::fs::openat(&place.directory, &name, directory_flags, Mode::empty()) {
            Ok(directory) => {
                place.directory = directory;
                place.path.push(&name);
                continue;
            }
            Err(error) => error,
        };
        match error {
            Errno::NOENT => make(&place, &name, None)?,
            Errno::NOTDIR | Errno::LOOP => {
                let meta = Meta::at(&place.directory, &name)?;
                if meta.is_whiteout() {
                    make(&place, &name, Some(&meta))?;
                } else if meta.kind == Kind::Symlink {
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        return Err(io::Error::from(Errno::LOOP).into());
                    }
                    let target = PathBuf::from(read_link(&place.directory, &name)?);
                    if target.is_absolute() {
                        place = open_root()?;
                    }
                    for part in parts(&target).into_iter().rev() {
                        pending.push_front(part);
                    }
                    continue;
                } else {
                    return Err(io::Error::from(Errno::NOTDIR).into());
                }
            }
            error => return Err(io::Error::from(error).into()),
        }
        place.directory = rustix::fs::openat(&place.directory, &name, directory_flags, Mode::empty())
            .map_err(io::Error::from)?;
        place.path.push(&name);
    }
    Ok(place)
}

/// Splits a path into names and `..`, in order.
fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        })
        .collect()
}

/// Walks to the existing directory at `path`; `None` when it is not there.
pub(crate) fn find_place(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<Place>> {
    let walked = walk_to(root, path, &mut |_, _, _| Err(io::Error::from(Errno::NOENT)));
    match walked {
        Ok(place) => Ok(Some(place)),
        // Below a file there is nothing either.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Splits a cleaned path into the directory and the last name; `None` for the root itself.
pub(crate) fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::open_host_directory;
    use std::os::unix::fs::symlink;

    #[test]
    fn cleaning_never_climbs() {
        for (path, cleaned) in [
            ("", ""),
            ("/", ""),
            ("./a//b/", "a/b"),
            ("../../etc/passwd", "etc/passwd"),
            ("a/../../b", "b"),
            ("/a/./b/..", "a"),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(cleaned), "{path:?}");
        }
    }

    #[test]
    fn symlinks_are_followed_within_the_root() {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("root");
        std::fs::create_dir_all(root.join("usr/lib")).unwrap();
        std::fs::create_dir_all(base.path().join("outside")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/usr", root.join("absolute")).unwrap();
        symlink("../../../outside", root.join("up")).unwrap();
        symlink("circle", root.join("circle")).unwrap();
        let fd = open_host_directory(&root).unwrap();
        let walk = |path: &str| find_place(fd.as_fd(), Path::new(path));
        assert_eq!(walk("lib").unwrap().unwrap().path, Path::new("usr/lib"));
        assert_eq!(walk("absolute/lib").unwrap().unwrap().path, Path::new("usr/lib"));
        assert_eq!(walk("lib/../../usr").unwrap().unwrap().path, Path::new("usr"));
        assert!(walk("up").unwrap().is_none());
        assert!(walk("circle").is_err());
        assert!(open_in_root(fd.as_fd(), Path::new("up"), OFlags::PATH).is_err());
    }
}
