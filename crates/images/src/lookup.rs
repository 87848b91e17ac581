// SPDX-License-Identifier: Apache-2.0
//! Finds an image of the store by what a user types: a name, a digest, or the beginning of an id.
//!
//! A name points at one document, an index or a manifest: the *root*. The digest of the root is the
//! index digest; each platform below it has a manifest digest and a config digest of its own. All three
//! are accepted as ids, in full or as an unambiguous beginning of at least [`MIN_ID_CHARACTERS`].
//!
//! A name wins over an id. What no name points at is found only by its full digest, alone or behind the
//! name that it has lost.

use polyarch_build::BuildError;
use polyarch_oci::{Descriptor, Reference};
use polyarch_store::Store;

#[cfg(test)]
mod fixture;
mod near;
mod search;
mod select;

pub(crate) use near::no_such_image;
pub use near::with_near_names;
pub use select::{PlatformImage, SelectedImage, images_of};

use search::Names;

/// The shortest beginning of an id.
pub const MIN_ID_CHARACTERS: usize = 3;

/// The most names that an error lists.
const MAX_NAMES: usize = 8;

/// An image of the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The name that was asked for, in full; of an image that was asked for by id, its first name.
    pub name: Option<Reference>,
    /// Whether it was found by a name, and not by a digest or an id.
    pub is_by_name: bool,
    /// All names of the root, sorted.
    pub names: Vec<Reference>,
    /// The document that the names point at: an index, or the only manifest.
    pub root: Descriptor,
    /// The one image that was meant, when the digest of a platform's manifest or config was asked for.
    pub image: Option<Descriptor>,
}

/// Finds an image.
///
/// # Errors
/// When there is none (with names that look like it), or when an id has several.
pub fn find(store: &Store, text: &str) -> Result<Found, BuildError> {
    match look_up(store, text)? {
        Some(found) => Ok(found),
        None => Err(no_such_image(store, text)),
    }
}

/// Finds an image; `None` when there is none.
///
/// # Errors
/// When an id has several.
pub fn look_up(store: &Store, text: &str) -> Result<Option<Found>, BuildError> {
    Names::read(store)?.search(store, text, text.parse().ok().as_ref())
}

impl Found {
    /// Returns what messages call the image: its short name, or its digest.
    pub fn shown(&self) -> String {
        match &self.name {
            Some(name) => name.familiar(),
            None => self.descriptor().digest.to_string(),
        }
    }

    /// Returns the document that was meant: one platform's manifest, or else the root.
    pub fn descriptor(&self) -> &Descriptor {
        self.image.as_ref().unwrap_or(&self.root)
    }
}
