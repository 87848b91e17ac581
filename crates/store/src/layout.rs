// SPDX-License-Identifier: Apache-2.0
//! OCI image layouts (image-spec, image-layout.md) as directories and as tar streams.

use std::io::{Read, Write};
use std::path::Path;

use polyarch_oci::{Descriptor, Reference};

use crate::{Missing, Store, StoreError};

/// A root document of a layout, and the name it goes by there.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedImage {
    /// The index or manifest.
    pub descriptor: Descriptor,
    /// The full name, when there is one.
    pub name: Option<Reference>,
    /// The layout's own name for it (`org.opencontainers.image.ref.name`), often just a tag. When
    /// writing, `None` stands for the tag of `name`.
    pub ref_name: Option<String>,
}

impl NamedImage {
    /// Makes an image of a layout, with a name or without.
    pub fn new(descriptor: Descriptor, name: Option<Reference>) -> NamedImage {
        NamedImage { descriptor, name, ref_name: None }
    }
}

/// How a layout is written.
#[derive(Debug, Clone, Copy)]
pub struct LayoutOptions {
    /// The time of all files, in seconds since 1970.
    pub epoch: u64,
    /// What to do about blobs that the store lacks.
    pub missing: Missing,
}

impl Default for LayoutOptions {
    fn default() -> LayoutOptions {
        LayoutOptions { epoch: 0, missing: Missing::Refuse }
    }
}

impl Store {
    /// Writes images as a layout directory.
    pub fn write_layout(
        &self,
        _images: &[NamedImage],
        _options: LayoutOptions,
        _dir: &Path,
    ) -> Result<(), StoreError> {
        Err(StoreError::NoImage)
    }

    /// Writes images as a tar stream of a layout (an "OCI archive").
    pub fn write_oci_archive<W: Write>(
        &self,
        _images: &[NamedImage],
        _options: LayoutOptions,
        _out: W,
    ) -> Result<W, StoreError> {
        Err(StoreError::NoImage)
    }

    /// Imports the images of a layout directory.
    pub fn import_layout(&self, _dir: &Path, _missing: Missing) -> Result<Vec<NamedImage>, StoreError> {
        Err(StoreError::NoImage)
    }

    /// Imports the images of an OCI archive or a docker archive, also one compressed with gzip or zstd.
    pub fn import_archive(
        &self,
        _reader: impl Read,
        _missing: Missing,
    ) -> Result<Vec<NamedImage>, StoreError> {
        Err(StoreError::NoImage)
    }
}
