// SPDX-License-Identifier: Apache-2.0
//! Mounts that are not attached yet, and attaching them by descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::resolve::{Kind, resolve};
use crate::MemoryFile;
use crate::failure::{Failure, Step};
use crate::kernel::{MOUNT_NO_EXEC, MOUNT_READ_ONLY, set_mount_attributes};

/// A mount that waits for its place.
#[derive(Debug)]
pub(super) struct Source {
    /// The detached mount.
    pub(super) tree: OwnedFd,
    /// What its target must be.
    pub(super) kind: Kind,
}

/// What will be mounted, found while the paths of the host can still be named.
#[derive(Debug)]
pub(super) enum Origin {
    /// A directory or a file that exists, with what is mounted beneath it.
    Existing {
        /// Open as a path.
        fd: OwnedFd,
        /// What it is.
        kind: Kind,
        /// What the mount gets (`MOUNT_…`), as those beneath it.
        attributes: u64,
        /// Whether what is mounted beneath comes along.
        is_recursive: bool,
    },
    /// An empty tmpfs that everybody may write to; 0 is the kernel's own limit.
    Tmpfs {
        /// The limit.
        size_bytes: u64,
    },
}

impl Origin {
    /// A path of the host.
    pub(super) fn existing(path: &Path, read_only: bool) -> Result<Origin, Failure> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).at("open the source of a mount,", path)?;
        Origin::opened(fd, path, read_only, true)
    }

    /// A path of a tree that somebody else has filled; no link leads out of it.
    pub(super) fn within(tree: BorrowedFd<'_>, path: &Path, read_only: bool) -> Result<Origin, Failure> {
        let fd = resolve(tree, path)?.into_found().ok_or(Errno::NOENT);
        // Other trees are mounted on top of this one: they must not come along.
        Origin::opened(fd.at("open the source of a mount,", path)?, path, read_only, false)
    }

    fn opened(fd: OwnedFd, path: &Path, read_only: bool, is_recursive: bool) -> Result<Origin, Failure> {
        let stat = fstat(&fd).at("examine the source of a mount,", path)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let kind = if is_directory { Kind::Directory } else { Kind::File };
        let attributes = if read_only { MOUNT_READ_ONLY } else { 0 };
        Ok(Origin::Existing { fd, kind, attributes, is_recursive })
    }

    /// What the target must be.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Origin::Existing { kind, .. } => *kind,
            Origin::Tmpfs { .. } => Kind::Directory,
        }
    }

    /// Makes the mount, not attached yet.
    pub(super) fn to_source(&self, target: &Path) -> Result<Source, Failure> {
        let tree = match self {
            Origin::Existing { fd, attributes, is_recursive, .. } => {
                let tree = copy(fd.as_fd(), Path::new(""), *is_recursive).at("copy the mount for", target)?;
                if *attributes != 0 {
                    set_mount_attributes(tree.as_fd(), *attributes, true)
                        .at("protect the mount at", target)?;
                }
                tree
            }
            Origin::Tmpfs { size_bytes } => {
                let size = size_bytes.to_string();
                let mut options = vec![("mode", "1777")];
                if *size_bytes > 0 {
                    options.push(("size", &size));
                }
                let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
                file_system("tmpfs", &options, attributes).at("make a tmpfs for", target)?
            }
        };
        Ok(Source { tree, kind: self.kind() })
    }
}

/// Makes a new file system.
pub(super) fn file_system(
    name: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What the first column of /proc/mounts shows.
    fsconfig_set_string(context.as_fd(), "source", name)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, *value)?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Copies the mount of `path` below `directory`; `is_recursive` includes the mounts beneath.
pub(super) fn copy(directory: BorrowedFd<'_>, path: &Path, is_recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if is_recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(directory, path, flags)
}

/// Files with the given contents, in memory, for everybody to read and root to change.
pub(super) fn files<'a>(
    scratch: &Path,
    contents: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Origin>, Failure> {
    let contents: Vec<&[u8]> = contents.collect();
    let memory = Memory::attached(scratch, &contents)?;
    let file = |(index, content): (usize, &&[u8])| {
        let fd = memory.write(index, content, 0o644, None)?;
        Ok(Origin::Existing { fd, kind: Kind::File, attributes: 0, is_recursive: false })
    };
    contents.iter().enumerate().map(file).collect()
}

/// Files that nobody may change, with mode and owner.
pub(super) fn memory_files(scratch: &Path, files: &[&MemoryFile]) -> Result<Vec<Origin>, Failure> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let contents: Vec<&[u8]> = files.iter().map(|file| file.content.as_slice()).collect();
    let memory = Memory::attached(scratch, &contents)?;
    let origin = |(index, file): (usize, &&MemoryFile)| {
        let fd = memory.write(index, &file.content, file.mode, Some((file.uid, file.gid)))?;
        let executable = if file.mode & 0o111 == 0 { MOUNT_NO_EXEC } else { 0 };
        let attributes = MOUNT_READ_ONLY | executable;
        Ok(Origin::Existing { fd, kind: Kind::File, attributes, is_recursive: false })
    };
    files.iter().enumerate().map(origin).collect()
}

/// A file system in memory, attached where nothing else is.
struct Memory {
    tree: OwnedFd,
    place: PathBuf,
}

impl Memory {
    const STEP: &str = "keep files in memory at";

    fn attached(scratch: &Path, contents: &[&[u8]]) -> Result<Memory, Failure> {
        let step = Memory::STEP;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        // Whole pages, and some for the directory.
        let size: usize = contents.iter().map(|content| content.len() + (64 << 10)).sum();
        let size = (size + (1 << 20)).to_string();
        let tree = file_system("tmpfs", &[("mode", "755"), ("size", &size)], attributes).at(step, scratch)?;
        // Older kernels copy only from mounts that are attached somewhere; this goes away with the old root.
        let place = scratch.join("files");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let target = rustix::fs::open(&place, flags, Mode::empty()).at(step, &place)?;
        attach(tree.as_fd(), target.as_fd(), &place)?;
        Ok(Memory { tree, place })
    }

    fn write(
        &self,
        index: usize,
        content: &[u8],
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<OwnedFd, Failure> {
        let (step, place, name) = (Memory::STEP, &self.place, index.to_string());
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.tree, &name, flags, Mode::from_raw_mode(0o600)).at(step, place)?;
        write_all(file.as_fd(), content).at(step, place)?;
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .at("give a file of a mount to", format!("user {uid}, group {gid}"))?;
        }
        fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).at(step, place)?;
        openat(&self.tree, &name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(step, place)
    }
}

fn write_all(file: BorrowedFd<'_>, mut content: &[u8]) -> Result<(), Errno> {
    while !content.is_empty() {
        let written = rustix::io::write(file, content)?;
        content = &content[written..];
    }
    Ok(())
}

/// Mounts `tree` on what `target` is open at.
pub(super) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &Path) -> Result<(), Failure> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target, "", flags).at("mount on", name)
}
