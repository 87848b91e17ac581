// SPDX-License-Identifier: Apache-2.0
//! Layers laid on top of each other by copying, where overlays cannot be mounted.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode};

use crate::attributes::{Attributes, Xattrs, is_opaque, kept_xattrs, kept_xattrs_at};
use crate::error::{At, SnapshotError};
use crate::meta::{Meta, names, open_directory};
use crate::nodes::copy_node;
use crate::remove::remove_tree;
use crate::resolve::open_without_symlinks;
use crate::stack::{Effective, Stack};

/// Deepest tree that is walked; every level holds descriptors.
pub(crate) const MAX_TREE_DEPTH: usize = 400;

/// What becomes of files with several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HardLinks {
    /// They stay one file.
    Keep,
    /// Each name becomes a file of its own, as overlays make it when one of them is changed.
    Break,
}

/// Copies the merged tree of `stack` into an empty directory: what the disk has, without side files.
pub(crate) fn merge(stack: &Stack, hard_links: HardLinks, target: &OwnedFd) -> Result<(), SnapshotError> {
    for layer in stack.layers.iter().rev() {
        let mut merger = Merger { target, hard_links, links: HashMap::new() };
        merger.directory(&layer.directory, target.as_fd(), Path::new(""), 0)?;
    }
    Ok(())
}

struct Merger<'a> {
    target: &'a OwnedFd,
    hard_links: HardLinks,
    /// Where the first name of a file with several went, by inode.
    links: HashMap<((u32, u32), u64), PathBuf>,
}

impl Merger<'_> {
    fn directory(
        &mut self,
        source: &OwnedFd,
        target: BorrowedFd<'_>,
        path: &Path,
        depth: usize,
    ) -> Result<(), SnapshotError> {
        check_depth(path, depth)?;
        for name in names(source).at("list", path)? {
            let child = path.join(&name);
            let meta = Meta::at(source, &name).at("look at", &child)?;
            if meta.is_whiteout() {
                remove_tree(target, &name).at("remove", &child)?;
            } else if meta.is_directory() {
                let inner = open_directory(source, &name).at("open", &child)?;
                let made = replace_directory(&inner, target, &name).at("create directory", &child)?;
                self.directory(&inner, made.as_fd(), &child, depth + 1)?;
            } else {
                remove_tree(target, &name).at("replace", &child)?;
                self.node((source.as_fd(), &name), &meta, target, &child)?;
            }
        }
        let meta = Meta::of(source).at("look at", path)?;
        let xattrs = kept_xattrs(source).at("read xattrs of", path)?;
        raw_attributes(&meta, &xattrs).set_on(target).at("set attributes of", path)?;
        Ok(())
    }

    fn node(
        &mut self,
        (source, name): (BorrowedFd<'_>, &OsStr),
        meta: &Meta,
        target: BorrowedFd<'_>,
        path: &Path,
    ) -> Result<(), SnapshotError> {
        let key = (meta.dev, meta.ino);
        let is_linked = meta.links > 1 && self.hard_links == HardLinks::Keep;
        if is_linked && let Some(first) = self.links.get(&key) {
            return rustix::fs::linkat(self.target, first, target, name, AtFlags::empty()).at("link", path);
        }
        let xattrs = kept_xattrs_at(source, name, meta.kind).at("read xattrs of", path)?;
        let raw = Effective {
            owner: (meta.uid, meta.gid),
            kind: meta.kind,
            device: meta.rdev,
            xattrs: Xattrs::new(),
        };
        copy_node((source, name), meta, &raw, (target, name), &raw_attributes(meta, &xattrs))
            .at("copy", path)?;
        if is_linked {
            self.links.insert(key, path.to_owned());
        }
        Ok(())
    }
}

fn raw_attributes<'a>(meta: &Meta, xattrs: &'a Xattrs) -> Attributes<'a> {
    Attributes { owner: (meta.uid, meta.gid), mode: meta.mode, mtime: Some(meta.mtime), xattrs }
}

/// Opens the directory `name` in `target` for the entries of `source`, made anew where it must not
/// show what was there.
fn replace_directory(source: &OwnedFd, target: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let existing = Meta::find(target, name)?;
    let is_merged = existing.as_ref().is_some_and(Meta::is_directory) && !is_opaque(source)?;
    if !is_merged {
        remove_tree(target, name)?;
        rustix::fs::mkdirat(target, name, Mode::RWXU)?;
    }
    open_directory(target, name)
}

pub(crate) fn check_depth(path: &Path, depth: usize) -> Result<(), SnapshotError> {
    if depth <= MAX_TREE_DEPTH {
        return Ok(());
    }
    let limit = MAX_TREE_DEPTH as u64;
    Err(SnapshotError::Limit { what: "depth of the tree", limit, path: path.to_owned() })
}

/// What identifies the state of one node of a merged tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    meta: Meta,
    /// Of a directory only; changes of a file's show in its ctime.
    xattrs: Xattrs,
}

/// The state of a merged tree at the moment it was made.
#[derive(Debug, Default)]
pub(crate) struct Baseline {
    pub(crate) stamp: Option<Stamp>,
    pub(crate) children: HashMap<OsString, Baseline>,
}

impl Baseline {
    /// Remembers the state of every node beneath a directory.
    ///
    /// Changes within the clock tick of the last one would go unnoticed, so this ends in the next tick.
    pub(crate) fn of(directory: &OwnedFd, clock: &Path) -> Result<Baseline, SnapshotError> {
        let mut latest = (0, 0);
        let baseline = scan(directory, Path::new(""), 0, &mut latest)?;
        loop {
            std::fs::write(clock, "").at("write", clock)?;
            let file = std::fs::File::open(clock).at("open", clock)?;
            let now = Meta::of(&file).at("look at", clock)?.ctime;
            std::fs::remove_file(clock).at("remove", clock)?;
            if (now.sec, now.nsec) > latest {
                return Ok(baseline);
            }
            std::thread::yield_now();
        }
    }
}

fn scan(
    directory: &OwnedFd,
    path: &Path,
    depth: usize,
    latest: &mut (i64, u32),
) -> Result<Baseline, SnapshotError> {
    check_depth(path, depth)?;
    let xattrs = kept_xattrs(directory).at("read xattrs of", path)?;
    let stamp = Stamp::new(Meta::of(directory).at("look at", path)?, xattrs, latest);
    let mut children = HashMap::new();
    for name in names(directory).at("list", path)? {
        let child = path.join(&name);
        let meta = Meta::at(directory, &name).at("look at", &child)?;
        let node = if meta.is_directory() {
            let inner = open_directory(directory, &name).at("open", &child)?;
            scan(&inner, &child, depth + 1, latest)?
        } else {
            Baseline { stamp: Some(Stamp::new(meta, Xattrs::new(), latest)), children: HashMap::new() }
        };
        children.insert(name, node);
    }
    Ok(Baseline { stamp: Some(stamp), children })
}

impl Stamp {
    fn new(meta: Meta, xattrs: Xattrs, latest: &mut (i64, u32)) -> Stamp {
        *latest = (*latest).max((meta.ctime.sec, meta.ctime.nsec));
        Stamp { meta: comparable(meta), xattrs }
    }

    /// Tells whether a directory still has the attributes that a layer keeps. Its ctime says nothing: who
    /// made a mount point in it and removed that again, and set its time back, has changed nothing.
    fn has_attributes(&self, meta: &Meta, xattrs: &Xattrs) -> bool {
        let of = |meta: &Meta| (meta.mode, meta.uid, meta.gid, meta.mtime);
        of(&self.meta) == of(meta) && self.xattrs == *xattrs
    }

    /// Tells whether a node that is no directory is untouched since.
    fn is(&self, meta: &Meta) -> bool {
        self.meta == comparable(meta.clone())
    }

    /// Tells whether a directory is still the same one, changed or not: inode numbers are used again,
    /// times of birth are not.
    fn is_same_directory(&self, meta: &Meta) -> bool {
        let of = |meta: &Meta| (meta.kind, meta.dev, meta.ino, meta.btime);
        meta.is_directory() && of(&self.meta) == of(meta)
    }

    fn is_directory(&self) -> bool {
        self.meta.is_directory()
    }
}

/// Leaves out what a file system changes on its own: blocks are allocated when data is written back.
fn comparable(mut meta: Meta) -> Meta {
    meta.allocated_bytes = 0;
    meta
}

/// Moves what changed since `baseline` out of a tree into an empty directory, in the form of an overlay's
/// upper directory. The tree is of no use afterwards.
pub(crate) fn take_changes(
    tree: &OwnedFd,
    baseline: &Baseline,
    target: &OwnedFd,
) -> Result<(), SnapshotError> {
    let mut taker = Taker { tree, target, made: HashMap::new() };
    taker.capture(Path::new(""))?;
    taker.directory(tree, baseline, Path::new(""), 0)?;
    taker.settle()
}

struct Taker<'a> {
    tree: &'a OwnedFd,
    target: &'a OwnedFd,
    /// What the directories made in the target are to have in the end, as it was before anything was
    /// moved out of their sources.
    made: HashMap<PathBuf, (Meta, Xattrs)>,
}

impl Taker<'_> {
    fn directory(
        &mut self,
        source: &OwnedFd,
        baseline: &Baseline,
        path: &Path,
        depth: usize,
    ) -> Result<(), SnapshotError> {
        check_depth(path, depth)?;
        let present = names(source).at("list", path)?;
        for name in &present {
            let child = path.join(name);
            let meta = Meta::at(source, name).at("look at", &child)?;
            let before = baseline.children.get(name);
            let stamp = before.and_then(|node| node.stamp.as_ref());
            match (before, stamp) {
                (_, Some(stamp)) if !meta.is_directory() && stamp.is(&meta) => {}
                (Some(before), Some(stamp)) if stamp.is_same_directory(&meta) => {
                    let inner = open_directory(source, name).at("open", &child)?;
                    let xattrs = kept_xattrs(&inner).at("read xattrs of", &child)?;
                    if !stamp.has_attributes(&meta, &xattrs) {
                        self.make(&child)?;
                    }
                    self.directory(&inner, before, &child, depth + 1)?;
                }
                _ => {
                    self.make(path)?;
                    self.move_node(source, name, path)?;
                    if meta.is_directory() && stamp.is_some_and(Stamp::is_directory) {
                        let moved = self.open_target(&child)?;
                        crate::attributes::set_opaque(&moved).at("mark as opaque", &child)?;
                    }
                }
            }
        }
        let mut gone: Vec<_> =
            baseline.children.keys().filter(|name| present.binary_search(name).is_err()).collect();
        gone.sort();
        for name in gone {
            self.make(path)?;
            let directory = self.open_target(path)?;
            crate::nodes::make_whiteout(directory.as_fd(), name).at("create whiteout", path.join(name))?;
        }
        Ok(())
    }

    fn move_node(&self, source: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), SnapshotError> {
        let directory = self.open_target(path)?;
        rustix::fs::renameat(source, name, &directory, name).at("move", path.join(name))
    }

    fn open_target(&self, path: &Path) -> Result<OwnedFd, SnapshotError> {
        open_beneath(self.target, path).at("open", path)
    }

    /// Makes a directory of the target, with those above it.
    fn make(&mut self, path: &Path) -> Result<(), SnapshotError> {
        if self.made.contains_key(path) {
            return Ok(());
        }
        // The root is there from the beginning, so every other path has a parent and a name.
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            self.make(parent)?;
            self.capture(path)?;
            let directory = self.open_target(parent)?;
            rustix::fs::mkdirat(&directory, name, Mode::RWXU).at("create directory", path)?;
        }
        Ok(())
    }

    fn capture(&mut self, path: &Path) -> Result<(), SnapshotError> {
        let source = open_beneath(self.tree, path).at("open", path)?;
        let meta = Meta::of(&source).at("look at", path)?;
        let xattrs = kept_xattrs(&source).at("read xattrs of", path)?;
        self.made.insert(path.to_owned(), (meta, xattrs));
        Ok(())
    }

    fn settle(self) -> Result<(), SnapshotError> {
        let mut made: Vec<_> = self.made.iter().collect();
        made.sort_by(|a, b| b.0.cmp(a.0));
        for (path, (meta, xattrs)) in made {
            let directory = self.open_target(path)?;
            raw_attributes(meta, xattrs).set_on(&directory).at("set attributes of", path)?;
        }
        Ok(())
    }
}

fn open_beneath(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::OFlags;
    open_without_symlinks(root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY)
}
