// SPDX-License-Identifier: Apache-2.0
//! How much of the disk directories take, counted as `du` counts it.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use crate::error::{At, SnapshotError};
use crate::merge::check_depth;
use crate::meta::{Meta, names, open_directory, open_host_directory};

/// Counts allocated bytes (`du --block-size=1`): a file with several names once, directories as well.
///
/// What was counted is not counted again by the same value, whatever it was counted as part of; so parts can
/// be counted first and the whole last, and the sum is that of the whole.
#[derive(Debug, Default)]
pub struct DiskUsage {
    seen: HashSet<((u32, u32), u64)>,
}

impl DiskUsage {
    /// Counts a file or a directory with everything in it; what isn't there takes nothing.
    ///
    /// # Errors
    /// When a directory can't be read.
    pub fn add(&mut self, path: &Path) -> Result<u64, SnapshotError> {
        let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(0) };
        if found.is_dir() {
            let directory = match open_host_directory(path) {
                Ok(directory) => directory,
                // A running build has ended.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
                Err(error) => return Err(error).at("open", path),
            };
            let meta = Meta::of(&directory).at("look at", path)?;
            return self.directory(directory.as_fd(), &meta, path, 0, true);
        }
        let Some(parent) = path.parent() else { return Ok(0) };
        let directory = match open_host_directory(parent) {
            Ok(directory) => directory,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error).at("open", parent),
        };
        let name = path.file_name().unwrap_or_default();
        let meta = Meta::find(&directory, name).at("look at", path)?;
        Ok(meta.map_or(0, |meta| self.file(&meta, true)))
    }

    fn directory(
        &mut self,
        directory: BorrowedFd<'_>,
        meta: &Meta,
        path: &Path,
        depth: usize,
        is_named: bool,
    ) -> Result<u64, SnapshotError> {
        check_depth(path, depth)?;
        // Only what is named may be met again: the directories in it are met with it.
        if self.seen.contains(&(meta.dev, meta.ino)) || is_named && !self.seen.insert((meta.dev, meta.ino)) {
            return Ok(0);
        }
        let mut total = meta.allocated_bytes;
        for name in names(directory).at("list", path)? {
            let child = path.join(&name);
            // What goes away meanwhile takes nothing.
            let Some(meta) = Meta::find(directory, &name).at("look at", &child)? else { continue };
            total += if meta.is_directory() {
                match open_directory(directory, &name) {
                    Ok(inner) => self.directory(inner.as_fd(), &meta, &child, depth + 1, false)?,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
                    Err(error) => return Err(error).at("open", child),
                }
            } else {
                self.file(&meta, false)
            };
        }
        Ok(total)
    }

    fn file(&mut self, meta: &Meta, is_named: bool) -> u64 {
        let key = (meta.dev, meta.ino);
        let may_return = is_named || meta.links > 1;
        let is_new = if may_return { self.seen.insert(key) } else { !self.seen.contains(&key) };
        if is_new { meta.allocated_bytes } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn du(path: &Path) -> u64 {
        let output =
            std::process::Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split('\t').next().unwrap().parse().unwrap()
    }

    #[test]
    fn parts_and_the_rest_add_up_to_du() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for directory in ["a/deep/er", "b", "c"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        std::fs::write(at("a/one"), vec![1; 10_000]).unwrap();
        std::fs::hard_link(at("a/one"), at("a/deep/two")).unwrap();
        std::fs::hard_link(at("a/one"), at("b/three")).unwrap();
        std::fs::write(at("c/four"), vec![4; 5000]).unwrap();
        std::fs::write(at("c/sparse"), "").unwrap();
        std::fs::File::options().write(true).open(at("c/sparse")).unwrap().set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("/", at("c/link")).unwrap();

        let mut usage = DiskUsage::default();
        let parts = ["a", "c/four", "b", "absent"].map(|name| usage.add(&at(name)).unwrap());
        assert!(parts[0] >= 10_000 && parts[1] >= 5000 && parts[2] < 10_000 && parts[3] == 0, "{parts:?}");
        assert_eq!(usage.add(&at("a")).unwrap(), 0, "counted already");
        let rest = usage.add(root.path()).unwrap();
        assert_eq!(parts.iter().sum::<u64>() + rest, du(root.path()));
        assert_eq!(DiskUsage::default().add(root.path()).unwrap(), du(root.path()));
    }
}
