// SPDX-License-Identifier: Apache-2.0
//! Making and copying nodes other than directories.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, SeekFrom};
use rustix::io::Errno;

use crate::attributes::{Attributes, timestamps};
use crate::meta::{Kind, Meta, SUBSTITUTE_TIME, open_for_reading, read_link};
use crate::records::Record;
use crate::stack::Effective;
use crate::tree::create_file;

const COPY_BUFFER_BYTES: usize = 256 << 10;
/// How much one call of the kernel copies at most; keeps calls interruptible.
const COPY_RANGE_BYTES: u64 = 1 << 30;

/// Makes a device node, or an empty file with a record where none can be made.
///
/// A character device 0:0 is never made: on disk it would be a whiteout.
pub(crate) fn make_device(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    kind: Kind,
    (major, minor): (u32, u32),
    attributes: &Attributes<'_>,
) -> io::Result<Record> {
    let file_type = if kind == Kind::BlockDevice { FileType::BlockDevice } else { FileType::CharacterDevice };
    let is_whiteout = kind == Kind::CharDevice && (major, minor) == (0, 0);
    if !is_whiteout {
        let number = rustix::fs::makedev(major, minor);
        // The kernel keeps 12 bits of the major and 20 of the minor number.
        let fits = rustix::fs::major(number) == major && rustix::fs::minor(number) == minor;
        if fits && major < 1 << 12 && minor < 1 << 20 {
            match rustix::fs::mknodat(directory, name, file_type, Mode::RUSR | Mode::WUSR, number) {
                Ok(()) => return attributes.set_at(directory, name, false),
                Err(Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let file = create_file(directory, name)?;
    let mut record = attributes.set_on(&file)?;
    record.device = Some((kind, major, minor));
    Ok(record)
}

/// Makes the mark for a deleted name: overlayfs's own, a character device 0:0.
///
/// On an overlay that number is reserved; a store there never mounts overlays, so a socket that nobody
/// else would make serves instead.
pub(crate) fn make_whiteout(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let number = rustix::fs::makedev(0, 0);
    match rustix::fs::mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), number) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => make_substitute(directory, name),
        Err(error) => Err(error.into()),
    }
}

fn make_substitute(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    rustix::fs::mknodat(directory, name, FileType::Socket, Mode::empty(), 0)?;
    let times = timestamps(SUBSTITUTE_TIME);
    Ok(rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Copies a node that is not a directory to a free name; sockets are left out.
///
/// `meta` is what the disk says of the source, `effective` what it stands for, and `attributes` what
/// the copy is to have.
pub(crate) fn copy_node(
    (from, from_name): (BorrowedFd<'_>, &OsStr),
    meta: &Meta,
    effective: &Effective,
    (to, to_name): (BorrowedFd<'_>, &OsStr),
    attributes: &Attributes<'_>,
) -> io::Result<Record> {
    match effective.kind {
        Kind::File => {
            let source = open_for_reading(from, from_name)?;
            let target = create_file(to, to_name)?;
            copy_content(source.as_fd(), target.as_fd(), meta)?;
            attributes.set_on(&target)
        }
        Kind::Symlink => {
            let target = read_link(from, from_name)?;
            rustix::fs::symlinkat(target.as_os_str(), to, to_name)?;
            attributes.set_at(to, to_name, true)
        }
        Kind::CharDevice | Kind::BlockDevice => {
            make_device(to, to_name, effective.kind, effective.device, attributes)
        }
        Kind::Fifo => {
            rustix::fs::mkfifoat(to, to_name, Mode::RUSR | Mode::WUSR)?;
            attributes.set_at(to, to_name, false)
        }
        Kind::Socket => Ok(Record::default()),
        Kind::Directory => Err(io::Error::from(Errno::ISDIR)),
    }
}

/// Copies the content of a file: by sharing its blocks, else inside the kernel, else by hand.
pub(crate) fn copy_content(from: BorrowedFd<'_>, to: BorrowedFd<'_>, meta: &Meta) -> io::Result<()> {
    if meta.size == 0 {
        return Ok(());
    }
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut end = 0;
    if meta.allocated_bytes < meta.size {
        // With holes: only what lies between them.
        loop {
            let start = match rustix::fs::seek(from, SeekFrom::Data(end)) {
                Ok(start) => start,
                Err(Errno::NXIO) => break,
                Err(_) => {
                    copy_range(from, to, end, u64::MAX)?;
                    break;
                }
            };
            end = rustix::fs::seek(from, SeekFrom::Hole(start))?;
            copy_range(from, to, start, end)?;
        }
        // The last hole is part of the file, too.
        if rustix::fs::fstat(to)?.st_size.unsigned_abs() < meta.size {
            rustix::fs::ftruncate(to, meta.size)?;
        }
        return Ok(());
    }
    copy_range(from, to, 0, u64::MAX)
}

/// Copies the bytes from `start` to `end` or to the end of the file.
fn copy_range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<()> {
    let mut read_at = start;
    let mut write_at = start;
    while read_at < end {
        let len = usize::try_from((end - read_at).min(COPY_RANGE_BYTES)).unwrap_or(usize::MAX);
        match rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), len) {
            // Files of some special file systems say that they are empty and are not.
            Ok(0) if read_at == start => return copy_by_hand(from, to, read_at, end),
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                return copy_by_hand(from, to, read_at, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: BorrowedFd<'_>, to: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<()> {
    let mut source = std::fs::File::from(from.try_clone_to_owned()?);
    let mut target = std::fs::File::from(to.try_clone_to_owned()?);
    io::Seek::seek(&mut source, io::SeekFrom::Start(start))?;
    io::Seek::seek(&mut target, io::SeekFrom::Start(start))?;
    let mut left = end - start;
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = match source.read(&mut buffer[..len]) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        target.write_all(&buffer[..count])?;
        left -= count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn content_with_holes_is_copied_with_its_holes() {
        let base = tempfile::tempdir().unwrap();
        let from = std::fs::File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(base.path().join("from"))
            .unwrap();
        from.write_all_at(b"begin", 0).unwrap();
        from.write_all_at(b"middle", 10 << 20).unwrap();
        from.set_len(30 << 20).unwrap();
        let to = std::fs::File::create_new(base.path().join("to")).unwrap();
        copy_content(from.as_fd(), to.as_fd(), &Meta::of(&from).unwrap()).unwrap();
        let read = |name: &str| std::fs::read(base.path().join(name)).unwrap();
        assert!(read("from") == read("to"));
        assert!(to.metadata().unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn content_is_copied_by_hand_where_the_kernel_does_not() {
        let base = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..700_001u32).map(|number| (number % 251) as u8).collect();
        std::fs::write(base.path().join("from"), &content).unwrap();
        let from = std::fs::File::open(base.path().join("from")).unwrap();
        let to = std::fs::File::create_new(base.path().join("to")).unwrap();
        copy_by_hand(from.as_fd(), to.as_fd(), 0, u64::MAX).unwrap();
        assert!(std::fs::read(base.path().join("to")).unwrap() == content);
        // A file that says that it is empty and is not.
        let version = std::fs::File::open("/proc/version").unwrap();
        let to = std::fs::File::create_new(base.path().join("version")).unwrap();
        copy_range(version.as_fd(), to.as_fd(), 0, u64::MAX).unwrap();
        assert!(!std::fs::read(base.path().join("version")).unwrap().is_empty());
    }

    #[test]
    fn the_substitute_of_a_whiteout_is_one_and_other_sockets_are_none() {
        let base = tempfile::tempdir().unwrap();
        let directory = crate::meta::open_host_directory(base.path()).unwrap();
        make_substitute(directory.as_fd(), OsStr::new("gone")).unwrap();
        assert!(Meta::at(&directory, OsStr::new("gone")).unwrap().is_whiteout());
        let _listener = std::os::unix::net::UnixListener::bind(base.path().join("socket")).unwrap();
        assert!(!Meta::at(&directory, OsStr::new("socket")).unwrap().is_whiteout());
    }
}
