// SPDX-License-Identifier: Apache-2.0
//! Makes a directory on disk the same as one that a client lists.
//!
//! What is there already and is the same stays; what the client has not is removed. Names come one at a
//! time in a checked order ([`Listing`]), so every path is made exactly once, in a directory that was made
//! or checked before it and is reached without following a symlink. Modes and times of directories are set at
//! the end, hard links made at the end.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use polyarch_snapshot::TreeRoot;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::api::fsutil::Stat;
use crate::caller::CallerError;
use crate::caller::listing::{Listing, check, is_before};
use crate::session::go_mode;

const WHAT: &str = "receive the client's files";

/// What a program may do beyond its user's rights (capabilities(7), "File capabilities").
const CAPABILITY: &str = "security.capability";

/// The most bytes that the xattrs of a file may have.
const MAX_XATTR_BYTES: usize = 64 << 10;
/// The most bytes that the names and attributes of a transfer may have that are kept until its end: those of
/// directories, of hard links, and of the files whose bytes are needed.
const MAX_LISTING_BYTES: usize = 256 << 20;
/// What an entry takes beside its texts, in bytes.
const ENTRY_BYTES: usize = 64;

pub(super) struct TreeWriter {
    path: PathBuf,
    root: OwnedFd,
    tree: TreeRoot,
    listing: Listing,
    /// The directories on the way to the listing's place, the root first.
    open: Vec<OpenDirectory>,
    /// What directories become when everything is in them.
    directories: Vec<(String, Attributes)>,
    /// Hard links with what they lead to.
    links: Vec<(String, String)>,
    /// How many bytes names and attributes that are kept until the end may still have.
    left_bytes: usize,
}

struct OpenDirectory {
    path: String,
    directory: OwnedFd,
    /// Names that are there and were not listed (yet).
    unlisted: HashSet<OsString>,
}

#[derive(Debug, Clone)]
struct Attributes {
    mode: u32, // octal file mode
    modified: Timespec,
    xattrs: BTreeMap<String, Vec<u8>>,
}

/// A file whose bytes are needed.
#[derive(Debug)]
pub(super) struct Wanted {
    path: String,
    attributes: Attributes,
}

/// A file that is being written.
pub(super) struct OpenFile {
    shown: PathBuf,
    file: File,
    wanted: Wanted,
}

impl OpenFile {
    /// Writes more of the file.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), CallerError> {
        let write = |source| CallerError::Write { path: self.shown.clone(), source };
        self.file.write_all(bytes).map_err(write)
    }
}

impl TreeWriter {
    pub(super) fn open(path: &Path) -> Result<TreeWriter, CallerError> {
        let write = |source| CallerError::Write { path: path.to_owned(), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|error| write(error.into()))?;
        let directory = root.try_clone().map_err(write)?;
        let unlisted = names(&root).map_err(write)?;
        let tree = TreeRoot::open(path).map_err(|error| write(io::Error::other(error)))?;
        Ok(TreeWriter {
            path: path.to_owned(),
            root,
            tree,
            listing: Listing::new(),
            open: vec![OpenDirectory { path: String::new(), directory, unlisted }],
            directories: Vec::new(),
            links: Vec::new(),
            left_bytes: MAX_LISTING_BYTES,
        })
    }

    /// Takes the listing's next entry; returns the file whose bytes are needed.
    pub(super) fn entry(&mut self, stat: &Stat) -> Result<Option<Wanted>, CallerError> {
        let is_directory = stat.mode & go_mode::TYPE == go_mode::DIRECTORY;
        let place = self.listing.next(&stat.path, is_directory).map_err(hostile)?;
        self.leave(place.depth + 1)?;
        let name = OsStr::new(place.name);
        let made = self.make(stat, name).map_err(|error| self.failed(&stat.path, stat, error))?;
        match made {
            Made::Nothing => {}
            Made::Done => {
                self.list(name);
            }
            Made::Link => {
                self.list(name);
                check(&stat.linkname).map_err(hostile)?;
                if !is_before(&stat.linkname, &stat.path) {
                    return Err(hostile(format!("{:?} as a link to what was not listed before", stat.path)));
                }
                self.keep(stat)?;
                self.links.push((stat.path.clone(), stat.linkname.clone()));
            }
            Made::Directory(directory) => {
                self.list(name);
                let write = |source| CallerError::Write { path: self.path.join(&stat.path), source };
                let unlisted = names(&directory).map_err(write)?;
                self.keep(stat)?;
                self.directories.push((stat.path.clone(), attributes(stat)?));
                self.open.push(OpenDirectory { path: stat.path.clone(), directory, unlisted });
            }
            Made::Wanted => {
                self.list(name);
                self.keep(stat)?;
                return Ok(Some(Wanted { path: stat.path.clone(), attributes: attributes(stat)? }));
            }
        }
        Ok(None)
    }

    fn list(&mut self, name: &OsStr) {
        if let Some(directory) = self.open.last_mut() {
            directory.unlisted.remove(name);
        }
    }

    /// Counts what is kept of an entry until the end.
    fn keep(&mut self, stat: &Stat) -> Result<(), CallerError> {
        let xattrs = stat.xattrs.iter().filter(|(name, _)| is_kept_xattr(name));
        let xattrs: usize = xattrs.map(|(name, value)| name.len() + value.len() + ENTRY_BYTES).sum();
        let bytes = ENTRY_BYTES + stat.path.len() + stat.linkname.len() + xattrs;
        let left = self.left_bytes.checked_sub(bytes);
        self.left_bytes = left.ok_or_else(|| {
            let limit = MAX_LISTING_BYTES >> 20;
            hostile(format!("more than {limit} MiB of names and extended attributes"))
        })?;
        Ok(())
    }

    /// Leaves the directories beyond a depth; what was not listed in them is removed.
    fn leave(&mut self, depth: usize) -> Result<(), CallerError> {
        while self.open.len() > depth {
            let Some(left) = self.open.pop() else { break };
            for name in left.unlisted {
                let path = Path::new(&left.path).join(name);
                self.tree.remove(&path).map_err(|error| self.write_error(&path, io::Error::other(error)))?;
            }
        }
        Ok(())
    }

    /// Ends the listing.
    pub(super) fn end_listing(&mut self) -> Result<(), CallerError> {
        self.leave(0)
    }

    /// Begins to write a file, in place of what is there.
    pub(super) fn begin(&self, wanted: Wanted) -> Result<OpenFile, CallerError> {
        let begin = || {
            let (parent, name) = self.parent_of(&wanted.path)?;
            unlink(&parent, name)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(File::from(rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?))
        };
        let file = begin().map_err(|error| self.write_error(Path::new(&wanted.path), error))?;
        Ok(OpenFile { shown: self.path.join(&wanted.path), file, wanted })
    }

    /// Ends a file: only now is it what a later transfer takes it for.
    pub(super) fn end(&self, open: OpenFile) -> Result<(), CallerError> {
        let ended = open.wanted.attributes.set_on(&open.file);
        ended.map_err(|error| self.write_error(Path::new(&open.wanted.path), error))
    }

    /// Makes hard links, and sets modes and times of directories. Nothing is written afterwards.
    pub(super) fn finish(&mut self) -> Result<(), CallerError> {
        for (path, target) in std::mem::take(&mut self.links) {
            let link = || -> io::Result<()> {
                let (from, from_name) = self.parent_of(&target)?;
                let (to, to_name) = self.parent_of(&path)?;
                let stat = rustix::fs::statat(&from, from_name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(Errno::NOENT.into());
                }
                unlink(&to, to_name)?;
                Ok(rustix::fs::linkat(&from, from_name, &to, to_name, AtFlags::empty())?)
            };
            match link() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(hostile(format!("{path:?} as a link to {target:?}, which is no file")));
                }
                result => result.map_err(|error| self.write_error(Path::new(&path), error))?,
            }
        }
        // What is in a directory comes after it, and goes before it: a mode may forbid to enter it.
        for (path, attributes) in self.directories.iter().rev() {
            let set = || {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                attributes.set_on(open_beneath(self.root.as_fd(), path, flags)?)
            };
            set().map_err(|error| self.write_error(Path::new(path), error))?;
        }
        Ok(())
    }

    /// Makes an entry of the innermost directory.
    fn make(&self, stat: &Stat, name: &OsStr) -> io::Result<Made> {
        let Some(OpenDirectory { directory, .. }) = self.open.last() else {
            return Err(Errno::NOENT.into());
        };
        let there = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => None,
            there => Some(there?),
        };
        let kind = there.as_ref().map(|there| FileType::from_raw_mode(there.st_mode));
        let remove = || match there.is_some() {
            true => self.tree.remove(&stat.path).map_err(io::Error::other),
            false => Ok(()),
        };
        let mode = Mode::from_raw_mode(go_mode::permissions(stat.mode));
        let kind_wanted = stat.mode & go_mode::TYPE;
        if kind_wanted == go_mode::DIRECTORY {
            if kind != Some(FileType::Directory) {
                remove()?;
                rustix::fs::mkdirat(directory, name, Mode::RWXU)?;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
                Err(Errno::ACCESS) => {
                    // The mode that the client gave it last time; the entry is a directory of ours.
                    rustix::fs::chmodat(directory, name, Mode::RWXU, AtFlags::empty())?;
                    rustix::fs::openat(directory, name, flags, Mode::empty())?
                }
                made => made?,
            };
            rustix::fs::fchmod(&made, mode | Mode::RWXU)?;
            return Ok(Made::Directory(made));
        }
        if kind_wanted == 0 {
            if !stat.linkname.is_empty() {
                return Ok(Made::Link);
            }
            if kind == Some(FileType::RegularFile) {
                let is_same = there.as_ref().is_some_and(|there| is_same_file(there, stat))
                    && xattrs_at(directory, name)? == kept_xattrs(stat);
                return Ok(if is_same { Made::Done } else { Made::Wanted });
            }
            remove()?;
            return Ok(Made::Wanted);
        }
        let times = timestamps(modified(stat));
        match kind_wanted {
            go_mode::SYMLINK => {
                let is_same = kind == Some(FileType::Symlink)
                    && rustix::fs::readlinkat(directory, name, Vec::new())?.as_bytes()
                        == stat.linkname.as_bytes();
                if !is_same {
                    remove()?;
                    rustix::fs::symlinkat(stat.linkname.as_str(), directory, name)?;
                }
            }
            go_mode::PIPE => {
                remove()?;
                rustix::fs::mknodat(directory, name, FileType::Fifo, mode, 0)?;
            }
            // Of sockets, nothing is made.
            go_mode::SOCKET => return Ok(Made::Nothing),
            kind if kind & go_mode::DEVICE != 0 => {
                remove()?;
                let kind = match kind & go_mode::CHARACTER {
                    0 => FileType::BlockDevice,
                    _ => FileType::CharacterDevice,
                };
                let number = |number: i64| u32::try_from(number).map_err(|_| Errno::INVAL);
                let device = rustix::fs::makedev(number(stat.devmajor)?, number(stat.devminor)?);
                rustix::fs::mknodat(directory, name, kind, mode, device)?;
            }
            _ => return Err(Errno::INVAL.into()),
        }
        if kind_wanted != go_mode::SYMLINK {
            // As a mode given to the kernel passes the umask.
            rustix::fs::chmodat(directory, name, mode, AtFlags::empty())?;
        }
        rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Made::Done)
    }

    /// Opens the directory of a path.
    fn parent_of<'a>(&self, path: &'a str) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
        let parent = open_beneath(self.root.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok((parent, OsStr::new(name)))
    }

    fn failed(&self, path: &str, stat: &Stat, error: io::Error) -> CallerError {
        let is_device = stat.mode & go_mode::DEVICE != 0;
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::PERM) if is_device => CallerError::Device { path: path.to_owned() },
            Some(Errno::INVAL) if is_device || stat.mode & go_mode::TYPE == go_mode::IRREGULAR => {
                hostile(format!("{path:?} as a kind of file that does not exist"))
            }
            _ => self.write_error(Path::new(path), error),
        }
    }

    fn write_error(&self, path: &Path, source: io::Error) -> CallerError {
        if source.get_ref().is_some_and(|inner| inner.is::<NoCapability>()) {
            return CallerError::Capability { path: path.display().to_string(), source };
        }
        CallerError::Write { path: self.path.join(path), source }
    }
}

/// What became of an entry.
enum Made {
    /// It is nothing that is made.
    Nothing,
    /// It is as it should be.
    Done,
    Link,
    Directory(OwnedFd),
    /// A file whose bytes are needed.
    Wanted,
}

/// Why a file can't have its capabilities here.
#[derive(Debug, thiserror::Error)]
#[error("its capabilities (security.capability) can't be set here: {0}")]
struct NoCapability(Errno);

impl Attributes {
    fn set_on(&self, file: impl AsFd) -> io::Result<()> {
        let file = file.as_fd();
        for (name, value) in &self.xattrs {
            match rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
                Ok(()) => {}
                // Without it the program in the image would not do what it does at the client.
                Err(error) if name == CAPABILITY => return Err(io::Error::other(NoCapability(error))),
                // What this file system or user can't have, a context has not.
                Err(Errno::PERM | Errno::NOTSUP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode))?;
        Ok(rustix::fs::futimens(file, &timestamps(self.modified))?)
    }
}

fn attributes(stat: &Stat) -> Result<Attributes, CallerError> {
    let size: usize = stat.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > MAX_XATTR_BYTES {
        return Err(hostile(format!("{:?} with xattrs of over {MAX_XATTR_BYTES} bytes", stat.path)));
    }
    let mode = go_mode::permissions(stat.mode);
    Ok(Attributes { mode, modified: modified(stat), xattrs: kept_xattrs(stat) })
}

/// Returns those xattrs of an entry that a context has: capabilities and the user's, save for the ones that mean
/// something in a layer's directory.
fn kept_xattrs(stat: &Stat) -> BTreeMap<String, Vec<u8>> {
    let kept = stat.xattrs.iter().filter(|(name, _)| is_kept_xattr(name));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn is_kept_xattr(name: &str) -> bool {
    let is_of_user = name.starts_with("user.") && !name.starts_with("user.overlay.");
    (is_of_user || name == CAPABILITY) && !name.contains('\0')
}

fn xattrs_at(directory: &OwnedFd, name: &OsStr) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut xattrs = BTreeMap::new();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        // Its mode lets even its owner not look: it has none that we have given it.
        Err(Errno::ACCESS) => return Ok(xattrs),
        file => file?,
    };
    let mut list = vec![0; MAX_XATTR_BYTES];
    let count = match rustix::fs::flistxattr(&file, list.as_mut_slice()) {
        Err(Errno::NOTSUP) => 0,
        count => count?,
    };
    for name in list[..count].split(|byte| *byte == 0) {
        let Some(name) = std::str::from_utf8(name).ok().filter(|name| is_kept_xattr(name)) else { continue };
        let mut value = vec![0; MAX_XATTR_BYTES];
        let count = rustix::fs::fgetxattr(&file, name, value.as_mut_slice())?;
        value.truncate(count);
        xattrs.insert(name.to_owned(), value);
    }
    Ok(xattrs)
}

/// Tells whether a file is the one that the client has, by all that its metadata tells.
fn is_same_file(there: &rustix::fs::Stat, stat: &Stat) -> bool {
    let time = modified(stat);
    there.st_size == stat.size
        && there.st_mode & 0o7777 == go_mode::permissions(stat.mode)
        && there.st_mtime == time.tv_sec
        && i64::try_from(there.st_mtime_nsec) == Ok(time.tv_nsec)
}

fn modified(stat: &Stat) -> Timespec {
    const SECOND: i64 = 1_000_000_000;
    Timespec { tv_sec: stat.mod_time.div_euclid(SECOND), tv_nsec: stat.mod_time.rem_euclid(SECOND) }
}

fn timestamps(time: Timespec) -> Timestamps {
    Timestamps { last_access: time, last_modification: time }
}

fn open_beneath(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // The kernel asks to try again when a rename elsewhere may have raced with the lookup.
            Err(Errno::AGAIN) if tries < 128 => tries += 1,
            opened => return Ok(opened?),
        }
    }
}

fn unlink(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn names(directory: &OwnedFd) -> io::Result<HashSet<OsString>> {
    let mut names = HashSet::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.insert(OsString::from_vec(name.to_vec()));
        }
    }
    Ok(names)
}

fn hostile(problem: String) -> CallerError {
    CallerError::Hostile { what: WHAT, problem }
}

#[cfg(test)]
mod tests;
