// SPDX-License-Identifier: Apache-2.0
//! Overlays mounted for this process alone: in no namespace, gone with their descriptor.
//!
//! Always with `userxattr`, without which directories could not be replaced inside a user namespace,
//! and `volatile`, without which unmounting would write back the whole file system.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags};

use crate::error::SnapshotError;
use crate::meta::{names, open_directory, open_host_directory};
use crate::remove::remove_tree;

/// The kernel cuts mount options off after one page.
const MAX_OPTION_BYTES: usize = 4095;

/// An overlay without a place in the file system.
#[derive(Debug)]
pub(crate) struct DetachedOverlay {
    /// Its root, open for reading.
    pub(crate) directory: OwnedFd,
    /// Keeps it mounted.
    pub(crate) mount: OwnedFd,
}

/// The directories for changes: the upper and an empty work directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writable<'a> {
    pub(crate) upper: &'a Path,
    pub(crate) work: &'a Path,
}

/// Mounts `lower` (topmost first) with or without an upper directory.
///
/// `scratch` is an empty directory that older kernels mount on for a moment.
pub(crate) fn mount(
    lower: &[BorrowedFd<'_>],
    writable: Option<Writable<'_>>,
    scratch: &Path,
) -> Result<DetachedOverlay, SnapshotError> {
    let failed = |(source, log): (io::Error, String)| SnapshotError::Overlay {
        layers: lower.len() + usize::from(writable.is_some()),
        source,
        log,
    };
    match mount_by_descriptor(lower, writable) {
        Ok(overlay) => Ok(overlay),
        // Kernels before 6.7 do not take lower directories one by one, those before 5.2 have no fsopen.
        Err((error, log)) if is_unknown_option(&error) => mount_by_options(lower, writable, scratch)
            .map_err(|old| if log.is_empty() { failed((old, log)) } else { failed((error, log)) }),
        Err(error) => Err(failed(error)),
    }
}

fn is_unknown_option(error: &io::Error) -> bool {
    let error = Errno::from_io_error(error);
    matches!(error, Some(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP))
}

fn mount_by_descriptor(
    lower: &[BorrowedFd<'_>],
    writable: Option<Writable<'_>>,
) -> Result<DetachedOverlay, (io::Error, String)> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|error| (error.into(), String::new()))?;
    let configured = configure(&context, lower, writable);
    let mounted = configured.and_then(|()| {
        let attributes = match writable {
            Some(_) => MountAttrFlags::empty(),
            None => MountAttrFlags::MOUNT_ATTR_RDONLY,
        };
        let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        let directory = open_directory(&mount, ".")?;
        Ok(DetachedOverlay { directory, mount })
    });
    mounted.map_err(|error| (error, kernel_log(&context)))
}

fn configure(context: &OwnedFd, lower: &[BorrowedFd<'_>], writable: Option<Writable<'_>>) -> io::Result<()> {
    use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string};
    fsconfig_set_string(context, "source", "overlay")?;
    fsconfig_set_flag(context, "userxattr")?;
    fsconfig_set_string(context, "index", "off")?;
    for directory in lower {
        fsconfig_set_string(context, "lowerdir+", descriptor_path(directory))?;
    }
    // Kept open until the file system is created: the options name them by descriptor.
    let held;
    if let Some(Writable { upper, work }) = writable {
        held = (open_host_directory(upper)?, open_host_directory(work)?);
        fsconfig_set_string(context, "upperdir", descriptor_path(&held.0))?;
        fsconfig_set_string(context, "workdir", descriptor_path(&held.1))?;
        fsconfig_set_flag(context, "volatile")?;
    }
    Ok(fsconfig_create(context)?)
}

/// Names a directory without its path, which might be too long for the kernel's option strings.
fn descriptor_path(directory: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd())
}

/// Reads what the kernel says of a failed mount.
fn kernel_log(context: &OwnedFd) -> String {
    let mut lines = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(count) = rustix::io::read(context, &mut buffer) {
        if count == 0 || lines.len() > 16 {
            break;
        }
        let line = String::from_utf8_lossy(&buffer[..count]);
        lines.push(line.trim().trim_start_matches(['e', 'w', 'i']).trim().to_owned());
    }
    lines.join("; ")
}

fn mount_by_options(
    lower: &[BorrowedFd<'_>],
    writable: Option<Writable<'_>>,
    scratch: &Path,
) -> io::Result<DetachedOverlay> {
    let lower: Vec<String> = lower.iter().map(descriptor_path).collect();
    let mut options = format!("userxattr,index=off,lowerdir={}", lower.join(":"));
    let held;
    if let Some(Writable { upper, work }) = writable {
        held = (open_host_directory(upper)?, open_host_directory(work)?);
        let (upper, work) = (descriptor_path(&held.0), descriptor_path(&held.1));
        options.push_str(&format!(",upperdir={upper},workdir={work},volatile"));
    }
    if options.len() > MAX_OPTION_BYTES {
        let text = "this kernel cannot stack so many layers (6.7 and later can)";
        return Err(io::Error::new(io::ErrorKind::ArgumentListTooLong, text));
    }
    let text = std::ffi::CString::new(options).map_err(io::Error::other)?;
    rustix::mount::mount("overlay", scratch, "overlay", MountFlags::empty(), &*text)?;
    let opened = open_host_directory(scratch).and_then(|directory| {
        let mount = rustix::io::fcntl_dupfd_cloexec(&directory, 0)?;
        Ok(DetachedOverlay { directory, mount })
    });
    rustix::mount::unmount(scratch, UnmountFlags::DETACH)?;
    opened
}

/// Tries whether overlays in `directory`, which is empty, do all that is needed of them.
pub(crate) fn probe(directory: &Path) -> io::Result<()> {
    for name in ["lower/d", "upper", "work", "scratch"] {
        std::fs::create_dir_all(directory.join(name))?;
    }
    std::fs::write(directory.join("lower/d/inner"), "")?;
    std::fs::write(directory.join("lower/file"), "")?;
    let lower = open_host_directory(&directory.join("lower"))?;
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    let writable = Writable { upper: &upper, work: &work };
    let overlay = mount(&[lower.as_fd()], Some(writable), &directory.join("scratch"))
        .map_err(|error| io::Error::other(error.to_string()))?;
    let root = &overlay.directory;
    rustix::fs::unlinkat(root, "file", AtFlags::empty())?;
    // Replacing a directory is what fails where overlayfs cannot write its xattrs.
    remove_tree(root.as_fd(), "d".as_ref())?;
    rustix::fs::mkdirat(root, "d", Mode::RWXU)?;
    let is_right = names(root)? == ["d"] && names(open_directory(root, "d")?)?.is_empty();
    if is_right { Ok(()) } else { Err(io::Error::other("deleted names of lower layers stay visible")) }
}
