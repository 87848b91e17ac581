// SPDX-License-Identifier: Apache-2.0
//! Archives of several images: an OCI layout with docker's `manifest.json` in it, which loaders of both
//! kinds read; or docker's own form alone.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;

use polyarch_oci::{Descriptor, Digest, ManifestOrIndex, Reference};

use crate::docker_archive::{ArchiveImage, DockerImage};
use crate::layout::{LAYOUT_FILE, NamedImage, index_file};
use crate::tar_write::TarWriter;
use crate::{Missing, Store, StoreError};

/// What goes into an archive.
#[derive(Debug, Clone, Default)]
pub struct ImageArchive {
    /// The documents of the OCI layout: indexes or manifests, each with its name.
    pub images: Vec<NamedImage>,
    /// Entries of the indexes that stay out, with all that only they name.
    pub left_out: HashSet<Digest>,
    /// The images of `manifest.json`: manifests of one platform, and the names they get when loaded by
    /// docker. Without any the file is not written.
    pub docker: Vec<(Descriptor, Vec<Reference>)>,
    /// The time of all files, in seconds since 1970.
    pub epoch: u64,
}

impl Store {
    /// Writes an OCI layout, with `manifest.json` where it is asked for, as a tar stream; returns the
    /// flushed output. Layers are as they are in the store.
    ///
    /// The same images give the same bytes.
    ///
    /// # Errors
    /// When something is missing that is not left out, or is rotten. The output is then of no use.
    pub fn write_image_archive<W: Write>(&self, archive: &ImageArchive, out: W) -> Result<W, StoreError> {
        let mut blobs = BTreeMap::new();
        for image in &archive.images {
            self.add_kept(&image.descriptor, &archive.left_out, &mut blobs)?;
        }
        let docker = self.docker_images(&archive.docker)?;
        for image in &docker {
            self.add_kept(&image.descriptor, &HashSet::new(), &mut blobs)?;
        }
        let mut tar = TarWriter::new(out, archive.epoch);
        self.write_blobs(&mut tar, &blobs)?;
        tar.bytes("index.json", &index_file(archive.images.iter().map(NamedImage::to_entry).collect()))?;
        if !docker.is_empty() {
            tar.bytes("manifest.json", &ArchiveImage::list(docker.iter().map(DockerImage::as_they_are)))?;
        }
        tar.bytes("oci-layout", LAYOUT_FILE)?;
        DockerImage::write_repositories(&docker, &mut tar)?;
        tar.finish()
    }

    /// Writes docker's own form, with uncompressed layers: for loaders that know nothing else.
    ///
    /// Layers are decompressed twice, for their sizes and for their bytes, and checked against the
    /// configs' diff ids.
    ///
    /// # Errors
    /// [`StoreError::NotAManifest`] for an index, and as [`Store::write_image_archive`].
    pub fn write_uncompressed_docker_archive<W: Write>(
        &self,
        images: &[(Descriptor, Vec<Reference>)],
        epoch: u64,
        out: W,
    ) -> Result<W, StoreError> {
        let images = self.docker_images(images)?;
        self.write_images_uncompressed(&images, TarWriter::new(out, epoch))
    }

    /// Gathers everything that an image consists of, without the entries that are left out.
    fn add_kept(
        &self,
        root: &Descriptor,
        left_out: &HashSet<Digest>,
        blobs: &mut BTreeMap<Digest, Descriptor>,
    ) -> Result<(), StoreError> {
        let found = match self.image(root)? {
            ManifestOrIndex::Index(index) => {
                let mut found = vec![root.clone()];
                for child in index.value.manifests.iter().filter(|child| !left_out.contains(&child.digest)) {
                    found.extend(self.closure(child, Missing::Refuse)?);
                }
                found
            }
            ManifestOrIndex::Manifest(_) => self.closure(root, Missing::Refuse)?,
        };
        blobs.extend(found.into_iter().map(|descriptor| (descriptor.digest.clone(), descriptor)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::tests::{put_image, put_index};

    fn archive(store: &Store) -> (Descriptor, Vec<Descriptor>, ImageArchive) {
        let platforms = ["linux/amd64", "linux/arm64"];
        let images = platforms.map(|it| put_image(store, it, &[b"shared", it.as_bytes()])).to_vec();
        let index = put_index(store, images.clone());
        let name: Reference = "user/app:1".parse().unwrap();
        let archive = ImageArchive {
            images: vec![NamedImage::new(index.clone(), Some(name.clone()))],
            docker: vec![(images[0].clone(), vec![name])],
            ..ImageArchive::default()
        };
        (index, images, archive)
    }

    #[test]
    fn readers_of_both_kinds_find_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a")).unwrap();
        let (index, _, archive) = archive(&store);
        let bytes = store.write_image_archive(&archive, Vec::new()).unwrap();
        assert_eq!(bytes, store.write_image_archive(&archive, Vec::new()).unwrap());
        let other = Store::open(&dir.path().join("b")).unwrap();
        let found = other.import_archive(&bytes[..], Missing::Refuse).unwrap();
        assert_eq!((found.len(), &found[0].descriptor.digest), (1, &index.digest));
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains(r#""RepoTags":["user/app:1"]"#));
    }

    #[test]
    fn what_is_left_out_is_not_written_and_need_not_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a")).unwrap();
        let elsewhere = Store::open(&dir.path().join("elsewhere")).unwrap();
        let arm64 = put_image(&elsewhere, "linux/arm64", &[b"shared", b"linux/arm64"]);
        let amd64 = put_image(&store, "linux/amd64", &[b"shared", b"linux/amd64"]);
        let index = put_index(&store, vec![amd64.clone(), arm64.clone()]);
        let mut archive =
            ImageArchive { images: vec![NamedImage::new(index.clone(), None)], ..ImageArchive::default() };
        assert!(store.write_image_archive(&archive, Vec::new()).is_err());
        archive.left_out.insert(arm64.digest.clone());
        let bytes = store.write_image_archive(&archive, Vec::new()).unwrap();
        let other = Store::open(&dir.path().join("b")).unwrap();
        assert!(other.import_archive(&bytes[..], Missing::Refuse).is_err());
        let found = other.import_archive(&bytes[..], Missing::Skip).unwrap();
        assert_eq!(found[0].descriptor.digest, index.digest);
        assert!(other.closure(&amd64, Missing::Refuse).is_ok());
        assert!(!other.contains(&arm64.digest) && !other.contains(&Digest::of("linux/arm64")));
    }

    #[test]
    fn dockers_own_form_holds_several_images_and_shared_layers_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a")).unwrap();
        let (index, images, _) = archive(&store);
        let named: Vec<(Descriptor, Vec<Reference>)> = images
            .iter()
            .zip(["a:1", "b:1"])
            .map(|(image, name)| (image.clone(), vec![name.parse().unwrap()]))
            .collect();
        let bytes = store.write_uncompressed_docker_archive(&named, 0, Vec::new()).unwrap();
        let other = Store::open(&dir.path().join("b")).unwrap();
        let found = other.import_archive(&bytes[..], Missing::Refuse).unwrap();
        let names: Vec<_> = found.iter().map(|it| it.name.as_ref().unwrap().familiar()).collect();
        assert_eq!(names, ["a:1", "b:1"]);
        let error = store.write_uncompressed_docker_archive(&[(index, Vec::new())], 0, Vec::new());
        assert!(matches!(error, Err(StoreError::NotAManifest { .. })));
    }
}
