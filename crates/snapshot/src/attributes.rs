// SPDX-License-Identifier: Apache-2.0
//! Setting owner, mode, xattrs and times of a node, and telling what could not be set.
//!
//! In a user namespace an owner without a mapping cannot be expressed on disk, and some file systems
//! have no xattrs. What is left over comes back as a [`Record`] for the layer's side file.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::meta::{Kind, Time};
use crate::records::Record;

/// Names and values of extended attributes, sorted by name.
pub(crate) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The xattr that makes a directory of a layer hide the same directory of lower layers.
pub(crate) const OPAQUE: &str = "user.overlay.opaque";
const OVERLAY_PREFIX: &[u8] = b"user.overlay.";
/// The kernel's own cap on the list of names and on one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
pub(crate) const XATTR_MAX: usize = 64 << 10;

/// What a node is to have.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a> {
    pub(crate) owner: (u32, u32),
    /// Octal 0 to 7777; has no meaning for a symlink.
    pub(crate) mode: u32,
    pub(crate) mtime: Option<Time>,
    pub(crate) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl Attributes<'_> {
    /// Sets everything on an open file or directory and returns what the disk cannot express.
    pub(crate) fn set_on(&self, file: impl AsFd) -> io::Result<Record> {
        let file = file.as_fd();
        let mut record = Record::default();
        // The order matters: a change of owner clears setuid bits and file capabilities.
        if !set_owner(file, OsStr::new(""), AtFlags::EMPTY_PATH, self.owner)? {
            record.owner = Some(self.owner);
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode & 0o7777))?;
        for (name, value) in self.xattrs {
            match rustix::fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSPC | Errno::TOOBIG) => {
                    record.xattrs.push((name.clone(), value.clone()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(time) = self.mtime {
            rustix::fs::futimens(file, &timestamps(time))?;
        }
        Ok(record)
    }

    /// Sets what a node that cannot be opened (symlink, device, pipe) can have, without xattrs.
    pub(crate) fn set_at(
        &self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        is_symlink: bool,
    ) -> io::Result<Record> {
        let mut record = Record::default();
        if !set_owner(directory, name, AtFlags::SYMLINK_NOFOLLOW, self.owner)? {
            record.owner = Some(self.owner);
        }
        if !is_symlink {
            rustix::fs::chmodat(directory, name, Mode::from_raw_mode(self.mode & 0o7777), AtFlags::empty())?;
        }
        if let Some(time) = self.mtime {
            rustix::fs::utimensat(directory, name, &timestamps(time), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(record)
    }
}

pub(crate) fn timestamps(time: Time) -> Timestamps {
    Timestamps { last_access: time.timespec(), last_modification: time.timespec() }
}

/// Sets the owner; `false` when the disk cannot express it here.
fn set_owner(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    flags: AtFlags,
    (uid, gid): (u32, u32),
) -> io::Result<bool> {
    // The value -1 means "leave as it is" to the kernel.
    if uid == u32::MAX || gid == u32::MAX {
        return Ok(false);
    }
    let change = |uid, gid| {
        rustix::fs::chownat(directory, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)
    };
    match change(uid, gid) {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::INVAL) => {
            // The group may have come from a setgid directory.
            match change(0, 0) {
                Ok(()) | Err(Errno::PERM | Errno::INVAL) => Ok(false),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Tells whether an xattr belongs to a tree's content.
///
/// Kept are `user.*`, save overlayfs's own, and file capabilities; the rest belongs to a machine.
pub(crate) fn is_kept_xattr(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(OVERLAY_PREFIX))
}

/// Reads the xattrs that belong to a tree's content from an open file or directory, sorted.
pub(crate) fn kept_xattrs(file: impl AsFd) -> io::Result<Xattrs> {
    let file = file.as_fd();
    // Hardly any file has more names than fit here.
    let mut list = vec![0; 1024];
    let len = match rustix::fs::flistxattr(file, &mut list[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(len) => len,
        Err(Errno::RANGE) => {
            list.resize(XATTR_MAX, 0);
            rustix::fs::flistxattr(file, &mut list[..])?
        }
        Err(error) => return Err(error.into()),
    };
    let mut xattrs = Xattrs::new();
    for name in list[..len].split(|byte| *byte == 0).filter(|name| is_kept_xattr(name)) {
        let mut value = vec![0; XATTR_MAX];
        match rustix::fs::fgetxattr(file, OsStr::from_bytes(name), &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                xattrs.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Reads what a node that is listed by name carries; nodes other than files and directories carry none.
pub(crate) fn kept_xattrs_at(directory: impl AsFd, name: &OsStr, kind: Kind) -> io::Result<Xattrs> {
    match kind {
        Kind::File => kept_xattrs(crate::meta::open_for_reading(directory, name)?),
        Kind::Directory => kept_xattrs(crate::meta::open_directory(directory, name)?),
        _ => Ok(Vec::new()),
    }
}

/// Marks a directory of a layer as hiding the same directory of lower layers.
pub(crate) fn set_opaque(directory: impl AsFd) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())?)
}

/// Makes a directory of a layer show what the same directory of lower layers has.
pub(crate) fn clear_opaque(directory: impl AsFd) -> io::Result<()> {
    match rustix::fs::fremovexattr(directory, OPAQUE) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Tells whether a directory of a layer hides the same directory of lower layers.
pub(crate) fn is_opaque(directory: impl AsFd) -> io::Result<bool> {
    let mut value = [0; 8];
    match rustix::fs::fgetxattr(directory, OPAQUE, &mut value[..]) {
        Ok(len) => Ok(&value[..len] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
