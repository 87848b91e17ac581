// SPDX-License-Identifier: Apache-2.0
//! The files of an image as the streams of its layers tell them, judged without unpacking.
//!
//! [`LayerContents`] is read from one layer's tar stream and can be remembered; [`ImageContents`] lays layers
//! one upon another; [`judge()`] says whether the programs in there are what a platform needs
//! (`docs/verify.md`). Everything is synchronous, and nothing is written.
//!
//! Out of scope: where layers come from, and who is told.

mod content;
mod elf;
mod entry;
mod fit;
mod image;
mod judge;
mod layer;
mod memory;
mod path;
mod places;
mod resolve;

pub use elf::{ElfFacts, ElfKind, Program};
pub use entry::{Entry, EntryKind, FileFacts};
pub use fit::{Fit, architecture_of, fit, is_known};
pub use image::{ImageContents, Placed};
pub use judge::{DEFAULT_PATH, Finding, Judgement, Scope, Severity, judge, search_path};
pub use layer::LayerContents;
pub use memory::ReadLayer;
pub use path::ImagePath;
