// SPDX-License-Identifier: Apache-2.0
//! A directory tree seen through one file descriptor: no path given to it ever leaves it.
//!
//! Paths are cleaned by their text (a leading slash means nothing, `..` stops at the root) and then
//! resolved by the kernel as if the tree's root were `/`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::attributes::{Attributes, Xattrs, timestamps};
use crate::error::{At, SnapshotError};
pub use crate::meta::Kind;
use crate::meta::{Meta, Time, names, open_host_directory, read_link, unlink};
use crate::records::{Record, Records};
use crate::remove::remove_tree;
use crate::resolve::{Place, clean, find_place, open_in_root, split, walk_to};
use crate::stack::{Effective, Stack};

/// Mode of directories that are made because something needs them.
const IMPLIED_DIRECTORY_MODE: u32 = 0o755;

/// What is known about a directory entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// The permission bits with setuid, setgid and sticky: octal 0 to 7777.
    pub mode: u32,
    /// The user that owns it.
    pub uid: u32,
    /// The group that owns it.
    pub gid: u32,
    /// Size of the content, or of the link target.
    pub size_bytes: u64,
    /// When its content last changed.
    pub modified: SystemTime,
}

/// A directory tree; every path is resolved as if this directory were `/`.
///
/// Clones share the descriptor; what backs the tree (a mount, a temporary copy) goes with the last one.
#[derive(Debug, Clone)]
pub struct TreeRoot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // Fields are dropped in this order: the directory before what backs it.
    directory: OwnedFd,
    _backing: Backing,
    /// Where the tree's owners and devices stand that the disk cannot express.
    notes: Notes,
}

/// What has to live as long as the tree is used.
#[derive(Debug)]
pub(crate) enum Backing {
    /// Nothing: a directory of somebody else.
    None,
    /// A mount that is in no namespace and ends with this descriptor.
    Mount { _mount: OwnedFd },
    /// A copy made for this tree; removed when dropped.
    Temporary { _directory: crate::workspace::Workspace },
}

/// Where records of a tree are read and written.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The layers whose merged tree this is, or on which it is based.
    pub(crate) layers: Stack,
    /// The records of the layer being written; `None` for trees that are only read.
    pub(crate) own: Option<Arc<Mutex<Records>>>,
}

impl TreeRoot {
    /// Opens a directory of the host, for instance a build context.
    pub fn open(path: &Path) -> Result<TreeRoot, SnapshotError> {
        let directory = open_host_directory(path).at("open directory", path)?;
        Ok(TreeRoot::new(directory, Backing::None, Notes::default()))
    }

    pub(crate) fn new(directory: OwnedFd, backing: Backing, notes: Notes) -> TreeRoot {
        TreeRoot(Arc::new(Inner { directory, _backing: backing, notes }))
    }

    /// Reads a whole file, following symlinks inside the tree; more than `cap` bytes is an error.
    pub fn read(&self, path: impl AsRef<Path>, cap: u64) -> Result<Vec<u8>, SnapshotError> {
        let path = path.as_ref();
        let file = self.open_file(path)?;
        let mut bytes = Vec::new();
        file.take(cap.saturating_add(1)).read_to_end(&mut bytes).at("read", path)?;
        if bytes.len() as u64 > cap {
            return Err(SnapshotError::Limit { what: "file size", limit: cap, path: path.to_owned() });
        }
        Ok(bytes)
    }

    /// Opens a regular file for reading, following symlinks inside the tree.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<File, SnapshotError> {
        let path = path.as_ref();
        // Without O_NONBLOCK opening a named pipe would wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = open_in_root(self.as_fd(), &clean(path), flags).at("open", path)?;
        match Meta::of(&file).at("look at", path)?.kind {
            Kind::File => Ok(File::from(file)),
            Kind::Directory => Err(io::Error::from(io::ErrorKind::IsADirectory)).at("read", path),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")).at("read", path),
        }
    }

    /// Returns what a path leads to, following symlinks inside the tree; `None` when nothing is there.
    pub fn metadata(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, SnapshotError> {
        let path = path.as_ref();
        let Some(file) =
            nothing_there(open_in_root(self.as_fd(), &clean(path), OFlags::PATH)).at("open", path)?
        else {
            return Ok(None);
        };
        let meta = Meta::of(&file).at("look at", path)?;
        let owner = self.recorded_owner(&clean(path), &meta)?;
        Ok(Some(Metadata::new(&meta, owner)))
    }

    /// Returns what stands at a path itself, a symlink included; `None` when nothing is there.
    pub fn symlink_metadata(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, SnapshotError> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let Some(file) = nothing_there(open_in_root(self.as_fd(), &clean(path), flags)).at("open", path)?
        else {
            return Ok(None);
        };
        let meta = Meta::of(&file).at("look at", path)?;
        let owner = self.recorded_owner(&clean(path), &meta)?;
        Ok(Some(Metadata::new(&meta, owner)))
    }

    /// Tells whether a path leads to anything, following symlinks inside the tree.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        open_in_root(self.as_fd(), &clean(path.as_ref()), OFlags::PATH).is_ok()
    }

    /// Returns the target of a symlink.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf, SnapshotError> {
        let path = path.as_ref();
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let link = open_in_root(self.as_fd(), &clean(path), flags).at("open", path)?;
        read_link(&link, "").map(PathBuf::from).at("read link", path)
    }

    /// Lists the names in a directory with what they are, sorted by bytes.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<(OsString, Kind)>, SnapshotError> {
        let path = path.as_ref();
        let directory =
            open_in_root(self.as_fd(), &clean(path), OFlags::RDONLY | OFlags::DIRECTORY).at("open", path)?;
        let mut entries = Vec::new();
        for name in names(&directory).at("list", path)? {
            if let Some(meta) = Meta::find(&directory, &name).at("look at", path.join(&name))? {
                entries.push((name, meta.kind));
            }
        }
        Ok(entries)
    }

    /// Returns where a path leads, free of symlinks and relative to the tree's root; `None` when
    /// nothing is there.
    pub fn real_path(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>, SnapshotError> {
        let path = path.as_ref();
        self.locate(&clean(path)).at("resolve", path)
    }

    /// Makes a directory and those above it that are missing; existing ones stay as they are.
    pub fn mkdir_all(
        &self,
        path: impl AsRef<Path>,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<(), SnapshotError> {
        self.make_place(path.as_ref(), mode, owner).map(drop)
    }

    /// Writes a file anew (an existing file or symlink at the path is replaced), with missing
    /// directories above it made with mode 0755 and the same owner.
    pub fn write_file(
        &self,
        path: impl AsRef<Path>,
        bytes: &[u8],
        mode: u32,
        owner: (u32, u32),
    ) -> Result<(), SnapshotError> {
        let path = path.as_ref();
        let (place, name) = self.vacate(path, owner)?;
        let file = create_file(place.as_fd(), &name).at("create", path)?;
        let mut file = File::from(file);
        file.write_all(bytes).at("write", path)?;
        let attributes = Attributes { owner, mode, mtime: None, xattrs: &[] };
        let record = attributes.set_on(&file).at("set attributes of", path)?;
        self.note(&place.path.join(&name), record);
        Ok(())
    }

    /// Makes a symlink; an existing file or symlink at the path is replaced.
    pub fn symlink(
        &self,
        target: impl AsRef<Path>,
        path: impl AsRef<Path>,
        owner: (u32, u32),
    ) -> Result<(), SnapshotError> {
        let path = path.as_ref();
        let (place, name) = self.vacate(path, owner)?;
        rustix::fs::symlinkat(target.as_ref(), &place.directory, &name).at("create symlink", path)?;
        let attributes = Attributes { owner, mode: 0o777, mtime: None, xattrs: &[] };
        let record = attributes.set_at(place.as_fd(), &name, true).at("set attributes of", path)?;
        self.note(&place.path.join(&name), record);
        Ok(())
    }

    /// Removes whatever stands at a path, a directory with all in it; nothing there is no error.
    ///
    /// The root itself cannot be removed.
    pub fn remove(&self, path: impl AsRef<Path>) -> Result<(), SnapshotError> {
        let path = path.as_ref();
        let cleaned = clean(path);
        let Some((parent, name)) = split(&cleaned) else {
            return Err(io::Error::from(Errno::BUSY)).at("remove", path);
        };
        let Some(place) = find_place(self.as_fd(), parent).at("resolve", path)? else { return Ok(()) };
        remove_tree(place.as_fd(), name).at("remove", path)?;
        self.forget(&place.path.join(name));
        Ok(())
    }

    /// Sets the modification time of what stands at a path itself.
    pub fn set_modified(&self, path: impl AsRef<Path>, time: SystemTime) -> Result<(), SnapshotError> {
        let path = path.as_ref();
        let cleaned = clean(path);
        let times = timestamps(Time::from(time));
        let Some((parent, name)) = split(&cleaned) else {
            return rustix::fs::futimens(self.as_fd(), &times).at("set the time of", path);
        };
        let place = open_in_root(self.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY).at("open", path)?;
        rustix::fs::utimensat(&place, name, &times, AtFlags::SYMLINK_NOFOLLOW).at("set the time of", path)
    }

    /// Walks to a directory, making what is missing.
    pub(crate) fn make_place(
        &self,
        path: &Path,
        mode: u32,
        owner: (u32, u32),
    ) -> Result<Place, SnapshotError> {
        let attributes = Attributes { owner, mode, mtime: None, xattrs: &[] };
        let made = walk_to(self.as_fd(), &clean(path), &mut |place, name, _| {
            rustix::fs::mkdirat(&place.directory, name, Mode::RWXU)?;
            let directory = crate::meta::open_directory(&place.directory, name)?;
            let record = attributes.set_on(&directory)?;
            self.note(&place.path.join(name), record);
            Ok::<(), io::Error>(())
        });
        made.at("create directory", path)
    }

    /// Makes room for a new node at a path: its directory is there afterwards, and no file or link.
    fn vacate(&self, path: &Path, owner: (u32, u32)) -> Result<(Place, OsString), SnapshotError> {
        let cleaned = clean(path);
        let Some((parent, name)) = split(&cleaned) else {
            return Err(io::Error::from(Errno::ISDIR)).at("write", path);
        };
        let place = self.make_place(parent, IMPLIED_DIRECTORY_MODE, owner)?;
        unlink(place.as_fd(), name).at("replace", path)?;
        self.forget(&place.path.join(name));
        Ok((place, name.to_owned()))
    }

    /// Returns the real path of what a cleaned path leads to.
    fn locate(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        let mut path = path.to_owned();
        for _ in 0..40 {
            let Some((parent, name)) = split(&path) else { return Ok(Some(path)) };
            let Some(place) = find_place(self.as_fd(), parent)? else { return Ok(None) };
            let Some(meta) = Meta::find(&place, name)? else { return Ok(None) };
            if meta.kind != Kind::Symlink {
                return Ok(Some(place.path.join(name)));
            }
            let target = PathBuf::from(read_link(&place, name)?);
            // Not cleaned before the parent is resolved: `..` in a target goes up from its real place.
            path = match target.strip_prefix("/") {
                Ok(absolute) => clean(absolute),
                Err(_) => clean(&place.path.join(target)),
            };
        }
        Err(io::Error::from(Errno::LOOP))
    }

    /// Completes what the disk says of the node at a real path by what the layers record.
    pub(crate) fn effective(
        &self,
        path: &Path,
        meta: &Meta,
        xattrs: Xattrs,
    ) -> Result<Effective, SnapshotError> {
        let notes = &self.0.notes;
        match &notes.own {
            None => notes.layers.effective_merged(path, meta, xattrs),
            Some(own) => {
                let own = own.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
                notes.layers.effective(own.as_ref(), path, meta, xattrs)
            }
        }
    }

    fn recorded_owner(&self, path: &Path, meta: &Meta) -> Result<(u32, u32), SnapshotError> {
        let has_records = match &self.0.notes.own {
            None => !self.0.notes.layers.has_no_records(),
            Some(own) => {
                !self.0.notes.layers.has_no_records()
                    || !own.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
            }
        };
        if !has_records {
            return Ok((meta.uid, meta.gid));
        }
        let real = self.locate(path).at("resolve", path)?.unwrap_or_else(|| path.to_owned());
        Ok(self.effective(&real, meta, Vec::new())?.owner)
    }

    /// Keeps what the disk could not express of the node at a real path.
    pub(crate) fn note(&self, path: &Path, record: Record) {
        if let Some(own) = &self.0.notes.own {
            own.lock().unwrap_or_else(PoisonError::into_inner).set(path, record);
        }
    }

    /// Drops what was kept of a real path and all beneath it.
    pub(crate) fn forget(&self, path: &Path) {
        if let Some(own) = &self.0.notes.own {
            own.lock().unwrap_or_else(PoisonError::into_inner).forget(path);
        }
    }
}

impl AsFd for TreeRoot {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.directory.as_fd()
    }
}

impl Metadata {
    fn new(meta: &Meta, (uid, gid): (u32, u32)) -> Metadata {
        Metadata {
            kind: meta.kind,
            mode: meta.mode,
            uid,
            gid,
            size_bytes: meta.size,
            modified: meta.mtime.system_time(),
        }
    }
}

/// Makes a new, empty file for writing; the name must be free.
pub(crate) fn create_file(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?)
}

/// Turns "no such file" and "a part is no directory" into `None`.
fn nothing_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn nothing_is_read_or_written_outside_the_root() {
        let base = tempfile::tempdir().unwrap();
        let inside = base.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(base.path().join("secret"), "secret").unwrap();
        symlink("..", inside.join("up")).unwrap();
        symlink(base.path(), inside.join("absolute")).unwrap();
        symlink("../secret", inside.join("file")).unwrap();
        let tree = TreeRoot::open(&inside).unwrap();
        for path in ["../secret", "up/secret", "absolute/secret", "file", "/../secret"] {
            assert!(tree.read(path, 100).is_err(), "{path}");
            assert!(!tree.exists(path), "{path}");
        }
        tree.write_file("file", b"mine", 0o600, (0, 0)).unwrap();
        tree.write_file("up/secret", b"mine", 0o600, (0, 0)).unwrap();
        tree.write_file("../../secret", b"mine too", 0o600, (0, 0)).unwrap();
        assert_eq!(std::fs::read(base.path().join("secret")).unwrap(), b"secret");
        assert_eq!(tree.read("secret", 100).unwrap(), b"mine too");
        assert_eq!(tree.read("/file", 100).unwrap(), b"mine");
        tree.remove("up").unwrap();
        tree.remove("absolute").unwrap();
        assert!(inside.exists() && base.path().join("secret").exists());
    }

    #[test]
    fn reading_is_capped_and_pipes_do_not_block() {
        let base = tempfile::tempdir().unwrap();
        let tree = TreeRoot::open(base.path()).unwrap();
        tree.write_file("a", &[0; 100], 0o644, (0, 0)).unwrap();
        assert!(tree.read("a", 100).is_ok());
        assert!(matches!(tree.read("a", 99), Err(SnapshotError::Limit { limit: 99, .. })));
        rustix::fs::mkfifoat(&tree, "pipe", Mode::RWXU).unwrap();
        assert!(tree.read("pipe", 100).is_err());
        assert!(tree.read(".", 100).is_err());
    }

    #[test]
    fn directories_are_made_where_missing_and_through_symlinks() {
        let base = tempfile::tempdir().unwrap();
        let tree = TreeRoot::open(base.path()).unwrap();
        std::fs::create_dir(base.path().join("real")).unwrap();
        std::fs::set_permissions(base.path().join("real"), std::fs::Permissions::from_mode(0o700)).unwrap();
        symlink("real", base.path().join("link")).unwrap();
        symlink("/later/on", base.path().join("dangling")).unwrap();
        tree.mkdir_all("/link/a/b", 0o2750, (0, 0)).unwrap();
        tree.mkdir_all("dangling/x", 0o755, (0, 0)).unwrap();
        let mode = |path: &str| std::fs::metadata(base.path().join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("real"), mode("real/a/b")), (0o700, 0o2750));
        assert!(base.path().join("later/on/x").is_dir());
        tree.write_file("plain", b"", 0o644, (0, 0)).unwrap();
        assert!(tree.mkdir_all("plain/a", 0o755, (0, 0)).is_err());
    }

    #[test]
    fn metadata_tells_links_from_what_they_lead_to() {
        let base = tempfile::tempdir().unwrap();
        let tree = TreeRoot::open(base.path()).unwrap();
        tree.write_file("etc/conf", b"12345", 0o4640, (0, 0)).unwrap();
        tree.symlink("../etc/conf", "d/link", (0, 0)).unwrap();
        let followed = tree.metadata("d/link").unwrap().unwrap();
        assert_eq!((followed.kind, followed.size_bytes, followed.mode), (Kind::File, 5, 0o4640));
        assert_eq!(tree.symlink_metadata("d/link").unwrap().unwrap().kind, Kind::Symlink);
        assert_eq!(tree.read_link("d/link").unwrap(), Path::new("../etc/conf"));
        assert_eq!(tree.real_path("d/link").unwrap().unwrap(), Path::new("etc/conf"));
        assert!(tree.metadata("nowhere/at/all").unwrap().is_none());
        assert!(tree.metadata("etc/conf/below").unwrap().is_none());
        assert_eq!(
            tree.read_dir("/").unwrap(),
            [(OsString::from("d"), Kind::Directory), (OsString::from("etc"), Kind::Directory)]
        );
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        tree.set_modified("etc/conf", time).unwrap();
        assert_eq!(tree.metadata("etc/conf").unwrap().unwrap().modified, time);
    }
}
