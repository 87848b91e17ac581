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

mod active;
mod attributes;
mod become_like;
mod disk_usage;
mod error;
mod gzip_members;
mod hash_memory;
mod id;
mod layer;
mod layer_stream;
mod layer_write;
mod merge;
mod meta;
mod nodes;
mod overlay;
mod records;
mod remove;
mod resolve;
mod select;
mod snapshots;
mod stack;
mod tar_read;
mod tar_write;
mod unpack;
mod workspace;

pub mod compress;
pub mod content_key;
pub mod copy;
pub mod tree;

pub use active::{ActiveSnapshot, RootMount, Snapshot};
pub use become_like::become_like;
pub use compress::{Codec, Compressor, compressor, decompressor, detect};
pub use content_key::{HashMemory, content_key};
pub use copy::{CopySource, CopySpec, KeepAll, ModeChange, PathFilter, Verdict, Within, copy};
pub use disk_usage::DiskUsage;
pub use error::SnapshotError;
pub use id::SnapshotId;
pub use layer::UnpackedLayer;
pub use layer_stream::{ApplyLimits, LayerBytes, read_layer};
pub use layer_write::LayerTimes;
pub use snapshots::{SnapshotOptions, SnapshotUsage, Snapshots, TreeMode};
pub use tar_read::{Body, TarEntry, TarReader};
pub use tree::{Kind, Metadata, TreeRoot};
