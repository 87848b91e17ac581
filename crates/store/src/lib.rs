// SPDX-License-Identifier: Apache-2.0
//! Bytes by digest, and the names that point at them.
//!
//! The room is synchronous and knows only the disk. It owns `blobs`, `refs`, `lists`, `records`, `staged` and
//! `ingest` beneath one root, whose format `docs/store-format.md` describes. It promises:
//!
//! - a blob that can be seen is whole and has its digest; after a power loss too;
//! - a name or a record is never durable before the blobs that it names;
//! - several processes may use one store; only [`ExclusiveStore`] deletes blobs, and it exists only
//!   while no other process or handle has the store open.
//!
//! Out of scope: file trees (snapshot), the network (registry), and what a cache record means (build).

mod archive;
mod blobs;
#[cfg(test)]
mod crash_tests;
mod disk;
mod docker_archive;
mod docker_import;
mod documents;
mod error;
mod gc;
mod image_archive;
mod ingest;
mod inventory;
mod layout;
mod lists;
mod lock;
mod records;
mod ref_name;
mod refs;
mod room;
mod staging;
mod store;
mod tar_read;
mod tar_write;
mod verified;

pub use docker_archive::{DockerArchive, DockerLayers};
pub use documents::{Missing, direct_children};
pub use error::StoreError;
pub use gc::{Collected, Tally, Usage};
pub use image_archive::ImageArchive;
pub use ingest::BlobWriter;
pub use inventory::StoredFile;
pub use layout::{LayoutOptions, NamedImage};
pub use lists::{ListEntry, WorkingList};
pub use lock::ExclusiveStore;
pub use records::MAX_RECORD_BYTES;
pub use refs::RefEntry;
pub use store::{Durability, Store};
pub use verified::VerifiedReader;
