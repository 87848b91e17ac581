// SPDX-License-Identifier: Apache-2.0
//! `/proc` and `/sys`, and what of them a build step may not see or change.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, statfs};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::Plan;
use super::attach::{Source, attach, copy, file_system};
use super::resolve::Kind;
use crate::failure::{Failure, Step};
use crate::kernel::{MOUNT_NO_EXEC, MOUNT_NO_SUID, MOUNT_READ_ONLY, set_mount_attributes};
use crate::{Network, Security};

/// Docker's masked paths below `/proc`.
const MASKED_PROC: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "timer_list",
    "timer_stats",
    "sched_debug",
    "scsi",
];

/// Docker's masked paths below `/sys`.
const MASKED_SYS: [&str; 2] = ["firmware", "devices/virtual/powercap"];

/// Docker's read-only paths below `/proc`.
const READ_ONLY_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// The type that statfs(2) gives for cgroup version 2.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

fn quiet() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

/// Says whether a fresh proc may be mounted in this process's PID namespace.
///
/// The kernel refuses when parts of the present /proc are covered, as in an ordinary container.
pub(crate) fn can_mount_proc() -> bool {
    file_system("proc", &[], quiet()).is_ok()
}

/// The container's `/proc`.
pub(super) fn proc(plan: Plan<'_>) -> Result<Source, Failure> {
    let tree = if plan.has_pid_namespace {
        file_system("proc", &[], quiet()).step("mount proc")?
    } else {
        copy(CWD, Path::new("/proc"), true).at("bind", "/proc")?
    };
    Ok(Source { tree, kind: Kind::Directory })
}

/// The container's `/sys`: its own with a network namespace, else the host's; `None` where the host has none.
pub(super) fn sys(plan: Plan<'_>) -> Result<Option<Source>, Failure> {
    let is_read_only = plan.spec.security == Security::Sandbox;
    let fresh = match plan.spec.network {
        Network::None => match file_system("sysfs", &[], quiet()) {
            Ok(tree) => Some(tree),
            Err(Errno::PERM) => None,
            Err(errno) => return Err(errno).step("mount sysfs"),
        },
        Network::Host => None,
    };
    let tree = match fresh {
        Some(tree) => tree,
        None => match copy(CWD, Path::new("/sys"), true) {
            Ok(tree) => tree,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno).at("bind", "/sys"),
        },
    };
    let mut attributes = MOUNT_NO_SUID | MOUNT_NO_EXEC;
    if is_read_only {
        attributes |= MOUNT_READ_ONLY;
    }
    set_mount_attributes(tree.as_fd(), attributes, true).step("make /sys read-only")?;
    Ok(Some(Source { tree, kind: Kind::Directory }))
}

/// Shows the cgroup namespace's own view in the attached `/sys`, where the host shows version 2.
pub(super) fn own_cgroups(sys: BorrowedFd<'_>, is_read_only: bool) {
    if !statfs("/sys/fs/cgroup").is_ok_and(|stat| stat.f_type as u64 == CGROUP2_MAGIC) {
        return;
    }
    let attributes = if is_read_only { quiet() | MountAttrFlags::MOUNT_ATTR_RDONLY } else { quiet() };
    let Ok(tree) = file_system("cgroup2", &[], attributes) else { return };
    if let Ok(target) = open(sys, "fs/cgroup") {
        let _ = attach(tree.as_fd(), target.as_fd(), Path::new("/sys/fs/cgroup"));
    }
}

/// Hides and protects what Docker hides and protects. All three are roots of attached mounts.
pub(super) fn restrict(
    proc: BorrowedFd<'_>,
    sys: Option<BorrowedFd<'_>>,
    dev: BorrowedFd<'_>,
) -> Result<(), Failure> {
    for path in READ_ONLY_PROC {
        let Some(target) = open_existing(proc, path)? else { continue };
        let step = "make read-only in /proc";
        let tree = copy(target.as_fd(), Path::new(""), true).at(step, path)?;
        set_mount_attributes(tree.as_fd(), MOUNT_READ_ONLY, true).at(step, path)?;
        attach(tree.as_fd(), target.as_fd(), path.as_ref())?;
    }
    let mut empty = None;
    for path in MASKED_PROC {
        mask(proc, path, dev, &mut empty)?;
    }
    if let Some(sys) = sys {
        for path in MASKED_SYS {
            mask(sys, path, dev, &mut empty)?;
        }
    }
    Ok(())
}

/// Covers a directory with an empty one and a file with /dev/null.
fn mask(
    above: BorrowedFd<'_>,
    path: &str,
    dev: BorrowedFd<'_>,
    empty: &mut Option<OwnedFd>,
) -> Result<(), Failure> {
    let Some(target) = open_existing(above, path)? else { return Ok(()) };
    let stat = fstat(&target).at("examine", path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        let tree = copy(dev, Path::new("null"), false).at("cover with /dev/null", path)?;
        return attach(tree.as_fd(), target.as_fd(), path.as_ref());
    }
    let tree = match empty {
        Some(first) => copy(first.as_fd(), Path::new(""), false).at("cover", path)?,
        None => {
            let attributes = quiet() | MountAttrFlags::MOUNT_ATTR_RDONLY;
            file_system("tmpfs", &[("mode", "755"), ("size", "4k"), ("nr_inodes", "1")], attributes)
                .at("make an empty directory to cover", path)?
        }
    };
    attach(tree.as_fd(), target.as_fd(), path.as_ref())?;
    empty.get_or_insert(tree);
    Ok(())
}

fn open(above: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    openat(above, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a path of the kernel's own file systems: nobody else has put links there.
fn open_existing(above: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>, Failure> {
    match open(above, path) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(None),
        Err(errno) => Err(errno).at("open", path),
    }
}
