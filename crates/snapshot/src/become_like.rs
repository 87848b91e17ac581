// SPDX-License-Identifier: Apache-2.0
//! Changes one tree until it is like another, and touches nothing else: what its layer then has is the
//! difference between the two.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::OFlags;

use crate::attributes::{Attributes, kept_xattrs};
use crate::copy::{CopySource, CopySpec, KeepAll, copy};
use crate::error::{At, SnapshotError};
use crate::merge::check_depth;
use crate::meta::{Kind, Meta, read_link};
use crate::resolve::open_without_symlinks;
use crate::tree::TreeRoot;

/// Makes `tree` the same as `wanted`.
///
/// Files of the same size, times, mode and owner are taken for the same, as other builders do. Names of one
/// file that differs become files of their own. After an error the tree is half changed and of no use.
///
/// # Errors
/// When something can't be read or written, or a tree is too deep.
pub fn become_like(tree: &TreeRoot, wanted: &TreeRoot) -> Result<(), SnapshotError> {
    directory(tree, wanted, Path::new(""), 0)
}

fn directory(tree: &TreeRoot, wanted: &TreeRoot, path: &Path, depth: usize) -> Result<(), SnapshotError> {
    check_depth(path, depth)?;
    let open = |root: &TreeRoot| {
        open_without_symlinks(root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY).at("open", path)
    };
    let (here, there) = (open(tree)?, open(wanted)?);
    let shown = if path.as_os_str().is_empty() { Path::new("/") } else { path };
    for (name, _) in tree.read_dir(shown)? {
        if Meta::find(&there, &name).at("look at", path.join(&name))?.is_none() {
            tree.remove(path.join(&name))?;
        }
    }
    for (name, _) in wanted.read_dir(shown)? {
        let child = path.join(&name);
        let Some(theirs) = Meta::find(&there, &name).at("look at", &child)? else { continue };
        let own = Meta::find(&here, &name).at("look at", &child)?;
        match own {
            Some(own) if own.is_directory() && theirs.is_directory() => {
                directory(tree, wanted, &child, depth + 1)?;
                attributes(tree, wanted, &child)?;
            }
            Some(own) if is_same(tree, wanted, (&here, &own), (&there, &theirs), (&name, &child))? => {}
            own => {
                if own.is_some() {
                    tree.remove(&child)?;
                }
                bring(tree, wanted, &child)?;
            }
        }
    }
    Ok(())
}

/// Tells whether two nodes that are no directories both are the same.
fn is_same(
    tree: &TreeRoot,
    wanted: &TreeRoot,
    (here, own): (impl AsFd, &Meta),
    (there, theirs): (impl AsFd, &Meta),
    (name, path): (&OsStr, &Path),
) -> Result<bool, SnapshotError> {
    let owner = |root: &TreeRoot, meta: &Meta| {
        root.effective(path, meta, Vec::new()).map(|it| (it.owner, it.kind, it.device))
    };
    if own.kind != theirs.kind
        || (own.kind != Kind::Symlink && own.mode != theirs.mode)
        || own.mtime != theirs.mtime
        || owner(tree, own)? != owner(wanted, theirs)?
    {
        return Ok(false);
    }
    match own.kind {
        Kind::File => Ok(own.size == theirs.size),
        Kind::Symlink => {
            Ok(read_link(here, name).at("read link", path)?
                == read_link(there, name).at("read link", path)?)
        }
        _ => Ok(true),
    }
}

/// Gives a directory that both have the attributes of the other's.
fn attributes(tree: &TreeRoot, wanted: &TreeRoot, path: &Path) -> Result<(), SnapshotError> {
    let of = |root: &TreeRoot| -> Result<_, SnapshotError> {
        let opened =
            open_without_symlinks(root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY).at("open", path)?;
        let meta = Meta::of(&opened).at("look at", path)?;
        let xattrs = kept_xattrs(&opened).at("read xattrs of", path)?;
        let effective = root.effective(path, &meta, xattrs)?;
        Ok((opened, meta, effective))
    };
    let ((opened, own, own_effective), (_, theirs, effective)) = (of(tree)?, of(wanted)?);
    if own.mode == theirs.mode
        && own_effective.owner == effective.owner
        && own_effective.xattrs == effective.xattrs
    {
        return Ok(());
    }
    let attributes = Attributes {
        owner: effective.owner,
        mode: theirs.mode,
        mtime: Some(theirs.mtime),
        xattrs: &effective.xattrs,
    };
    let record = attributes.set_on(&opened).at("set attributes of", path)?;
    tree.note(path, record);
    Ok(())
}

/// Copies a node, a directory with all in it, to the same path.
fn bring(tree: &TreeRoot, wanted: &TreeRoot, path: &Path) -> Result<(), SnapshotError> {
    // Names that are no text can't be told as a source; their directory is copied as a whole, which brings
    // them too.
    let (Some(pattern), Some(destination)) = (path.to_str(), path.to_str()) else {
        let at = path.parent().unwrap_or(Path::new(""));
        return match at.to_str() {
            Some(directory) => copy_as(tree, wanted, if directory.is_empty() { "." } else { directory }, at),
            None => bring(tree, wanted, at),
        };
    };
    copy_as(tree, wanted, pattern, Path::new(destination))
}

fn copy_as(tree: &TreeRoot, wanted: &TreeRoot, source: &str, path: &Path) -> Result<(), SnapshotError> {
    let is_root = path.as_os_str().is_empty();
    let destination = format!("/{}", path.to_string_lossy());
    let is_there = !is_root && tree.symlink_metadata(path)?.is_some();
    copy(
        &CopySpec {
            source: wanted,
            sources: &[CopySource { pattern: source.to_owned(), allow_wildcard: false }],
            filter: &KeepAll,
            matcher: &|pattern, name| pattern == name,
            destination: &destination,
            owner: None,
            mode: None,
            unpack: false,
            unpack_owner: None,
            modified: None,
            within: None,
            created_mode: 0o755,
            keeps_directories: !is_root && !is_there,
            follows_links: false,
            needs_match: false,
        },
        tree,
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_tree_becomes_like_another_and_what_is_the_same_stays() {
        let base = tempfile::tempdir().unwrap();
        let (one, other) = (base.path().join("one"), base.path().join("other"));
        for root in [&one, &other] {
            std::fs::create_dir_all(root.join("directory/below")).unwrap();
            std::fs::write(root.join("same"), "same").unwrap();
        }
        let same = std::fs::File::open(one.join("same")).unwrap();
        let time = std::fs::metadata(other.join("same")).unwrap().modified().unwrap();
        same.set_times(std::fs::FileTimes::new().set_modified(time)).unwrap();
        std::fs::write(one.join("gone"), "").unwrap();
        std::fs::write(one.join("file"), "a file").unwrap();
        std::fs::write(one.join("directory/file"), "old").unwrap();
        std::fs::create_dir(other.join("file")).unwrap();
        std::fs::write(other.join("file/inside"), "inside").unwrap();
        std::fs::write(other.join("directory/file"), "new one").unwrap();
        std::fs::set_permissions(other.join("directory/below"), PermissionsExt::from_mode(0o700)).unwrap();
        symlink("/nowhere", other.join("link")).unwrap();
        let inode = std::fs::metadata(one.join("same")).unwrap().ino();
        let (tree, wanted) = (TreeRoot::open(&one).unwrap(), TreeRoot::open(&other).unwrap());
        become_like(&tree, &wanted).unwrap();
        assert!(!one.join("gone").exists());
        assert_eq!(std::fs::read_to_string(one.join("file/inside")).unwrap(), "inside");
        assert_eq!(std::fs::read_to_string(one.join("directory/file")).unwrap(), "new one");
        assert_eq!(std::fs::metadata(one.join("directory/below")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_link(one.join("link")).unwrap(), Path::new("/nowhere"));
        assert_eq!(std::fs::metadata(one.join("same")).unwrap().ino(), inode);
    }
}
