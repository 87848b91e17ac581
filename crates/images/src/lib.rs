// SPDX-License-Identifier: Apache-2.0
//! Images after the build: found, composed, copied, compared and proved.
//!
//! Everything here works on a [`polyarch_build::Services`]: its store, its registry client and, where
//! files must be looked at, its layers.

pub mod find;
pub mod found;
mod layout_files;
pub mod names;
pub mod source;

pub use find::{FindOptions, Lookup, find};
pub use found::{FoundImage, Origin};
pub use source::{ImageSource, LayoutLocation};
