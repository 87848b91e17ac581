// SPDX-License-Identifier: Apache-2.0
//! Unpacking a tar archive beneath a directory, whatever the archive tries.
//!
//! Names are cleaned by their text, parent directories are resolved with symlinks staying inside the
//! root, and the last name is never followed. A later entry replaces an earlier one of another type.
//! As a layer (image-spec, layer.md, "Whiteouts") names that begin with `.wh.` are marks; as a plain
//! archive they are names like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::attributes::{Attributes, Xattrs, set_opaque};
use crate::error::{At, SnapshotError};
use crate::layer_stream::ApplyLimits;
use crate::meta::{Kind, Meta, Time, open_directory};
use crate::nodes::{make_device, make_whiteout};
use crate::records::Records;
use crate::remove::remove_tree;
use crate::resolve::{Place, clean, find_place, open_without_symlinks, split, walk_to};
use crate::tar_read::{Body, TarEntry, TarReader};
use crate::tree::create_file;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const WHITEOUT_META_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
const COPY_BUFFER_BYTES: usize = 128 << 10;

/// What the archive's names mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// An image layer: `.wh.` names are whiteouts, and parents may be missing.
    Layer,
    /// An ordinary archive.
    Plain {
        /// The owner of everything; `None` keeps what the archive says.
        owner: Option<(u32, u32)>,
    },
}

/// What a directory is to have once everything in it is there.
#[derive(Debug, Clone)]
pub(crate) struct DirectoryAttributes {
    pub(crate) owner: (u32, u32),
    pub(crate) mode: u32,
    pub(crate) mtime: Option<Time>,
    pub(crate) xattrs: Xattrs,
}

/// Unpacks one archive; what can only be done at the end is remembered until [`Unpacker::settle`].
#[derive(Debug)]
pub(crate) struct Unpacker {
    root: OwnedFd,
    meaning: Meaning,
    limits: ApplyLimits,
    written_bytes: u64,
    /// How much is kept in memory until the end.
    remembered_bytes: u64,
    /// The place that the last entry went to, by its cleaned path.
    last_place: Option<(PathBuf, Place)>,
    /// Attributes of directories: creating entries would change their times again.
    pub(crate) directories: BTreeMap<PathBuf, DirectoryAttributes>,
    /// Directories that the archive needs and does not describe.
    pub(crate) implied: BTreeSet<PathBuf>,
    /// Directories that hide those of lower layers.
    pub(crate) opaque: BTreeSet<PathBuf>,
    /// Hard links to what the archive does not contain: path and target.
    pub(crate) links_below: BTreeMap<PathBuf, PathBuf>,
    pub(crate) records: Records,
}

impl Unpacker {
    /// Starts to unpack beneath an open directory.
    pub(crate) fn new(root: OwnedFd, meaning: Meaning, limits: &ApplyLimits) -> Unpacker {
        Unpacker {
            root,
            meaning,
            limits: limits.clone(),
            written_bytes: 0,
            remembered_bytes: 0,
            last_place: None,
            directories: BTreeMap::new(),
            implied: BTreeSet::new(),
            opaque: BTreeSet::new(),
            links_below: BTreeMap::new(),
            records: Records::default(),
        }
    }

    /// Unpacks all entries.
    pub(crate) fn unpack<R: Read>(&mut self, reader: &mut TarReader<R>) -> Result<(), SnapshotError> {
        while let Some(entry) = reader.next_entry()? {
            self.entry(entry, reader)?;
        }
        Ok(())
    }

    /// Gives directories their attributes, the deepest first. Nothing may be unpacked afterwards.
    pub(crate) fn settle(&mut self) -> Result<(), SnapshotError> {
        for (path, attributes) in self.directories.iter().rev() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let directory = open_without_symlinks(self.root.as_fd(), path, flags).at("open", path)?;
            let attributes = Attributes {
                owner: attributes.owner,
                mode: attributes.mode,
                mtime: attributes.mtime,
                xattrs: &attributes.xattrs,
            };
            let record = attributes.set_on(&directory).at("set attributes of", path)?;
            self.records.set(path, record);
        }
        Ok(())
    }

    /// Returns the open root.
    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    fn entry<R: Read>(&mut self, entry: TarEntry, reader: &mut TarReader<R>) -> Result<(), SnapshotError> {
        let path = clean(&entry.path);
        if path.components().count() as u64 > u64::from(self.limits.max_depth) {
            let limit = u64::from(self.limits.max_depth);
            return Err(SnapshotError::Limit { what: "depth of a path", limit, path });
        }
        self.remember(&entry)?;
        let Some((parent, name)) = split(&path) else {
            if entry.body == Body::Directory {
                let attributes = self.directory_attributes(entry);
                self.directories.insert(PathBuf::new(), attributes);
                return Ok(());
            }
            return Err(refuse(&entry, "would replace the root directory"));
        };
        if self.meaning == Meaning::Layer && name.as_bytes().starts_with(WHITEOUT_PREFIX) {
            return self.mark(&entry, parent, name);
        }
        self.go_to(parent, &entry)?;
        let Some((_, place)) = &self.last_place else { return Ok(()) };
        let real = place.path.join(name);
        let link = match &entry.body {
            Body::HardLink(target) => Some(self.link_target(&entry, target, &real)?),
            _ => None,
        };
        if matches!(link, Some(LinkTarget::Itself)) {
            return Ok(());
        }
        let is_over_whiteout = self.make_room(&real, name, &entry)?;
        let Some((_, place)) = &self.last_place else { return Ok(()) };
        let directory = place.as_fd();
        let is_single = !matches!(entry.body, Body::Directory);
        let attributes = Attributes {
            owner: self.owner(&entry),
            mode: entry.mode,
            mtime: Some(entry.mtime),
            xattrs: &entry.xattrs,
        };
        let record = match &entry.body {
            Body::File { size, parts } => {
                self.written_bytes = self.written_bytes.saturating_add(*size);
                if self.written_bytes > self.limits.max_bytes {
                    let limit = self.limits.max_bytes;
                    return Err(SnapshotError::Limit { what: "unpacked size", limit, path });
                }
                let file = create_file(directory, name).at("create", &path)?;
                let mut file = std::fs::File::from(file);
                write_content(&mut file, reader, *size, parts.as_deref(), &path)?;
                attributes.set_on(&file).at("set attributes of", &path)?
            }
            Body::Directory => {
                if Meta::find(place, name).at("look at", &path)?.is_none() {
                    rustix::fs::mkdirat(directory, name, Mode::RWXU).at("create directory", &path)?;
                }
                if is_over_whiteout {
                    let made = open_directory(directory, name).at("open", &path)?;
                    set_opaque(&made).at("mark as opaque", &path)?;
                    self.opaque.insert(real.clone());
                }
                Default::default()
            }
            Body::Symlink(target) => {
                rustix::fs::symlinkat(target, directory, name).at("create symlink", &path)?;
                attributes.set_at(directory, name, true).at("set attributes of", &path)?
            }
            Body::HardLink(_) => match link {
                Some(LinkTarget::Here(target, target_name)) => {
                    rustix::fs::linkat(&target, target_name.as_os_str(), directory, name, AtFlags::empty())
                        .at("create hard link", &path)?;
                    self.records.get(&target.path.join(&target_name)).cloned().unwrap_or_default()
                }
                Some(LinkTarget::Below(target)) => {
                    self.links_below.insert(real, target);
                    return Ok(());
                }
                Some(LinkTarget::Itself) | None => return Ok(()),
            },
            Body::CharDevice(major, minor) => {
                make_device(directory, name, Kind::CharDevice, (*major, *minor), &attributes)
                    .at("create device", &path)?
            }
            Body::BlockDevice(major, minor) => {
                make_device(directory, name, Kind::BlockDevice, (*major, *minor), &attributes)
                    .at("create device", &path)?
            }
            Body::Fifo => {
                rustix::fs::mkfifoat(directory, name, Mode::RUSR | Mode::WUSR).at("create pipe", &path)?;
                attributes.set_at(directory, name, false).at("set attributes of", &path)?
            }
        };
        if is_single {
            self.records.set(&real, record);
        } else {
            self.implied.remove(&real);
            let attributes = self.directory_attributes(entry);
            self.directories.insert(real, attributes);
        }
        Ok(())
    }

    /// Counts what is kept of an entry until the end.
    fn remember(&mut self, entry: &TarEntry) -> Result<(), SnapshotError> {
        let path = match &entry.body {
            Body::Directory => entry.path.as_os_str().len(),
            Body::HardLink(target) => entry.path.as_os_str().len() + target.as_os_str().len(),
            _ => 0,
        };
        // What a disk can't express of a file's attributes is kept as well, so they all count.
        let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.remembered_bytes = self.remembered_bytes.saturating_add((path + xattrs) as u64);
        self.check_remembered(&entry.path)
    }

    fn check_remembered(&self, path: &Path) -> Result<(), SnapshotError> {
        let limit = self.limits.max_remembered_bytes;
        if self.remembered_bytes > limit {
            let what = "size of the paths of directories and links and of the extended attributes";
            return Err(SnapshotError::Limit { what, limit, path: path.to_owned() });
        }
        Ok(())
    }

    /// Handles a name that begins with `.wh.`.
    fn mark(&mut self, entry: &TarEntry, parent: &Path, name: &OsStr) -> Result<(), SnapshotError> {
        let bytes = name.as_bytes();
        if bytes == OPAQUE_MARK {
            self.go_to(parent, entry)?;
            let Some((_, place)) = &self.last_place else { return Ok(()) };
            let directory = open_directory(place, ".").at("open", parent)?;
            set_opaque(&directory).at("mark as opaque", parent)?;
            self.opaque.insert(place.path.clone());
            return Ok(());
        }
        if bytes.starts_with(WHITEOUT_META_PREFIX) {
            // What AUFS kept for itself; no reader gives it a meaning.
            return Ok(());
        }
        let hidden = OsStr::from_bytes(&bytes[WHITEOUT_PREFIX.len()..]);
        if hidden.is_empty() || hidden == "." || hidden == ".." {
            return Err(refuse(entry, "is a whiteout of no name"));
        }
        self.go_to(parent, entry)?;
        let Some((_, place)) = &self.last_place else { return Ok(()) };
        let real = place.path.join(hidden);
        match Meta::find(place, hidden).at("look at", &real)? {
            None => make_whiteout(place.as_fd(), hidden).at("create whiteout", &real),
            // A whiteout concerns lower layers only; what this layer has stays and hides them.
            Some(meta) if meta.is_directory() => {
                let directory = open_directory(place, hidden).at("open", &real)?;
                set_opaque(&directory).at("mark as opaque", &real)?;
                self.implied.remove(&real);
                self.opaque.insert(real);
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    /// Goes to the directory that an entry belongs into, making what is missing of it.
    fn go_to(&mut self, parent: &Path, entry: &TarEntry) -> Result<(), SnapshotError> {
        if self.last_place.as_ref().is_some_and(|(path, _)| path == parent) {
            return Ok(());
        }
        let (owner, mtime) = match self.meaning {
            Meaning::Layer => ((0, 0), Some(Time::default())),
            Meaning::Plain { owner } => (owner.unwrap_or((0, 0)), None),
        };
        let (implied, directories, opaque) = (&mut self.implied, &mut self.directories, &mut self.opaque);
        let remembered_bytes = &mut self.remembered_bytes;
        let place = walk_to(self.root.as_fd(), parent, &mut |place, name, whiteout| {
            let real = place.path.join(name);
            *remembered_bytes = remembered_bytes.saturating_add(real.as_os_str().len() as u64);
            if whiteout.is_some() {
                crate::meta::unlink(place.as_fd(), name)?;
            }
            rustix::fs::mkdirat(&place.directory, name, Mode::RWXU)?;
            if whiteout.is_some() {
                set_opaque(open_directory(place, name)?)?;
                opaque.insert(real.clone());
            } else {
                implied.insert(real.clone());
            }
            directories
                .insert(real, DirectoryAttributes { owner, mode: 0o755, mtime, xattrs: Xattrs::new() });
            Ok::<(), io::Error>(())
        });
        match place {
            Ok(place) => {
                self.last_place = Some((parent.to_owned(), place));
                self.check_remembered(&entry.path)
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(refuse(entry, "lies beneath something that is not a directory"))
            }
            Err(error) => Err(error).at("go to directory", parent),
        }
    }

    /// Removes what stands where an entry goes, unless both are directories; tells whether it was a
    /// whiteout.
    fn make_room(&mut self, real: &Path, name: &OsStr, entry: &TarEntry) -> Result<bool, SnapshotError> {
        self.links_below.remove(real);
        let Some((_, place)) = &self.last_place else { return Ok(false) };
        let Some(meta) = Meta::find(place, name).at("look at", real)? else { return Ok(false) };
        if meta.is_directory() {
            if entry.body == Body::Directory {
                return Ok(false);
            }
            self.directories.retain(|path, _| !path.starts_with(real));
            self.implied.retain(|path| !path.starts_with(real));
            self.opaque.retain(|path| !path.starts_with(real));
            self.links_below.retain(|path, _| !path.starts_with(real));
        }
        remove_tree(place.as_fd(), name).at("replace", real)?;
        self.records.forget(real);
        Ok(self.meaning == Meaning::Layer && meta.is_whiteout())
    }

    /// Finds out what a hard link leads to.
    fn link_target(&self, entry: &TarEntry, target: &Path, real: &Path) -> Result<LinkTarget, SnapshotError> {
        let target = clean(target);
        let Some((parent, name)) = split(&target) else {
            return Err(refuse(entry, "is a hard link to a directory"));
        };
        if let Some(place) = find_place(self.root.as_fd(), parent).at("resolve", &target)? {
            let target_path = place.path.join(name);
            if target_path == real {
                return Ok(LinkTarget::Itself);
            }
            if let Some(below) = self.links_below.get(&target_path) {
                return Ok(LinkTarget::Below(below.clone()));
            }
            match Meta::find(&place, name).at("look at", &target)? {
                Some(meta) if meta.is_directory() => {
                    return Err(refuse(entry, "is a hard link to a directory"));
                }
                Some(meta) if self.meaning == Meaning::Layer && meta.is_whiteout() => {
                    return Err(refuse(entry, "is a hard link to a deleted name"));
                }
                Some(_) => return Ok(LinkTarget::Here(place, name.to_owned())),
                None => {}
            }
        }
        if self.meaning == Meaning::Layer {
            return Ok(LinkTarget::Below(target));
        }
        Err(refuse(entry, &format!("is a hard link to {target:?}, which the archive does not contain")))
    }

    fn owner(&self, entry: &TarEntry) -> (u32, u32) {
        match self.meaning {
            Meaning::Plain { owner: Some(owner) } => owner,
            _ => entry.owner,
        }
    }

    fn directory_attributes(&self, entry: TarEntry) -> DirectoryAttributes {
        DirectoryAttributes {
            owner: self.owner(&entry),
            mode: entry.mode,
            mtime: Some(entry.mtime),
            xattrs: entry.xattrs,
        }
    }
}

#[derive(Debug)]
enum LinkTarget {
    Here(Place, std::ffi::OsString),
    /// In a lower layer, by its cleaned path.
    Below(PathBuf),
    Itself,
}

fn refuse(entry: &TarEntry, problem: &str) -> SnapshotError {
    SnapshotError::Entry { path: entry.path.clone(), problem: problem.to_owned() }
}

/// Writes an entry's content, with holes where its sparse map has them.
fn write_content<R: Read>(
    file: &mut std::fs::File,
    reader: &mut TarReader<R>,
    size: u64,
    parts: Option<&[(u64, u64)]>,
    path: &Path,
) -> Result<(), SnapshotError> {
    let mut buffer = vec![0; COPY_BUFFER_BYTES.min(usize::try_from(size).unwrap_or(usize::MAX))];
    let whole = [(0, size)];
    for &(offset, length) in parts.unwrap_or(&whole) {
        if parts.is_some() {
            io::Seek::seek(file, io::SeekFrom::Start(offset)).at("write", path)?;
        }
        let mut left = length;
        while left > 0 {
            let len = (buffer.len() as u64).min(left) as usize;
            let count = reader
                .read(&mut buffer[..len])
                .map_err(|source| SnapshotError::Stream { action: "read the tar archive", source })?;
            file.write_all(&buffer[..count]).at("write", path)?;
            left -= count as u64;
        }
    }
    if parts.is_some() {
        file.set_len(size).at("write", path)?;
    }
    debug_assert_eq!(reader.content_left(), 0, "the sparse map accounts for all content");
    Ok(())
}
