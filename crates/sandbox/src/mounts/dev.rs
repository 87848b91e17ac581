// SPDX-License-Identifier: Apache-2.0
//! `/dev`: a tmpfs with the few devices that every program may expect.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::Plan;
use super::attach::{Source, attach, copy, file_system};
use super::resolve::{Kind, make};
use crate::Security;
use crate::failure::{Failure, Step};

/// The devices that a container has (runtime-spec, config-linux.md, default devices).
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// The devices that an insecure step may use as well, where the host has them.
const INSECURE_DEVICES: [&str; 4] = ["fuse", "kvm", "loop-control", "kmsg"];

/// The links that a container has (runtime-spec, runtime-linux.md).
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// Docker's size of `/dev/shm`.
const SHM_SIZE_BYTES: u64 = 64 << 20;

/// The tmpfs, empty.
pub(super) fn tmpfs() -> Result<Source, Failure> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let tree = file_system("tmpfs", &[("mode", "755"), ("size", "65536k")], attributes).step("make /dev")?;
    Ok(Source { tree, kind: Kind::Directory })
}

/// Fills the mounted tmpfs.
pub(super) fn fill(dev: BorrowedFd<'_>, plan: Plan<'_>) -> Result<(), Failure> {
    for name in DEVICES {
        device(dev, name, name == "tty")?;
    }
    if plan.spec.security == Security::Insecure {
        for name in INSECURE_DEVICES {
            device(dev, name, true)?;
        }
    }
    for (target, name) in LINKS {
        symlinkat(target, dev, name).at("create the link /dev/", name)?;
    }
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let terminals = pseudo_terminals().step("make /dev/pts")?;
    place(dev, "pts", terminals)?;
    let size = match plan.spec.shm_size_bytes {
        0 => SHM_SIZE_BYTES,
        size_bytes => size_bytes,
    };
    let memory = file_system("tmpfs", &[("mode", "1777"), ("size", &size.to_string())], quiet)
        .step("make /dev/shm")?;
    place(dev, "shm", memory)?;
    match file_system("mqueue", &[], quiet) {
        Ok(queues) => place(dev, "mqueue", queues)?,
        // A kernel without message queues.
        Err(Errno::NODEV) => {}
        Err(errno) => return Err(errno).step("make /dev/mqueue"),
    }
    if let Some(terminal) = plan.terminal {
        console(dev, terminal);
    }
    Ok(())
}

/// Binds a device of the host: a user namespace may not make one.
fn device(dev: BorrowedFd<'_>, name: &str, is_optional: bool) -> Result<(), Failure> {
    let host = Path::new("/dev").join(name);
    let tree = match copy(CWD, &host, false) {
        Ok(tree) => tree,
        Err(Errno::NOENT | Errno::NXIO | Errno::ACCESS) if is_optional => return Ok(()),
        Err(errno) => return Err(errno).at("open the device", &host),
    };
    make(dev, host.file_name().unwrap_or_default(), Kind::File).at("create", &host)?;
    let target = openat(dev, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .at("open the created", &host)?;
    attach(tree.as_fd(), target.as_fd(), &host)
}

/// Terminals belong to the group `tty`, 5 by convention, where that group is mapped.
fn pseudo_terminals() -> Result<OwnedFd, Errno> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
    match file_system("devpts", &options, attributes) {
        Err(Errno::INVAL) => file_system("devpts", &options[..2], attributes),
        result => result,
    }
}

fn place(dev: BorrowedFd<'_>, name: &str, tree: OwnedFd) -> Result<(), Failure> {
    let path = Path::new("/dev").join(name);
    mkdirat(dev, name, Mode::from_raw_mode(0o755)).at("create", &path)?;
    let target = openat(dev, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .at("open the created", &path)?;
    attach(tree.as_fd(), target.as_fd(), &path)
}

/// Shows the caller's terminal as `/dev/console`, so that `ttyname` finds it. Where the terminal has no name here, the
/// program does without.
fn console(dev: BorrowedFd<'_>, terminal: BorrowedFd<'_>) {
    let Ok(name) = rustix::termios::ttyname(terminal, Vec::new()) else { return };
    let path = PathBuf::from(std::ffi::OsString::from(name.to_string_lossy().into_owned()));
    let Ok(tree) = copy(CWD, &path, false) else { return };
    if make(dev, std::ffi::OsStr::new("console"), Kind::File).is_err() {
        return;
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(target) = openat(dev, "console", flags, Mode::empty()) {
        let _ = attach(tree.as_fd(), target.as_fd(), Path::new("/dev/console"));
    }
}
