// SPDX-License-Identifier: Apache-2.0
//! Builds the file tree that a container sees, in its own mount namespace, and moves into it.
//!
//! The order: propagation is cut; the sources of binds are opened while the host is still in sight; the root is
//! mounted; then `/dev`, `/proc`, `/sys`, the files in `/etc` and the mounts of the specification, each resolved
//! inside of the root and attached by descriptor; at last `pivot_root`, after which the host is gone.

mod attach;
mod dev;
mod proc_sys;
mod resolve;
mod root;
mod skeleton;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};

use crate::failure::{Failure, Step};
use crate::{Mount, ProcessSpec, RootFs, Security};
use attach::{Origin, Source};
use resolve::{Kind, Stub, resolve};
use skeleton::MountPoints;

pub(crate) use proc_sys::can_mount_proc;
pub(crate) use resolve::is_plausible;

/// What the container's file tree depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    /// The launcher's directory.
    pub(crate) scratch: &'a Path,
    /// The root file system.
    pub(crate) root: &'a RootFs,
    /// The process.
    pub(crate) spec: &'a ProcessSpec,
    /// Whether there is a PID namespace, and so a `/proc` of its own.
    pub(crate) has_pid_namespace: bool,
    /// Whether there is a cgroup namespace.
    pub(crate) has_cgroup_namespace: bool,
    /// The caller's terminal, for `/dev/console`.
    pub(crate) terminal: Option<BorrowedFd<'a>>,
}

/// The mount points that had to be made inside of the root.
#[derive(Debug, Default)]
pub(crate) struct Stubs(Vec<Stub>);

/// Something to mount, found, and where.
struct Planned {
    target: PathBuf,
    origin: Origin,
}

/// Mounts everything and makes it this process's root. To be called in a fresh mount namespace.
pub(crate) fn enter(plan: Plan<'_>) -> Result<Stubs, Failure> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .step("make the mounts private")?;
    let mounts = open_sources(plan)?;
    let wanted = mount_points(&mounts);
    let root = root::mount(plan.scratch, plan.root, &wanted)?;
    let mut stubs = Stubs::default();
    let here = root.as_fd();

    let dev = stubs.attach(here, Path::new("/dev"), &dev::tmpfs()?, true)?;
    dev::fill(dev.as_fd(), plan)?;
    let proc = stubs.attach(here, Path::new("/proc"), &proc_sys::proc(plan)?, true)?;
    let sys = match proc_sys::sys(plan)? {
        Some(sys) => Some(stubs.attach(here, Path::new("/sys"), &sys, true)?),
        None => None,
    };
    let is_restricted = plan.spec.security == Security::Sandbox;
    if let Some(sys) = sys.as_ref().filter(|_| plan.has_cgroup_namespace) {
        proc_sys::own_cgroups(sys.as_fd(), is_restricted);
    }
    if is_restricted {
        proc_sys::restrict(proc.as_fd(), sys.as_ref().map(AsFd::as_fd), dev.as_fd())?;
    }
    for planned in &mounts {
        // Only what lies on the root itself would be left behind; tmpfs and binds keep their mount points.
        let is_on_root = !lies_below_another(&planned.target, &mounts);
        let source = planned.origin.to_source(&planned.target)?;
        stubs.attach(here, &planned.target, &source, is_on_root)?;
    }
    if plan.root.read_only {
        crate::kernel::set_mount_attributes(here, crate::kernel::MOUNT_READ_ONLY, false)
            .step("make the root read-only")?;
    }
    pivot(here)?;
    Ok(stubs)
}

/// Opens what the specification mounts, in its order, the files in `/etc` first.
fn open_sources(plan: Plan<'_>) -> Result<Vec<Planned>, Failure> {
    let spec = plan.spec;
    let mut mounts = Vec::new();
    let files = [("/etc/resolv.conf", &spec.resolv_conf), ("/etc/hosts", &spec.hosts)];
    if files.iter().any(|(_, content)| !content.is_empty()) {
        let given = files.iter().filter(|(_, content)| !content.is_empty());
        let origins = attach::files(plan.scratch, given.clone().map(|(_, content)| content.as_slice()))?;
        mounts.extend(
            given.zip(origins).map(|((target, _), origin)| Planned { target: PathBuf::from(target), origin }),
        );
    }
    let memory_files = spec.mounts.iter().filter_map(|mount| match mount {
        Mount::File { file, .. } => Some(file),
        Mount::Bind { .. } | Mount::Tree { .. } | Mount::Tmpfs { .. } => None,
    });
    let mut memory_files = attach::memory_files(plan.scratch, &memory_files.collect::<Vec<_>>())?.into_iter();
    for mount in &spec.mounts {
        let origin = match mount {
            Mount::Bind { source, read_only, .. } => Origin::existing(source, *read_only)?,
            Mount::Tree { tree, path, read_only, .. } => {
                Origin::within(root::mount_tree(plan.scratch, tree)?.as_fd(), path, *read_only)?
            }
            Mount::File { target, .. } => memory_files.next().ok_or(Errno::NOENT).at("make", target)?,
            Mount::Tmpfs { size_bytes, .. } => Origin::Tmpfs { size_bytes: *size_bytes },
        };
        mounts.push(Planned { target: mount.target().clone(), origin });
    }
    Ok(mounts)
}

/// The mount points to look for, as they are named.
fn mount_points(mounts: &[Planned]) -> MountPoints {
    let standard = ["proc", "sys", "dev"].map(|name| (PathBuf::from(name), Kind::Directory));
    let asked = mounts
        .iter()
        .filter_map(|planned| Some((skeleton::lexical(&planned.target)?, planned.origin.kind())));
    let below_standard = |path: &Path| ["proc", "sys", "dev"].iter().any(|name| path.starts_with(name));
    standard.into_iter().chain(asked.filter(|(path, _)| !below_standard(path))).collect()
}

/// Says whether a target is inside of a standard mount or of a mount of the specification.
fn lies_below_another(target: &Path, mounts: &[Planned]) -> bool {
    let Some(path) = skeleton::lexical(target) else { return false };
    let is_above = |other: &Path| path != other && path.starts_with(other);
    ["proc", "sys", "dev"].iter().any(|name| is_above(Path::new(name)))
        || mounts.iter().filter_map(|other| skeleton::lexical(&other.target)).any(|other| is_above(&other))
}

fn pivot(root: BorrowedFd<'_>) -> Result<(), Failure> {
    rustix::process::fchdir(root).step("enter the new root")?;
    rustix::process::pivot_root(".", ".").step("make it the root (pivot_root)")?;
    // The old root now lies on top of the new one. From here on nothing of the host can be named.
    unmount(".", UnmountFlags::DETACH).step("detach the old root")?;
    rustix::process::chdir("/").step("enter the new root")
}

impl Stubs {
    /// Attaches a source to its target and returns the root of what is now mounted there.
    fn attach(
        &mut self,
        root: BorrowedFd<'_>,
        target: &Path,
        source: &Source,
        is_on_root: bool,
    ) -> Result<OwnedFd, Failure> {
        let (fd, stubs) = resolve(root, target)?.into_target(source.kind, target)?;
        if is_on_root {
            self.0.extend(stubs);
        }
        attach::attach(source.tree.as_fd(), fd.as_fd(), target)?;
        rustix::io::fcntl_dupfd_cloexec(&source.tree, 3).at("keep the mount at", target)
    }

    /// Unmounts and removes the stubs that the process has not put to use.
    ///
    /// To be called in the container's mount namespace when no other process of it is left.
    pub(crate) fn remove(&self) {
        if self.0.is_empty() {
            return;
        }
        let Ok(root) = rustix::fs::open(
            "/",
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        ) else {
            return;
        };
        for stub in self.0.iter().rev() {
            // Only the last stub of a target is mounted on; for the others this answers EINVAL.
            let _ = unmount(stub.absolute(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
            stub.remove(root.as_fd());
        }
    }
}
