// SPDX-License-Identifier: Apache-2.0
//! Images after the build: found, composed, copied, compared and proved.
//!
//! Everything here works on a [`polyarch_build::Services`]: its store, its registry client and, where
//! files must be looked at, its layers.

pub mod annotation;
mod below;
pub mod combine;
pub mod compose;
pub mod copy;
mod copy_blob;
pub mod copy_out;
pub mod create;
pub mod details;
pub mod diff;
pub mod diff_config;
pub mod diff_files;
mod entries;
pub mod find;
pub mod found;
pub mod import;
mod layout_files;
pub mod layout_target;
pub mod load;
pub mod lookup;
pub mod manifest_list;
pub mod names;
mod referrers;
pub mod resolve;
pub mod running;
pub mod save;
pub mod source;
pub mod verify;
pub mod verify_exec;
mod words;

pub use annotation::{Annotation, AnnotationKind};
pub use combine::combine;
pub use compose::{ComposeOptions, Composed};
pub use copy::Copier;
pub use create::{CreateRequest, Creation, Target};
pub use details::{PlatformDetails, Statement, details};
pub use find::{FindOptions, Lookup, find};
pub use found::{FoundImage, Origin};
pub use layout_target::write_layout;
pub use source::{ImageSource, LayoutLocation};
