// SPDX-License-Identifier: Apache-2.0
//! Layers on top of each other, read without mounting them.
//!
//! Answers what stands at a path of the merged tree, with whiteouts and opaque directories obeyed,
//! and what the layers' side files record of it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::attributes::{Xattrs, is_opaque, kept_xattrs_at};
use crate::error::{At, SnapshotError};
use crate::meta::{Kind, Meta, open_directory, open_host_directory};
use crate::records::{Record, Records};
use crate::resolve::{open_without_symlinks, split};

/// One layer directory, open.
#[derive(Debug)]
pub(crate) struct StackLayer {
    pub(crate) path: PathBuf,
    pub(crate) directory: OwnedFd,
    pub(crate) records: Records,
}

impl StackLayer {
    /// Opens the layer whose files and side file are given.
    pub(crate) fn open(files: &Path, records: &Path) -> Result<StackLayer, SnapshotError> {
        Ok(StackLayer {
            path: files.to_owned(),
            directory: open_host_directory(files).at("open layer", files)?,
            records: Records::load(records)?,
        })
    }
}

/// What stands at a path of the merged tree.
#[derive(Debug)]
pub(crate) struct Found {
    /// Index of the layer that has it.
    pub(crate) layer: usize,
    pub(crate) meta: Meta,
}

/// What a node has, with the side files taken into account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effective {
    pub(crate) owner: (u32, u32),
    /// The type, which for a recorded device is not the disk's.
    pub(crate) kind: Kind,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Xattrs,
}

/// Layers on top of each other, the topmost first.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    pub(crate) layers: Vec<StackLayer>,
}

enum InLayer {
    Here(Meta),
    /// Not in this layer, but maybe further down.
    Below,
    /// Not in this layer, and it hides what is further down.
    Hidden,
}

impl Stack {
    /// Returns what stands at a cleaned path of the merged tree; symlinks are not followed.
    pub(crate) fn find(&self, path: &Path) -> Result<Option<Found>, SnapshotError> {
        self.find_from(0, path)
    }

    /// As [`Stack::find`], without the first `skipped` layers.
    pub(crate) fn find_from(&self, skipped: usize, path: &Path) -> Result<Option<Found>, SnapshotError> {
        for (index, layer) in self.layers.iter().enumerate().skip(skipped) {
            match look(layer, path).at("look up", layer.path.join(path))? {
                InLayer::Here(meta) => return Ok(Some(Found { layer: index, meta })),
                InLayer::Below => {}
                InLayer::Hidden => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Returns what the side files say of a path, from the topmost layer that says something of it.
    pub(crate) fn record(&self, path: &Path) -> Result<Option<&Record>, SnapshotError> {
        let Some(last) = self.layers.iter().rposition(|layer| layer.records.get(path).is_some()) else {
            return Ok(None);
        };
        for layer in &self.layers[..=last] {
            if let Some(record) = layer.records.get(path) {
                return Ok(Some(record));
            }
            if matches!(look(layer, path).at("look up", layer.path.join(path))?, InLayer::Hidden) {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Tells whether no side file records anything.
    pub(crate) fn has_no_records(&self) -> bool {
        self.layers.iter().all(|layer| layer.records.is_empty())
    }

    /// Completes what the disk says of a node at `path` by what `own` (the layer's own record) or the
    /// layers beneath record of it.
    ///
    /// An owner other than 0:0 on disk was set on purpose and wins over records of lower layers; 0:0 is
    /// what everything looks like under a mapping of a single id, and keeps the recorded owner.
    pub(crate) fn effective(
        &self,
        own: Option<&Record>,
        path: &Path,
        meta: &Meta,
        xattrs: Xattrs,
    ) -> Result<Effective, SnapshotError> {
        let mut effective =
            Effective { owner: (meta.uid, meta.gid), kind: meta.kind, device: meta.rdev, xattrs };
        let (record, is_own) = match own {
            Some(record) => (Some(record), true),
            None if self.has_no_records() => (None, false),
            None => (self.record(path)?, false),
        };
        let Some(record) = record else { return Ok(effective) };
        if let Some(owner) = record.owner
            && (is_own || effective.owner == (0, 0))
        {
            effective.owner = owner;
        }
        if let Some((kind, major, minor)) = record.device
            && meta.kind == Kind::File
            && meta.size == 0
        {
            effective.kind = kind;
            effective.device = (major, minor);
        }
        // A rewritten file has lost its capabilities for good, so those of lower layers stay there.
        if is_own {
            for (name, value) in &record.xattrs {
                if !effective.xattrs.iter().any(|(known, _)| known == name) {
                    effective.xattrs.push((name.clone(), value.clone()));
                }
            }
            effective.xattrs.sort();
        }
        Ok(effective)
    }

    /// Completes what the disk says of a node of the merged tree, whichever layer it comes from.
    pub(crate) fn effective_merged(
        &self,
        path: &Path,
        meta: &Meta,
        xattrs: Xattrs,
    ) -> Result<Effective, SnapshotError> {
        let own = if self.has_no_records() {
            None
        } else {
            self.find(path)?.and_then(|found| self.layers[found.layer].records.get(path))
        };
        self.effective(own, path, meta, xattrs)
    }

    /// Reads what a found node has.
    pub(crate) fn effective_of(&self, path: &Path, found: &Found) -> Result<Effective, SnapshotError> {
        let layer = &self.layers[found.layer];
        let xattrs = read_xattrs(layer, path, &found.meta).at("read xattrs of", layer.path.join(path))?;
        self.effective(layer.records.get(path), path, &found.meta, xattrs)
    }
}

fn read_xattrs(layer: &StackLayer, path: &Path, meta: &Meta) -> io::Result<Xattrs> {
    match split(path) {
        Some((parent, name)) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let parent = open_without_symlinks(rustix::fd::AsFd::as_fd(&layer.directory), parent, flags)?;
            kept_xattrs_at(parent, name, meta.kind)
        }
        None => crate::attributes::kept_xattrs(&layer.directory),
    }
}

/// Looks a path up in one layer, part by part: any part may be a whiteout or opaque.
fn look(layer: &StackLayer, path: &Path) -> io::Result<InLayer> {
    let mut prefix = PathBuf::new();
    let mut hides = is_opaque(&layer.directory)?;
    let count = path.components().count();
    for (index, part) in path.components().enumerate() {
        prefix.push(part);
        // Every part before was found to be a directory, so no symlink is followed here.
        let Some(meta) = Meta::find(&layer.directory, &prefix)? else {
            return Ok(if hides { InLayer::Hidden } else { InLayer::Below });
        };
        if meta.is_whiteout() {
            return Ok(InLayer::Hidden);
        }
        if index + 1 == count {
            return Ok(InLayer::Here(meta));
        }
        if !meta.is_directory() {
            return Ok(InLayer::Hidden);
        }
        hides = hides || is_opaque(open_directory(&layer.directory, &prefix)?)?;
    }
    Ok(InLayer::Here(Meta::of(&layer.directory)?))
}
