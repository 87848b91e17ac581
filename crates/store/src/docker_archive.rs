// SPDX-License-Identifier: Apache-2.0
//! Docker archives: what `docker save` writes and `docker load` reads.

use std::io::Write;

use polyarch_oci::{Descriptor, Reference};

use crate::{Store, StoreError};

/// What goes into a docker archive.
#[derive(Debug, Clone)]
pub struct DockerArchive {
    /// The manifest of one platform.
    pub manifest: Descriptor,
    /// The names that the image gets when loaded; those without a tag are left out.
    pub names: Vec<Reference>,
    /// How layers are written.
    pub layers: DockerLayers,
    /// The time of all files, in seconds since 1970.
    pub epoch: u64,
}

/// How layers are written into a docker archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DockerLayers {
    /// As they are, together with the image's own manifest as an OCI layout in the same archive, so that
    /// loaders that keep manifests keep its digest.
    #[default]
    AsTheyAre,
    /// Uncompressed, for loaders that know neither OCI layouts nor the layers' compression.
    Uncompressed,
}

impl Store {
    /// Writes one platform's image as a docker archive.
    pub fn write_docker_archive<W: Write>(&self, _archive: &DockerArchive, _out: W) -> Result<W, StoreError> {
        Err(StoreError::NoImage)
    }
}
