// SPDX-License-Identifier: Apache-2.0
//! The files of a foreign OCI layout directory (image-spec, image-layout.md), read one by one.
//!
//! Symbolic links are followed, as build tools make layouts of them; content counts only under its own
//! digest, so where a link leads does not matter.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use polyarch_build::image_source::storage_error;
use polyarch_build::{BuildError, ErrorKind};
use polyarch_oci::manifest::MAX_MANIFEST_BYTES;
use polyarch_oci::{Descriptor, Digest, ImageIndex};
use polyarch_store::Store;

use crate::words::first_of;

/// The name of an entry within a layout (image-spec, annotations.md).
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";

/// The files of a layout directory.
pub(crate) struct LayoutFiles<'a> {
    path: &'a Path,
}

impl<'a> LayoutFiles<'a> {
    pub(crate) fn new(path: &'a Path) -> LayoutFiles<'a> {
        LayoutFiles { path }
    }

    /// Finds the entry that goes by a name; without one, the only entry.
    pub(crate) fn entry(&self, tag: Option<&str>) -> Result<Descriptor, BuildError> {
        let entries = self.index()?.manifests;
        let ends_in =
            |name: &str, tag: &str| name == tag || name.rsplit_once(':').is_some_and(|(_, own)| own == tag);
        let is_named = |entry: &&Descriptor, tag: &str| {
            [REF_NAME, IMAGE_NAME]
                .iter()
                .any(|key| entry.annotations.get(*key).is_some_and(|name| ends_in(name, tag)))
        };
        let found = tag.and_then(|tag| entries.iter().find(|entry| is_named(entry, tag)));
        // `latest` is what stands for no tag; a layout of one nameless image needs none.
        let only = match entries.as_slice() {
            [entry] if tag.is_none_or(|tag| tag == "latest") => Some(entry),
            _ => None,
        };
        if let Some(entry) = found.or(only) {
            let mut entry = entry.clone();
            entry.annotations.remove(REF_NAME);
            entry.annotations.remove(IMAGE_NAME);
            return Ok(entry);
        }
        let names: Vec<&str> =
            entries.iter().filter_map(|entry| entry.annotations.get(REF_NAME)).map(String::as_str).collect();
        let message =
            format!("the layout {} has no image {}", self.path.display(), tag.unwrap_or("without a name"));
        let error = BuildError::new(ErrorKind::Usage, message);
        Err(if names.is_empty() {
            error.with_hint("name one by digest: oci-layout://DIR@sha256:…")
        } else {
            error.with_hint(format!("it has {}", first_of(&names)))
        })
    }

    /// Returns the descriptor of a blob that is known by its digest only.
    pub(crate) fn descriptor(&self, digest: &Digest) -> Result<Descriptor, BuildError> {
        let path = self.blob_path(digest);
        let size = open_regular(&path)
            .and_then(|file| file.metadata())
            .map_err(|error| self.missing(digest, &error))?
            .len();
        Ok(Descriptor::new("", digest.clone(), size))
    }

    /// Copies a blob into the store, verified.
    pub(crate) fn import(&self, store: &Store, blob: &Descriptor) -> Result<(), BuildError> {
        let path = self.blob_path(&blob.digest);
        let mut file = open_regular(&path).map_err(|error| self.missing(&blob.digest, &error))?;
        store
            .import_file(&mut file, Some((&blob.digest, blob.size)))
            .map(|_| ())
            .map_err(|error| storage_error(&error))
    }

    fn index(&self) -> Result<ImageIndex, BuildError> {
        let wrong = |what: &str| {
            BuildError::new(ErrorKind::Usage, format!("{} is not an OCI layout: {what}", self.path.display()))
        };
        let read = |name: &str| -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            open_regular(&self.path.join(name))?.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read("oci-layout").map_err(|error| wrong(&format!("oci-layout: {error}")))?;
        let bytes = read("index.json").map_err(|error| wrong(&format!("index.json: {error}")))?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(wrong("index.json is larger than 8 MiB"));
        }
        serde_json::from_slice(&bytes).map_err(|error| wrong(&format!("index.json: {error}")))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    fn missing(&self, digest: &Digest, error: &io::Error) -> BuildError {
        let message = format!("the layout {} lacks {digest}: {error}", self.path.display());
        BuildError::new(ErrorKind::Storage, message).with_hint("the layout is incomplete: write it again")
    }
}

/// Opens a regular file; a pipe or device in its place neither blocks nor is read.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}
