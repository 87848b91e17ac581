// SPDX-License-Identifier: Apache-2.0
//! Finds mount targets inside of a root that somebody else has filled.
//!
//! Symbolic links are followed as the container will follow them: an absolute one begins at the container's root, and
//! `..` stops there. Each step opens one name below a held descriptor without following links, so nothing outside of
//! the root is ever reached, whatever the image holds.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, fstat, mkdirat, openat, readlinkat};
use rustix::io::Errno;

use crate::failure::{Failure, Step};

/// How many links the kernel follows in one path (path_resolution(7)).
const LINK_LIMIT: u32 = 40;

/// No path of the image may lead deeper than this.
const DEPTH_LIMIT: usize = 1024;

/// What is mounted on a target, and so what the target must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// A directory goes onto a directory.
    Directory,
    /// Anything else goes onto a file of any type.
    File,
}

/// Where a path of the container leads.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The path below the root without links, `.` and `..`; includes the names that are missing.
    pub(crate) path: PathBuf,
    /// The last directory, or the file, that exists.
    found: OwnedFd,
    /// What is missing below `found`.
    missing: Vec<OsString>,
}

/// A directory or a file that was made to be mounted on.
#[derive(Debug)]
pub(crate) struct Stub {
    /// Below the root, without links.
    path: PathBuf,
    kind: Kind,
    identity: (u64, u64),
    /// When the directory above it was changed before, and the change that the stub itself was; where that
    /// directory is not a stub itself.
    parent_modified: Option<(Timespec, Timespec)>,
}

/// Resolves `target` below `root`.
pub(crate) fn resolve(root: BorrowedFd<'_>, target: &Path) -> Result<Resolved, Failure> {
    let refuse = |reason: &str| Failure::MountTarget { target: target.to_owned(), reason: reason.to_owned() };
    let mut names = VecDeque::new();
    push_front(&mut names, target);
    let mut path: Vec<(OsString, OwnedFd)> = Vec::new();
    let mut missing: Vec<OsString> = Vec::new();
    let mut links = 0;
    while let Some(name) = names.pop_front() {
        if name == ".." {
            if missing.pop().is_none() {
                path.pop();
            }
            continue;
        }
        if !missing.is_empty() {
            missing.push(name);
            continue;
        }
        if path.len() >= DEPTH_LIMIT {
            return Err(refuse("it leads through too many directories"));
        }
        let above = path.last().map_or(root, |(_, fd)| fd.as_fd());
        let fd = match openat(above, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        {
            Ok(fd) => fd,
            Err(Errno::NOENT) => {
                missing.push(name);
                continue;
            }
            Err(Errno::NOTDIR) => return Err(refuse("something on the way is not a directory")),
            Err(errno) => return Err(errno).at("resolve the mount target", target),
        };
        let stat = fstat(&fd).at("examine the mount target", target)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            links += 1;
            if links > LINK_LIMIT {
                return Err(refuse("too many symbolic links, or a link that leads to itself"));
            }
            let text = readlinkat(&fd, "", Vec::new()).at("read the link on the way to", target)?;
            let text = OsString::from_vec(text.into_bytes());
            if Path::new(&text).is_absolute() {
                path.clear();
            }
            push_front(&mut names, Path::new(&text));
            continue;
        }
        path.push((name, fd));
    }
    let whole = path.iter().map(|(name, _)| name).chain(&missing).collect();
    let found = match path.pop() {
        Some((_, fd)) => fd,
        None => rustix::io::dup(root).at("duplicate the root for", target)?,
    };
    Ok(Resolved { path: whole, found, missing })
}

fn push_front(names: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => names.push_front(name.to_owned()),
            Component::ParentDir => names.push_front(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

impl Resolved {
    /// Says whether the whole path exists.
    pub(crate) fn is_found(&self) -> bool {
        self.missing.is_empty()
    }

    /// Returns what the path leads to, if it is there.
    pub(crate) fn into_found(self) -> Option<OwnedFd> {
        self.missing.is_empty().then_some(self.found)
    }

    /// Returns the target, made where it is missing, and the stubs that were made for it.
    ///
    /// A target of the wrong kind is refused, as the kernel would refuse the mount with less words.
    pub(crate) fn into_target(self, kind: Kind, target: &Path) -> Result<(OwnedFd, Vec<Stub>), Failure> {
        let mut stubs = Vec::new();
        let mut fd = self.found;
        let mut path: PathBuf =
            self.path.components().take(self.path.components().count() - self.missing.len()).collect();
        let last = self.missing.len().saturating_sub(1);
        for (index, name) in self.missing.iter().enumerate() {
            let directory = fd;
            let before = modified(&directory).at("examine the directory of the mount target", target)?;
            let kind = if index == last { kind } else { Kind::Directory };
            // Others may make it at the same time, where the mount that it lies in is shared.
            let is_own = match make(directory.as_fd(), name, kind) {
                Err(Errno::EXIST) => false,
                result => result.map(|()| true).at("create the mount target", target)?,
            };
            let after = modified(&directory).at("examine the directory of the mount target", target)?;
            fd = openat(&directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .at("open the created mount target", target)?;
            let stat = fstat(&fd).at("examine the created mount target", target)?;
            path.push(name);
            if !is_own {
                continue;
            }
            stubs.push(Stub {
                path: path.clone(),
                kind,
                identity: (stat.st_dev, stat.st_ino),
                parent_modified: (index == 0).then_some((before, after)),
            });
        }
        let stat = fstat(&fd).at("examine the mount target", target)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory != (kind == Kind::Directory) {
            let reason = match kind {
                Kind::Directory => "it is a file in the image, and a directory is to be mounted there",
                Kind::File => "it is a directory in the image, and a file is to be mounted there",
            };
            return Err(Failure::MountTarget { target: target.to_owned(), reason: reason.to_owned() });
        }
        Ok((fd, stubs))
    }
}

fn modified(directory: &OwnedFd) -> Result<Timespec, Errno> {
    let stat = fstat(directory)?;
    Ok(Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ })
}

/// Makes an empty directory or file that root may read.
pub(crate) fn make(above: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> Result<(), Errno> {
    match kind {
        Kind::Directory => mkdirat(above, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(above, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}

impl Stub {
    /// Removes the stub if it is still the one that was made and still empty, and gives the directory above its old
    /// time of change, unless the process has changed that directory: then its change is the last. Whatever fails stays as it is: the process may have put the stub to use.
    ///
    /// Nothing may be mounted on it any more and no process of the container may be left.
    pub(crate) fn remove(&self, root: BorrowedFd<'_>) {
        let (Some(name), Some(above)) = (self.path.file_name(), self.path.parent()) else { return };
        let Ok(above) = resolve(root, above) else { return };
        if !above.is_found() {
            return;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(stat) = openat(&above.found, name, flags, Mode::empty()).and_then(fstat) else { return };
        if (stat.st_dev, stat.st_ino) != self.identity || (self.kind == Kind::File && stat.st_size != 0) {
            return;
        }
        let Ok(now) = modified(&above.found) else { return };
        let how = if self.kind == Kind::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        if rustix::fs::unlinkat(&above.found, name, how).is_err() {
            return;
        }
        if let Some((before, after)) = self.parent_modified {
            let is_ours = (now.tv_sec, now.tv_nsec) == (after.tv_sec, after.tv_nsec);
            let times = rustix::fs::Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT as _ },
                last_modification: if is_ours { before } else { now },
            };
            let _ = rustix::fs::utimensat(&above.found, ".", &times, AtFlags::SYMLINK_NOFOLLOW);
        }
    }

    /// The path in the container.
    pub(crate) fn absolute(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }
}

/// Says whether a name can be part of a path at all.
pub(crate) fn is_plausible(target: &Path) -> bool {
    let bytes = target.as_os_str().as_bytes();
    target.is_absolute()
        && bytes.len() < 4096
        && !bytes.contains(&0)
        && bytes.split(|byte| *byte == b'/').all(|name| name.len() <= 255)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn open_root(dir: &Path) -> OwnedFd {
        rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("open")
    }

    fn path_of(dir: &Path, target: &str) -> Result<(String, bool), Failure> {
        let root = open_root(dir);
        let resolved = resolve(root.as_fd(), Path::new(target))?;
        Ok((resolved.path.to_str().expect("UTF-8").to_owned(), resolved.is_found()))
    }

    #[test]
    fn links_never_lead_out_of_the_root() {
        let outer = tempfile::tempdir().expect("tempdir");
        let root = outer.path().join("root");
        std::fs::create_dir_all(root.join("run/systemd")).expect("mkdir");
        std::fs::create_dir(root.join("etc")).expect("mkdir");
        std::fs::create_dir(root.join("var")).expect("mkdir");
        symlink("/run", root.join("var/run")).expect("symlink");
        symlink("../../../../../etc", root.join("var/up")).expect("symlink");
        symlink("../run/systemd/stub.conf", root.join("etc/resolv.conf")).expect("symlink");
        symlink("/proc", root.join("proc")).expect("symlink");
        std::fs::write(root.join("file"), "x").expect("write");

        let found = |target: &str| path_of(&root, target).expect("resolves");
        assert_eq!(found("/var/run/systemd"), ("run/systemd".to_owned(), true));
        assert_eq!(found("/var/up"), ("etc".to_owned(), true));
        assert_eq!(found("/etc/resolv.conf"), ("run/systemd/stub.conf".to_owned(), false));
        assert_eq!(found("/../../etc/./new/deep/../other"), ("etc/new/other".to_owned(), false));
        assert_eq!(found("/"), (String::new(), true));
        let looped = path_of(&root, "/proc").expect_err("a link to itself");
        assert!(format!("{looped:?}").contains("leads to itself"), "{looped:?}");
        let file = path_of(&root, "/file/below").expect_err("not a directory");
        assert!(format!("{file:?}").contains("not a directory"), "{file:?}");
    }

    #[test]
    fn stubs_go_without_a_trace_unless_they_were_used() {
        let dir = tempfile::tempdir().expect("tempdir");
        let etc = dir.path().join("etc");
        std::fs::create_dir(&etc).expect("mkdir");
        let before = std::fs::metadata(&etc).expect("stat").modified().expect("mtime");
        let root = open_root(dir.path());
        let make = |target: &str, kind| {
            let target = Path::new(target);
            resolve(root.as_fd(), target).expect("resolve").into_target(kind, target).expect("made").1
        };
        let file = make("/etc/a/b/c", Kind::File);
        assert_eq!(file.len(), 3);
        assert!(dir.path().join("etc/a/b/c").is_file());
        file.iter().rev().for_each(|stub| stub.remove(root.as_fd()));
        assert_eq!(std::fs::read_dir(&etc).expect("read").count(), 0);
        assert_eq!(std::fs::metadata(&etc).expect("stat").modified().expect("mtime"), before);

        let beside = make("/etc/beside", Kind::File);
        let changed = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
        std::fs::File::open(&etc)
            .expect("open")
            .set_modified(changed)
            .expect("the process changes the directory");
        beside.iter().rev().for_each(|stub| stub.remove(root.as_fd()));
        assert_eq!(std::fs::metadata(&etc).expect("stat").modified().expect("mtime"), changed);

        let used = make("/etc/used", Kind::Directory);
        std::fs::write(dir.path().join("etc/used/file"), "").expect("write");
        used.iter().rev().for_each(|stub| stub.remove(root.as_fd()));
        assert!(dir.path().join("etc/used/file").exists());
    }

    #[test]
    fn a_target_of_the_wrong_kind_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("file"), "").expect("write");
        let root = open_root(dir.path());
        let resolved = resolve(root.as_fd(), Path::new("/file")).expect("resolve");
        let refused = resolved.into_target(Kind::Directory, Path::new("/file")).expect_err("a file");
        assert!(format!("{refused:?}").contains("it is a file"), "{refused:?}");
    }
}
