// SPDX-License-Identifier: Apache-2.0
//! Mounts that are not attached yet, and attaching them by descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::resolve::Kind;
use crate::failure::{Failure, Step};
use crate::kernel::{MOUNT_READ_ONLY, set_mount_attributes};

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
        /// Whether the container may not write to it.
        read_only: bool,
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
        let stat = fstat(&fd).at("examine the source of a mount,", path)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let kind = if is_directory { Kind::Directory } else { Kind::File };
        Ok(Origin::Existing { fd, kind, read_only })
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
            Origin::Existing { fd, read_only, .. } => {
                let tree = copy(fd.as_fd(), Path::new(""), true).at("copy the mount for", target)?;
                if *read_only {
                    set_mount_attributes(tree.as_fd(), MOUNT_READ_ONLY, true).at("make read-only", target)?;
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

/// Files with the given contents, in memory.
pub(super) fn files<'a>(
    scratch: &Path,
    contents: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<Origin>, Failure> {
    let step = "keep the files of /etc in memory at";
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let memory = file_system("tmpfs", &[("mode", "755"), ("size", "16m")], attributes).at(step, scratch)?;
    // Older kernels copy only from mounts that are attached somewhere; this goes away with the old root.
    let place = scratch.join("files");
    let target = rustix::fs::open(&place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .at(step, &place)?;
    attach(memory.as_fd(), target.as_fd(), &place)?;
    let mut origins = Vec::new();
    for (index, content) in contents.enumerate() {
        let name = index.to_string();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&memory, &name, flags, Mode::from_raw_mode(0o644)).at(step, &place)?;
        write_all(file.as_fd(), content).at(step, &place)?;
        let fd = openat(&memory, &name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at(step, &place)?;
        origins.push(Origin::Existing { fd, kind: Kind::File, read_only: false });
    }
    Ok(origins)
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
