// SPDX-License-Identifier: Apache-2.0
//! What the disk says about one directory entry.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags, StatxTimestamp, Timespec};
use rustix::io::Errno;

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
}

/// A point in time as file systems keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Time {
    pub(crate) sec: i64,
    pub(crate) nsec: u32,
}

impl Time {
    pub(crate) fn of_seconds(sec: i64) -> Time {
        Time { sec, nsec: 0 }
    }

    pub(crate) fn timespec(self) -> Timespec {
        Timespec { tv_sec: self.sec, tv_nsec: i64::from(self.nsec) as _ }
    }

    pub(crate) fn system_time(self) -> SystemTime {
        let whole = Duration::from_secs(self.sec.unsigned_abs());
        let base = if self.sec < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(whole)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(whole)
        };
        base.and_then(|time| time.checked_add(Duration::from_nanos(u64::from(self.nsec))))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Time {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => {
                Time { sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX), nsec: after.subsec_nanos() }
            }
            Err(error) => {
                let before = error.duration();
                let sec = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => Time { sec, nsec: 0 },
                    nsec => Time { sec: sec.saturating_sub(1), nsec: 1_000_000_000 - nsec },
                }
            }
        }
    }
}

impl From<StatxTimestamp> for Time {
    fn from(stamp: StatxTimestamp) -> Time {
        Time { sec: stamp.tv_sec, nsec: stamp.tv_nsec }
    }
}

/// The attributes of one inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) kind: Kind,
    /// Octal 0 to 7777.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) links: u32,
    pub(crate) dev: (u32, u32),
    pub(crate) ino: u64,
    /// Major and minor number of a device node.
    pub(crate) rdev: (u32, u32),
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    /// Zero where the file system does not know it.
    pub(crate) btime: Time,
}

impl Meta {
    /// Reads the attributes of `name` in `directory`, not following a symlink.
    pub(crate) fn at(directory: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<Meta> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        Ok(Meta::from(rustix::fs::statx(directory, name.as_ref(), flags, wanted)?))
    }

    /// As [`Meta::at`], with `None` for a name that is not there.
    pub(crate) fn find(directory: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<Option<Meta>> {
        match Meta::at(directory, name) {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the attributes of an open file.
    pub(crate) fn of(file: impl AsFd) -> io::Result<Meta> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        Ok(Meta::from(rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, wanted)?))
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.kind == Kind::Directory
    }

    /// Tells whether this is the mark for a deleted name: overlayfs's own, or the one that stands for it
    /// where that can't be made (see `nodes::make_whiteout`).
    pub(crate) fn is_whiteout(&self) -> bool {
        let is_substitute = || self.kind == Kind::Socket && self.mode == 0 && self.mtime == SUBSTITUTE_TIME;
        self.kind == Kind::CharDevice && self.rdev == (0, 0) || is_substitute()
    }
}

/// The time of a socket that stands for a whiteout. No archive holds sockets, and no program makes one
/// without any permission and of this second.
pub(crate) const SUBSTITUTE_TIME: Time = Time { sec: 1, nsec: 0 };

impl From<Statx> for Meta {
    fn from(stat: Statx) -> Meta {
        let kind = match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::RegularFile | FileType::Unknown => Kind::File,
        };
        Meta {
            kind,
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            allocated_bytes: stat.stx_blocks.saturating_mul(512),
            links: stat.stx_nlink,
            dev: (stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
            mtime: stat.stx_mtime.into(),
            ctime: stat.stx_ctime.into(),
            btime: if stat.stx_mask & StatxFlags::BTIME.bits() == 0 {
                Time::default()
            } else {
                stat.stx_btime.into()
            },
        }
    }
}

/// Lists the names in a directory, sorted by bytes.
pub(crate) fn names(directory: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Opens a directory entry that must be a directory, for reading.
pub(crate) fn open_directory(directory: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name.as_ref(), flags, Mode::empty())?)
}

/// Opens a directory entry that must be a regular file, for reading.
pub(crate) fn open_for_reading(directory: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<OwnedFd> {
    // Without O_NONBLOCK opening a named pipe would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name.as_ref(), flags, Mode::empty())?)
}

/// Opens a host directory by its path.
pub(crate) fn open_host_directory(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Reads the target of a symlink.
pub(crate) fn read_link(directory: impl AsFd, name: impl AsRef<OsStr>) -> io::Result<OsString> {
    let target = rustix::fs::readlinkat(directory, name.as_ref(), Vec::new())?;
    Ok(OsStr::from_bytes(target.to_bytes()).to_owned())
}

/// Removes a name that is not a directory; one that is not there is fine.
pub(crate) fn unlink(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_the_epoch_survive_both_ways() {
        for time in [
            Time { sec: -1, nsec: 1 },
            Time { sec: -86_400, nsec: 0 },
            Time { sec: 0, nsec: 0 },
            Time { sec: 1_700_000_000, nsec: 999_999_999 },
        ] {
            assert_eq!(Time::from(time.system_time()), time);
        }
    }

    #[test]
    fn names_are_sorted_and_types_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b", "a", "B"] {
            std::fs::write(directory.path().join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("nowhere", directory.path().join("c")).unwrap();
        let fd = open_host_directory(directory.path()).unwrap();
        assert_eq!(names(&fd).unwrap(), ["B", "a", "b", "c"]);
        assert_eq!(Meta::at(&fd, "c").unwrap().kind, Kind::Symlink);
        assert_eq!(Meta::at(&fd, "a").unwrap().size, 1);
        assert!(Meta::find(&fd, "z").unwrap().is_none());
    }
}
