// SPDX-License-Identifier: Apache-2.0
//! File trees: layer directories, their mounts, and the tar streams they come from and go to.
//!
//! A layer directory has the form of an overlayfs upper directory: a whiteout is a character device
//! 0:0, an opaque directory carries the xattr `user.overlay.opaque=y`. What the disk cannot express
//! (an owner without a mapping, a device node inside a user namespace) stands in a side file; see
//! `docs/snapshot-format.md`.
//!
//! Life of a snapshot: [`Snapshots::prepare`] makes an [`ActiveSnapshot`] on top of committed layers,
//! its [`ActiveSnapshot::tree`] or [`ActiveSnapshot::root_mount`] is changed, and
//! [`ActiveSnapshot::commit`] consumes it into a [`Snapshot`]; only committed ones can be parents.
//! Layers of images come in through [`Snapshots::apply`] and go out through
//! [`Snapshots::write_layer`].
//!
//! Out of scope: where blobs are kept, and running anything inside a tree. Everything is synchronous.

mod attributes;
mod error;
mod gzip_members;
mod id;
mod meta;
mod records;
mod remove;
mod resolve;
mod stack;
mod tar_read;
mod workspace;

pub mod compress;
pub mod content_key;
pub mod copy;
pub mod layer;
pub mod snapshots;
pub mod tree;

pub use compress::{Codec, Compressor, compressor, decompressor, detect};
pub use content_key::{HashMemory, content_key};
pub use copy::{CopySource, CopySpec, KeepAll, PathFilter, Verdict, copy};
pub use error::SnapshotError;
pub use id::SnapshotId;
pub use layer::{ApplyLimits, LayerTimes, UnpackedLayer};
pub use snapshots::{
    ActiveSnapshot, RootMount, Snapshot, SnapshotOptions, SnapshotUsage, Snapshots, TreeMode,
};
pub use tree::{Kind, Metadata, TreeRoot};
