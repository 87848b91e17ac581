// SPDX-License-Identifier: Apache-2.0
//! Docker archives, writing: what `docker load`, `podman load` and `skopeo docker-archive:` read.
//!
//! `manifest.json` is a list of images, each with the paths of its config and layers and its names;
//! `repositories` is its ancestor, kept for readers that want both.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use polyarch_oci::config::MAX_CONFIG_BYTES;
use polyarch_oci::{Descriptor, DiffId, Document, Manifest, ManifestOrIndex, Reference, json};
use serde::Serialize;

use crate::archive::decompress;
use crate::ingest::copy;
use crate::layout::{NamedImage, blob_path};
use crate::tar_write::TarWriter;
use crate::{ImageArchive, Store, StoreError, VerifiedReader};

/// What goes into a docker archive.
#[derive(Debug, Clone)]
pub struct DockerArchive {
    /// The manifest of one platform.
    pub manifest: Descriptor,
    /// The names that the image gets when loaded: `latest` where there is no tag, none for a digest.
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

/// An entry of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ArchiveImage {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl ArchiveImage {
    /// Makes the content of `manifest.json`.
    pub(crate) fn list(images: impl Iterator<Item = ArchiveImage>) -> Vec<u8> {
        json::to_compact(&images.collect::<Vec<_>>())
    }
}

/// One platform's image on its way into an archive.
pub(crate) struct DockerImage {
    pub(crate) descriptor: Descriptor,
    manifest: Manifest,
    diff_ids: Vec<DiffId>,
    names: Vec<Reference>,
}

impl Store {
    /// Writes one platform's image as a docker archive and returns the flushed output.
    ///
    /// The same image and options give the same bytes. Uncompressed layers are decompressed twice, for
    /// their sizes and for their bytes, and checked against the config's diff ids.
    ///
    /// # Errors
    /// [`StoreError::NotAManifest`] for an index, and when a blob is missing or rotten. The output is
    /// then of no use.
    pub fn write_docker_archive<W: Write>(&self, archive: &DockerArchive, out: W) -> Result<W, StoreError> {
        let docker = vec![(archive.manifest.clone(), archive.names.clone())];
        match archive.layers {
            DockerLayers::AsTheyAre => {
                let image = |name: Option<Reference>| NamedImage::new(archive.manifest.clone(), name);
                let mut images: Vec<NamedImage> =
                    tagged(&archive.names).into_iter().map(|name| image(Some(name))).collect();
                if images.is_empty() {
                    images.push(image(None));
                }
                let epoch = archive.epoch;
                self.write_image_archive(
                    &ImageArchive { images, docker, epoch, ..ImageArchive::default() },
                    out,
                )
            }
            DockerLayers::Uncompressed => self.write_uncompressed_docker_archive(&docker, archive.epoch, out),
        }
    }

    /// Reads what `manifest.json` says about images.
    pub(crate) fn docker_images(
        &self,
        images: &[(Descriptor, Vec<Reference>)],
    ) -> Result<Vec<DockerImage>, StoreError> {
        let read = |(descriptor, names): &(Descriptor, Vec<Reference>)| {
            let ManifestOrIndex::Manifest(manifest) = self.image(descriptor)? else {
                return Err(StoreError::NotAManifest { digest: descriptor.digest.clone() });
            };
            let diff_ids = self.diff_ids(&manifest)?;
            let (descriptor, names) = (descriptor.clone(), names.clone());
            Ok(DockerImage { descriptor, manifest: manifest.value, diff_ids, names })
        };
        images.iter().map(read).collect()
    }

    /// Writes docker's own form with uncompressed layers, each once.
    pub(crate) fn write_images_uncompressed<W: Write>(
        &self,
        images: &[DockerImage],
        mut tar: TarWriter<W>,
    ) -> Result<W, StoreError> {
        let layer_path = |diff_id: &DiffId| format!("{}.tar", diff_id.0.hex());
        let config_path = |image: &DockerImage| format!("{}.json", image.manifest.config.digest.hex());
        let mut written = BTreeSet::new();
        for image in images {
            if written.insert(config_path(image)) {
                tar.bytes(&config_path(image), &self.read(&image.manifest.config, MAX_CONFIG_BYTES)?)?;
            }
            for (layer, diff_id) in image.manifest.layers.iter().zip(&image.diff_ids) {
                if written.insert(layer_path(diff_id)) {
                    let size = self.uncompressed_size(layer)?;
                    let plain = decompress(self.reader(layer)?).map_err(StoreError::stream("decompress"))?;
                    let plain = VerifiedReader::with(plain, diff_id.0.clone(), size);
                    tar.file(&layer_path(diff_id), size, plain)?;
                }
            }
        }
        let list = images.iter().map(|image| ArchiveImage {
            config: config_path(image),
            repo_tags: tagged(&image.names).iter().map(tag_of).collect(),
            layers: image.diff_ids.iter().map(layer_path).collect(),
        });
        tar.bytes("manifest.json", &ArchiveImage::list(list))?;
        DockerImage::write_repositories(images, &mut tar)?;
        tar.finish()
    }

    /// Returns the diff ids of an image, one per layer.
    fn diff_ids(&self, manifest: &Document<Manifest>) -> Result<Vec<DiffId>, StoreError> {
        let diff_ids = self.config(&manifest.value)?.value.rootfs.diff_ids;
        if diff_ids.len() != manifest.value.layers.len() {
            return Err(StoreError::LayerCount {
                digest: manifest.digest.clone(),
                layers: manifest.value.layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        Ok(diff_ids)
    }

    fn uncompressed_size(&self, layer: &Descriptor) -> Result<u64, StoreError> {
        let plain = decompress(self.reader(layer)?).map_err(StoreError::stream("decompress"))?;
        copy(plain, io::sink()).map_err(StoreError::stream("decompress"))
    }
}

impl DockerImage {
    /// Makes the entry of `manifest.json` beside an OCI layout, whose blobs it names.
    pub(crate) fn as_they_are(&self) -> ArchiveImage {
        ArchiveImage {
            config: blob_path(&self.manifest.config.digest),
            repo_tags: tagged(&self.names).iter().map(tag_of).collect(),
            layers: self.manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect(),
        }
    }

    /// Writes `repositories`: repository, tag, and the id of the top layer.
    pub(crate) fn write_repositories<W: Write>(
        images: &[DockerImage],
        tar: &mut TarWriter<W>,
    ) -> Result<(), StoreError> {
        let mut repositories: BTreeMap<String, BTreeMap<String, &str>> = BTreeMap::new();
        for image in images {
            let Some(top) = image.diff_ids.last() else { continue };
            for tag in tagged(&image.names).iter().map(tag_of) {
                if let Some((repository, tag)) = tag.rsplit_once(':') {
                    let tags = repositories.entry(repository.to_owned()).or_default();
                    tags.insert(tag.to_owned(), top.0.hex());
                }
            }
        }
        if repositories.is_empty() {
            return Ok(());
        }
        tar.bytes("repositories", &json::to_compact(&repositories))
    }
}

/// Returns the names that a loaded image can have.
fn tagged(names: &[Reference]) -> Vec<Reference> {
    names.iter().cloned().map(Reference::with_default_tag).filter(|name| name.tag().is_some()).collect()
}

/// Returns `repository:tag` in the short form, without a digest.
fn tag_of(name: &Reference) -> String {
    let familiar = name.familiar();
    familiar.split_once('@').map_or(familiar.clone(), |(tagged, _)| tagged.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use polyarch_oci::media_type::{Compression, Flavour};
    use polyarch_oci::{Digest, ImageConfig, media_type};

    use super::*;
    use crate::Missing;
    use crate::documents::tests::{put_image, put_index};
    use crate::tar_read::TarReader;

    /// Makes an image with one gzip layer and one zstd layer.
    fn put_compressed(store: &Store) -> Descriptor {
        let plain = [b"first".repeat(500), b"second".repeat(500)];
        let mut gzip = Vec::new();
        flate2::read::GzEncoder::new(&plain[0][..], flate2::Compression::fast())
            .read_to_end(&mut gzip)
            .unwrap();
        let zstd = zstd::encode_all(&plain[1][..], 1).unwrap();
        let mut config = ImageConfig::default();
        config.set_platform(&"linux/arm64".parse().unwrap());
        config.rootfs.diff_ids = plain.iter().map(|bytes| DiffId(Digest::of(bytes))).collect();
        let config = Document::compact(config);
        store.put(&config.bytes).unwrap();
        let layers = [(gzip, Compression::Gzip), (zstd, Compression::Zstd)].map(|(bytes, compression)| {
            let kind = compression.layer_media_type(Flavour::Oci);
            Descriptor::new(kind, store.put(&bytes).unwrap(), bytes.len() as u64)
        });
        let config = Descriptor::new(media_type::OCI_CONFIG, config.digest.clone(), config.size());
        let manifest = Document::indented(Manifest::new(Flavour::Oci, config, layers.into()));
        store.put(&manifest.bytes).unwrap();
        Descriptor::new(media_type::OCI_MANIFEST, manifest.digest.clone(), manifest.size())
    }

    fn archive(manifest: &Descriptor, layers: DockerLayers) -> DockerArchive {
        let names = ["app", "example.com:5000/x:v1"].map(|name| name.parse().unwrap()).to_vec();
        DockerArchive { manifest: manifest.clone(), names, layers, epoch: 7 }
    }

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut tar = TarReader::new(archive);
        let mut files = BTreeMap::new();
        while let Some(entry) = tar.next_entry().unwrap() {
            let mut bytes = Vec::new();
            tar.read_to_end(&mut bytes).unwrap();
            files.insert(entry.path, bytes);
        }
        files
    }

    #[test]
    fn layers_as_they_are_keep_the_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a")).unwrap();
        let manifest = put_compressed(&store);
        let archive = archive(&manifest, DockerLayers::AsTheyAre);
        let bytes = store.write_docker_archive(&archive, Vec::new()).unwrap();
        assert_eq!(bytes, store.write_docker_archive(&archive, Vec::new()).unwrap());
        let files = files(&bytes);
        let list: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(list[0]["RepoTags"], serde_json::json!(["app:latest", "example.com:5000/x:v1"]));
        assert!(
            list[0]["Layers"]
                .as_array()
                .unwrap()
                .iter()
                .all(|path| files.contains_key(path.as_str().unwrap()))
        );
        let repositories: serde_json::Value = serde_json::from_slice(&files["repositories"]).unwrap();
        assert!(repositories["example.com:5000/x"]["v1"].is_string());
        let other = Store::open(&dir.path().join("b")).unwrap();
        let found = other.import_archive(&bytes[..], Missing::Refuse).unwrap();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|image| image.descriptor.digest == manifest.digest));
    }

    #[test]
    fn uncompressed_layers_have_their_diff_ids_and_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("a")).unwrap();
        let manifest = put_compressed(&store);
        let bytes =
            store.write_docker_archive(&archive(&manifest, DockerLayers::Uncompressed), Vec::new()).unwrap();
        let files = files(&bytes);
        let layers: Vec<_> = files.iter().filter(|(path, _)| path.ends_with(".tar")).collect();
        assert_eq!(layers.len(), 2);
        for (path, content) in layers {
            assert_eq!(*path, format!("{}.tar", Digest::of(content).hex()));
        }
        let other = Store::open(&dir.path().join("b")).unwrap();
        let found = other.import_archive(&bytes[..], Missing::Refuse).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].name.as_ref().unwrap().familiar(), "app:latest");
        let ManifestOrIndex::Manifest(loaded) = other.image(&found[0].descriptor).unwrap() else {
            panic!("a manifest")
        };
        let ManifestOrIndex::Manifest(original) = store.image(&manifest).unwrap() else {
            panic!("a manifest")
        };
        assert_eq!(loaded.value.config.digest, original.value.config.digest, "the image id stays");
    }

    #[test]
    fn an_index_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let index = put_index(&store, vec![put_image(&store, "linux/amd64", &[b"x"])]);
        let error = store.write_docker_archive(&archive(&index, DockerLayers::AsTheyAre), Vec::new());
        assert!(matches!(error, Err(StoreError::NotAManifest { .. })));
    }

    #[test]
    fn a_layer_that_is_not_what_the_config_says_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let right = put_image(&store, "linux/amd64", &[b"right"]);
        let ManifestOrIndex::Manifest(mut manifest) = store.image(&right).unwrap() else {
            panic!("a manifest")
        };
        manifest.value.layers[0].digest = store.put(b"wrong").unwrap();
        let manifest = Document::indented(manifest.value);
        store.put(&manifest.bytes).unwrap();
        let manifest = Descriptor::new(media_type::OCI_MANIFEST, manifest.digest.clone(), manifest.size());
        let error = store.write_docker_archive(&archive(&manifest, DockerLayers::Uncompressed), Vec::new());
        assert!(matches!(error, Err(StoreError::Mismatch { .. })));
    }
}
