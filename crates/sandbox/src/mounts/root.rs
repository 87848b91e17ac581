// SPDX-License-Identifier: Apache-2.0
//! The root file system itself: an overlay or a directory, mounted at the launcher's `root` directory.

use std::ffi::CString;
use std::fmt::Write;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, unmount};

use super::attach::{attach, copy};
use super::resolve::resolve;
use super::skeleton::{self, MountPoints};
use crate::failure::{Failure, Step};
use crate::{RootFs, RootFsKind};

/// overlayfs takes no more lower directories.
const LAYER_LIMIT: usize = 500;

/// Mounts the root and returns a descriptor of it.
///
/// For an overlay, `wanted` exists in it afterwards wherever a lower directory can achieve that.
pub(super) fn mount(scratch: &Path, root: &RootFs, wanted: &MountPoints) -> Result<OwnedFd, Failure> {
    let place = scratch.join("root");
    match &root.kind {
        RootFsKind::Dir(directory) => {
            let tree = copy(CWD, directory, true).at("open the root directory", directory)?;
            let target = open_directory(&place)?;
            attach(tree.as_fd(), target.as_fd(), &place)?;
            Ok(tree)
        }
        RootFsKind::Overlay { lower, upper, work } => {
            let overlay = Overlay { place: &place, lower, upper, work };
            let mounted = overlay.mount(Some(&skeleton::ensure(scratch, wanted)?))?;
            let Some(further) = points_behind_links(mounted.as_fd(), wanted)? else { return Ok(mounted) };
            drop(mounted);
            overlay.unmount()?;
            overlay.mount(Some(&skeleton::ensure(scratch, &further)?))
        }
    }
}

/// Returns the mount points to be had with those that links of the image lead to, if there are such.
///
/// A target such as `/var/run/lock` or a dangling `/etc/resolv.conf` is missing at another place than its name says.
fn points_behind_links(root: BorrowedFd<'_>, wanted: &MountPoints) -> Result<Option<MountPoints>, Failure> {
    let mut points = wanted.clone();
    for (path, kind) in wanted {
        let resolved = resolve(root, &Path::new("/").join(path))?;
        if !resolved.is_found() {
            points.insert((resolved.path, *kind));
        }
    }
    Ok((points.len() > wanted.len()).then_some(points))
}

/// Mounts a tree beside the root, at the launcher's `trees` directory, and returns a descriptor of it.
///
/// Trees are mounted on top of each other there; each is known by its descriptor.
pub(super) fn mount_tree(scratch: &Path, tree: &RootFsKind) -> Result<OwnedFd, Failure> {
    match tree {
        RootFsKind::Dir(directory) => open_directory(directory),
        RootFsKind::Overlay { lower, upper, work } => {
            Overlay { place: &scratch.join("trees"), lower, upper, work }.mount(None)
        }
    }
}

struct Overlay<'a> {
    place: &'a Path,
    lower: &'a [PathBuf],
    upper: &'a Path,
    work: &'a Path,
}

impl Overlay<'_> {
    /// Mounts the layers, and beneath them the directory of mount points.
    ///
    /// The directories are named by descriptor numbers relative to /proc/self/fd: the options of mount(2) are limited
    /// to a page, which long paths would soon fill, and no character of a path has to be escaped.
    fn mount(&self, skeleton: Option<&Path>) -> Result<OwnedFd, Failure> {
        if self.lower.len() >= LAYER_LIMIT {
            let reason = format!("{} layers; overlayfs takes {} at most", self.lower.len(), LAYER_LIMIT - 1);
            return Err(Failure::Specification { reason });
        }
        let mut held = Vec::with_capacity(self.lower.len() + 3);
        let mut options = String::from("lowerdir=");
        for layer in self.lower.iter().map(PathBuf::as_path).chain(skeleton) {
            let fd = open_directory(layer)?;
            let colon = if held.is_empty() { "" } else { ":" };
            // Writing to a String does not fail.
            let _ = write!(options, "{colon}{}", fd.as_raw_fd());
            held.push(fd);
        }
        for (name, directory) in [("upperdir", self.upper), ("workdir", self.work)] {
            let fd = open_directory(directory)?;
            let _ = write!(options, ",{name}={}", fd.as_raw_fd());
            held.push(fd);
        }
        options.push_str(",userxattr,volatile,index=off");
        let options = CString::new(options).map_err(|_| Errno::INVAL).step("name the layers")?;
        rustix::process::chdir("/proc/self/fd").at("enter", "/proc/self/fd")?;
        let mounted =
            rustix::mount::mount("overlay", self.place, "overlay", MountFlags::empty(), Some(&*options));
        rustix::process::chdir("/").step("leave /proc/self/fd")?;
        mounted.at("mount an overlay with the upper directory", self.upper)?;
        open_directory(self.place)
    }

    /// Undoes a mount so that the same directories can be mounted once more.
    fn unmount(&self) -> Result<(), Failure> {
        unmount(self.place, UnmountFlags::empty()).at("unmount the overlay at", self.place)?;
        // A volatile overlay leaves this mark, which makes the next mount fail; nothing was written in between.
        let mark = self.work.join("work/incompat");
        match std::fs::remove_dir_all(&mark) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Failure::Setup {
                step: "remove the mark of a volatile overlay,".to_owned(),
                path: mark,
                errno: error.raw_os_error().unwrap_or(0),
            }),
            _ => Ok(()),
        }
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd, Failure> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .at("open the directory", path)
}
