// SPDX-License-Identifier: Apache-2.0
//! Image layers on their way in: decompressed, verified and unpacked in one pass.
//!
//! A layer is unpacked without regard to the layers beneath it, so that all layers of an image can be
//! unpacked at once. Two things in a layer have a meaning only on top of others: a hard link to a file
//! that it does not contain, and a directory that it needs but does not describe. Such a layer is
//! completed when its parents are known, and is kept under a name derived from the chain.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use polyarch_oci::DiffId;
use polyarch_oci::media_type::Compression;

use crate::attributes::Attributes;
use crate::error::{At, SnapshotError};
use crate::id::SnapshotId;
use crate::layer_stream::{ApplyLimits, read_layer};
use crate::meta::open_host_directory;
use crate::nodes::copy_node;
use crate::resolve::{find_place, split};
use crate::snapshots::Snapshots;
use crate::stack::{Stack, StackLayer};
use crate::unpack::{DirectoryAttributes, Meaning, Unpacker};
use crate::workspace::Workspace;

/// A layer that is unpacked and verified, but not yet in the store.
///
/// Dropping it removes what was unpacked.
#[derive(Debug)]
pub struct UnpackedLayer {
    snapshots: Snapshots,
    diff_id: DiffId,
    unpacker: Unpacker,
    workspace: Workspace,
}

impl UnpackedLayer {
    /// Decompresses, hashes and unpacks a stream into a new workspace.
    pub(crate) fn read(
        snapshots: &Snapshots,
        diff_id: &DiffId,
        stream: impl Read + Send,
        compression: Compression,
        limits: &ApplyLimits,
    ) -> Result<UnpackedLayer, SnapshotError> {
        let workspace = snapshots.workspace()?;
        let files = workspace.path().join("fs");
        std::fs::create_dir(&files).at("create directory", &files)?;
        let root = open_host_directory(&files).at("open", &files)?;
        let mut unpacker = Unpacker::new(root, Meaning::Layer, limits);
        // A layer that does not describe its root leaves it as other tools make it.
        unpacker.directories.insert(
            PathBuf::new(),
            DirectoryAttributes {
                owner: (0, 0),
                mode: 0o755,
                mtime: Some(Default::default()),
                xattrs: Vec::new(),
            },
        );
        let algorithm = diff_id.0.algorithm();
        let ((), actual) =
            read_layer(stream, compression, algorithm, limits, |reader| unpacker.unpack(reader))?;
        if actual != *diff_id {
            return Err(SnapshotError::DiffIdMismatch { expected: diff_id.clone(), actual });
        }
        Ok(UnpackedLayer { snapshots: snapshots.clone(), diff_id: diff_id.clone(), unpacker, workspace })
    }

    /// Tells whether the layer's meaning depends on the layers beneath it.
    pub fn needs_parents(&self) -> bool {
        !self.unpacker.implied.is_empty() || !self.unpacker.links_below.is_empty()
    }

    /// Puts the layer into the store; `parents` (lowest first, all in the store) are read only when
    /// [`UnpackedLayer::needs_parents`].
    ///
    /// When another process or thread was faster, its result stays and this one goes.
    pub fn finish(mut self, parents: &[SnapshotId]) -> Result<SnapshotId, SnapshotError> {
        let id = if self.needs_parents() {
            self.complete(parents)?;
            SnapshotId::of_chain(parents, &self.diff_id)
        } else {
            SnapshotId::of_layer(&self.diff_id)
        };
        self.unpacker.settle()?;
        self.snapshots.put(self.workspace, &self.unpacker.records, &id)?;
        Ok(id)
    }

    /// Takes from the layers beneath what this one refers to.
    fn complete(&mut self, parents: &[SnapshotId]) -> Result<(), SnapshotError> {
        let mut stack = self.snapshots.stack(parents)?;
        let own = self.workspace.path().join("fs");
        // This layer on top: its own whiteouts and opaque directories hide what is beneath.
        stack.layers.insert(0, StackLayer::open(&own, &own.with_file_name("none"))?);
        for path in &self.unpacker.implied {
            let is_hidden = path.ancestors().skip(1).any(|above| self.unpacker.opaque.contains(above));
            if is_hidden {
                continue;
            }
            let Some(found) = stack.find_from(1, path)?.filter(|found| found.meta.is_directory()) else {
                continue;
            };
            let effective = stack.effective_of(path, &found)?;
            let attributes = DirectoryAttributes {
                owner: effective.owner,
                mode: found.meta.mode,
                mtime: Some(found.meta.mtime),
                xattrs: effective.xattrs,
            };
            self.unpacker.directories.insert(path.clone(), attributes);
        }
        for (path, target) in std::mem::take(&mut self.unpacker.links_below) {
            self.copy_from_below(&stack, &path, &target)?;
        }
        Ok(())
    }

    /// Copies the file that a hard link into a lower layer leads to: links do not cross layers.
    fn copy_from_below(&mut self, stack: &Stack, path: &Path, target: &Path) -> Result<(), SnapshotError> {
        let missing = || SnapshotError::Entry {
            path: path.to_owned(),
            problem: format!("is a hard link to {target:?}, which neither its layer nor those beneath have"),
        };
        let found = stack.find(target)?.filter(|found| !found.meta.is_directory()).ok_or_else(missing)?;
        let effective = stack.effective_of(target, &found)?;
        // Both paths were cleaned and are not the root: the archive's entry had a name.
        let (Some((parent, name)), Some((target_parent, target_name))) = (split(path), split(target)) else {
            return Err(missing());
        };
        let place =
            find_place(self.unpacker.root().as_fd(), parent).at("resolve", path)?.ok_or_else(missing)?;
        let source = find_place(stack.layers[found.layer].directory.as_fd(), target_parent)
            .at("resolve", target)?
            .ok_or_else(missing)?;
        let attributes = Attributes {
            owner: effective.owner,
            mode: found.meta.mode,
            mtime: Some(found.meta.mtime),
            xattrs: &effective.xattrs,
        };
        let from = (source.as_fd(), target_name);
        let record = copy_node(from, &found.meta, &effective, (place.as_fd(), name), &attributes)
            .at("copy the hard link's target to", path)?;
        self.unpacker.records.set(path, record);
        Ok(())
    }
}
